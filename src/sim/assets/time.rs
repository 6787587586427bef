//! Times in microseconds since 1970, and in the form of Python's `isoformat`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::unix_millis;

/// The current time. No two calls in one process return the same, so that sorting by it is
/// definite.
pub(super) fn micros() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_millis() * 1000;
    let last =
        LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    last.map_or(now, |last| now.max(last + 1))
}

/// `2026-01-07T12:00:00.000123`, without a fraction if it is 0.
pub(super) fn iso(micros: u64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction == 0 { text } else { format!("{text}.{fraction:06}") }
}

/// Year, month and day of a day since 1970 (Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_pythons() {
        assert_eq!(iso(0), "1970-01-01T00:00:00");
        assert_eq!(iso(1_772_323_199_000_001), "2026-02-28T23:59:59.000001");
        assert_eq!(iso(1_709_164_800_000_000), "2024-02-29T00:00:00");
        let first = micros();
        assert!(first < micros());
    }
}
