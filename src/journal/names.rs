//! Journal records of the server names that appear in file names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::VERSION;
use crate::routing::given_names::Given;
use crate::routing::servers::ServerKey;

/// A name that was given out for one server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NameRecord {
    v: u32,
    url: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Arc<str>>,
    order: u64,
}

impl NameRecord {
    #[must_use]
    pub fn new(given: Given) -> Self {
        let Given { server: ServerKey { url, identity }, order } = given;
        Self { v: VERSION, url, identity, order }
    }

    #[must_use]
    pub fn given(self) -> Given {
        Given { server: ServerKey::new(self.url, self.identity), order: self.order }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{decode, encode};
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for text in ["h:1", "h:1#u0"] {
            let given = Given { server: ServerKey::of_text(text), order: 7 };
            let read: NameRecord = decode(&encode(&NameRecord::new(given.clone()))).unwrap();
            assert_eq!(read.given(), given);
        }
    }
}
