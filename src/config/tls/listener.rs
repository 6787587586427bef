//! `[server.tls]` and `[admin.tls]`: what a listener shows, and whom it lets in.

use std::path::{Path, PathBuf};

use super::{PemPath, Print, about, print_of, read};
use crate::config::problems::Notes;
use crate::config::raw::Setting;
use crate::net::tls::ServerTls;
use crate::net::tls::server::Part;

/// How a listener secures its connections.
#[derive(Clone, Debug, Default)]
pub struct ListenerTls {
    /// Invariant: both are there, or none of the three.
    pub cert: Option<PemFile>,
    pub key: Option<PemFile>,
    /// Only clients with a certificate of these authorities come in.
    pub client_ca: Option<PemFile>,
    server: Option<ServerTls>,
}

/// A file, and what tells its content from another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PemFile {
    pub path: PathBuf,
    print: Print,
}

/// By what stands in the files, and where they are.
impl PartialEq for ListenerTls {
    fn eq(&self, other: &Self) -> bool {
        let Self { cert, key, client_ca, server: _ } = self;
        (cert, key, client_ca) == (&other.cert, &other.key, &other.client_ca)
    }
}

impl ListenerTls {
    /// With what stands in these files now.
    ///
    /// # Errors
    /// What is wrong, and with which of them.
    pub fn read(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, (Part, String)> {
        let file = |part, path: &Path| {
            let text = read(path).map_err(|what| (part, what))?;
            Ok((PemFile { path: path.to_owned(), print: print_of(&text) }, text))
        };
        let (cert, certificates) = file(Part::Certificate, cert)?;
        let (key, secret) = file(Part::Key, key)?;
        let client_ca = client_ca.map(|path| file(Part::ClientAuthorities, path)).transpose()?;
        let authorities = client_ca.as_ref().map(|(_, text)| text.as_bytes());
        let made = ServerTls::new(certificates.as_bytes(), secret.as_bytes(), authorities);
        let client_ca = client_ca.map(|(file, _)| file);
        let server = made.map_err(|(part, what)| {
            let of = match part {
                Part::Certificate => Some(&cert),
                Part::Key => Some(&key),
                Part::ClientAuthorities => client_ca.as_ref(),
            };
            (part, of.map_or_else(String::new, |file| about(&file.path, &what)))
        })?;
        Ok(Self { cert: Some(cert), key: Some(key), client_ca, server: Some(server) })
    }

    /// With what stands in its files now; itself if it has none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_again(&self) -> Result<Self, String> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(self.clone()) };
        let client_ca = self.client_ca.as_ref().map(|file| file.path.as_path());
        Self::read(&cert.path, &key.path, client_ca).map_err(|(_, what)| what)
    }

    /// `None` for a listener of plain HTTP.
    #[must_use]
    pub fn server(&self) -> Option<&ServerTls> {
        self.server.as_ref()
    }

    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        [&self.cert, &self.key, &self.client_ca].into_iter().flatten().map(|it| it.path.clone())
    }
}

pub(in crate::config) fn check(
    cert: Setting<PemPath>,
    key: Setting<PemPath>,
    client_ca: Setting<PemPath>,
    notes: &mut Notes,
) -> ListenerTls {
    let keys = [&cert.key, &key.key, &client_ca.key].map(Clone::clone);
    let (cert, key, client_ca) = (cert.check(notes), key.check(notes), client_ca.check(notes));
    let [cert_key, key_key, client_ca_key] = keys.each_ref().map(String::as_str);
    let missing = match (&cert, &key) {
        (Some(cert), Some(key)) => {
            return ListenerTls::read(cert, key, client_ca.as_deref()).unwrap_or_else(
                |(part, what)| {
                    let key = match part {
                        Part::Certificate => cert_key,
                        Part::Key => key_key,
                        Part::ClientAuthorities => client_ca_key,
                    };
                    notes.report(key, what);
                    ListenerTls::default()
                },
            );
        }
        (Some(_), None) => Some((cert_key, key_key)),
        (None, Some(_)) => Some((key_key, cert_key)),
        (None, None) => client_ca.map(|_| (client_ca_key, cert_key)),
    };
    if let Some((written, missing)) = missing
        && notes.are_good(&[cert_key, key_key, client_ca_key])
    {
        notes.report(written, format!("is of no use without `{missing}`"));
    }
    ListenerTls::default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use crate::config::{Config, Sources, check, load};

    fn loaded(flags: &[(&str, &str)]) -> Result<Config, String> {
        let url = ("backends.a.url".to_owned(), "http://a:1".to_owned());
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let flags = [url].into_iter().chain(flags).collect();
        load(&Sources { flags, ..Sources::default() }).map_err(|problems| problems.to_string())
    }

    fn pair(folder: &std::path::Path, name: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        [("crt", certificate), ("key", key.serialize_pem())].map(|(end, text)| {
            let path = folder.join(format!("{name}.{end}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        })
    }

    #[test]
    fn a_listener_has_the_pair_that_its_files_hold_now() {
        let folder = tempfile::tempdir().unwrap();
        let ([cert, key], [other, its_key]) =
            (pair(folder.path(), "gw"), pair(folder.path(), "other"));
        let flags = [("server.tls.cert", cert.as_str()), ("server.tls.key", key.as_str())];
        let config = loaded(&flags).unwrap();
        assert!(config.server_tls.server().is_some() && config.admin_tls.server().is_none());
        assert_eq!(loaded(&flags).unwrap(), config, "the same files say the same");
        std::fs::copy(other, &cert).unwrap();
        assert!(config.server_tls.read_again().unwrap_err().contains("is not the key of"));
        std::fs::copy(its_key, &key).unwrap();
        assert_ne!(config.server_tls.read_again().unwrap(), config.server_tls);
    }

    #[test]
    fn a_pair_that_is_none_is_a_problem_of_the_key_that_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let ([cert, key], [_, other]) = (pair(folder.path(), "gw"), pair(folder.path(), "other"));
        let missing = folder.path().join("none.crt").display().to_string();
        let with = |cert: &str, key: &str, ca: &str| {
            let flags =
                [("admin.tls.cert", cert), ("admin.tls.key", key), ("admin.tls.client_ca", ca)];
            loaded(&flags).map(|_| ()).unwrap_err()
        };
        let told = with(&cert, &other, "");
        assert!(told.contains("admin.tls.key: `"), "{told}");
        assert!(told.contains("is not the key of the certificate"), "{told}");
        assert!(with(&missing, &key, "").contains("admin.tls.cert: `"));
        assert!(with(&missing, &key, "").contains("cannot be read: No such file"));
        assert!(with(&cert, &key, &missing).contains("admin.tls.client_ca: `"));
        assert!(with(&cert, "", "").contains("is of no use without `admin.tls.key`"));
        assert!(with("", &key, "").contains("is of no use without `admin.tls.cert`"));
        assert!(with("", "", &cert).contains("is of no use without `admin.tls.cert`"));
    }

    #[test]
    fn a_table_in_a_section_is_a_section_wherever_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = pair(folder.path(), "gw");
        let file = folder.path().join("mooring.toml");
        let backend = "[backends.a]\nurl = \"http://a:1\"\n";
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:1\"\n[server.tls]\ncert = \"{cert}\"\n\
             key = \"{key}\"\n{backend}"
        );
        std::fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let checked = check(&sources);
        assert!(checked.config.unwrap().server_tls.server().is_some());
        assert!(checked.files.contains(&cert.clone().into()), "its files are watched");
        std::fs::write(&file, backend).unwrap();
        let env = [("CERT", cert), ("KEY", key)]
            .map(|(name, value)| (format!("MOORING_SERVER__TLS__{name}"), value))
            .to_vec();
        let sources = Sources { env, ..sources };
        assert!(load(&sources).unwrap().server_tls.server().is_some());
        std::fs::write(&file, format!("[server.tls]\ncerd = \"x\"\n{backend}")).unwrap();
        let told = load(&sources).unwrap_err().to_string();
        assert!(told.contains(":2: server.tls.cerd: unknown key, did you mean"), "{told}");
    }
}
