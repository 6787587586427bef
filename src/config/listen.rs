//! Kinds of values for the addresses that Mooring listens on.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};

/// `IP:PORT` to listen on; port 0 asks the system for a free one.
#[derive(Debug)]
pub(super) struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<SocketAddr, String> {
        address(text).ok_or_else(|| format!("`{text}` is not {}", self.takes()))
    }

    fn takes(&self) -> String {
        ADDRESS.to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": format!("^{PATTERN}$") })
    }
}

const ADDRESS: &str = "an address IP:PORT, localhost:PORT or :PORT";

const PATTERN: &str = r"\s*\S*:\+?[0-9]+\s*";

/// Host names are not looked up: their meaning may change, and may be several addresses.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host {
        "" => Ipv4Addr::UNSPECIFIED,
        name if name.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST,
        _an_address => return text.parse().ok(),
    };
    Some((ip, port.parse().ok()?).into())
}

/// Like [`Listen`], or `off`.
#[derive(Debug)]
pub(super) struct ListenOrOff;

impl Kind for ListenOrOff {
    type Value = Option<SocketAddr>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text == "off" {
            return Ok(None);
        }
        address(text).map(Some).ok_or_else(|| format!("`{text}` is not {}", self.takes()))
    }

    fn takes(&self) -> String {
        format!("{ADDRESS}, or `off`")
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": format!("^(off|{PATTERN})$") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_an_ip_or_a_short_form_of_one() {
        let listen = |text: &str| Listen.parse(text).map(|address| address.to_string());
        let good = [
            ("127.0.0.1:8180", "127.0.0.1:8180"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:8180", "127.0.0.1:8180"),
            ("LOCALHOST:0", "127.0.0.1:0"),
            (":8180", "0.0.0.0:8180"),
            (" :1 ", "0.0.0.0:1"),
        ];
        for (text, expected) in good {
            assert_eq!(listen(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", ":", "8180", "localhost", "localhost:", "gpu-a:1", ":65536", ":-1", "::1:8"]
        {
            assert!(listen(bad).unwrap_err().contains(":PORT"), "{bad}");
        }
        assert_eq!(ListenOrOff.parse("off"), Ok(None));
        assert!(ListenOrOff.parse("on").unwrap_err().ends_with("or `off`"));
    }
}
