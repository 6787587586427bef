//! Names of our own watch links, by which they are known if they come back to us.

/// Marks the watch links of one gateway. A backend whose address leads back to this gateway, by
/// whatever name or proxy, would answer like a server and send it all its requests again.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnWatch(u64);

const PREFIX: &str = "mooring-watch-";

impl OwnWatch {
    pub(super) fn new() -> Self {
        Self(rand::random())
    }

    /// A clientId for a new watch link.
    pub(super) fn id(self) -> String {
        format!("{PREFIX}{:016x}{:016x}", self.0, rand::random::<u64>())
    }

    /// True if a watch link of this gateway has that clientId.
    pub(super) fn is_of(self, id: &str) -> bool {
        let rest = id.strip_prefix(PREFIX).and_then(|rest| rest.get(..16));
        rest.is_some_and(|mark| mark == format!("{:016x}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_knows_its_own_watch_links_and_no_others() {
        let (ours, others) = (OwnWatch(7), OwnWatch(8));
        assert!(ours.is_of(&ours.id()));
        assert!(!ours.is_of(&others.id()), "a gateway may stand before another one");
        for id in ["", PREFIX, "mooring-watch-7", "ada", "mooring-watch-é00000000000007"] {
            assert!(!ours.is_of(id), "{id}");
        }
    }
}
