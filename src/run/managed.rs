//! What the service manager is told while the gateway runs: that it is alive, and a line about it.

use std::time::Duration;

use crate::net::service_manager::ServiceManager;
use crate::net::sleep;
use crate::shared::Shared;
use crate::tasks::Tasks;

/// How often the line is written anew, if it has changed.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The shortest pause between two messages, whatever the manager wants.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The pause before a message is repeated that could not be sent.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Tells the manager until `until` stops, also during the drain. While a task that the process
/// needs makes no progress, the manager is not told that the process is alive; then it restarts it.
pub(super) async fn keep_told(manager: ServiceManager, shared: &Shared, until: &Tasks) {
    if !manager.is_there() {
        return until.stopping().await;
    }
    let pause = pause(&manager);
    let mut told = shared.in_a_line();
    loop {
        if manager.silence_max().is_some() && shared.tasks.hearts().silent().is_empty() {
            manager.tell_alive();
        }
        // A line about the drain has been told, and stays.
        let line = if shared.is_leaving() { told.clone() } else { shared.in_a_line() };
        if line != told && manager.tell_line(&line) {
            told = line;
        }
        let pause = if manager.repeat() { pause } else { pause.min(AGAIN_AFTER) };
        tokio::select! {
            biased;
            () = until.stopping() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Half of the silence that the manager accepts, as sd_watchdog_enabled(3) recommends.
fn pause(manager: &ServiceManager) -> Duration {
    let half = manager.silence_max().map_or(LINE_EVERY, |silence| silence / 2);
    half.clamp(PAUSE_MIN, LINE_EVERY)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::journal::Journal;
    use crate::net::Tcp;
    use crate::tasks::heartbeat::LOOKS_MAX;

    /// The messages that wait at a socket.
    fn waiting(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 256];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => all.push(String::from_utf8(buffer[..length].to_vec()).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_counts_as_alive_while_its_tasks_make_progress() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        let env = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "2000000")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let manager = ServiceManager::of(&env, 1);
        let config = Config::for_backends(&[("a", "http://127.0.0.1:1")]).unwrap();
        let tasks = Tasks::default();
        let shared = Shared::new(config, Arc::new(Tcp), tasks.clone(), Journal::in_memory());
        let (watched, until) = (Arc::clone(&shared), Tasks::default());
        let stopped = until.clone();
        until.spawn(async move { keep_told(manager, &watched, &stopped).await });
        let heart = tasks.hearts().heart("one");
        let half = Duration::from_millis(500);
        sleep(half).await;
        assert_eq!(waiting(&socket), ["WATCHDOG=1\n"]);
        sleep(2 * half).await;
        assert_eq!(waiting(&socket), ["WATCHDOG=1\n"]);
        (0..LOOKS_MAX).for_each(|_| tasks.hearts().look());
        shared.metrics.reloaded(true, 0);
        sleep(4 * half).await;
        assert_eq!(waiting(&socket), ["STATUS=Not ready: 0 of 1 backends take new work.\n"]);
        heart.beat();
        sleep(2 * half).await;
        assert_eq!(waiting(&socket), ["WATCHDOG=1\n"]);
        // The drain is told by somebody else, and its line stays.
        shared.leave();
        shared.metrics.reloaded(false, 0);
        sleep(2 * half).await;
        assert_eq!(waiting(&socket), ["WATCHDOG=1\n"]);
        assert_eq!(until.drain(half).await, 0);
    }

    #[test]
    fn the_manager_is_told_at_half_of_the_silence_that_it_accepts() {
        let pause = |micros: &str| {
            let env = [("NOTIFY_SOCKET", "/run/notify"), ("WATCHDOG_USEC", micros)];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
            pause(&ServiceManager::of(&env, 1))
        };
        assert_eq!(pause("4000000"), Duration::from_secs(2));
        assert_eq!(pause("1"), PAUSE_MIN);
        // The line is not to be old.
        assert_eq!(pause("60000000"), LINE_EVERY);
        assert_eq!(pause("x"), LINE_EVERY);
    }
}
