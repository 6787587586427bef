//! The name of a copy's file. It consists of digests under a key of this installation: of the group
//! that is written together, of the address that asked, and of everything that distinguishes
//! answers. So the name does not reveal who asked, or for what. Pure.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::front::cache_key::{ALL_FILES, CacheKey, Group};
use crate::front::cookie_signer::CookieSigner;
use crate::records::home::HomeServer;

/// The identity of a copy. Copies of one group are written together.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    pub(super) group: u64,
    pub(super) key: u128,
}

/// The address that caused a copy. Each address has a share of the space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Owner(pub(super) u32);

impl Name {
    /// The name of an answer of that home.
    pub(super) fn of(signer: &CookieSigner, home: &HomeServer, key: &CacheKey) -> Self {
        let identity = home.identity.as_deref().unwrap_or("");
        let parts = [
            b"key",
            home.address.as_bytes(),
            identity.as_bytes(),
            key.path().as_bytes(),
            key.query(),
            key.asker(),
        ];
        let digest = signer.digest(&parts);
        let fold = |all: u128, byte: &u8| all << 8 | u128::from(*byte);
        Self { group: group(signer, home, &key.group()), key: digest.iter().take(16).fold(0, fold) }
    }

    /// The groups whose writes change it: its own group, and the group of all similar ones.
    pub(super) fn written_with(self) -> [u64; 2] {
        [self.group, self.group & !OF_FILE]
    }

    /// The name of the file.
    pub(super) fn file(&self, owner: Owner) -> String {
        format!("{:016x}-{:08x}-{:032x}", self.group, owner.0, self.key)
    }

    /// Reads a file name: the copy, and its owner.
    pub(super) fn parse(text: &str) -> Option<(Self, Owner)> {
        let mut parts = text.split('-');
        let (group, owner, key) = (parts.next()?, parts.next()?, parts.next()?);
        let owner = Owner(u32::from_str_radix(owner, 16).ok()?);
        let name = Self {
            group: u64::from_str_radix(group, 16).ok()?,
            key: u128::from_str_radix(key, 16).ok()?,
        };
        (name.file(owner) == text).then_some((name, owner))
    }
}

impl Owner {
    /// An IPv6 network of 64 bits counts as one address, because anybody with one address has them
    /// all.
    pub(super) fn of(signer: &CookieSigner, address: IpAddr) -> Self {
        let text = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
        };
        let digest = signer.digest(&[b"owner", &text]);
        Self(digest.iter().take(4).fold(0, |all, byte| all << 8 | u32::from(*byte)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {:032x}", self.group, self.key)
    }
}

/// The bits of a group that identify a file. The other bits are equal for all files of users.
const OF_FILE: u64 = (1 << 48) - 1;

/// The id of a group, for whichever server is at the home's address.
pub(super) fn group(signer: &CookieSigner, home: &HomeServer, group: &Group) -> u64 {
    let of = |text: &str| {
        let digest = signer.digest(&[b"group", home.address.as_bytes(), text.as_bytes()]);
        digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    let all = if group.starts_with(ALL_FILES) { of(ALL_FILES) } else { of(group) } & !OF_FILE;
    if **group == *ALL_FILES { all } else { all | (of(group) & OF_FILE) | 1 }
}

/// The range of names that a write to this group changes.
pub(super) fn range_of(group: u64) -> RangeInclusive<Name> {
    let last = if group & OF_FILE == 0 { group | OF_FILE } else { group };
    Name { group, key: 0 }..=Name { group: last, key: u128::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn home(address: &str, identity: Option<&str>) -> HomeServer {
        HomeServer { address: address.into(), identity: identity.map(Into::into) }
    }

    #[test]
    fn a_name_is_that_of_one_home_path_query_and_asker() {
        let signer = CookieSigner::new();
        let mut ada = HeaderMap::new();
        ada.insert("comfy-user", HeaderValue::from_static("ada"));
        let (first, owner) = (home("h:1", Some("uid-1")), Owner(0xa));
        let key = CacheKey::own("/api/userdata", "dir=a", &ada);
        let name = Name::of(&signer, &first, &key);
        assert_eq!(Name::parse(&name.file(owner)), Some((name, owner)));
        assert_eq!(name, Name::of(&signer, &first, &CacheKey::own("/userdata", "dir=a", &ada)));
        for (home, other) in [
            (home("h:2", Some("uid-1")), key.clone()),
            (home("h:1", Some("uid-2")), key.clone()),
            (home("h:1", None), key.clone()),
            (first.clone(), CacheKey::own("/userdata", "dir=b", &ada)),
            (first.clone(), CacheKey::own("/userdata", "dir=a", &HeaderMap::new())),
            (first.clone(), CacheKey::own("/settings", "dir=a", &ada)),
        ] {
            assert_ne!(Name::of(&signer, &home, &other).key, name.key, "{home:?} {other:?}");
        }
        let before = Name::of(&signer, &home("h:1", None), &key);
        assert_eq!(before.group, name.group, "a write ends those of every server there");
        for bad in ["", "notes.txt", "doubts", &format!("{}.new", name.file(owner))] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
        let upper = Name { group: 0xa, key: 0xb }.file(owner).to_uppercase();
        assert_eq!(Name::parse(&upper), None, "{upper}");
    }

    #[test]
    fn what_ends_all_files_ends_every_file_and_nothing_else() {
        let signer = CookieSigner::new();
        let home = home("h:1", None);
        let of = |path: &str| Name::of(&signer, &home, &CacheKey::own(path, "", &HeaderMap::new()));
        let all = group(&signer, &home, &ALL_FILES.into());
        let (a, b) = (of("/userdata/a.json"), of("/userdata/b.json"));
        assert_ne!(a.group, b.group);
        assert!(range_of(all).contains(&a) && range_of(all).contains(&b));
        assert!(range_of(a.group).contains(&a) && !range_of(a.group).contains(&b));
        for (name, is_in) in [(a, true), (b, true), (of("/settings"), false), (of("/users"), false)]
        {
            assert_eq!(range_of(all).contains(&name), is_in);
            assert_eq!(name.written_with().contains(&all), is_in, "the same of one name");
        }
    }

    #[test]
    fn an_owner_is_an_address_or_a_network_that_one_has() {
        let signer = CookieSigner::new();
        let of = |text: &str| Owner::of(&signer, text.parse().unwrap());
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("fd00:1:2:3::1"), of("fd00:1:2:3:ff::9"));
        assert_ne!(of("fd00:1:2:3::1"), of("fd00:1:2:4::1"));
    }
}
