//! Compares two configurations: which keys differ, and which of them need a restart, according to
//! the table of keys.

use super::Config;
use super::key::Applied;
use super::keys::{BACKENDS, DISCOVERY, KEYS};

/// One key whose value differs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// A full name such as `server.listen`; `backends` and `discovery` each stand for all their
    /// tables.
    pub key: String,
    /// True if the new value takes effect only after a restart.
    pub needs_restart: bool,
}

/// The keys whose values differ, in the order of the documentation. Values are compared by their
/// meaning: `60s` equals `1m`, and a token is the same whatever file it is read from.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let differing = KEYS.iter().filter(|key| (key.differs)(old, new));
    let mut changes: Vec<Change> = differing
        .map(|key| Change { key: key.full_name(), needs_restart: key.applied == Applied::Restart })
        .collect();
    let differ =
        [(BACKENDS, old.backends != new.backends), (DISCOVERY, old.discovery != new.discovery)];
    for (section, _) in differ.into_iter().filter(|(_, differs)| *differs) {
        let mut of_section = KEYS.iter().filter(|key| key.section == section);
        let needs_restart = of_section.any(|key| key.applied == Applied::Restart);
        changes.push(Change { key: section.to_owned(), needs_restart });
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::LazyLock;

    use super::*;
    use crate::auth::UserTable;
    use crate::config::keys::{Key, is_named};
    use crate::config::{Sources, load};

    fn with(flags: &[(&str, &str)]) -> Config {
        let is_secured = flags.iter().any(|(key, _)| is_about_tls(key));
        let url = if is_secured { "https://a:1" } else { "http://a:1" };
        let url = ("backends.a.url".to_owned(), url.to_owned());
        let place = |(key, _): &(&str, &str)| key.starts_with("discovery.");
        let needs_place = flags.iter().any(place) && !flags.iter().any(|(key, _)| makes(key));
        let place = needs_place.then_some(("discovery.a.dns", "d:1"));
        // `keys` needs a users file. With another mode the file is not read.
        let users = users();
        let users = [("auth.users_file", users.path().to_str().unwrap())];
        // A certificate is nothing without its key.
        let (cert, key) = pair();
        let pairs = [("server.tls.cert", cert), ("server.tls.key", key)];
        let pairs = pairs.into_iter().chain([("admin.tls.cert", cert), ("admin.tls.key", key)]);
        let shown = [("backends.a.client_cert", cert), ("backends.a.client_key", key)];
        let pairs: Vec<_> = pairs.chain(shown.into_iter().filter(|_| is_secured)).collect();
        let given = place.iter().chain(&users).chain(&pairs).chain(flags);
        let given = given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let flags = [url].into_iter().chain(given).collect();
        load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    /// True for a key of a backend that is of use under TLS only.
    fn is_about_tls(key: &str) -> bool {
        let keys = ["ca", "server_name", "insecure", "client_cert", "client_key"];
        key.strip_prefix("backends.a.").is_some_and(|key| keys.contains(&key))
    }

    /// A folder with a certificate and its key, each in two files.
    fn folder() -> &'static tempfile::TempDir {
        static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            for name in ["one", "other"] {
                std::fs::write(folder.path().join(format!("{name}.crt")), &certificate).unwrap();
                let key = key.serialize_pem();
                std::fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
            }
            folder
        });
        &FOLDER
    }

    fn in_folder(name: &str) -> String {
        folder().path().join(name).display().to_string()
    }

    fn pair() -> (&'static str, &'static str) {
        static PAIR: LazyLock<[String; 2]> =
            LazyLock::new(|| ["one.crt", "one.key"].map(in_folder));
        (&PAIR[0], &PAIR[1])
    }

    /// A users file without users.
    fn users() -> &'static tempfile::NamedTempFile {
        static FILE: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), UserTable::default().to_text()).unwrap();
            file
        });
        &FILE
    }

    /// A file with a key that seals.
    fn seal_key() -> &'static tempfile::NamedTempFile {
        static FILE: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("{}=", "A".repeat(43))).unwrap();
            file
        });
        &FILE
    }

    /// True for the key that makes a discovery.
    fn makes(key: &str) -> bool {
        [".dns", ".srv", ".kubernetes"].iter().any(|end| key.ends_with(end))
    }

    /// The keys that differ between two sets of flags.
    fn changed(old: &[(&str, &str)], new: &[(&str, &str)]) -> Vec<String> {
        changes(&with(old), &with(new)).into_iter().map(|it| it.key).collect()
    }

    /// Another valid value that breaks no rule over several keys.
    fn another(key: &str, default: &str) -> String {
        let given = match key {
            "server.listen" | "admin.listen" => "127.0.0.1:9",
            "server.allowed_origins" => "https://app.example",
            "server.trusted_proxies" => "10.0.0.0/8",
            "server.hosts" => "gw.example",
            "server.deny" => "/pack/admin",
            "server.deny_nodes" => "RunShell",
            "server.home" => "a",
            "server.base_path" => "/comfy/",
            "admin.token" => "s3cret",
            "admin.read_token" => "another-s3cret",
            "auth.mode" => "keys",
            "auth.users_file" | "auth.session_key_file" => "/elsewhere",
            "state.seal_key_file" => seal_key().path().to_str().unwrap(),
            "state.on_unopened" => "lose",
            "auth.session_lifetime" => "13h",
            "auth.header" | "auth.groups_header" => "X-Other",
            "auth.group_roles" => "staff=viewer",
            "auth.default_role" => "viewer",
            "auth.adopt" => "ada",
            "auth.jwt.jwks_url" => "https://login.example/keys",
            "auth.jwt.keys_file" => "/elsewhere",
            "affinity.link_linger" | "server.drain_delay" | "prompts.answer_limit" => "9s",
            "affinity.shared_ids" | "sockets.output_classes" => "other",
            "backends.a.headers" | "discovery.a.headers" => "X-Key: value",
            "backends.a.labels" | "discovery.a.labels" => "video",
            "discovery.a.dns" => "e:2",
            "discovery.a.srv" => "_comfyui._tcp.example",
            "discovery.a.resolver" => "127.0.0.1:5353",
            "discovery.a.kubernetes" => "ns/comfyui:8188",
            "fleet.pool_idle" => "9s",
            "files.tag" => "never",
            "server.max_header_bytes" => "63KiB",
            "isolation.status" => "backend",
            "isolation.nameless" => "all",
            "state.dir" => "/elsewhere",
            "state.on_error" => "refuse",
            "replicas.store" => "postgres://ada@db/mooring",
            "replicas.name" | "replicas.fleet" => "other",
            "queue.verdict" => "late",
            "log.format" => "json",
            "log.level" => "debug",
            "log.audit" | "log.access" => "stdout",
            "log.access_format" => "combined",
            key if key.ends_with("cert") || key.ends_with("ca") => return in_folder("other.crt"),
            key if key.ends_with("tls.key") || key.ends_with("client_key") => {
                return in_folder("other.key");
            }
            "backends.a.server_name" => "gpu.lan",
            key if key.ends_with("queue_bytes") => "64KiB",
            key if key.ends_with("_total") => "8GiB",
            "prompts.max_body" | "sockets.log_bytes" => "1MiB",
            _other => match default {
                "false" => "true",
                "true" => "false",
                "on" => "off",
                "off" => "on",
                text if text.ends_with("iB") => "63MiB",
                text if text.ends_with('d') => "99d",
                text if text.ends_with(['s', 'm']) => "59s",
                _count => "17",
            },
        };
        given.to_owned()
    }

    #[test]
    fn every_key_that_changes_is_told_and_no_other() {
        for key in KEYS.iter().filter(|key| key.applied != Applied::ByValue) {
            let name = key.full_name().replace("NAME", "a");
            let value = another(&name, key.default);
            let second = ("backends.b.url", "http://b:1");
            let set = if key.name == "url" { second } else { (name.as_str(), value.as_str()) };
            let place = [("discovery.a.dns", "d:1")];
            let old: &[_] = if key.section == DISCOVERY { &place } else { &[] };
            let told = changed(old, &[set]);
            let of_table = is_named(key.section);
            let expected = if of_table { key.section.to_owned() } else { name.clone() };
            assert_eq!(told, [expected], "{set:?}");
            assert_eq!(changed(&[set], &[set]), Vec::<String>::new());
        }
    }

    #[test]
    fn only_these_need_a_restart() {
        let all = KEYS.iter().filter(|key| key.applied == Applied::Restart);
        let names: Vec<String> = all.map(Key::full_name).collect();
        let ledgers = ["prompts.ledger_prompts", "prompts.ledger_age", "files.tag", "files.ledger"];
        let expected = ["server.workers", "auth.adopt"].iter().chain(&ledgers);
        let expected = expected.chain(&["files.ledger_age", "files.share_unknown", "files.assets"]);
        let expected = expected.chain(&[
            "state.dir",
            "state.seal_key_file",
            "state.on_unopened",
            "replicas.store",
        ]);
        let expected = expected.chain(&["replicas.name", "replicas.fleet", "replicas.lease"]);
        let expected = expected.chain(&["log.format", "log.audit", "log.access"]);
        let expected = expected.chain(&["log.access_format"]).map(|it| (*it).to_owned());
        let of_queue = KEYS.iter().filter(|key| key.section == "queue").map(Key::full_name);
        assert!(names.iter().cloned().eq(expected.chain(of_queue)), "{names:?}");
        let old = with(&[]);
        let told = changes(&old, &with(&[("server.workers", "3"), ("affinity.lease", "9m")]));
        let needs: Vec<_> = told.iter().map(|it| (it.key.as_str(), it.needs_restart)).collect();
        assert_eq!(needs, [("server.workers", true), ("affinity.lease", false)]);
        let told = changes(&old, &with(&[("backends.b.url", "http://b:1")]));
        assert_eq!(told, [Change { key: BACKENDS.to_owned(), needs_restart: false }]);
    }

    /// What a reload reports for a key must match what it does with it.
    #[test]
    fn what_needs_a_restart_keeps_its_value_until_then() {
        let old = with(&[]);
        for key in KEYS.iter().filter(|key| !is_named(key.section)) {
            if key.applied == Applied::ByValue {
                continue;
            }
            let name = key.full_name();
            let mut new = with(&[(&name, &another(&name, key.default))]);
            assert!((key.differs)(&old, &new), "{name}");
            new.keep_until_restart(&old);
            assert_eq!((key.differs)(&old, &new), key.applied == Applied::Live, "{name}");
        }
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        assert!(changed(&[("affinity.lease", "600s")], &[("affinity.lease", "10m")]).is_empty());
        assert!(
            changed(&[("prompts.max_body", "1MiB")], &[("prompts.max_body", "1024K")]).is_empty()
        );
        let listen = |address| [("server.listen", address), ("auth.mode", "off")];
        assert!(changed(&listen(":1"), &listen("0.0.0.0:1")).is_empty());
    }

    #[test]
    fn secrets_are_compared_by_value_and_never_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"s3cret\n").unwrap();
        let path = file.path().display().to_string();
        let (written, elsewhere) = ([("admin.token", "s3cret")], [("admin.token_file", &*path)]);
        assert!(changed(&written, &elsewhere).is_empty());
        let header = |value| with(&[("backends.a.headers", value)]);
        assert!(changes(&header("X-Key: one"), &header("X-Key: one")).is_empty());
        let told = changes(&header("X-Key: one"), &header("X-Key: s3cret"));
        assert_eq!(told.len(), 1);
        assert!(!format!("{told:?}").contains("s3cret"));
        let old = with(&elsewhere);
        std::fs::write(file.path(), "another").unwrap();
        let told = changes(&old, &with(&elsewhere));
        assert_eq!(told.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["admin.token"]);
    }
}
