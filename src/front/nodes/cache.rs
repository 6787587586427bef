//! The last answers of the backends about their nodes, parsed once and merged once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::comfy::file_inputs::Kind;
use crate::comfy::graph::Classes;
use crate::comfy::object_info::{NodeInfo, Union};
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
use crate::routing::ids::BackendId;

/// How long an answer of another backend is used, while nothing is uploaded there and its process
/// is the same. Models that are copied to the backend by hand appear after this time.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(30);

/// The last answers of the backends about their nodes.
#[derive(Debug, Default)]
pub struct NodeInfos {
    state: Lock<State, { rank::NODES }>,
    /// The same infos as in `state`, for submissions, which read them without a lock.
    classes: ArcSwap<Infos>,
    pub(super) arrived: Notify,
    /// A backend has refused a prompt because it lacks a part, so it is to be asked.
    pub(super) asked_anew: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<BackendId, Known>,
    unions: Vec<(Key, Arc<Union>)>,
}

/// The backends and bodies of a union, in order.
type Key = Vec<(BackendId, u64)>;

#[derive(Debug, Default)]
struct Known {
    /// The answer and its hash.
    info: Option<(Arc<NodeInfo>, u64)>,
    /// When it was asked for that, and how many files had been written there.
    said: Option<(Instant, u64)>,
    /// A request is running.
    is_asked: bool,
    /// How many prompts it has refused because it lacks a part.
    refused: u64,
}

/// A backend and its answer.
pub(super) type NodeAnswer = (BackendId, Arc<NodeInfo>, u64);

impl NodeInfos {
    #[cfg_attr(debug_assertions, track_caller)]
    fn state(&self) -> Guard<'_, State, { rank::NODES }> {
        self.state.lock()
    }

    /// The last answer of a backend, of any age, if nothing was uploaded there since and its
    /// process is the same. Another process may have other nodes.
    pub(super) fn unchanged(
        &self,
        backend: BackendId,
        writes: u64,
        restarted: Option<Instant>,
    ) -> Option<NodeAnswer> {
        self.state().known.get(&backend)?.if_unchanged(backend, writes, restarted)
    }

    /// The same, if the answer is recent.
    pub(super) fn fresh(
        &self,
        backend: BackendId,
        writes: u64,
        restarted: Option<Instant>,
    ) -> Option<NodeAnswer> {
        let state = self.state();
        let known = state.known.get(&backend)?;
        let is_fresh = known.said.is_some_and(|(at, _)| now().duration_since(at) < KNOWN_FOR);
        known.if_unchanged(backend, writes, restarted).filter(|_| is_fresh)
    }

    /// The last answer of a backend, of any age.
    pub(super) fn last(&self, backend: BackendId) -> Option<NodeAnswer> {
        self.state().known.get(&backend)?.said_by(backend)
    }

    /// What is known about the classes now.
    #[must_use]
    pub fn classes(&self) -> KnownClasses {
        KnownClasses(self.classes.load_full())
    }

    /// Forgets backends that have left the fleet.
    pub(super) fn keep(&self, is_there: impl Fn(BackendId) -> bool) {
        let mut state = self.state();
        let before = state.known.len();
        state.known.retain(|backend, _| is_there(*backend));
        if state.known.len() < before {
            self.classes.store(Arc::new(state.infos()));
        }
    }

    /// True while a request is running.
    pub(super) fn is_asked(&self, backend: BackendId) -> bool {
        self.state().known.get(&backend).is_some_and(|known| known.is_asked)
    }

    /// True if the caller must ask the backend now.
    pub(super) fn is_to_ask(&self, backend: BackendId) -> bool {
        let mut state = self.state();
        !std::mem::replace(&mut state.known.entry(backend).or_default().is_asked, true)
    }

    /// A backend has answered, or has failed to. `asked`: when it was asked, and how many files had
    /// been written there.
    pub(super) fn answered(
        &self,
        backend: BackendId,
        body: Option<Bytes>,
        asked: (Instant, u64),
    ) -> Option<NodeAnswer> {
        let said = body.and_then(|body| self.read(backend, body, asked));
        self.state().known.entry(backend).or_default().is_asked = false;
        self.arrived.notify_waiters();
        said
    }

    /// A backend has refused a prompt because it lacks a part of it.
    pub fn lacks(&self, backend: BackendId) {
        self.state().known.entry(backend).or_default().refused += 1;
        self.asked_anew.notify_one();
    }

    pub(super) fn refused_by(&self, backend: BackendId) -> u64 {
        self.state().known.get(&backend).map_or(0, |known| known.refused)
    }

    /// The last answer of each backend, but for those of processes that are gone, in the order of
    /// their slots.
    pub(super) fn current(&self, gone: impl Fn(BackendId) -> Option<Instant>) -> Infos {
        let all = {
            let state = self.state();
            let said = state.known.iter().filter_map(|(backend, known)| {
                Some((*backend, Arc::clone(&known.info.as_ref()?.0), known.said?.0))
            });
            said.collect::<Vec<_>>()
        };
        let is_current = |(backend, _, asked): &(BackendId, Arc<NodeInfo>, Instant)| {
            gone(*backend).is_none_or(|gone| gone < *asked)
        };
        let current = all.into_iter().filter(is_current);
        let mut infos: Infos = current.map(|(backend, info, _)| (backend, info)).collect();
        infos.sort_unstable_by_key(|(backend, _)| backend.slot());
        infos
    }

    /// Parses an answer, unless this backend or another has given the same before: equal answers
    /// share one copy.
    pub(super) fn read(
        &self,
        backend: BackendId,
        body: Bytes,
        asked: (Instant, u64),
    ) -> Option<NodeAnswer> {
        let hash = hash_of(&body);
        let same = {
            let state = self.state();
            let infos = state.known.values().filter_map(|known| known.info.as_ref());
            let mut same = infos.filter(|(_, known)| *known == hash);
            same.next().map(|(info, _)| Arc::clone(info))
        };
        let info = match same {
            Some(info) => info,
            None => Arc::new(NodeInfo::read(body)?),
        };
        let mut state = self.state();
        let known = state.known.entry(backend).or_default();
        known.info = Some((Arc::clone(&info), hash));
        known.said = Some(asked);
        self.classes.store(Arc::new(state.infos()));
        Some((backend, info, hash))
    }

    /// Merges several answers, once.
    pub(super) fn union(&self, said: &[NodeAnswer]) -> Arc<Union> {
        let key: Key = said.iter().map(|(backend, _, hash)| (*backend, *hash)).collect();
        let made = self.state().unions.iter().find(|(known, _)| *known == key).cloned();
        if let Some((_, union)) = made {
            return union;
        }
        let infos: Vec<&NodeInfo> = said.iter().map(|(_, info, _)| info.as_ref()).collect();
        let union = Arc::new(Union::of(&infos));
        let mut state = self.state();
        let State { known, unions } = &mut *state;
        // An answer that a backend does not give any more will not be needed again.
        let is_current = |(backend, hash): &(BackendId, u64)| {
            let info = known.get(backend).and_then(|known| known.info.as_ref());
            info.is_some_and(|(_, current)| current == hash)
        };
        unions.retain(|(key, _)| key.iter().all(is_current));
        unions.push((key, Arc::clone(&union)));
        union
    }
}

/// The last answer of each backend, in the order of their slots.
pub(super) type Infos = SmallVec<[(BackendId, Arc<NodeInfo>); 4]>;

/// The classes that the backends have reported.
#[derive(Debug)]
pub struct KnownClasses(Arc<Infos>);

impl KnownClasses {
    /// The latest information about an input of a node from any backend. `None` if there is none.
    #[must_use]
    pub fn kind(&self, class: &str, input: &str) -> Option<Kind> {
        self.0.iter().find_map(|(_, info)| info.kind(class, input))
    }
}

impl Classes for KnownClasses {
    /// The largest number of outputs in any answer: a newer server may have added one to the class.
    fn outputs(&self, class: &str) -> Option<usize> {
        self.0.iter().filter_map(|(_, info)| info.outputs(class)).max()
    }

    fn is_hidden(&self, class: &str, input: &str) -> bool {
        self.0.iter().any(|(_, info)| info.is_hidden(class, input))
    }
}

impl State {
    fn infos(&self) -> Infos {
        let infos = self.known.iter().filter_map(|(backend, known)| {
            let (info, _) = known.info.as_ref()?;
            Some((*backend, Arc::clone(info)))
        });
        let mut infos: Infos = infos.collect();
        infos.sort_unstable_by_key(|(backend, _)| backend.slot());
        infos
    }
}

impl Known {
    fn if_unchanged(
        &self,
        backend: BackendId,
        writes: u64,
        restarted: Option<Instant>,
    ) -> Option<NodeAnswer> {
        let (at, then) = self.said?;
        let is_same = then == writes && restarted.is_none_or(|restarted| restarted < at);
        self.said_by(backend).filter(|_| is_same)
    }

    fn said_by(&self, backend: BackendId) -> Option<NodeAnswer> {
        self.info.as_ref().map(|(info, hash)| (backend, Arc::clone(info), *hash))
    }
}

/// A hash of these bytes.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_share_one_copy() {
        let nodes = NodeInfos::default();
        let body = || Bytes::from(br#"{"A":{"input":{},"output":[]}}"#.to_vec());
        let [one, other] =
            [1, 2].map(|id| nodes.read(BackendId::nth(id), body(), (now(), 0)).unwrap().1);
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(nodes.classes.load().len(), 2);
    }

    #[test]
    fn an_old_answer_is_as_good_as_a_new_one_until_something_is_uploaded_there() {
        let nodes = NodeInfos::default();
        let backend = BackendId::nth(1);
        assert!(nodes.unchanged(backend, 0, None).is_none(), "it has said nothing");
        let body = Bytes::from_static(br#"{"A":{"input":{},"output":[]}}"#);
        assert!(nodes.read(backend, body, (now(), 3)).is_some());
        assert!(nodes.unchanged(backend, 3, None).is_some());
        assert!(nodes.unchanged(backend, 4, None).is_none(), "it may have another file");
        assert!(nodes.unchanged(backend, 3, Some(now())).is_none(), "it may have other nodes");
        assert!(nodes.fresh(backend, 3, None).is_some());
        assert!(nodes.fresh(backend, 4, None).is_none(), "it may have another file");
        assert!(nodes.fresh(backend, 3, Some(now())).is_none(), "it may have other nodes");
        assert!(nodes.last(backend).is_some());
        assert_eq!(nodes.current(|_| None).len(), 1);
        assert_eq!(nodes.current(|_| Some(now())).len(), 0, "another process may have other nodes");
    }
}
