//! Shows the configuration in effect or its schema, or writes a file to start from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{ConfigArgs, ConfigVerb, InitArgs, ShowArgs};
use super::{EXIT_CONFIG, say, sources};
use crate::config;

/// `mooring config show|schema|init`.
pub(super) fn config(args: ConfigArgs) -> ExitCode {
    match args.verb {
        ConfigVerb::Show(args) => show(args),
        ConfigVerb::Schema(_) => {
            say::line(&pretty(&config::schema()));
            ExitCode::SUCCESS
        }
        ConfigVerb::Init(args) => init(&args),
    }
}

fn show(args: ShowArgs) -> ExitCode {
    let ShowArgs { config, json, overrides } = args;
    match config::effective(&sources(config, overrides, std::env::vars_os())) {
        Ok(effective) if json => say::line(&pretty(&effective.to_json())),
        Ok(effective) => say::line(effective.to_toml().trim_end()),
        Err(problems) => {
            say::note(&problems.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    }
    ExitCode::SUCCESS
}

pub(super) fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

fn init(args: &InitArgs) -> ExitCode {
    let text = config::template();
    let Some(path) = args.file.as_deref().filter(|path| *path != Path::new("-")) else {
        say::line(text.trim_end());
        return ExitCode::SUCCESS;
    };
    let force = if args.force { Force::Yes } else { Force::No };
    match write(path, &text, force) {
        Ok(()) => {
            let path = path.display();
            say::note(&format!(
                "Wrote {path}. Next: list your backends in it, then `mooring check {path}`"
            ));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => say::failure(&format!(
            "{} exists already and was not changed; --force overwrites it",
            path.display()
        )),
        Err(error) => say::failure(&format!("cannot write {}: {error}", path.display())),
    }
}

/// Whether an existing file is overwritten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Force {
    Yes,
    No,
}

/// Writes the complete file or nothing. Only its owner may read it, because it will hold secrets.
fn write(path: &Path, text: &str, force: Force) -> io::Result<()> {
    if force == Force::No && path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let draft = draft_beside(path);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| match force {
        Force::Yes => fs::rename(&draft, path),
        // `hard_link` fails if a file has appeared in the meantime. A rename would overwrite it.
        Force::No => fs::hard_link(&draft, path),
    });
    if placed.is_err() || force == Force::No {
        fs::remove_file(&draft)?;
    }
    placed
}

/// A name in the same folder which `--config FOLDER` does not read.
fn draft_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_written_for_its_owner_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mooring.toml");
        write(&path, "one", Force::No).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = write(&path, "two", Force::No).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "three", Force::Yes).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        let dangling = folder.path().join("dangling.toml");
        std::os::unix::fs::symlink("/nowhere/at/all", &dangling).unwrap();
        assert!(write(&dangling, "four", Force::No).is_err());
        assert!(write(&folder.path().join("gone/mooring.toml"), "five", Force::No).is_err());
        assert!(write(folder.path(), "six", Force::Yes).is_err(), "it is a folder");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no draft is left: {left:?}");
    }
}
