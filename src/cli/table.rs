//! Shows JSON to people: lists of objects as tables, other objects line by line.
//!
//! It works for any JSON and does not depend on known fields. So a new field of the gateway is
//! shown without a change here.

use std::time::Duration;

use serde_json::{Map, Value};

use super::say::plain;
use crate::config::ShowDuration;

/// Columns that identify a row come first, in this order. The others follow, sorted by name.
const FIRST: &[&str] = &["name", "client_id", "prompt_id", "url", "backend", "up", "state"];

/// Names of durations in milliseconds end like this. They are shown as durations.
const MILLIS: &str = "_ms";

/// Between columns.
const GAP: &str = "  ";

/// Shows a value as lines of text. A table that is wider than `width` columns is folded.
pub(super) fn show(value: &Value, width: usize) -> String {
    let mut lines = Vec::new();
    push(value, "", width, &mut lines);
    lines.join("\n")
}

/// The list in an answer: the answer itself, or its only list.
pub(super) fn list(value: &Value) -> Option<&Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        Value::Object(object) => {
            let mut lists = object.values().filter_map(Value::as_array);
            lists.next().filter(|_| lists.next().is_none())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn push(value: &Value, indent: &str, width: usize, lines: &mut Vec<String>) {
    match value {
        Value::Array(list) if list.iter().any(Value::is_object) => {
            table(list, indent, width, lines);
        }
        Value::Array(list) => lines.extend(list.iter().map(|it| format!("{indent}{}", cell(it)))),
        Value::Object(object) => fields(object, indent, width, lines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            lines.push(format!("{indent}{}", cell(value)));
        }
    }
}

fn fields(object: &Map<String, Value>, indent: &str, width: usize, lines: &mut Vec<String>) {
    let names = ordered(object.keys());
    let widest = names.iter().map(|name| head(name).chars().count()).max().unwrap_or(0);
    let (large, small): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| is_large(&object[*name]));
    for name in small {
        let value = named_cell(name, &object[name]);
        lines.push(format!("{indent}{:widest$}{GAP}{value}", head(name)));
    }
    for name in large {
        lines.push(format!("{indent}{}:", plain(name)));
        push(&object[name], &format!("{indent}  "), width, lines);
    }
}

/// True if a value does not fit on the line of its name.
fn is_large(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().any(Value::is_object),
        Value::Object(object) => !object.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn table(list: &[Value], indent: &str, width: usize, lines: &mut Vec<String>) {
    let mut all: Vec<&String> =
        list.iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    all.sort_unstable();
    all.dedup();
    let columns = ordered(all.into_iter());
    let mut rows = vec![columns.iter().map(|name| head(name).to_uppercase()).collect::<Vec<_>>()];
    for row in list {
        rows.push(
            columns
                .iter()
                .map(|name| row.get(*name).map_or("-".into(), |it| named_cell(name, it)))
                .collect(),
        );
    }
    push_folded(&rows, indent, width, lines);
}

/// Shows the columns that fit. The others follow below each row with their names, unless empty.
fn push_folded(rows: &[Vec<String>], indent: &str, width: usize, lines: &mut Vec<String>) {
    let widths = widths(rows);
    let ends = widths.iter().scan(indent.len(), |end, column| {
        *end += column + GAP.len();
        Some(*end - GAP.len())
    });
    // The first column is always shown, however wide it is.
    let fit = ends.take_while(|end| *end <= width).count().max(1);
    let Some((names, values)) = rows.split_first().filter(|_| fit < widths.len()) else {
        return push_rows(rows, indent, lines);
    };
    let mut shown = Vec::new();
    let front: Vec<Vec<String>> = rows.iter().map(|row| row[..fit].to_vec()).collect();
    push_rows(&front, indent, &mut shown);
    let mut shown = shown.into_iter();
    lines.extend(shown.next());
    for (row, line) in values.iter().zip(shown) {
        lines.push(line);
        let folded = names.iter().zip(row).skip(fit).filter(|(_, cell)| *cell != "-");
        let said = folded.map(|(name, cell)| format!("{} {cell}", name.to_lowercase()));
        push_wrapped(said, &format!("{indent}    "), width, lines);
    }
}

/// Puts as many items on a line as fit, and at least one.
fn push_wrapped(
    items: impl Iterator<Item = String>,
    indent: &str,
    width: usize,
    lines: &mut Vec<String>,
) {
    let mut line = String::new();
    for item in items {
        let fits = indent.len() + line.chars().count() + 2 + item.chars().count() <= width;
        if !line.is_empty() && !fits {
            lines.push(format!("{indent}{line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&item);
    }
    if !line.is_empty() {
        lines.push(format!("{indent}{line}"));
    }
}

/// Pads the columns to their widest cells.
pub(super) fn push_rows(rows: &[Vec<String>], indent: &str, lines: &mut Vec<String>) {
    let widths = widths(rows);
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        lines.push(format!("{indent}{}", line.trim_end()));
    }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..columns).map(width).collect()
}

fn ordered<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    names.sort_by_key(|name| (rank(name), *name));
    names
}

fn head(name: &str) -> String {
    plain(name.strip_suffix(MILLIS).unwrap_or(name))
}

/// Formats a value. Its name may tell its unit.
fn named_cell(name: &str, value: &Value) -> String {
    match value.as_u64().filter(|_| name.ends_with(MILLIS)) {
        Some(millis) => {
            // Milliseconds do not matter in a long duration.
            let shown = if millis < 10_000 { millis } else { millis - millis % 1_000 };
            ShowDuration(Duration::from_millis(shown)).to_string()
        }
        None => cell(value),
    }
}

/// Formats a value on one line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(list) if list.iter().any(Value::is_object) => list.len().to_string(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| format!("{}={}", plain(name), cell(value)))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_objects_is_a_table_with_names_first() {
        let value = json!([
            {"name": "gpu-a", "state": "ready", "since_ms": 90_061, "up": true, "version": "0.3"},
            {"name": "gpu-number-two", "state": "off", "up": false, "error": "it\u{1b}[31m broke"},
        ]);
        assert_eq!(
            show(&value, usize::MAX),
            "\
NAME            UP   STATE  ERROR          SINCE  VERSION
gpu-a           yes  ready  -              1m30s  0.3
gpu-number-two  no   off    it\u{fffd}[31m broke  -      -"
        );
    }

    #[test]
    fn a_table_that_is_too_wide_is_folded_below_each_row() {
        let value = json!([
            {"name": "gpu-a", "state": "ready", "since_ms": 90_061, "up": true,
             "version": "0.33.0"},
            {"name": "gpu-b", "state": "off", "up": false, "trouble": "cannot connect: refused"},
        ]);
        assert_eq!(
            show(&value, 40),
            "\
NAME   UP   STATE  SINCE
gpu-a  yes  ready  1m30s
    version 0.33.0
gpu-b  no   off    -
    trouble cannot connect: refused"
        );
        let narrow = show(&value, 1);
        assert!(narrow.starts_with("NAME\ngpu-a\n    up yes\n"), "{narrow}");
        assert!(show(&value, 60).lines().all(|line| line.chars().count() <= 60));
    }

    #[test]
    fn an_object_is_shown_line_by_line_with_its_lists_below() {
        let value = json!({
            "client_id": "ada", "backend": "gpu-a", "sockets": ["s1", "s2"],
            "empty": [], "none": null,
            "prompts": [{"prompt_id": "p1", "age_ms": 3_500}], "load": {"queue": 4},
        });
        assert_eq!(
            show(&value, usize::MAX),
            "\
client_id  ada
backend    gpu-a
empty      -
none       -
sockets    s1,s2
load:
  queue  4
prompts:
  PROMPT_ID  AGE
  p1         3s500ms"
        );
    }

    #[test]
    fn the_list_of_an_answer_is_found_if_there_is_one() {
        assert_eq!(list(&json!([1])).unwrap().len(), 1);
        assert_eq!(list(&json!({"clients": [1, 2], "total": 2})).unwrap().len(), 2);
        assert_eq!(list(&json!({"a": [], "b": []})), None);
        assert_eq!(list(&json!("x")), None);
    }
}
