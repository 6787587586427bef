//! Small numbers for names, as the queue wants them.

use std::collections::HashMap;
use std::hash::Hash;

/// The numbers of the names that are in use.
#[derive(Debug)]
pub(super) struct Keys<T> {
    used: HashMap<T, (u32, usize)>,
    next: u32,
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self { used: HashMap::new(), next: 0 }
    }
}

impl<T: Clone + Eq + Hash> Keys<T> {
    /// The number of a name, which is used once more.
    pub(super) fn take(&mut self, name: &T) -> u32 {
        if let Some((key, count)) = self.used.get_mut(name) {
            *count += 1;
            return *key;
        }
        self.next = self.next.wrapping_add(1);
        self.used.insert(name.clone(), (self.next, 1));
        self.next
    }

    /// A name is used once less.
    pub(super) fn give_back(&mut self, name: &T) {
        if let Some((_, count)) = self.used.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.used.remove(name);
            }
        }
    }

    pub(super) fn get(&self, name: &T) -> Option<u32> {
        self.used.get(name).map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_while_its_name_is_used_and_never_given_twice() {
        let mut keys = Keys::default();
        let (ada, bob) = (keys.take(&"ada"), keys.take(&"bob"));
        assert_ne!(ada, bob);
        assert_eq!(keys.take(&"ada"), ada);
        keys.give_back(&"ada");
        assert_eq!(keys.get(&"ada"), Some(ada));
        keys.give_back(&"ada");
        assert_eq!(keys.get(&"ada"), None);
        assert!(![ada, bob].contains(&keys.take(&"ada")));
    }
}
