//! What backends have, as they have said last, and what one prompt needs of it.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::comfy::needs::{Known, Lists, Needs};
use crate::comfy::object_info::NodeInfo;
use crate::routing::ids::BackendId;

/// Backends that lack something.
pub(super) type Lacking = SmallVec<[BackendId; 4]>;

/// The last `/object_info` of each backend.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) backends: Vec<(BackendId, Arc<NodeInfo>)>,
    pub(super) version: u64,
}

impl Lists for Catalogue {
    fn of(&self, class: &str, input: &str, value: &str) -> Known {
        let mut known = Known::Nothing;
        for info in self.copies() {
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
    /// Each answer once: backends with equal ones share it.
    fn copies(&self) -> impl Iterator<Item = &NodeInfo> {
        let is_first = |at: usize, info: &Arc<NodeInfo>| {
            self.backends.iter().take(at).all(|(_, other)| !Arc::ptr_eq(other, info))
        };
        let all = self.backends.iter().enumerate();
        all.filter(move |(at, (_, info))| is_first(*at, info)).map(|(_, (_, info))| info.as_ref())
    }

    fn lacking(&self, needs: &Needs) -> Lacking {
        let mut found: SmallVec<[(&Arc<NodeInfo>, bool); 4]> = SmallVec::new();
        let mut lacks = |info| match found.iter().find(|(known, _)| Arc::ptr_eq(known, info)) {
            Some((_, lacks)) => *lacks,
            None => {
                let lacks = needs.lacking(info).is_some();
                found.push((info, lacks));
                lacks
            }
        };
        let lacking = self.backends.iter().filter(|(_, info)| lacks(info));
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
        self.backends.iter().find(|(id, _)| *id == backend).map(|(_, info)| info.as_ref())
    }
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
        let (lacks, listed) = (catalogue.lacking(&needs), catalogue.listed(&needs));
        let (family, classes) = (needs.family(), needs.of_classes());
        Self { needs, family, classes, lacks, listed, version: catalogue.version }
    }
}
