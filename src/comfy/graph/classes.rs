//! What is known of the classes of nodes, and which links cannot be for that.
//!
//! ComfyUI validates the inputs that a class lists, and its worker follows the links of all others
//! too. There it takes the output that is named from a result that it kept (0.33 `graph.py`,
//! `cache_link`), and looks for options where a hidden input has none (`execution.py`,
//! `get_input_data`, of a class with `IS_CHANGED`): both end it.

/// What is known of the classes of nodes.
pub trait Classes {
    /// How many outputs nodes of a class have; `None` if that is not known, or not for sure.
    fn outputs(&self, class: &str) -> Option<usize>;

    /// True for an input that the server fills in by itself.
    fn is_hidden(&self, class: &str, input: &str) -> bool;
}

/// Nothing is known.
#[derive(Clone, Copy, Debug)]
pub struct Unknown;

impl Classes for Unknown {
    fn outputs(&self, _class: &str) -> Option<usize> {
        None
    }

    fn is_hidden(&self, _class: &str, _input: &str) -> bool {
        false
    }
}

/// True if a list of so many has what `slot`, which is JSON, names as Python does.
pub(super) fn has(outputs: usize, slot: &[u8]) -> bool {
    let index = match slot {
        b"true" => Some(1),
        b"false" => Some(0),
        digits => std::str::from_utf8(digits).ok().and_then(|text| text.parse::<i64>().ok()),
    };
    let count = i64::try_from(outputs).unwrap_or(i64::MAX);
    index.is_some_and(|index| (-count..count).contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_counts_from_either_end() {
        for slot in ["0", "1", "-1", "-2", "-0", "true", "false"] {
            assert!(has(2, slot.as_bytes()), "{slot}");
        }
        for slot in ["2", "-3", "99999999999999999999", "-99999999999999999999", "0.0", "x"] {
            assert!(!has(2, slot.as_bytes()), "{slot}");
        }
        assert!(!has(0, b"0") && !has(1, b"true"));
    }
}
