//! What backends have, as they have said last, and what one prompt needs of it.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::comfy::needs::{Known, Lists, Needs};
use crate::comfy::object_info::NodeInfo;
use crate::routing::ids::BackendId;

/// Backends that lack something, in the order of their slots.
pub(super) type Lacking = SmallVec<[BackendId; 4]>;

/// The last `/object_info` of each backend.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// In the order of their slots, each with the place of its answer.
    backends: Vec<(BackendId, usize)>,
    /// Each answer once: backends with equal ones share it.
    answers: Vec<Arc<NodeInfo>>,
    pub(super) version: u64,
}

impl Lists for Catalogue {
    fn of(&self, class: &str, input: &str, value: &str) -> Known {
        let mut known = Known::Nothing;
        for info in &self.answers {
            match Known::by(info.has(class, input, value)) {
                Known::Listed => return Known::Listed,
                Known::Upload => known = Known::Upload,
                Known::Nothing => {}
            }
        }
        known
    }
}

impl Catalogue {
    pub(super) fn new(said: Vec<(BackendId, Arc<NodeInfo>)>, version: u64) -> Self {
        let mut places: HashMap<*const NodeInfo, usize> = HashMap::new();
        let mut answers = Vec::new();
        let mut backends = Vec::with_capacity(said.len());
        for (backend, info) in said {
            let place = *places.entry(Arc::as_ptr(&info)).or_insert_with(|| {
                answers.push(info);
                answers.len() - 1
            });
            backends.push((backend, place));
        }
        backends.sort_unstable_by_key(|(backend, _)| backend.slot());
        Self { backends, answers, version }
    }

    pub(super) fn backends(&self) -> impl ExactSizeIterator<Item = BackendId> + '_ {
        self.backends.iter().map(|(backend, _)| *backend)
    }

    fn lacking(&self, needs: &Needs) -> Lacking {
        let lacks: SmallVec<[bool; 8]> =
            self.answers.iter().map(|info| needs.lacking(info).is_some()).collect();
        let lacks = |place: usize| lacks.get(place).is_some_and(|lacks| *lacks);
        let lacking = self.backends.iter().filter(|(_, place)| lacks(*place));
        lacking.map(|(backend, _)| *backend).collect()
    }

    fn listed(&self, needs: &Needs) -> SmallVec<[Box<str>; 2]> {
        let is_listed = |name: &str| {
            let mut choices = needs.choices.iter().filter(|it| *it.value == *name);
            choices.any(|it| self.of(&it.class, &it.input, &it.value) == Known::Listed)
        };
        needs.models.iter().filter(|name| is_listed(name)).cloned().collect()
    }

    pub(super) fn get(&self, backend: BackendId) -> Option<&NodeInfo> {
        let (_, place) = self.backends.iter().find(|(id, _)| *id == backend)?;
        self.answers.get(*place).map(AsRef::as_ref)
    }
}

/// True if the backend is among those that lack something.
pub(super) fn is_among(lacking: &[BackendId], backend: BackendId) -> bool {
    let place = lacking.binary_search_by_key(&backend.slot(), |it| it.slot());
    place.is_ok_and(|place| lacking[place] == backend)
}

/// What one prompt needs, and who lacks something of it.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    pub(super) needs: Arc<Needs>,
    pub(super) family: u64,
    pub(super) classes: u64,
    pub(super) lacks: Lacking,
    /// Which of its models stand in a backend's list.
    pub(super) listed: SmallVec<[Box<str>; 2]>,
    /// Of the catalogue that says so.
    pub(super) version: u64,
}

impl Wants {
    pub(super) fn of(needs: Arc<Needs>, catalogue: &Catalogue) -> Self {
        let (family, classes) = (needs.family(), needs.of_classes());
        Self { needs, family, classes, ..Self::default() }.by(catalogue)
    }

    /// The same, by what backends have now.
    pub(super) fn by(self, catalogue: &Catalogue) -> Self {
        let (lacks, listed) = (catalogue.lacking(&self.needs), catalogue.listed(&self.needs));
        Self { lacks, listed, version: catalogue.version, ..self }
    }
}
