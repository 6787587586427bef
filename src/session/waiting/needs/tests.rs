//! Tests of where prompts may go, by what backends are known to have.

use bytes::Bytes;

use super::super::setbacks::tests::one_at_a_time;
use super::*;
use crate::journal::record::Kept;
use crate::routing::ids::ClientId;
use crate::routing::placement::tests::fleet;

/// What a backend says that has these files.
fn lists(files: &[&str]) -> Arc<NodeInfo> {
    let info =
        serde_json::json!({ "L": { "input": { "required": { "f": [files] } }, "output": [] } });
    Arc::new(NodeInfo::read(Bytes::from(info.to_string())).unwrap())
}

fn ids(slots: &[u16]) -> Vec<BackendId> {
    slots.iter().map(|slot| BackendId::nth(*slot)).collect()
}

/// A prompt that needs `x.ckpt`.
fn enters(waiting: &Waiting) -> PromptId {
    let body =
        Bytes::from_static(br#"{"prompt": {"1": {"class_type": "L", "inputs": {"f": "x.ckpt"}}}}"#);
    let wants = waiting.wants(&body);
    let (askers, sharer, payer) = (Vec::new(), None, None);
    let kept = Kept { body, usage_source: None, askers, sharer, payer, number: 1.0 };
    let (prompt, client) = (PromptId::parse("p").unwrap(), ClientId::parse("ada").unwrap());
    waiting.enter(&prompt, &client, (kept, Arc::default(), wants), None).unwrap();
    waiting.entered(&prompt);
    prompt
}

/// Where it goes that waits.
fn goes_to(waiting: &Waiting, views: &str, may_run: &[u16]) -> Vec<BackendId> {
    let due = waiting.due(&fleet(views), &ids(may_run)).hand_over.into_iter();
    due.map(|due| due.backend).collect()
}

fn is_refused(waiting: &Waiting, prompt: &PromptId, slot: u16) {
    waiting.refuses(prompt, BackendId::nth(slot), "it lacks a file".into());
    waiting.again(prompt);
}

#[tokio::test]
async fn one_that_lacks_a_part_is_asked_once_all_others_have_refused_or_are_gone() {
    let waiting = one_at_a_time();
    let known = [(0, lists(&["x.ckpt"])), (1, lists(&["y.ckpt"])), (2, lists(&["x.ckpt"]))];
    waiting.knows(known.map(|(slot, info)| (BackendId::nth(slot), info)).to_vec()).await;
    let prompt = enters(&waiting);
    assert_eq!(goes_to(&waiting, "Ru0 Ru0 Rd0", &[0, 1, 2]), ids(&[0]));
    is_refused(&waiting, &prompt, 0);
    assert_eq!(goes_to(&waiting, "Ru0 Ru0 Rd0", &[0, 1, 2]), [], "the third has it, and may come");
    assert_eq!(waiting.lacking(&prompt)[..], ids(&[1]));
    assert_eq!(goes_to(&waiting, "Ru0 Ru0 Rd0", &[0, 1]), ids(&[1]), "it does not come any more");
}

#[tokio::test]
async fn one_that_turns_out_to_lack_a_part_is_asked_all_the_same_if_the_other_has_refused() {
    let waiting = one_at_a_time();
    let [has, lacks] = [lists(&["x.ckpt"]), lists(&["y.ckpt"])];
    waiting.knows(vec![(BackendId::nth(0), Arc::clone(&has))]).await;
    let prompt = enters(&waiting);
    assert_eq!(goes_to(&waiting, "Ru0 Rd0", &[0, 1]), ids(&[0]));
    is_refused(&waiting, &prompt, 0);
    waiting.knows(vec![(BackendId::nth(0), has), (BackendId::nth(1), lacks)]).await;
    assert_eq!(goes_to(&waiting, "Ru0 Ru0", &[0, 1]), ids(&[1]));
}

#[tokio::test]
async fn while_nobody_is_known_to_have_it_all_are_asked() {
    let waiting = one_at_a_time();
    waiting.knows(vec![(BackendId::nth(0), lists(&["y.ckpt"]))]).await;
    let prompt = enters(&waiting);
    assert_eq!(goes_to(&waiting, "Rd0 Rd0", &[0, 1]), []);
    assert_eq!(waiting.lacking(&prompt)[..], []);
    waiting
        .knows(vec![
            (BackendId::nth(0), lists(&["y.ckpt"])),
            (BackendId::nth(1), lists(&["x.ckpt"])),
        ])
        .await;
    assert_eq!(waiting.lacking(&prompt)[..], ids(&[0]));
    assert_eq!(goes_to(&waiting, "Ru0 Rd0", &[0, 1]), [], "the other has it");
    waiting.knows(Vec::new()).await;
    assert_eq!(goes_to(&waiting, "Ru0 Rd0", &[0, 1]), ids(&[0]));
}
