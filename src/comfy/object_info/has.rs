//! Whether a server has a node class, or a value in one of its lists.

use std::collections::HashSet;

use super::{Combo, NodeInfo};

/// What a server says of a value of an input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Has {
    NoClass,
    /// The input has no list of choices, or the class has no such input.
    NoList,
    /// The list is of files that are uploaded, or brought to where they are needed.
    Uploads,
    Listed,
    NotListed,
}

impl NodeInfo {
    /// Whether the server has a class, and what it says of a value of one of its inputs.
    #[must_use]
    pub fn has(&self, class: &str, input: &str, value: &str) -> Has {
        let Some(class) = self.class(class) else { return Has::NoClass };
        match class.combos.iter().find(|combo| combo.input == input) {
            None => Has::NoList,
            Some(combo) if combo.files.is_some() => Has::Uploads,
            Some(combo) if self.set(combo).contains(value) => Has::Listed,
            Some(_) => Has::NotListed,
        }
    }

    #[must_use]
    pub fn has_class(&self, class: &str) -> bool {
        self.by_name.contains_key(class)
    }

    fn set<'a>(&self, combo: &'a Combo) -> &'a HashSet<Box<str>> {
        combo.texts.get_or_init(|| self.texts(combo).map(Box::from).collect())
    }
}
