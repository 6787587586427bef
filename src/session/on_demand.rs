//! A part of a client's state that most clients never need.

/// Made when it is first asked for. Until then it takes the room of a pointer: there are many more
/// clients that only look than clients that work.
#[derive(Debug)]
pub(super) struct OnDemand<T>(Option<Box<T>>);

impl<T> Default for OnDemand<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> OnDemand<T> {
    pub(super) fn get(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// What was made; for who asks only what is already there.
    pub(super) fn made(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Client;
    use super::*;

    /// A gateway knows a hundred thousand clients, and most of them have no work.
    #[test]
    fn a_client_without_work_is_small() {
        assert!(size_of::<OnDemand<[u64; 100]>>() == size_of::<usize>());
        assert!(size_of::<Client>() <= 648, "{}", size_of::<Client>());
    }
}
