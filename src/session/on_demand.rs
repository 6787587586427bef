//! A part of a client's state that most clients never need.

/// Created at first use. Until then it takes the memory of a pointer: most clients only look and do
/// no work.
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

    /// The value if it was created, without creating it.
    pub(super) fn made(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Client;
    use super::*;

    /// A gateway may know a hundred thousand clients, and most of them have no work.
    #[test]
    fn a_client_without_work_is_small() {
        assert!(size_of::<OnDemand<[u64; 100]>>() == size_of::<usize>());
        assert!(size_of::<Client>() <= 648, "{}", size_of::<Client>());
    }
}
