//! What this process uses of the machine, as Linux tells it. Other systems do not. Also the name of
//! the machine.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// One look at the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OwnProcess {
    /// Time on all cores together.
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_descriptors: u64,
    /// `None` is no limit.
    pub most_descriptors: Option<u64>,
}

/// Looks at the process. `None` where there is no `/proc`.
#[must_use]
pub fn look() -> Option<OwnProcess> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(used.tv_nsec).unwrap_or_default();
    let told = OwnProcess {
        cpu: Duration::new(seconds, nanos),
        open_descriptors: open_descriptors()?,
        most_descriptors: getrlimit(Resource::Nofile).current,
        ..OwnProcess::default()
    };
    Some(with_status(told, &status))
}

/// The name of this machine, or of the container.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Linux 6.2 and later tell the number as the size of the folder. Older ones have to list them,
/// which takes milliseconds if there are tens of thousands.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match std::fs::metadata(FOLDER).ok()?.len() {
        // One of those that are listed is that of the look itself.
        0 => u64::try_from(std::fs::read_dir(FOLDER).ok()?.count().saturating_sub(1)).ok(),
        told => Some(told),
    }
}

/// Reads what proc(5) writes in `/proc/PID/status`: `VmRSS:    1234 kB`.
fn with_status(told: OwnProcess, status: &str) -> OwnProcess {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| number(name).unwrap_or_default().saturating_mul(1024);
    OwnProcess {
        resident_bytes: bytes("VmRSS"),
        virtual_bytes: bytes("VmSize"),
        threads: number("Threads").unwrap_or_default(),
        ..told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_that_linux_writes_is_read() {
        let status = "Name:\tmooring\nVmPeak:\t  9000 kB\nVmSize:\t    8000 kB\nVmRSS:\t     512 \
                      kB\nRssAnon:\t 100 kB\nThreads:\t7\n";
        let told = with_status(OwnProcess::default(), status);
        let sizes = (told.virtual_bytes, told.resident_bytes, told.threads);
        assert_eq!(sizes, (8_000 * 1024, 512 * 1024, 7));
        assert_eq!(with_status(told, "VmRSS: many\n").resident_bytes, 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let before = look().unwrap();
        let files: Vec<_> = (0..100).map(|_| tempfile::tempfile().unwrap()).collect();
        let after = look().unwrap();
        assert!(0 < after.resident_bytes && after.resident_bytes <= after.virtual_bytes);
        assert!(before.cpu <= after.cpu && Duration::ZERO < after.cpu);
        assert!(1 <= after.threads && 100 <= after.open_descriptors, "{after:?}");
        drop(files);
    }
}
