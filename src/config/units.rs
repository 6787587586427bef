//! Parses and prints durations and sizes as people write them: `1m30s`, `500ms`, `64MiB`, `10 GiB`.
//!
//! Both directions are here, so that a printed value can be pasted back into a file. Binary and
//! decimal sizes differ as in the standards (`MiB` is 1,048,576 bytes and `MB` is 1,000,000); a
//! bare `K`, `M` or `G` means the binary one, as in the files of most servers.

use std::fmt;
use std::time::Duration;

/// Milliseconds of durations, and bytes of sizes.
pub(super) const MS: u64 = 1;
pub(super) const S: u64 = 1_000;
pub(super) const H: u64 = 3_600 * S;
pub(super) const DAY: u64 = 24 * H;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Milliseconds of each unit of a duration, the largest first, with its accepted names.
const DURATION_UNITS: &[(u64, &[&str])] = &[
    (86_400_000, &["d", "day", "days"]),
    (3_600_000, &["h", "hr", "hour", "hours"]),
    (60_000, &["m", "min", "mins", "minute", "minutes"]),
    (1_000, &["s", "sec", "secs", "second", "seconds"]),
    (1, &["ms", "msec", "millisecond", "milliseconds"]),
];

/// Bytes of each unit of a size, in lower case.
const SIZE_UNITS: &[(u64, &[&str])] = &[
    (1, &["", "b", "byte", "bytes"]),
    (1_000, &["kb"]),
    (1_000_000, &["mb"]),
    (1_000_000_000, &["gb"]),
    (1_000_000_000_000, &["tb"]),
    (1 << 10, &["kib", "k"]),
    (1 << 20, &["mib", "m"]),
    (1 << 30, &["gib", "g"]),
    (1 << 40, &["tib", "t"]),
];

/// The most digits after a decimal point; more are refused rather than rounded.
const DECIMALS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadUnit {
    #[error("not a number with a unit")]
    Malformed,
    #[error("the unit is missing")]
    NoUnit,
    #[error("unknown unit")]
    UnknownUnit,
    #[error("units go from large to small, each once")]
    Order,
    #[error("more than {DECIMALS_MAX} decimals, or a fraction of the smallest unit")]
    TooFine,
    #[error("too large")]
    TooLarge,
}

/// All names of units of a duration.
pub(super) fn duration_units() -> Vec<&'static str> {
    DURATION_UNITS.iter().flat_map(|(_, names)| names.iter().copied()).collect()
}

/// Parses a duration: numbers with units, from large to small, each unit once.
///
/// # Errors
/// What is wrong with the text. A number without a unit is refused, including zero.
pub fn duration(text: &str) -> Result<Duration, BadUnit> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    let mut last_unit = u64::MAX;
    if rest.is_empty() {
        return Err(BadUnit::Malformed);
    }
    while !rest.is_empty() {
        let (number, unit, after) = split(rest)?;
        if unit.is_empty() {
            return Err(BadUnit::NoUnit);
        }
        let factor = factor(DURATION_UNITS, unit).ok_or(BadUnit::UnknownUnit)?;
        if last_unit <= factor {
            return Err(BadUnit::Order);
        }
        last_unit = factor;
        millis = millis.checked_add(times(number, factor)?).ok_or(BadUnit::TooLarge)?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// Parses a size in bytes; a number without a unit means bytes.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn size(text: &str) -> Result<u64, BadUnit> {
    let (number, unit, after) = split(text.trim())?;
    if !after.is_empty() {
        return Err(BadUnit::Malformed);
    }
    let factor = factor(SIZE_UNITS, &unit.to_ascii_lowercase()).ok_or(BadUnit::UnknownUnit)?;
    times(number, factor)
}

/// Splits `1.5 h 30m` into `1.5`, `h` and `30m`.
fn split(text: &str) -> Result<(&str, &str, &str), BadUnit> {
    let unit_at = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(unit_at);
    let rest = rest.trim_start();
    let after_at = rest.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(after_at);
    if number.is_empty() || (unit.is_empty() && !after.is_empty()) {
        return Err(BadUnit::Malformed);
    }
    Ok((number, unit, after.trim_start()))
}

fn factor(units: &[(u64, &[&str])], name: &str) -> Option<u64> {
    units.iter().find(|(_, names)| names.contains(&name)).map(|(factor, _)| *factor)
}

/// Multiplies a decimal such as `1.5` by `factor`, without floating-point rounding.
fn times(number: &str, factor: u64) -> Result<u64, BadUnit> {
    let (whole, decimals) = match number.split_once('.') {
        Some((_, "")) | Some(("", _)) => return Err(BadUnit::Malformed),
        Some((whole, decimals)) => (whole, decimals),
        None => (number, ""),
    };
    if DECIMALS_MAX < decimals.len() {
        return Err(BadUnit::TooFine);
    }
    let scale = decimals.bytes().fold(1_u128, |scale, _| scale * 10);
    let digits = format!("{whole}{decimals}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadUnit::Malformed);
    }
    let product = digits
        .parse::<u64>()
        .map(|it| u128::from(it) * u128::from(factor))
        .map_err(|_too_many_digits| BadUnit::TooLarge)?;
    if !product.is_multiple_of(scale) {
        return Err(BadUnit::TooFine);
    }
    u64::try_from(product / scale).map_err(|_too_large| BadUnit::TooLarge)
}

/// Prints a duration as people write it: `1m30s`.
#[derive(Clone, Copy, Debug)]
pub struct ShowDuration(pub Duration);

impl fmt::Display for ShowDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (factor, names) in DURATION_UNITS {
            let count = left / factor;
            left %= factor;
            if 0 < count {
                write!(f, "{count}{}", names[0])?;
            }
        }
        Ok(())
    }
}

/// Prints a size as people write it: `64MiB`, or in bytes if no binary unit fits exactly.
#[derive(Clone, Copy, Debug)]
pub struct ShowSize(pub u64);

impl fmt::Display for ShowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if 0 < self.0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Result<u64, BadUnit>) {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        check_duration("30s", Ok(30_000));
        check_duration("1m30s", Ok(90_000));
        check_duration(" 1 h 30 min ", Ok(5_400_000));
        check_duration("500ms", Ok(500));
        check_duration("7d", Ok(604_800_000));
        check_duration("1.5s", Ok(1_500));
        check_duration("0s", Ok(0));
    }

    #[test]
    fn a_duration_that_could_mean_two_things_is_refused() {
        check_duration("", Err(BadUnit::Malformed));
        check_duration("s", Err(BadUnit::Malformed));
        check_duration("-1s", Err(BadUnit::Malformed));
        check_duration("1.s", Err(BadUnit::Malformed));
        check_duration("1.2.3s", Err(BadUnit::Malformed));
        check_duration("30", Err(BadUnit::NoUnit));
        check_duration("1m30", Err(BadUnit::NoUnit));
        check_duration("3 weeks", Err(BadUnit::UnknownUnit));
        check_duration("30s1m", Err(BadUnit::Order));
        check_duration("1s1s", Err(BadUnit::Order));
        check_duration("0.5ms", Err(BadUnit::TooFine));
        check_duration("99999999999999999999s", Err(BadUnit::TooLarge));
        check_duration("999999999999999d", Err(BadUnit::TooLarge));
    }

    #[track_caller]
    fn check_size(text: &str, expected: Result<u64, BadUnit>) {
        assert_eq!(size(text), expected, "{text}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        check_size("1048576", Ok(1 << 20));
        check_size("64MiB", Ok(64 << 20));
        check_size("10 GiB", Ok(10 << 30));
        check_size("64M", Ok(64 << 20));
        check_size("64MB", Ok(64_000_000));
        check_size("1.5KiB", Ok(1_536));
        check_size("0", Ok(0));
    }

    #[test]
    fn a_size_that_is_none_is_refused() {
        check_size("", Err(BadUnit::Malformed));
        check_size("-1", Err(BadUnit::Malformed));
        check_size("MiB", Err(BadUnit::Malformed));
        check_size("1MiB 2KiB", Err(BadUnit::Malformed));
        check_size("1 x", Err(BadUnit::UnknownUnit));
        check_size("0.5", Err(BadUnit::TooFine));
        check_size("99999999999TiB", Err(BadUnit::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_back(millis in 0..=u64::MAX / 2, bytes: u64) {
            let shown = Duration::from_millis(millis);
            prop_assert_eq!(duration(&ShowDuration(shown).to_string()), Ok(shown));
            prop_assert_eq!(size(&ShowSize(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn no_text_is_a_panic(text: String) {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
