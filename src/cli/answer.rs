//! Prints the answer to a verb in the form that was asked for.

use std::process::ExitCode;

use serde_json::Value;

use super::admin::Failure;
use super::args::{AdminArgs, Form, Output};
use super::table::Look;
use super::{say, table};

/// Keys that hold the name of a row; the first that it has.
const NAMES: &[&str] = &["name", "client_id", "prompt_id"];

/// The form that these flags ask for.
pub(super) fn form(output: Output, admin: &AdminArgs) -> Form {
    output.form.unwrap_or_else(|| usual(admin))
}

/// The form for verbs that only have `--json`.
pub(super) fn usual(admin: &AdminArgs) -> Form {
    if admin.json { Form::Json } else { Form::Table }
}

/// Prints an answer, or why there is none.
pub(super) fn finish(form: Form, answer: Result<Value, Failure>) -> ExitCode {
    match answer {
        Ok(value) => {
            match text(&value, form, say::look()) {
                none if none.is_empty() => {}
                text => say::line(&text),
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failure.exit(),
    }
}

pub(super) fn print_json(value: &Value) -> ExitCode {
    say::line(&format!("{value:#}"));
    ExitCode::SUCCESS
}

/// An answer as text, without the line break at its end.
pub(super) fn text(value: &Value, form: Form, look: Look) -> String {
    match form {
        Form::Table => people(value, look),
        Form::Wide => people(value, Look { width: usize::MAX, ..look }),
        Form::Json => format!("{value:#}"),
        Form::Name => names(value).join("\n"),
    }
}

fn people(value: &Value, look: Look) -> String {
    match only_list(value) {
        Some(list) if list.is_empty() => "none".to_owned(),
        Some(list) => table::show(&Value::Array(list.clone()), look),
        None if value.is_null() => "done".to_owned(),
        None => table::show(value, look),
    }
}

/// The list that an answer consists of, if it contains nothing else.
fn only_list(value: &Value) -> Option<&Vec<Value>> {
    table::list(value).filter(|_| value.as_object().is_none_or(|it| it.len() == 1))
}

/// The names of the rows of a list, or the name of what is shown alone.
pub(super) fn names(value: &Value) -> Vec<String> {
    let name = |row: &Value| {
        let name = NAMES.iter().find_map(|key| row.get(key)?.as_str());
        name.map(say::plain)
    };
    match only_list(value) {
        Some(rows) => rows.iter().filter_map(name).collect(),
        None => name(value).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_form_shows_the_same_answer_in_its_way() {
        let look = Look { width: 20, colours: table::Colours::Off };
        let rows = json!({"backends": [
            {"name": "gpu-a", "url": "http://gpu-a:8188", "up": true},
            {"name": "gpu\u{1b}b", "url": "http://gpu-b:8188", "up": false},
        ]});
        assert_eq!(text(&rows, Form::Name, look), "gpu-a\ngpu\u{fffd}b");
        let table = text(&rows, Form::Table, look);
        assert!(table.starts_with("NAME\ngpu-a\n    url http://gpu-a:8188\n"), "{table}");
        assert_eq!(text(&rows, Form::Wide, look).lines().count(), 3);
        let json: Value = serde_json::from_str(&text(&rows, Form::Json, look)).unwrap();
        assert_eq!(json, rows);
        assert_eq!(text(&json!({"client_id": "ada", "prompts": []}), Form::Name, look), "ada");
        assert_eq!(text(&json!({"backends": []}), Form::Name, look), "");
        assert_eq!(text(&json!({"backends": []}), Form::Wide, look), "none");
        assert_eq!(text(&Value::Null, Form::Table, look), "done");
    }
}
