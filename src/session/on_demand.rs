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

    /// The value if it was created.
    pub(super) fn seen(&self) -> Option<&T> {
        self.0.as_deref()
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

    /// A gateway may know a hundred thousand clients, and most of them have no work. With the two
    /// counters of its `Arc` one takes at most 640 bytes: the allocator's next size is 768.
    #[test]
    fn a_client_without_work_is_small() {
        assert!(size_of::<OnDemand<[u64; 100]>>() == size_of::<usize>());
        assert!(size_of::<Client>() + 2 * size_of::<usize>() <= 640, "{}", size_of::<Client>());
    }
}
