//! The current and the former backends of the fleet: one value that is read without a lock and
//! replaced as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backend::Backend;
use crate::routing::ids::BackendId;

/// How many backends that left are remembered, so that records of their work can name them.
pub(super) const LEFT_MAX: usize = 1_000;

/// The backends at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    /// By slot; includes those that left, until their slot is reused.
    slots: Vec<Arc<Backend>>,
    /// The backends in the fleet, by name.
    members: Vec<Arc<Backend>>,
    /// Those that left; the one that left first comes first.
    left: Vec<BackendId>,
}

impl Roster {
    pub(super) fn members(&self) -> &[Arc<Backend>] {
        &self.members
    }

    /// Those that left and are remembered.
    pub(super) fn left(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.left.iter().filter_map(|id| self.get(*id))
    }

    /// The backend of that id; `None` if it left so long ago that nothing is known of it any more.
    pub(super) fn get(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.slots.get(usize::from(id.slot())).filter(|it| it.id == id)
    }

    /// The id for a backend that joins. The members and the remembered ones never use up all slot
    /// numbers.
    pub(super) fn free_id(&self) -> BackendId {
        match self.left.first().filter(|_| LEFT_MAX <= self.left.len()) {
            Some(longest_gone) => longest_gone.next(),
            None => BackendId::nth(u16::try_from(self.slots.len()).unwrap_or(u16::MAX)),
        }
    }

    /// `backend` joins; its id must be free.
    pub(super) fn join(&mut self, backend: Arc<Backend>) {
        let slot = usize::from(backend.id.slot());
        match self.slots.get_mut(slot) {
            Some(old) => *old = Arc::clone(&backend),
            None => self.slots.push(Arc::clone(&backend)),
        }
        self.left.retain(|id| id.slot() != backend.id.slot());
        self.members.push(backend);
    }

    /// Sorts the members by name.
    pub(super) fn sort(&mut self) {
        self.members.sort_by_cached_key(|it| it.name());
    }

    /// These leave, and are remembered.
    pub(super) fn leave(&mut self, leaving: &BTreeSet<BackendId>) {
        self.members.retain(|it| !leaving.contains(&it.id));
        self.left.extend(leaving);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, LiveConfig};
    use crate::fleet::backend::Common;
    use crate::fleet::diff::forgotten;
    use crate::net::Tcp;
    use crate::tasks::Tasks;

    /// Backends come and go for much longer than any of them is remembered.
    #[test]
    fn an_id_never_means_another_backend() {
        let network: Arc<dyn crate::net::Network> = Arc::new(Tcp);
        let config = Config::for_backends(&[("a", "http://gpu:1")]).unwrap();
        let common = Common::new(&LiveConfig::new(config), &network, &Tasks::default());
        let mut roster = Roster::default();
        let mut named: BTreeMap<BackendId, String> = BTreeMap::new();
        for number in 0..5 * LEFT_MAX {
            let id = roster.free_id();
            let settings =
                crate::config::BackendConfig { name: format!("n{number}"), ..forgotten() };
            assert!(named.insert(id, settings.name.clone()).is_none(), "{id:?} is given twice");
            roster.join(Arc::new(Backend::new(id, &settings, &common)));
            if 3 <= roster.members().len() {
                let oldest = roster.members()[0].id;
                roster.leave(&BTreeSet::from([oldest]));
            }
            let (first, last) = (number.saturating_sub(LEFT_MAX), number);
            for near in [first, number / 2, last] {
                let found = named.iter().find(|(_, name)| **name == format!("n{near}"));
                let (id, name) = found.unwrap();
                assert!(roster.get(*id).is_none_or(|it| *it.name() == **name));
                assert!(
                    near + LEFT_MAX < number || roster.get(*id).is_some(),
                    "{name} is forgotten"
                );
            }
        }
        assert!(roster.slots.len() <= LEFT_MAX + 3, "{}", roster.slots.len());
    }
}
