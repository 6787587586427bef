//! Journal records of the backends in the fleet. With them, a backend that was removed from the
//! fleet can go on draining after a restart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::VERSION;
use crate::routing::servers::ServerKey;

/// A backend of the fleet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberRecord {
    v: u32,
    pub name: Arc<str>,
    /// The settings as an operator would write them: secrets are names of files. Secrets that are
    /// in no file are left out.
    pub settings: Value,
    /// Who listed it.
    pub by: Arc<str>,
    /// Which server it is, if its discovery said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
    /// Some of its headers are in no file, and so not in this record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_headers: bool,
    /// `None` while the backend is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going: Option<GoingRecord>,
}

/// A backend is to leave once it has drained.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GoingRecord {
    /// Which source removed it.
    pub by: Arc<str>,
    /// Since when, in milliseconds since 1970.
    pub at: u64,
}

impl MemberRecord {
    #[must_use]
    pub fn new(name: Arc<str>, settings: Value, by: Arc<str>) -> Self {
        let (v, identity, lacks_headers, going) = (VERSION, None, false, None);
        Self { v, name, settings, by, identity, lacks_headers, going }
    }

    /// The same record for the server of this identity.
    #[must_use]
    pub fn of(mut self, identity: Option<Arc<str>>) -> Self {
        self.identity = identity;
        self
    }

    /// The same record, marked as lacking some headers.
    #[must_use]
    pub fn without_some_headers(mut self) -> Self {
        self.lacks_headers = true;
        self
    }

    /// The same record, with whether it is to leave.
    #[must_use]
    pub fn that_goes(mut self, going: Option<GoingRecord>) -> Self {
        self.going = going;
        self
    }

    /// The server that is at `url`.
    #[must_use]
    pub fn server(&self, url: &Arc<str>) -> ServerKey {
        ServerKey::new(Arc::clone(url), self.identity.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::{decode, encode};
    use super::*;

    #[test]
    fn a_member_is_read_as_it_was_written() {
        let stays = MemberRecord::new("a".into(), json!({ "weight": 2 }), "operator".into());
        let going = GoingRecord { by: "10.0.0.1".into(), at: 5 };
        let goes = stays.clone().of(Some("u0".into())).that_goes(Some(going));
        for record in [stays.clone().without_some_headers(), stays, goes] {
            assert_eq!(decode::<MemberRecord>(&encode(&record)).unwrap(), record);
        }
    }
}
