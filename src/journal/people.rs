//! Journal records of who made a file or submitted a prompt.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::routing::files::Maker;
use crate::routing::ids::ClientId;
use crate::routing::owners::Person;

pub(super) fn makers_of(makers: &[Maker]) -> Vec<MakerRecord> {
    let record = |maker: &Maker| match maker {
        Maker::Client(client) => MakerRecord::Client(client.to_string()),
        Maker::Browser(id) => MakerRecord::Browser(format!("{id:032x}")),
        Maker::Address(address) => MakerRecord::Address(*address),
        Maker::User(user) => MakerRecord::User(Arc::clone(user)),
    };
    makers.iter().map(record).collect()
}

pub(super) fn made_by(records: &[MakerRecord]) -> impl Iterator<Item = Maker> {
    records.iter().filter_map(|maker| match maker {
        MakerRecord::Client(client) => ClientId::parse(client).ok().map(Maker::Client),
        MakerRecord::Browser(id) => u128::from_str_radix(id, 16).ok().map(Maker::Browser),
        MakerRecord::Address(address) => Some(Maker::Address(*address)),
        MakerRecord::User(user) => Some(Maker::User(Arc::clone(user))),
    })
}

/// Who made a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MakerRecord {
    Client(String),
    Browser(String),
    Address(IpAddr),
    User(Arc<str>),
}

/// The person behind one or more clients.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PersonRecord {
    /// In hexadecimal digits: JSON has no number of 128 bits.
    Browser(String),
    User(Arc<str>),
    Address(IpAddr),
}

impl PersonRecord {
    pub(super) fn new(person: &Person) -> Self {
        match person {
            Person::Browser(id) => Self::Browser(format!("{id:032x}")),
            Person::User(name) => Self::User(Arc::clone(name)),
            Person::Address(address) => Self::Address(*address),
        }
    }

    pub(super) fn person(&self) -> Option<Person> {
        match self {
            Self::Browser(id) => u128::from_str_radix(id, 16).ok().map(Person::Browser),
            Self::User(name) => Some(Person::User(Arc::clone(name))),
            Self::Address(address) => Some(Person::Address(*address)),
        }
    }
}
