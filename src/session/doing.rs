//! What the running prompts of a client do, for an operator who looks.
//!
//! It is read from the events that are kept for replay. So it costs nothing while nobody looks.

use std::time::Instant;

use super::{Client, State};
use crate::comfy::event;
use crate::comfy::progress::{self, Steps};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Pending, Phase};
use crate::ws::Frame;

/// A prompt that runs.
#[derive(Clone, Debug)]
pub struct Doing {
    pub prompt: PromptId,
    pub backend: BackendId,
    /// When it was first seen to run.
    pub started: Option<Instant>,
    /// The node that runs, as people call it. `None` if no event has told it.
    pub node: Option<String>,
    /// How far this node is, if it tells.
    pub steps: Option<Steps>,
}

/// The same, with an event that is read once the client's lock is released.
struct Seen {
    doing: Doing,
    /// The id of the node that runs.
    node: Option<String>,
    progress: Option<Frame>,
}

impl Client {
    /// The prompts of this client that run, and what they do.
    #[must_use]
    pub fn doing(&self) -> Vec<Doing> {
        let seen: Vec<Seen> = {
            let state = self.state();
            let pending = state.core.pending().iter();
            let runs = |pending: &Pending| match pending.phase {
                Phase::Running | Phase::Ending(_) => true,
                Phase::Waiting | Phase::Sending | Phase::Restored | Phase::Queued => false,
            };
            let running = pending.filter(|(_, pending)| runs(pending));
            running.filter_map(|(prompt, pending)| state.seen(prompt, pending)).collect()
        };
        seen.into_iter().map(Seen::read).collect()
    }
}

impl State {
    fn seen(&self, prompt: &PromptId, pending: &Pending) -> Option<Seen> {
        let executing = self.log.executing(prompt.as_str());
        let node = executing.and_then(|frame| event::executing_node(&frame.payload));
        let labels = self.remembered.get(prompt).map(|remembered| &remembered.labels);
        let called = |node: &String| {
            let label = labels.and_then(|labels| labels.get(node));
            label.map_or_else(|| format!("node {node}"), |label| label.for_people())
        };
        let doing = Doing {
            prompt: prompt.clone(),
            backend: pending.backend()?,
            started: pending.started(),
            node: node.as_ref().map(called),
            steps: None,
        };
        Some(Seen { doing, node, progress: self.log.progress(prompt.as_str()).cloned() })
    }
}

impl Seen {
    fn read(self) -> Doing {
        let Self { doing, node, progress } = self;
        let steps = progress.and_then(|frame| progress::read(&frame.payload));
        // The newest may be that of a node which has ended.
        let steps = steps.filter(|steps| node.as_ref() == Some(&steps.node));
        Doing { steps, ..doing }
    }
}
