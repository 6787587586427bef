//! Which source lists a backend.

use std::fmt;

/// The source that wants a backend in the fleet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ListedBy {
    #[default]
    Configuration,
    /// An operator added it to the running gateway.
    Operator,
    /// The discovery of that name found it.
    Discovery(String),
}

impl ListedBy {
    const DISCOVERY: &str = "discovery.";

    /// Parses the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "configuration" => Some(Self::Configuration),
            "operator" => Some(Self::Operator),
            _other => {
                let place = text.strip_prefix(Self::DISCOVERY)?;
                Some(Self::Discovery(place.to_owned()))
            }
        }
    }
}

impl fmt::Display for ListedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("configuration"),
            Self::Operator => f.write_str("operator"),
            Self::Discovery(place) => write!(f, "{}{place}", Self::DISCOVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lists_a_backend_is_read_as_it_is_written() {
        let discovery = ListedBy::Discovery("gpus.b".to_owned());
        for by in [ListedBy::Configuration, ListedBy::Operator, discovery] {
            assert_eq!(ListedBy::parse(&by.to_string()), Some(by));
        }
        assert_eq!(ListedBy::parse("ada"), None);
    }
}
