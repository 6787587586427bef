//! Users, the keys by which they are recognised, and what the head of a request says about them.
//!
//! - [`users`]: who may come in, with which role; the text of the file of users
//! - [`key`]: keys of 256 random bits, and their stored form
//! - [`password`]: passwords, and their stored form
//! - [`session`]: browsers that have logged in; [`logouts`]: those that have logged out
//! - [`head`]: decides whether the sender of a head may come in, and which keys to remove from it
//! - [`proxy`]: the user whom a proxy in front names; [`jwt`]: the user whom a token names
//! - [`mod@file`]: reads and changes the file of users
//!
//! All but [`mod@file`] is pure.

pub mod file;
pub mod head;
pub mod jwt;
pub mod key;
pub mod logouts;
pub mod password;
pub mod proxy;
pub mod session;
pub mod users;

pub use head::{Admitted, Asked, Refusal, Spent, judge};
pub use proxy::ProxyRules;
pub use session::Session;
pub use users::{Pass, Role, User, UserName, UserTable};
