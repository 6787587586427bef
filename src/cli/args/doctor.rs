//! The flags of `mooring doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config;
use crate::config::url::{self, ServerUrl};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring doctor https://comfy.example.com\n  mooring doctor \
                  https://example.com/comfy --idle 0s --json\n\nRun it where a browser would be. \
                  It sends what a browser sends, and submits no prompt. Exits with 1 if \
                  something is wrong; each such line is followed by its fix.")]
pub struct DoctorArgs {
    /// The address that people open in their browsers
    #[arg(value_name = "URL", value_parser = page_url)]
    pub url: PageUrl,
    /// How long a socket is left silent, up to 5m; 0s leaves this out
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = idle)]
    pub idle: Duration,
    /// For https: a file with certificates of authorities; default: the public authorities
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where the page is: a server, and the path of its folder without a slash at the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageUrl {
    pub server: ServerUrl,
    pub folder: String,
}

/// Longer than any pause between pings that makes sense.
const IDLE_MAX: Duration = Duration::from_secs(300);

fn idle(text: &str) -> Result<Duration, String> {
    let idle = config::duration(text).ok().filter(|idle| *idle <= IDLE_MAX);
    idle.ok_or_else(|| "expected a duration from 0s to 5m, such as 25s".to_owned())
}

fn page_url(text: &str) -> Result<PageUrl, String> {
    let begins = text.find("://").map_or(0, |at| at + "://".len());
    let path_at = text[begins..].find(['/', '?', '#']).map_or(text.len(), |at| begins + at);
    let (server, path) = text.split_at(path_at);
    let server = url::backend(server).map_err(|bad| bad.to_string())?;
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/-._~%".contains(it);
    if !path.chars().all(is_plain) {
        return Err("after the address there can only be a plain path".to_owned());
    }
    Ok(PageUrl { server, folder: path.trim_end_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_page_has_a_server_and_a_folder() {
        let parsed = |text: &str| page_url(text).map(|it| (it.server.to_string(), it.folder));
        let folder = |text: &str| parsed(text).unwrap().1;
        assert_eq!(parsed("http://gw").unwrap().0, "http://gw:80");
        assert_eq!(folder("http://gw:8180/"), "");
        assert_eq!(parsed("https://[::1]/comfy/").unwrap().0, "https://[::1]:443");
        assert_eq!(folder("https://gw/comfy/ui"), "/comfy/ui");
        for bad in ["gw:8180", "ftp://gw", "http://gw/?a=1", "http://gw/a b", "http://u:p@gw/"] {
            assert!(page_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_silence_without_an_end_is_refused() {
        assert_eq!(idle("0s"), Ok(Duration::ZERO));
        assert!(idle("6m").unwrap_err().contains("from 0s to 5m"));
        assert!(idle("soon").is_err());
    }
}
