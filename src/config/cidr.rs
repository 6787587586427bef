//! Networks in CIDR notation, for `server.trusted_proxies`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address.
///
/// Invariant: no bit is set beyond the prefix, and the prefix fits the family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCidr {
    #[error("not an IP address")]
    BadAddress,
    #[error("the prefix after `/` is not a number from 0 to {max}")]
    BadPrefix { max: u8 },
    #[error("has bits set beyond its prefix; the network is `{network}`")]
    BitsBeyondPrefix { network: Cidr },
}

impl Cidr {
    /// How many bits all of its addresses share.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.network.is_ipv4()
    }

    /// True if `address` is in this network. A dual-stack listener shows an IPv4 address as
    /// `::ffff:10.0.0.1`; it counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => mask4(address, self.prefix) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => mask6(address, self.prefix) == network,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn mask4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_not_an_ip| BadCidr::BadAddress)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            // `parse` alone would accept a leading plus sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= max)
                .ok_or(BadCidr::BadPrefix { max })?,
            Some(_) => return Err(BadCidr::BadPrefix { max }),
        };
        let network = match address {
            IpAddr::V4(address) => IpAddr::V4(mask4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(mask6(address, prefix)),
        };
        let cidr = Self { network, prefix };
        if network == address { Ok(cidr) } else { Err(BadCidr::BitsBeyondPrefix { network: cidr }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cidr: &str, address: &str, expected: bool) {
        let cidr: Cidr = cidr.parse().unwrap();
        assert_eq!(cidr.contains(address.parse().unwrap()), expected, "{cidr} {address}");
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "::1", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.8", false);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::/0", "2001:db8::1", true);
        check("::1", "::1", true);
    }

    #[test]
    fn what_is_no_network_is_refused_and_says_why() {
        let problem = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(problem("localhost"), "not an IP address");
        assert_eq!(problem("10.0.0.0/33"), "the prefix after `/` is not a number from 0 to 32");
        assert_eq!(problem("::/+8"), "the prefix after `/` is not a number from 0 to 128");
        assert_eq!(
            problem("10.1.2.3/8"),
            "has bits set beyond its prefix; the network is `10.0.0.0/8`"
        );
    }
}
