//! The simulated versions, and how they differ.
//!
//! Three were examined and recorded: 0.3.64, 0.8.0 and 0.33.0. If it is not known in which version
//! between two of them a feature appeared, it appears in the later one.

use crate::comfy::version::Version;

/// The default version.
pub const VERSION: &str = "0.33.0";

/// A version of ComfyUI, with its features.
#[derive(Clone, Debug)]
pub(super) struct Release(Version);

impl Release {
    pub(super) fn parse(text: &str) -> Self {
        Self(Version::parse(text))
    }

    /// 0.3.57: an interrupt may name its prompt.
    pub(super) fn interrupts_by_id(&self) -> bool {
        self.0.interrupts_by_id()
    }

    /// 0.6.0: `/api/jobs`.
    pub(super) fn has_jobs(&self) -> bool {
        self.0.has_jobs()
    }

    /// Versions before jobs did not record when a prompt was made, kept secrets in the queue, and
    /// reported fewer features.
    pub(super) fn notes_times(&self) -> bool {
        self.0.has_jobs()
    }

    /// About 0.26: jobs can be cancelled, and "cancelled" is a status.
    pub(super) fn cancels_jobs(&self) -> bool {
        self.0.cancels_jobs()
    }

    /// What is in 0.33.0 but not in 0.8.0: canonical prompt ids, node replacements, folders in
    /// names of listed files, `no-store` for scripts, the rule against other sites.
    pub(super) fn is_of_2026(&self) -> bool {
        self.0.cancels_jobs()
    }
}

/// Completes a version: `0.33` becomes `0.33.0`.
///
/// # Errors
/// It is not two or three numbers separated by dots.
pub fn full_version(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.strip_prefix('v').unwrap_or(text).split('.').collect();
    if !(2..=3).contains(&parts.len()) || parts.iter().any(|part| part.parse::<u32>().is_err()) {
        return Err("a version is two or three numbers, such as 0.33, 0.8.0 or 0.3.64".to_owned());
    }
    let patch = parts.get(2).copied().unwrap_or("0");
    Ok(format!("{}.{}.{patch}", parts[0], parts[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_for_in_short_or_in_full() {
        assert_eq!(full_version("0.33").as_deref(), Ok("0.33.0"));
        assert_eq!(full_version("v0.8.0").as_deref(), Ok("0.8.0"));
        assert_eq!(full_version("0.3.64").as_deref(), Ok("0.3.64"));
        for wrong in ["", "0", "new", "0.33.x", "0.3.6.4", "-1.2"] {
            assert!(full_version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_version_has_what_it_had() {
        let (old, middle, new) =
            (Release::parse("0.3.64"), Release::parse("0.8.0"), Release::parse(VERSION));
        assert!(old.interrupts_by_id() && !old.has_jobs() && !old.cancels_jobs());
        assert!(middle.has_jobs() && !middle.cancels_jobs() && !middle.is_of_2026());
        assert!(new.has_jobs() && new.cancels_jobs() && new.is_of_2026());
    }
}
