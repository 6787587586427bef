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

/// How tables look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// How many columns a line may have.
    pub(super) width: usize,
    pub(super) colours: Colours,
}

/// Whether cells that matter are coloured (ECMA-48: SGR).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Colours {
    Off,
    On,
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Colours {
    /// The text of a cell in the colour that its value has in a column of that name. It may be
    /// padded.
    fn cell(self, name: &str, text: &str) -> String {
        match colour(name, text.trim_end()) {
            Some(colour) => self.paint(colour, text),
            None => text.to_owned(),
        }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        match self {
            Self::Off => text.to_owned(),
            Self::On => format!("\x1b[{colour}m{text}\x1b[0m"),
        }
    }
}

/// The colour of what an operator looks for: what works, what does not, and what is about to.
fn colour(name: &str, value: &str) -> Option<&'static str> {
    match (name.to_lowercase().as_str(), value) {
        ("up", "yes") | ("state", "ready") => Some(GREEN),
        ("up", "no") | ("state", "off") => Some(RED),
        ("state", "draining") => Some(YELLOW),
        ("trouble" | "error", trouble) if trouble != "-" => Some(RED),
        _ => None,
    }
}

/// Between columns.
const GAP: &str = "  ";

/// Shows a value as lines of text. Tables and lines that are too wide are folded.
pub(super) fn show(value: &Value, look: Look) -> String {
    let mut lines = Vec::new();
    push(value, "", look, &mut lines);
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

fn push(value: &Value, indent: &str, look: Look, lines: &mut Vec<String>) {
    match value {
        Value::Array(list) if list.iter().any(Value::is_object) => {
            table(list, indent, look, lines);
        }
        Value::Array(list) => {
            list.iter().for_each(|it| push_text(&cell(it), indent, 0, look.width, lines));
        }
        Value::Object(object) => fields(object, indent, look, lines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            push_text(&cell(value), indent, 0, look.width, lines);
        }
    }
}

fn fields(object: &Map<String, Value>, indent: &str, look: Look, lines: &mut Vec<String>) {
    let names = ordered(object.keys());
    let widest = names.iter().map(|name| head(name).chars().count()).max().unwrap_or(0);
    let (large, small): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| is_large(&object[*name]));
    for name in small {
        let value = named_cell(name, &object[name]);
        let room = look.width.saturating_sub(indent.len() + widest + GAP.len());
        let mut label = head(name);
        for part in broken(&value, room, 0) {
            let part = look.colours.cell(name, &part);
            lines.push(format!("{indent}{label:widest$}{GAP}{part}"));
            label.clear();
        }
    }
    for name in large {
        lines.push(format!("{indent}{}:", plain(name)));
        push(&object[name], &format!("{indent}  "), look, lines);
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

fn table(list: &[Value], indent: &str, look: Look, lines: &mut Vec<String>) {
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
    push_folded(&rows, indent, look, lines);
}

/// Shows the columns that fit. The others follow below each row with their names, unless empty.
fn push_folded(rows: &[Vec<String>], indent: &str, look: Look, lines: &mut Vec<String>) {
    let Look { width, colours } = look;
    let widths = widths(rows);
    let ends = widths.iter().scan(indent.len(), |end, column| {
        *end += column + GAP.len();
        Some(*end - GAP.len())
    });
    // The first column is always shown, however wide it is.
    let fit = ends.take_while(|end| *end <= width).count().max(1);
    let Some((names, values)) = rows.split_first().filter(|_| fit < widths.len()) else {
        return push_rows(rows, indent, colours, lines);
    };
    let mut shown = Vec::new();
    let front: Vec<Vec<String>> = rows.iter().map(|row| row[..fit].to_vec()).collect();
    push_rows(&front, indent, colours, &mut shown);
    let mut shown = shown.into_iter();
    lines.extend(shown.next());
    for (row, line) in values.iter().zip(shown) {
        lines.push(line);
        let folded = names.iter().zip(row).skip(fit).filter(|(_, cell)| *cell != "-");
        let said = folded.map(|(name, cell)| format!("{} {cell}", name.to_lowercase()));
        push_wrapped(said, &format!("{indent}    "), width, lines);
    }
}

/// Puts as many items on a line as fit. One that is longer than a line has lines of its own.
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
            push_text(&line, indent, 2, width, lines);
            line.clear();
        }
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&item);
    }
    if !line.is_empty() {
        push_text(&line, indent, 2, width, lines);
    }
}

fn push_text(text: &str, indent: &str, hanging: usize, width: usize, lines: &mut Vec<String>) {
    let parts = broken(text, width.saturating_sub(indent.len()), hanging);
    for (number, part) in parts.into_iter().enumerate() {
        let hanging = if number == 0 { 0 } else { hanging };
        lines.push(format!("{indent}{:hanging$}{part}", ""));
    }
}

/// Breaks a text between words, into lines of `room` columns; all but the first leave `hanging` of
/// them free. A word that is longer than a line stays whole, so that it can be copied.
fn broken(text: &str, room: usize, hanging: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut part = String::new();
    for (number, word) in text.split(' ').enumerate() {
        let room = if parts.is_empty() { room } else { room.saturating_sub(hanging) };
        // A hanging text begins with a name, which stays with its value.
        let stays = number == 1 && 0 < hanging;
        if number == 0 {
            part.push_str(word);
        } else if stays || part.chars().count() + 1 + word.chars().count() <= room {
            part.push(' ');
            part.push_str(word);
        } else {
            parts.push(std::mem::replace(&mut part, word.to_owned()));
        }
    }
    parts.push(part);
    parts
}

/// Pads the columns to their widest cells. The first row has the names of the columns.
pub(super) fn push_rows(
    rows: &[Vec<String>],
    indent: &str,
    colours: Colours,
    lines: &mut Vec<String>,
) {
    let widths = widths(rows);
    let names = rows.first().map(Vec::as_slice).unwrap_or_default();
    for (number, row) in rows.iter().enumerate() {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(names).zip(&widths).enumerate();
        let cells = cells.map(|(column, ((cell, name), width))| {
            // Nothing is padded at the end of a line.
            let width = if column == last { 0 } else { *width };
            let padded = format!("{cell:width$}");
            match number {
                0 => colours.paint(BOLD, &padded),
                _ => colours.cell(name, &padded),
            }
        });
        lines.push(format!("{indent}{}", cells.collect::<Vec<_>>().join(GAP)));
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

    fn plain_look(width: usize) -> Look {
        Look { width, colours: Colours::Off }
    }

    #[test]
    fn a_list_of_objects_is_a_table_with_names_first() {
        let value = json!([
            {"name": "gpu-a", "state": "ready", "since_ms": 90_061, "up": true, "version": "0.3"},
            {"name": "gpu-number-two", "state": "off", "up": false, "error": "it\u{1b}[31m broke"},
        ]);
        assert_eq!(
            show(&value, plain_look(usize::MAX)),
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
            show(&value, plain_look(40)),
            "\
NAME   UP   STATE  SINCE
gpu-a  yes  ready  1m30s
    version 0.33.0
gpu-b  no   off    -
    trouble cannot connect: refused"
        );
        let narrow = show(&value, plain_look(1));
        assert!(narrow.starts_with("NAME\ngpu-a\n    up yes\n"), "{narrow}");
        assert!(show(&value, plain_look(60)).lines().all(|line| line.chars().count() <= 60));
    }

    #[test]
    fn an_object_is_shown_line_by_line_with_its_lists_below() {
        let value = json!({
            "client_id": "ada", "backend": "gpu-a", "sockets": ["s1", "s2"],
            "empty": [], "none": null,
            "prompts": [{"prompt_id": "p1", "age_ms": 3_500}], "load": {"queue": 4},
        });
        assert_eq!(
            show(&value, plain_look(usize::MAX)),
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
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let trouble = "cannot connect: Connection refused (os error 111). ".repeat(4);
        let row = json!({"name": "gpu-a", "url": "http://gpu-a.render.example.org:8188",
            "up": false, "state": "draining",
            "said": {"by": "ada", "why": "new fan", "ago_ms": 5_000},
            "trouble": trouble, "version": "0.33.0", "labels": ["big", "slow"], "weight": 2});
        for width in [60, 80, 100] {
            for value in [json!([row, row]), row.clone(), json!({"backends": [row]})] {
                let shown = show(&value, plain_look(width));
                let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(widest <= width, "{width}:\n{shown}");
                let words = shown.split_whitespace().filter(|word| *word == "refused");
                assert!(4 <= words.count(), "{shown}");
            }
        }
        assert_eq!(
            show(&json!({"up": false, "trouble": "it does not answer"}), plain_look(20)),
            "up       no\ntrouble  it does not\n         answer"
        );
    }

    #[test]
    fn colours_are_around_the_cells_that_matter_and_change_no_column() {
        let rows = json!([
            {"name": "a", "up": true, "state": "ready", "trouble": null},
            {"name": "b", "up": false, "state": "off", "trouble": "it broke"},
        ]);
        let look = Look { width: usize::MAX, colours: Colours::On };
        let shown = show(&rows, look);
        let (green, red) = ("\u{1b}[32mready\u{1b}[0m", "\u{1b}[31moff  \u{1b}[0m");
        assert!(shown.contains(green) && shown.contains(red), "{shown:?}");
        assert!(shown.ends_with("\u{1b}[31mit broke\u{1b}[0m"), "{shown:?}");
        assert!(shown.starts_with("\u{1b}[1mNAME\u{1b}[0m  "), "{shown:?}");
        let uncoloured = |text: &str| {
            let all = ["1", "0", "31", "32", "33"].iter();
            all.fold(text.to_owned(), |text, it| text.replace(&format!("\u{1b}[{it}m"), ""))
        };
        assert_eq!(uncoloured(&shown), show(&rows, plain_look(usize::MAX)));
        let one = show(&rows[1], look);
        assert!(one.contains("\nstate    \u{1b}[31moff\u{1b}[0m"), "{one:?}");
    }

    #[test]
    fn the_list_of_an_answer_is_found_if_there_is_one() {
        assert_eq!(list(&json!([1])).unwrap().len(), 1);
        assert_eq!(list(&json!({"clients": [1, 2], "total": 2})).unwrap().len(), 2);
        assert_eq!(list(&json!({"a": [], "b": []})), None);
        assert_eq!(list(&json!("x")), None);
    }
}
