//! Watches the certificates of the listeners. New connections get the changed ones, whatever
//! program has renewed them.
//!
//! They are read without the rest of the configuration, because a change of the rest may not be
//! meant to apply yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Reloads;
use super::watch::{Known, prints};
use crate::config::{Config, ListenerTls};
use crate::front::Front;
use crate::net::tls::dates;
use crate::net::{now, sleep, unix_millis};

/// How often the files are checked. A changed file is read when it has stayed the same for this
/// long.
const INTERVAL: Duration = Duration::from_secs(1);

/// After this many checks, files that could not be read are tried again: the reason may disappear
/// without a change of the files.
const LOOKS_BEFORE_RETRY: u32 = 60;

/// A certificate that expires within this many seconds is reported, and again each day.
const ENDS_SOON: i64 = 14 * 86_400;
const TOLD_EVERY: Duration = Duration::from_secs(86_400);

/// Follows the files for as long as the process runs.
pub async fn watch(front: Arc<Front>, reloads: Reloads) {
    // The files are read once more at the start. Otherwise a change since they were loaded is
    // missed.
    let mut follower = Follower::default();
    let mut told = None;
    loop {
        tell_what_ends(&front.shared.config(), &mut told);
        sleep(INTERVAL).await;
        let files = files(&front.shared.config());
        if files.is_empty() {
            follower = Follower::default();
            continue;
        }
        let Ok(seen) = tokio::task::spawn_blocking(move || prints(&files)).await else { continue };
        if follower.is_to_read(seen) {
            // The result is in the log.
            follower.has_read(reloads.certificates().await.is_ok());
        }
    }
}

fn files(config: &Config) -> Vec<PathBuf> {
    config.server_tls.files().chain(config.admin_tls.files()).collect()
}

/// What is known of the files.
#[derive(Debug, Default)]
struct Follower {
    known: Known,
    /// How many checks ago reading failed.
    failed: Option<u32>,
}

impl Follower {
    fn is_to_read(&mut self, seen: super::watch::Prints) -> bool {
        if let Some(looks) = &mut self.failed {
            *looks += 1;
            if LOOKS_BEFORE_RETRY <= *looks {
                self.failed = None;
                self.known.forget_read();
            }
        }
        self.known.is_to_read(seen)
    }

    fn has_read(&mut self, is_good: bool) {
        self.failed = (!is_good).then_some(0);
    }
}

/// Warns of certificates that expire soon, once a day. `told` is the time of the last warning.
fn tell_what_ends(config: &Config, told: &mut Option<(Instant, i64)>) {
    let ends = |tls: &ListenerTls| Some(tls.server()?.not_after().chain);
    let ends = [("server.tls", &config.server_tls), ("admin.tls", &config.admin_tls)]
        .into_iter()
        .filter_map(|(listener, tls)| Some((listener, ends(tls)?)));
    let seconds = i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX);
    let Some((listener, first)) = ends.min_by_key(|(_, at)| *at) else { return };
    let is_told =
        told.is_some_and(|(at, what)| what == first && now().duration_since(at) < TOLD_EVERY);
    if is_told || ENDS_SOON < first.saturating_sub(seconds) {
        return;
    }
    *told = Some((now(), first));
    let not_after = dates::shown(first);
    if first < seconds {
        warn!(listener, not_after, "A certificate has expired: browsers refuse the listener.");
    } else {
        warn!(listener, not_after, "A certificate ends soon.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::watch::Prints;

    fn at(state: i64) -> Prints {
        vec![(PathBuf::from("gw.crt"), Some([state; 7]))]
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_after_a_while_and_after_each_change() {
        let mut follower = Follower::default();
        let mut looks = |state: i64, count: usize| -> Vec<usize> {
            let look = |index: usize| follower.is_to_read(at(state)).then_some(index);
            let read: Vec<usize> = (0..count).filter_map(look).collect();
            read.iter().for_each(|_| follower.has_read(false));
            read
        };
        assert_eq!(looks(1, 3), [1]);
        assert_eq!(looks(1, 60), [59], "a minute later");
        assert_eq!(looks(2, 2), [1]);
    }
}
