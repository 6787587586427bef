//! Authorities, and what they issue, for tests of TLS; and what speaks TLS beside the gateway.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mooring::net::tls::client::{ClientTls, Shown, Trust};
use mooring::net::tls::server::ServerTls;
use mooring::net::{Boxed, Buffered, Listener, Network, Stream, Tcp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority that lives in a folder.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Where a certificate and its key stand.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn server(&self) -> ServerTls {
        self.server_for(None)
    }

    /// A server that lets in only who has a certificate of this authority.
    pub(crate) fn server_for(&self, clients: Option<&Authority>) -> ServerTls {
        let authorities = clients.map(|it| read(&it.ca()));
        ServerTls::new(&read(&self.cert), &read(&self.key), authorities.as_deref()).unwrap()
    }

    /// Takes the place of another one.
    pub(crate) fn replaces(&self, other: &Self) {
        std::fs::copy(&self.cert, &other.cert).unwrap();
        std::fs::copy(&self.key, &other.key).unwrap();
    }
}

pub(crate) fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// When a certificate ends that has ended.
pub(crate) fn long_over(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = TempDir::new().unwrap();
        // No two have the same name.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with its certificate.
    pub(crate) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// A pair for this machine, in files of this name.
    pub(crate) fn issue(&self, file: &str) -> Pair {
        self.issue_for(file, &["127.0.0.1", "localhost"], |_| {})
    }

    pub(crate) fn issue_for(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(file, &certificate.pem(), &key)
    }

    /// A certificate that is its own authority, as `openssl req -x509` makes it.
    pub(crate) fn own_authority(&self, file: &str) -> Pair {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(file, &certificate.pem(), &key)
    }

    fn write(&self, file: &str, certificate: &str, key: &KeyPair) -> Pair {
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        std::fs::write(path("crt"), certificate).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Pair { cert: path("crt").display().to_string(), key: path("key").display().to_string() }
    }

    /// Who trusts this authority.
    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::new(Trust::Authorities(&read(&self.ca())), None, None).unwrap()
    }

    /// The same, who shows a certificate.
    pub(crate) fn client_with(&self, pair: &Pair) -> ClientTls {
        let (certificates, key) = (read(&pair.cert), read(&pair.key));
        let shown = Some(Shown { certificates: &certificates, key: &key });
        ClientTls::new(Trust::Authorities(&read(&self.ca())), None, shown).unwrap()
    }
}

/// A connection to what listens there under TLS.
pub(crate) async fn dial(client: &ClientTls, to: SocketAddr) -> io::Result<Stream> {
    let stream = Tcp.connect("127.0.0.1", to.port()).await?;
    client.connect(stream, "127.0.0.1").await
}

/// A network that listens under TLS: a simulated server on it is one behind a proxy that ends TLS.
#[derive(Debug)]
pub(crate) struct Secured(pub(crate) ServerTls);

impl Network for Secured {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Tcp.connect(host, port)
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (listener, tls) = (Arc::from(Tcp.listen(address).await?), self.0.clone());
            Ok(Box::new(Listening { listener, tls }) as Box<dyn Listener>)
        })
    }
}

#[derive(Debug)]
struct Listening {
    listener: Arc<dyn Listener>,
    tls: ServerTls,
}

impl Listener for Listening {
    fn accept(&self) -> Boxed<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            loop {
                let (stream, peer) = self.listener.accept().await?;
                // Who breaks off in the handshake is not the server's to hear of.
                if let Ok(stream) = self.tls.accept(Buffered::new(stream)).await {
                    return Ok((stream, peer));
                }
            }
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}
