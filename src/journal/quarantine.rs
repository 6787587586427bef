//! Sets aside records on which the recovery panics. One such record must not keep all others from
//! coming back at every start.
//!
//! They stay in the journal unchanged, so that they can be examined.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::error;

use super::record::Saved;
use crate::tasks::said;

/// Runs `restore` without the records on which it panics, and returns its result and how many these
/// are. A journal is large and hardly ever has such a record, so the first attempt copies nothing.
///
/// # Panics
/// If `restore` panics, though it accepts each record by itself.
pub fn sift<T>(saved: Saved, restore: impl Fn(&Saved) -> T) -> (T, usize) {
    let attempt = |saved: &Saved| catch_unwind(AssertUnwindSafe(|| restore(saved)));
    if let Ok(restored) = attempt(&saved) {
        return (restored, 0);
    }
    let mut set_aside = 0;
    let mut is_good = |kind: &str, name: String, alone: Saved| {
        let Err(panic) = attempt(&alone) else { return true };
        set_aside += 1;
        error!(kind, name, panic = said(&*panic), "A record cannot be restored; it is set aside.");
        false
    };
    let Saved { mut clients, mut prompts, mut files, mut assets, mut states, .. } = saved;
    clients.retain(|it| {
        let alone = Saved { clients: vec![it.clone()], ..Saved::default() };
        is_good("client", crate::masked::mask(&it.0).to_string(), alone)
    });
    prompts.retain(|it| {
        let alone = Saved { prompts: vec![it.clone()], ..Saved::default() };
        is_good("prompt", it.0.to_string(), alone)
    });
    files.retain(|it| {
        let alone = Saved { files: vec![it.clone()], ..Saved::default() };
        is_good("file", it.0.to_text(), alone)
    });
    assets.retain(|it| {
        let alone = Saved { assets: vec![it.clone()], ..Saved::default() };
        is_good("asset", it.0.to_string(), alone)
    });
    states.retain(|it| {
        let alone = Saved { states: vec![it.clone()], ..Saved::default() };
        is_good("backend", it.0.to_string(), alone)
    });
    let (added, found, members, names) = (saved.added, saved.found, saved.members, saved.names);
    let (bodies, parts, home) = (saved.bodies, saved.parts, saved.home);
    let rest = Saved {
        clients,
        prompts,
        bodies,
        parts,
        files,
        assets,
        states,
        added,
        found,
        members,
        names,
        home,
    };
    (restore(&rest), set_aside)
}

#[cfg(test)]
mod tests {
    use super::super::record::{PromptRecord, Sent};
    use super::*;
    use crate::routing::ids::{ClientId, PromptId};

    fn prompt(name: &str) -> (PromptId, PromptRecord) {
        let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 1, order: 1 };
        let client = ClientId::parse("ada").unwrap();
        (PromptId::parse(name).unwrap(), PromptRecord::new(&client, sent, Vec::new()))
    }

    #[test]
    fn one_record_that_breaks_the_recovery_does_not_keep_the_others_away() {
        let saved = Saved { prompts: ["p", "bad", "q"].map(prompt).into(), ..Saved::default() };
        let restore = |saved: &Saved| {
            let names: Vec<String> = saved.prompts.iter().map(|it| it.0.to_string()).collect();
            assert!(!names.contains(&"bad".to_owned()), "as asked");
            names
        };
        assert_eq!(sift(saved, restore), (vec!["p".to_owned(), "q".to_owned()], 1));
    }
}
