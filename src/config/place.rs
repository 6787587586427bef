//! Chooses the state folder if the configuration names none. State should survive a restart even if
//! nobody has read about this key.

use std::path::{Path, PathBuf};

use super::{StateConfig, StateDir};

/// Written instead of a folder to keep nothing.
pub(super) const NOWHERE: &str = "none";

/// Fills in a folder if none was written: the one that systemd made for the unit (systemd.exec(5),
/// `StateDirectory=`), else one for this port in the user's state folder (XDG Base Directory
/// Specification 0.8, `XDG_STATE_HOME`).
///
/// If the system chooses the port, there is no fixed folder, and nothing is kept.
pub(super) fn fill_in(state: &mut StateConfig, port: u16, env: &[(String, String)]) {
    match &state.dir {
        StateDir::Written(path) if path == Path::new(NOWHERE) => state.dir = StateDir::Nowhere,
        StateDir::Written(_) | StateDir::Nowhere | StateDir::Default(_) => {}
        StateDir::Unset => {
            let of_unit = variable(env, "STATE_DIRECTORY");
            let first = of_unit.and_then(|paths| paths.split(':').next()).map(PathBuf::from);
            let of_user = || Some(of_user(env)?.join("mooring").join(port.to_string()));
            state.dir = match (first, port) {
                (Some(path), _) => StateDir::Written(path),
                (None, 0) => StateDir::Unset,
                (None, _) => of_user().map_or(StateDir::Unset, StateDir::Default),
            };
        }
    }
}

/// The specification says that relative paths must be ignored.
fn of_user(env: &[(String, String)]) -> Option<PathBuf> {
    let absolute = |name| variable(env, name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

fn variable<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = env.iter().find(|(it, _)| it == name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnUnopened;

    #[track_caller]
    fn check(written: &str, port: u16, env: &[(&str, &str)], expected: &StateDir) {
        let dir = match written {
            "" => StateDir::Unset,
            path => StateDir::Written(path.into()),
        };
        let (on_unopened, seal_keys) = (OnUnopened::Refuse, Vec::new());
        let (on_error, copies, seal_key_file) = (None, 0, None);
        let mut state =
            StateConfig { dir, on_error, copies, seal_key_file, seal_keys, on_unopened };
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        fill_in(&mut state, port, &env);
        assert_eq!(&state.dir, expected);
    }

    #[test]
    fn the_state_is_kept_unless_somebody_says_otherwise() {
        let home = ("HOME", "/home/ada");
        let default = |path: &str| StateDir::Default(path.into());
        let written = |path: &str| StateDir::Written(path.into());
        check("", 8180, &[home], &default("/home/ada/.local/state/mooring/8180"));
        check("", 8180, &[home, ("XDG_STATE_HOME", "/s")], &default("/s/mooring/8180"));
        let relative = [home, ("XDG_STATE_HOME", "s")];
        check("", 81, &relative, &default("/home/ada/.local/state/mooring/81"));
        check("", 8180, &[home, ("STATE_DIRECTORY", "/a:/b")], &written("/a"));
        check("/x", 8180, &[home, ("STATE_DIRECTORY", "/a")], &written("/x"));
        check("none", 8180, &[home], &StateDir::Nowhere);
        check("", 0, &[home], &StateDir::Unset);
        check("", 8180, &[], &StateDir::Unset);
    }
}
