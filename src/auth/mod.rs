//! Who is who: users, the keys by which they are known, and what a request's head says of them.
//!
//! - [`users`]: who may come in, as what; the text of the file that says so
//! - [`key`]: keys of 256 random bits, and what is kept of them
//! - [`password`]: passwords, and what is kept of them
//! - [`session`]: browsers that have logged in; [`logouts`]: those that have logged out
//! - [`head`]: may the sender of a head come in, and what of it is nobody else's business?
//! - [`proxy`]: who it is, as a proxy in front says it
//! - [`mod@file`]: the file of users, read and changed
//!
//! All but [`mod@file`] is pure.

pub mod file;
pub mod head;
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
