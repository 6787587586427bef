//! Finds the configuration files of a folder: all that end with `.toml`, in the byte order of their
//! names, like the drop-ins of systemd (systemd.unit(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The most files in a folder; far more than anybody needs.
const FILES_MAX: usize = 1_000;

/// The files of the folder. Names that begin with a dot are left out: editors keep copies under
/// such names, and in a mounted ConfigMap, Kubernetes keeps the content there, to which the other
/// names link.
///
/// # Errors
/// Why no file can be read.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = listed.map_err(|error| format!("cannot be read: {error}"))?;
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
    names.retain(|name| {
        let name = name.as_encoded_bytes();
        name.ends_with(b".toml") && !name.starts_with(b".")
    });
    names.sort_unstable();
    match names.len() {
        0 => Err("is a folder without a file whose name ends with `.toml`".to_owned()),
        1..=FILES_MAX => Ok(names.into_iter().map(|name| folder.join(name)).collect()),
        count => Err(format!("has {count} files, at most {FILES_MAX} are read")),
    }
}

/// True for a pipe, a socket or a device: opening one may block forever.
pub(super) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::config::{Config, Sources, check, load};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn sources(folder: &tempfile::TempDir) -> Sources {
        Sources { file: Some(folder.path().to_owned()), ..Sources::default() }
    }

    fn loaded(folder: &tempfile::TempDir) -> Result<Config, String> {
        let report = load(&sources(folder)).map_err(|problems| problems.to_string());
        report.map_err(|it| it.replace(&folder.path().display().to_string(), "DIR"))
    }

    const A: &str = "[backends.a]\nurl = \"http://a:1\"\n";
    const B: &str = "[backends.b]\nurl = \"http://b:1\"\n";

    #[test]
    fn the_files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = folder(&[
            ("20-b.toml", &format!("[server]\nworkers = 2\nmax_headers = 20\n{B}")),
            ("10-a.toml", &format!("[server]\nworkers = 1\nhome = \"b\"\n{A}")),
            ("B.toml", "[server]\nallowed_origins = [\"https://b\"]\n"),
            ("a.toml", "[server]\nallowed_origins = [\"https://a\", \"null\"]\n"),
            (".hidden.toml", "not toml"),
            ("a.toml~", "not toml"),
            ("notes.txt", "not toml"),
        ]);
        let config = loaded(&folder).unwrap();
        assert_eq!((config.server.workers, config.server.max_headers), (2, 20));
        assert_eq!(config.server.home, "b");
        assert_eq!(config.backends.len(), 2);
        // Upper case sorts before lower case, and a later list replaces an earlier one.
        assert_eq!(config.server.allowed_origins, ["https://a", "null"]);
    }

    #[test]
    fn a_key_that_goes_over_another_file_is_warned_of() {
        let one = format!("[server]\nworkers = 1\n{A}");
        let folder = folder(&[("1.toml", &one), ("2.toml", "[server]\nworkers = 2\n")]);
        let warnings = check(&sources(&folder)).warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        let said = warning.to_string().replace(&folder.path().display().to_string(), "DIR");
        assert_eq!(said, "DIR/2.toml:2: server.workers: overrides DIR/1.toml:2");
    }

    #[test]
    fn a_backend_is_written_in_one_file() {
        let again = "\n[backends.a]\nweight = 2\n";
        let folder = folder(&[("1.toml", A), ("2.toml", again)]);
        assert_eq!(
            loaded(&folder).unwrap_err(),
            "1 problem in the configuration\n  DIR/2.toml:2: backends.a: is also in DIR/1.toml:1; \
             a backend must be in one file"
        );
    }

    #[test]
    fn each_problem_names_its_file() {
        let folder = folder(&[("1.toml", "[server]\nworker = 1\n"), ("2.toml", "[sever]\nx")]);
        std::fs::create_dir(folder.path().join("3.toml")).unwrap();
        symlink("/nowhere/at/all", folder.path().join("4.toml")).unwrap();
        let report = loaded(&folder).unwrap_err();
        for line in [
            "  DIR/1.toml:2: server.worker: unknown key, did you mean `server.workers`?",
            "  DIR/2.toml:1: sever: unknown section, did you mean `server`?",
            "  DIR/3.toml: cannot be read: Is a directory (os error 21)",
            "  DIR/4.toml: cannot be read: No such file or directory (os error 2)",
        ] {
            assert!(report.lines().any(|it| it == line), "no `{line}` in {report}");
        }
    }

    #[test]
    fn a_folder_without_a_file_says_so() {
        let expected = "1 problem in the configuration\n  DIR: is a folder without a file whose \
                        name \
                        ends with `.toml`";
        let hidden = folder(&[(".a.toml", A), ("a.TOML", A), ("toml", A)]);
        for folder in [folder(&[]), hidden] {
            assert_eq!(loaded(&folder).unwrap_err(), expected);
        }
    }

    /// Kubernetes: each name links to `..data/NAME`, and `..data` links to a folder that is
    /// replaced.
    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let folder = folder(&[]);
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("..2026_11_28")).unwrap();
        std::fs::write(at("..2026_11_28/mooring.toml"), A).unwrap();
        symlink("..2026_11_28", at("..data")).unwrap();
        symlink("..data/mooring.toml", at("mooring.toml")).unwrap();
        assert_eq!(loaded(&folder).unwrap().backends.len(), 1);
        std::fs::create_dir(at("..2026_11_29")).unwrap();
        std::fs::write(at("..2026_11_29/mooring.toml"), format!("{A}{B}")).unwrap();
        symlink("..2026_11_29", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(loaded(&folder).unwrap().backends.len(), 2, "the same sources, loaded again");
    }

    #[test]
    fn a_pipe_in_a_folder_is_not_waited_for() {
        let folder = folder(&[("1.toml", A)]);
        let pipe = folder.path().join("2.toml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let report = loaded(&folder).unwrap_err();
        assert!(report.contains("DIR/2.toml: is not a file"), "{report}");
    }
}
