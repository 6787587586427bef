//! Proves that a process of this machine has ended, so that its successor need not wait until its
//! lease is over.
//!
//! A process is named by the boot of its machine, its namespaces of processes and of time, its id,
//! and when it began. Without one of them nothing is proved.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Names this process. `None` where the system does not say it.
#[must_use]
pub(super) fn own() -> Option<String> {
    let id = std::process::id();
    let Seen::Runs(began) = look(id) else { return None };
    Some(format!("{} {} {id} {began}", boot()?, namespace()?))
}

/// True if the process that gave this name has certainly ended.
#[must_use]
pub(super) fn has_ended(named: &str) -> bool {
    let (Some(boot), Some(namespace)) = (boot(), namespace()) else { return false };
    has_ended_here(named, (&boot, &namespace), look)
}

/// What the system says of a process id.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    /// No process has it, or nobody has asked for the exit code of the one that had it.
    Ended,
    /// A process that began then.
    Runs(String),
    /// A process that we may not look at.
    Hidden,
}

/// The number of a namespace is used again only when all of its processes have ended. So in a
/// namespace of the same number, whoever is not there has ended.
fn has_ended_here(named: &str, here: (&str, &str), look: impl Fn(u32) -> Seen) -> bool {
    let parts: Vec<&str> = named.split(' ').collect();
    let [boot, namespace, id, since] = parts[..] else { return false };
    let Ok(id) = id.parse() else { return false };
    (boot, namespace) == here
        && match look(id) {
            Seen::Ended => true,
            Seen::Runs(began) => began != since,
            Seen::Hidden => false,
        }
}

fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|it| !it.is_empty() && !it.contains(' '))
}

/// That of processes, and that of time, which says when a process began (time_namespaces(7)).
/// Before Linux 5.6 there is none of time.
fn namespace() -> Option<String> {
    let link = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        Some(link.to_str()?.to_owned()).filter(|it| !it.contains(' '))
    };
    Some(format!("{},{}", link("pid")?, link("time").unwrap_or_default()))
}

/// Looks at a process. The state and the time when it began, in ticks since the boot, are fields 3
/// and 22 of proc_pid_stat(5). `/proc` can be mounted so that it hides the processes of others, so
/// the signal 0 decides whether there is one (kill(2)).
fn look(id: u32) -> Seen {
    let Some(stat) = fs::read_to_string(format!("/proc/{id}/stat")).ok() else {
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        let is_none = id.is_some_and(|id| test_kill_process(id) == Err(Errno::SRCH));
        return if is_none { Seen::Ended } else { Seen::Hidden };
    };
    // The name of the program is in parentheses, and may have any character.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    match (fields.next(), fields.nth(18)) {
        (Some("Z" | "X"), _) => Seen::Ended,
        (Some(_), Some(began)) => Seen::Runs(began.to_owned()),
        (_, None) | (None, _) => Seen::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn who_runs_has_not_ended_and_who_has_ended_is_known() {
        let own = own().unwrap();
        assert!(!has_ended(&own));
        let (rest, _began) = own.rsplit_once(' ').unwrap();
        assert!(has_ended(&format!("{rest} 1")), "another process has this id now");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let Seen::Runs(began) = look(child.id()) else { panic!("it runs") };
        let (boot, namespace) = (boot().unwrap(), namespace().unwrap());
        let of_child = format!("{boot} {namespace} {} {began}", child.id());
        assert!(!has_ended(&of_child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&of_child));
    }

    #[test]
    fn of_another_machine_or_namespace_nothing_is_known() {
        let here = ("b", "pid:[1]");
        let ended = |named| has_ended_here(named, here, |_| Seen::Ended);
        assert!(ended("b pid:[1] 7 5"));
        assert!(!has_ended_here("b pid:[1] 7 5", here, |_| Seen::Hidden));
        for other in ["c pid:[1] 7 5", "b pid:[2] 7 5", "b pid:[1] 7", "b pid:[1] x 5", ""] {
            assert!(!ended(other), "{other}");
        }
    }
}
