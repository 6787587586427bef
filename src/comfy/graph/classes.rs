//! What is known about node classes, and which links they rule out.
//!
//! ComfyUI validates the inputs that a class lists, but its worker follows the links of all inputs.
//! There it takes the named output from a cached result (0.33 `graph.py`, `cache_link`), and looks
//! for options that a hidden input does not have (`execution.py`, `get_input_data`, for a class
//! with `IS_CHANGED`). Both can end the worker.

/// Knowledge about node classes.
pub trait Classes {
    /// The number of outputs of a class; `None` if it is unknown or not certain.
    fn outputs(&self, class: &str) -> Option<usize>;

    /// True for an input that the server fills in itself.
    fn is_hidden(&self, class: &str, input: &str) -> bool;
}

/// Knows nothing.
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

/// True if a list of `outputs` items has the item `slot`. `slot` is JSON, read as a Python index.
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
