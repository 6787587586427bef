//! Reads configuration files: TOML, with the line of every value.
//!
//! The parser recovers from errors, so that an error in one line does not hide those in other
//! lines.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::folder;
use super::keys::{BACKENDS, is_named};
use super::layers::Layers;
use super::names::{self, Notation};
use super::problems::{Notes, Origin};
use super::raw::{Item, Written};
use super::units::ShowSize;

/// The largest file: more than any real configuration has, and small enough to read at once.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads the file, or the files of the folder one after the other, into the newest layer.
pub(super) fn read(path: &Path, layers: &mut Layers, notes: &mut Notes) {
    notes.needs(vec![path.to_owned()]);
    if !path.is_dir() {
        return read_one(path, text(path, FILE_BYTES_MAX), layers, notes);
    }
    match folder::files(path) {
        Ok(files) => {
            for file in files {
                let special = folder::is_special(&file).then(|| Err("is not a file".to_owned()));
                let text = special.unwrap_or_else(|| text(&file, FILE_BYTES_MAX));
                read_one(&file, text, layers, notes);
                notes.needs(vec![file]);
            }
        }
        Err(what) => {
            let origin = Origin::File { path: path.display().to_string(), line: 0 };
            notes.report_at(Some(origin), "", what);
        }
    }
}

fn read_one(path: &Path, text: Result<String, String>, layers: &mut Layers, notes: &mut Notes) {
    let name = path.display().to_string();
    match text {
        Ok(text) => {
            let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            let line_ends = ends.map(|(at, _)| at).collect();
            Reader { name, line_ends, layers, notes }.document(&text);
        }
        Err(what) => notes.report_at(Some(Origin::File { path: name, line: 0 }), "", what),
    }
}

/// Reads a text file of bounded size.
///
/// # Errors
/// The operating system's error, or that it is too large or not text.
pub(super) fn text(path: &Path, max: usize) -> Result<String, String> {
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| max < len) {
        return Err(format!("is larger than {}", ShowSize(max)));
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("is not UTF-8 text: byte {} is invalid", error.utf8_error().valid_up_to() + 1)
    })
}

struct Reader<'a> {
    name: String,
    line_ends: Vec<usize>,
    layers: &'a mut Layers,
    notes: &'a mut Notes,
}

impl Reader<'_> {
    fn document(mut self, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let origin = self.origin(error.span().map_or(0, |span| span.start));
            self.notes.report_at(Some(origin), "", one_line(error.message()));
        }
        for (name, value) in document.get_ref().iter() {
            let origin = self.origin(name.span().start);
            match (names::section(name.get_ref()), value.get_ref()) {
                (Ok(section), DeValue::Table(tables)) if is_named(section) => {
                    self.tables(section, tables);
                }
                (Ok(section), DeValue::Array(_)) if is_named(section) => {
                    let what =
                        format!("write a table for each, [{section}.NAME], and not [[{section}]]");
                    self.notes.report_at(Some(origin), section, what);
                }
                (Ok(section), DeValue::Table(table)) => self.section(section, None, table),
                (Ok(section), _) => {
                    let what = format!("is a section, write [{section}]");
                    self.notes.report_at(Some(origin), section, what);
                }
                (Err(bad), _) => {
                    self.notes.report_at(Some(origin), name.get_ref(), bad.to_string());
                }
            }
        }
    }

    fn tables(&mut self, section: &'static str, tables: &DeTable<'_>) {
        for (name, value) in tables.iter() {
            let origin = self.origin(name.span().start);
            let full_name = format!("{section}.{}", name.get_ref());
            match (names::check_table_name(section, name.get_ref()), value.get_ref()) {
                (Ok(()), DeValue::Table(table)) => {
                    // TOML itself refuses a table that is twice in one file.
                    if let Some(first) = self.layers.table_origin(section, name.get_ref()) {
                        let kind = if section == BACKENDS { "backend" } else { "discovery" };
                        let what = format!("is also in {first}; a {kind} must be in one file");
                        self.notes.report_at(Some(origin.clone()), &full_name, what);
                    }
                    self.layers.add_table(section, name.get_ref(), &origin);
                    self.section(section, Some(name.get_ref()), table);
                }
                (Ok(()), _) => {
                    let what = format!("is a table, write [{full_name}]");
                    self.notes.report_at(Some(origin), &full_name, what);
                }
                (Err(bad), _) => self.notes.report_at(Some(origin), &full_name, bad.to_string()),
            }
        }
    }

    fn section(&mut self, section: &'static str, name: Option<&str>, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let origin = self.origin(key.span().start);
            let inner = name.is_none().then(|| names::within(section, key.get_ref())).flatten();
            if let Some(inner) = inner {
                self.inner_section(inner, value.get_ref(), origin);
                continue;
            }
            match names::path(section, name, key.get_ref(), Notation::Dotted) {
                Ok(path) => {
                    let written = self.written(value);
                    // From another file: TOML itself refuses a key that is twice in one file.
                    let before = self.layers.origin(&path).filter(|_| name.is_none());
                    if let Some(before) = before {
                        let what = format!("overrides {before}");
                        self.notes.warn(written.origin.clone(), &path.full_name(), what);
                    }
                    self.layers.set(&path, written);
                }
                Err(bad) => {
                    let prefix = match name {
                        Some(name) => format!("{section}.{name}"),
                        None => section.to_owned(),
                    };
                    let hint = match (name, value.get_ref()) {
                        (Some(name), DeValue::Table(_)) => {
                            let name = format!("{name}.{}", key.get_ref());
                            format!("; a name with a dot is quoted, [{section}.\"{name}\"]")
                        }
                        (Some(_) | None, _) => String::new(),
                    };
                    let key = format!("{prefix}.{}", key.get_ref());
                    self.notes.report_at(Some(origin), &key, format!("{bad}{hint}"));
                }
            }
        }
    }

    fn inner_section(&mut self, section: &'static str, value: &DeValue<'_>, origin: Origin) {
        match value {
            DeValue::Table(table) => self.section(section, None, table),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let what = format!("is a section, write [{section}]");
                self.notes.report_at(Some(origin), section, what);
            }
        }
    }

    fn written(&self, value: &Spanned<DeValue<'_>>) -> Written {
        let item = match value.get_ref() {
            DeValue::String(text) => Item::Text(text.to_string()),
            // A number that does not fit in 128 bits is out of every range anyway.
            DeValue::Integer(number) => {
                Item::Number(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or({
                    if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX }
                }))
            }
            DeValue::Boolean(value) => Item::Switch(*value),
            DeValue::Array(array) => Item::List(self.list(array)),
            DeValue::Table(table) => {
                let entry = |name: &str, value| (name.to_owned(), self.written(value));
                Item::Table(table.iter().map(|(name, it)| entry(name.get_ref(), it)).collect())
            }
            DeValue::Float(_) | DeValue::Datetime(_) => Item::Other,
        };
        Written { item, origin: self.origin(value.span().start) }
    }

    fn list(&self, array: &DeArray<'_>) -> Vec<Written> {
        array.iter().map(|entry| self.written(entry)).collect()
    }

    fn origin(&self, byte: usize) -> Origin {
        let line = 1 + self.line_ends.partition_point(|end| *end < byte);
        Origin::File { path: self.name.clone(), line }
    }
}

/// Messages of the parser may have several lines; a report has one line for each problem.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}
