//! Journal records of discovered backends: the last good list of each discovery. With it a restart
//! knows the backends of its clients before any discovery has answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::VERSION;

/// The last good list of one discovery.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FoundRecord {
    v: u32,
    pub backends: Vec<FoundBackend>,
}

/// One backend of the list. Headers are not stored: they are secrets, and the configuration has
/// them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FoundBackend {
    pub name: Arc<str>,
    pub host: Arc<str>,
    pub port: u16,
    /// 0 for a weight that cannot be represented.
    #[serde(default)]
    pub weight: u32,
    /// 0 for no limit.
    #[serde(default)]
    pub max_pending: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Which server it is, if the discovery said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
}

impl FoundRecord {
    #[must_use]
    pub fn new(backends: Vec<FoundBackend>) -> Self {
        Self { v: VERSION, backends }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{decode, encode};
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let backend = FoundBackend {
            name: "comfyui-0".into(),
            host: "10.0.0.7".into(),
            port: 8188,
            weight: 2,
            max_pending: 0,
            labels: vec!["video".to_owned()],
            identity: Some("5c1e".into()),
        };
        let record = FoundRecord::new(vec![backend]);
        assert_eq!(decode::<FoundRecord>(&encode(&record)).unwrap(), record);
        let least = br#"{"v":1,"backends":[{"name":"a","host":"h","port":1}],"of":"a newer one"}"#;
        assert_eq!(decode::<FoundRecord>(least).unwrap().backends[0].identity, None);
    }
}
