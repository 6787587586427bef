//! Writes a configuration file to start from: with every key, commented out.

use std::fmt::Write;

use super::keys::{BACKENDS, DISCOVERY, KEYS, SECTIONS};

const HEAD: &str = "\
# The configuration of Mooring. It lists every key with its default, commented out.
#
# `mooring check FILE` reports every problem; `mooring config show` prints the values in effect.

";

const BACKEND: &str = "\
# This is an example: replace the name and the address by your own.
[backends.comfyui]
url = \"http://127.0.0.1:8188\"
";

/// The file is valid as it is, and serves one ComfyUI on this machine.
#[must_use]
pub fn template() -> String {
    let mut text = HEAD.to_owned();
    for (section, about) in SECTIONS {
        let about = about.trim();
        if *section == DISCOVERY {
            discovery(&mut text, about);
            continue;
        }
        if *section == BACKENDS {
            let _ = write!(text, "# {about}\n{BACKEND}");
        } else {
            let _ = writeln!(text, "# {about}\n[{section}]");
        }
        for key in KEYS.iter().filter(|key| key.section == *section && key.has_default()) {
            let _ = writeln!(text, "# {} ({})", key.why(), key.takes());
            let _ = writeln!(text, "#{} = {}", key.name, key.default_in_toml());
        }
        text.push('\n');
    }
    text
}

/// All of it is commented out: there is no discovery unless an operator adds one.
fn discovery(text: &mut String, about: &str) {
    let _ = writeln!(text, "# {about}\n# [{DISCOVERY}.fleet]\n# dns = \"comfyui.example:8188\"");
    for key in KEYS.iter().filter(|key| key.section == DISCOVERY) {
        let _ = writeln!(text, "# # {} ({})", key.why(), key.takes());
        if key.has_default() {
            let _ = writeln!(text, "# {} = {}", key.name, key.default_in_toml());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, load};

    fn loaded(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }).unwrap()
    }

    #[test]
    fn it_is_in_order_and_changes_nothing() {
        let defaults = Config::for_backends(&[("comfyui", "http://127.0.0.1:8188")]).unwrap();
        assert_eq!(loaded(&template()), defaults);
        // Uncomments every key.
        let text = template();
        let taken = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key.to_owned(),
            Some(_) | None => line.to_owned(),
        };
        let all: Vec<String> = text.lines().map(taken).collect();
        assert_eq!(loaded(&all.join("\n")), defaults);
        for key in KEYS.iter().filter(|key| key.has_default() && key.section != DISCOVERY) {
            let line = format!("{} = {}", key.name, key.default_in_toml());
            assert!(all.contains(&line), "{line}");
        }
    }
}
