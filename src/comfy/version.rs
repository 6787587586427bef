//! Versions of ComfyUI, and the features that each introduced.

use std::fmt;

/// The version that a server reports. Forks have their own schemes; an unreadable version counts as
/// new.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    text: String,
    numbers: Option<[u32; 3]>,
}

impl Version {
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { text: text.chars().take(64).collect(), numbers: numbers(text) }
    }

    /// 0.3.45: accepts a client's prompt id, has feature flags and `progress_state`.
    #[must_use]
    pub fn takes_prompt_id(&self) -> bool {
        self.is_at_least([0, 3, 45])
    }

    /// 0.3.57: an interrupt may name its prompt; older servers interrupt whatever runs.
    #[must_use]
    pub fn interrupts_by_id(&self) -> bool {
        self.is_at_least([0, 3, 57])
    }

    /// 0.6.0: prompts can be asked about at `/api/jobs` and `/api/jobs/{id}`.
    #[must_use]
    pub fn has_jobs(&self) -> bool {
        self.is_at_least([0, 6, 0])
    }

    /// About 0.26: has the routes that cancel jobs, and calls an interrupted prompt cancelled.
    #[must_use]
    pub fn cancels_jobs(&self) -> bool {
        self.is_at_least([0, 26, 0])
    }

    fn is_at_least(&self, least: [u32; 3]) -> bool {
        self.numbers.is_none_or(|numbers| least <= numbers)
    }
}

fn numbers(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.trim().trim_start_matches('v').split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let major = parts.next()??;
    let minor = parts.next().flatten().unwrap_or(0);
    let patch = parts.next().flatten().unwrap_or(0);
    Some([major, minor, patch])
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_odd_ones_count_as_new() {
        assert!(!Version::parse("0.3.44").takes_prompt_id());
        assert!(Version::parse("0.3.45").takes_prompt_id());
        assert!(Version::parse("v0.10.0-dev").interrupts_by_id());
        assert!(!Version::parse("0.3.56").interrupts_by_id());
        assert!(Version::parse("nightly").interrupts_by_id());
        assert!(!Version::parse("0.3").takes_prompt_id());
        assert!(Version::parse("0.6.0").has_jobs() && !Version::parse("0.5.1").has_jobs());
        let (old, new) = (Version::parse("0.8.0"), Version::parse("0.26.0"));
        assert!(!old.cancels_jobs() && new.cancels_jobs());
    }
}
