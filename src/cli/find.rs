//! Finds the running gateway: by the flags, or by the configuration of `serve`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::args::{AdminArgs, Overrides};
use super::ask::Server;
use crate::config::url::{Address, Scheme, ServerUrl};
use crate::config::{self, AdminConfig, BasePath, Doors, Problems, Secret, Sources};
use crate::net::tls::client::Shown;
use crate::net::tls::{ClientTls, Trust};

/// The address to ask, and the token.
#[derive(Debug)]
pub(super) struct Found {
    /// `None` if the admin listener is off.
    pub(super) admin: Option<Server>,
    /// `None` if the system chose its port.
    pub(super) front: Option<Server>,
    /// The path under which the front answers.
    pub(super) base_path: BasePath,
    pub(super) token: Option<Secret>,
}

/// Why the gateway was not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    #[error("the token {0}")]
    Token(String),
    #[error("{0}")]
    Configuration(#[from] Problems),
    #[error("{0}")]
    Tls(String),
    #[error("the port of the admin listener is chosen by the system: give --admin URL")]
    AnyPort,
}

/// What the request is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asks {
    /// Something that only an operator may know or do.
    Anything,
    /// Whether the gateway is ready. Everybody may know that.
    Health,
}

/// Looks at the flags and the environment and, unless an address was given, at the file.
///
/// A token in the file belongs to the gateway of that file. An address from the command line gets
/// only a token from the command line or from the environment.
///
/// # Errors
/// The configuration does not give the address, or the token is not valid.
pub(super) fn gateway(
    args: &AdminArgs,
    asks: Asks,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Found, NotFound> {
    let mut sources = super::sources(args.config.clone(), Overrides::default(), env);
    if args.admin.is_some() {
        sources.file = None;
    }
    let given = args.token.as_deref().filter(|token| !token.is_empty());
    let given = given.map(Secret::to_send).transpose().map_err(NotFound::Token)?;
    if given.is_some() {
        sources.env.retain(|(name, _)| !name.starts_with("MOORING_ADMIN__TOKEN"));
    }
    let Doors {
        front,
        front_cert,
        base_path,
        admin: AdminConfig { listen, token, read_token: _, secrets_dir: _, open_metrics: _ },
        admin_cert,
    } = doors(&sources, given.is_some())?;
    let mut is_anybody = false;
    let admin = match (&args.admin, listen) {
        (Some(ServerUrl { scheme, address }), _) => {
            let tls = match scheme {
                Scheme::Http => None,
                Scheme::Https => Some(client(args, Own::Unknown)?),
            };
            Some(Server { address: address.clone(), tls })
        }
        (None, Some(listen)) => {
            let address = reachable(listen).ok_or(NotFound::AnyPort)?;
            is_anybody = asks == Asks::Health && admin_cert.is_some() && args.admin_ca.is_none();
            let own = |cert: &Path| match asks {
                Asks::Anything => client(args, Own::File(cert)),
                Asks::Health => client(args, Own::Whatever),
            };
            let tls = admin_cert.as_deref().map(own).transpose()?;
            Some(Server { address, tls })
        }
        (None, None) => None,
    };
    let front = match reachable(front) {
        Some(address) => {
            // This server gets no secret and only says whether it is ready, so any certificate will
            // do.
            let anybody = || ClientTls::new(Trust::Anybody, None, None).map_err(NotFound::Tls);
            let tls = front_cert.map(|_| anybody()).transpose()?;
            Some(Server { address, tls })
        }
        None => None,
    };
    let token = given.or(token).filter(|_| !is_anybody);
    Ok(Found { admin, front, base_path, token })
}

/// What is known about the gateway's certificate if no authority is given.
#[derive(Clone, Copy, Debug)]
enum Own<'a> {
    Unknown,
    /// The certificate is in this file.
    File(&'a Path),
    /// Any certificate will do.
    Whatever,
}

/// The TLS settings for the gateway. If a server has the certificate of the configuration, it is
/// the gateway, and its name does not matter.
fn client(args: &AdminArgs, configured: Own<'_>) -> Result<ClientTls, NotFound> {
    let read = |path: &Path| {
        let read = std::fs::read(path);
        read.map_err(|error| NotFound::Tls(format!("`{}` cannot be read: {error}", path.display())))
    };
    let ca = args.admin_ca.as_deref().map(read).transpose()?;
    let own = match configured {
        Own::File(path) if ca.is_none() => Some((path, read(path)?)),
        Own::File(_) | Own::Unknown | Own::Whatever => None,
    };
    let cert = args.admin_cert.as_deref().map(read).transpose()?;
    let key = args.admin_key.as_deref().map(read).transpose()?;
    let shown = cert.as_deref().zip(key.as_deref());
    let shown = shown.map(|(certificates, key)| Shown { certificates, key });
    let trust = match (&ca, &own, configured) {
        (Some(ca), ..) => Trust::Authorities(ca),
        (None, Some((_, own)), _) => Trust::Same(own),
        (None, None, Own::Whatever) => Trust::Anybody,
        (None, None, Own::Unknown | Own::File(_)) => Trust::Web,
    };
    if let Some((path, own)) = &own {
        ClientTls::new(Trust::Same(own), None, None).map_err(|what| {
            let path = path.display();
            NotFound::Tls(format!("the certificate of the admin listener, `{path}`, {what}"))
        })?;
    }
    ClientTls::new(trust, None, shown)
        .map_err(|what| NotFound::Tls(format!("a certificate or key that was given {what}")))
}

/// If a token is given elsewhere, the file of the configured token need not be readable.
fn doors(sources: &Sources, has_token: bool) -> Result<Doors, Problems> {
    let mut sources = sources.clone();
    if has_token {
        sources.flags.push(("admin.token_file".to_owned(), String::new()));
    }
    config::doors(&sources)
}

/// The address at which a client on the same host reaches a listener.
fn reachable(listen: SocketAddr) -> Option<Address> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    (listen.port() != 0).then(|| Address { host: ip.to_string(), port: listen.port() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn found(line: &str, env: &[(&str, &str)]) -> Result<(String, String), String> {
        found_for(Asks::Anything, line, env)
    }

    fn found_for(asks: Asks, line: &str, env: &[(&str, &str)]) -> Result<(String, String), String> {
        let Verb::Healthcheck(args) =
            Cli::try_parse_from(format!("mooring healthcheck {line}").split_whitespace())
                .unwrap()
                .verb
        else {
            unreachable!("it is a health check");
        };
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let found = gateway(&args.admin, asks, env).map_err(|error| error.to_string())?;
        let place = found.admin.map_or("off".to_owned(), |it| it.address.to_string());
        Ok((place, found.token.map_or(String::new(), |token| token.reveal().to_owned())))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_gateway_is_found_by_the_same_layers_that_it_reads() {
        let file = file("[admin]\nlisten = \"0.0.0.0:9000\"\ntoken = \"from-the-file\"\n[oops\n");
        let line = format!("--config {}", file.path().display());
        let ok = |place: &str, token: &str| Ok((place.to_owned(), token.to_owned()));
        assert_eq!(found(&line, &[]), ok("127.0.0.1:9000", "from-the-file"));
        let moved = ("MOORING_ADMIN__LISTEN", "[::]:9001");
        assert_eq!(found(&line, &[moved]), ok("[::1]:9001", "from-the-file"));
        let other = ("MOORING_ADMIN__TOKEN", "from-the-environment");
        assert_eq!(found(&line, &[moved, other]), ok("[::1]:9001", "from-the-environment"));
        let off = ("MOORING_ADMIN__LISTEN", "off");
        assert_eq!(found(&line, &[off]), ok("off", "from-the-file"));
        let any = found(&line, &[("MOORING_ADMIN__LISTEN", "127.0.0.1:0")]);
        assert!(any.unwrap_err().contains("give --admin"));
    }

    #[test]
    fn how_it_is_can_be_asked_while_its_certificate_is_another_or_spoilt() {
        let file = file("[admin]\nlisten = \"127.0.0.1:9000\"\ntoken = \"secret\"\n");
        let line = format!("--config {}", file.path().display());
        let bad = file.path().display().to_string();
        for (cert, told) in [("/no/such/file", "cannot be read"), (&bad, "of the admin listener")] {
            let env = [("MOORING_ADMIN__TLS__CERT", cert), ("MOORING_ADMIN__TLS__KEY", cert)];
            let refused = found(&line, &env).unwrap_err();
            assert!(refused.contains(told) && refused.contains(cert), "{refused}");
            let health = found_for(Asks::Health, &line, &env);
            // The server that answers gets no secret.
            assert_eq!(health, Ok(("127.0.0.1:9000".to_owned(), String::new())), "{cert}");
        }
        let plain = found_for(Asks::Health, &line, &[]).unwrap();
        assert_eq!(plain.1, "secret");
    }

    #[test]
    fn a_token_of_a_file_is_not_sent_to_another_address() {
        let file = file("[admin]\ntoken = \"from-the-file\"\n");
        let line = format!("--config {} --admin http://gpu:1", file.path().display());
        assert_eq!(found(&line, &[]), Ok(("gpu:1".to_owned(), String::new())));
        let line = format!("{line} --token given");
        assert_eq!(found(&line, &[]), Ok(("gpu:1".to_owned(), "given".to_owned())));
    }

    #[test]
    fn the_file_of_a_token_is_read_where_it_is_needed() {
        let token = file("of-a-file\n");
        let path = token.path().display().to_string();
        let env = [("MOORING_ADMIN__TOKEN_FILE", path.as_str())];
        assert_eq!(found("", &env).unwrap().1, "of-a-file");
        assert_eq!(found("--token given", &env).unwrap().1, "given");
        let missing = [("MOORING_ADMIN__TOKEN_FILE", "/no/such/file")];
        assert!(found("", &missing).unwrap_err().contains("admin.token_file"));
        assert_eq!(found("--token given", &missing).unwrap().1, "given");
    }
}
