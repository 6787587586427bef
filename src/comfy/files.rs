//! Files as ComfyUI names them: in the outputs that it tells of, and in the query of `/view`.

use serde::Deserialize;
use serde_json::Value;

use super::query::parameter;
use crate::routing::files::FileRef;

/// An `executed` event says what it is within its first bytes.
const HEAD: usize = 64;

/// Outputs nest a list in a list at most; deeper there is nothing of ours, or somebody's attack.
const DEPTH_MAX: usize = 4;

/// The files that an `executed` event tells of; none for all other events.
#[must_use]
pub fn of_event(text: &[u8]) -> Vec<FileRef> {
    #[derive(Deserialize)]
    struct Message {
        r#type: String,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        output: Value,
    }
    let head = &text[..text.len().min(HEAD)];
    if memchr::memmem::find(head, b"\"executed\"").is_none() {
        return Vec::new();
    }
    let mut files = Vec::new();
    match serde_json::from_slice::<Message>(text) {
        Ok(message) if message.r#type == "executed" => {
            collect(&message.data.output, 0, &mut files);
        }
        Ok(_) | Err(_) => {}
    }
    files
}

/// The file that a query names as `/view` reads it; `None` if it names none.
#[must_use]
pub fn of_query(raw_query: &str) -> Option<FileRef> {
    let name = parameter(raw_query, "filename").filter(|name| !name.is_empty())?;
    let (name, annotated) = without_annotation(&name);
    let kind = annotated.map(str::to_owned).or_else(|| parameter(raw_query, "type"));
    let subfolder = parameter(raw_query, "subfolder").unwrap_or_default();
    // ComfyUI takes the last segment of the name and ignores the rest.
    let filename = name.rsplit('/').next().unwrap_or(name);
    Some(file(kind.as_deref().unwrap_or("output"), &subfolder, filename))
}

fn collect(value: &Value, depth: usize, files: &mut Vec<FileRef>) {
    if DEPTH_MAX < depth {
        return;
    }
    match value {
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            if let Some(filename) = text("filename") {
                let kind = text("type").unwrap_or("output");
                files.push(file(kind, text("subfolder").unwrap_or(""), filename));
            }
            fields.values().for_each(|inner| collect(inner, depth + 1, files));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, depth + 1, files)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn file(kind: &str, subfolder: &str, filename: &str) -> FileRef {
    FileRef {
        kind: kind.to_owned(),
        subfolder: subfolder.trim_matches('/').to_owned(),
        filename: filename.to_owned(),
    }
}

/// `x.png [temp]` is `x.png` in `temp`, whatever `type` says.
fn without_annotation(name: &str) -> (&str, Option<&'static str>) {
    for kind in ["input", "output", "temp"] {
        let rest = name.strip_suffix(']').and_then(|rest| rest.strip_suffix(kind));
        if let Some(rest) = rest.and_then(|rest| rest.strip_suffix('[')) {
            return (rest.trim_end(), Some(kind));
        }
    }
    (name, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_names_its_files_wherever_they_stand() {
        let event = br#"{"type": "executed", "data": {"node": "3", "output": {"images": [
            {"filename": "a.png", "subfolder": "", "type": "output"},
            {"filename": "b.png", "subfolder": "sub/", "type": "temp"}], "animated": [true],
            "text": ["x"]}, "prompt_id": "p"}}"#;
        assert_eq!(of_event(event), [file("output", "", "a.png"), file("temp", "sub", "b.png")]);
        assert_eq!(of_event(br#"{"type": "executed", "data": {"output": null}}"#), []);
        assert_eq!(of_event(br#"{"type": "status", "data": {"x": "executed"}}"#), []);
        assert_eq!(of_event(br#"{"type": "executed", "#), []);
    }

    #[test]
    fn outputs_that_nest_without_end_are_read_to_a_depth() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let event = format!(r#"{{"type": "executed", "data": {{"output": {deep}}}}}"#);
        assert_eq!(of_event(event.as_bytes()), []);
    }

    #[test]
    fn a_view_is_read_as_comfyui_reads_it() {
        let query = "filename=a.png&subfolder=x%2Fy&type=temp&rand=0.1";
        assert_eq!(of_query(query), Some(file("temp", "x/y", "a.png")));
        assert_eq!(of_query("filename=a.png"), Some(file("output", "", "a.png")));
        assert_eq!(of_query("filename=d/a.png+%5Btemp%5D"), Some(file("temp", "", "a.png")));
        assert_eq!(of_query("type=output"), None);
        assert_eq!(of_query("filename="), None);
    }
}
