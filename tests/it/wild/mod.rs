//! Small inputs as real clients, browsers, proxies and node packs send them, each with the answer
//! that is right. They are variants: other names, orders, languages and packs than those that the
//! other tests were written for.
//!
//! A test is a table over one fleet, so that all of them take seconds. Each case has a name, and
//! one run tells of every case that is wrong.

mod bodies;
mod doors;
mod frames;
mod graphs;
mod keys;
mod names;
mod origins;
mod outputs;
mod packs;
mod people;
mod sockets;

use std::collections::HashSet;
use std::fmt::Debug;

use serde_json::json;

use crate::support::World;

/// The cases of a table.
#[derive(Debug, Default)]
struct Cases {
    names: HashSet<String>,
    wrong: Vec<String>,
}

impl Cases {
    /// Notes a case, and what is wrong with it.
    #[expect(clippy::needless_pass_by_value, reason = "values are written where they are given")]
    #[track_caller]
    fn case<T: PartialEq + Debug>(&mut self, name: &str, found: T, right: T) {
        assert!(self.names.insert(name.to_owned()), "two cases are called {name:?}");
        if found != right {
            self.wrong.push(format!("{name}: {found:?}, and right is {right:?}"));
        }
    }

    /// Tells of all that is wrong, if there are so many cases.
    #[track_caller]
    fn end(self, count: usize) {
        let wrong = self.wrong.join("\n");
        assert!(wrong.is_empty(), "{} of {}:\n{wrong}", self.wrong.len(), self.names.len());
        assert_eq!(self.names.len(), count, "a case is missing");
    }
}

/// From now on work goes only there.
async fn only(world: &World, backends: &[&str]) {
    let mut states = [("a", "draining"), ("b", "draining")];
    for (name, state) in &mut states {
        if backends.contains(name) {
            *state = "ready";
        }
    }
    // First what takes work: one that drains counts no client of its own.
    states.sort_by_key(|(_, state)| *state != "ready");
    for (name, state) in states {
        let body = json!({ "state": state }).to_string();
        let path = format!("/api/v1/backends/{name}/state");
        assert_eq!(world.admin_post(&path, &body).await.status, 200);
    }
}
