//! Counts a prompt's outputs and those that can be previewed, and chooses its preview, as ComfyUI
//! 0.33 does (`comfy_execution/jobs.py`): the first saved picture, video, sound or model, else the
//! first other one, else the first text file, else the first text.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::cancel::Python;
use super::checked::is_of_file;
use crate::comfy::raw::{Object, Writer, list, object, text};

/// The keys of a node's outputs that can be previewed.
const MEDIA: [&str; 5] = ["images", "video", "audio", "3d", "text"];

/// Endings of files that can be previewed under any key.
const MODELS: [&str; 5] = [".obj", ".fbx", ".gltf", ".glb", ".usdz"];
const TEXTS: [&str; 3] = [".txt", ".md", ".json"];

/// The most characters of a text that are shown.
const SHOWN_MAX: usize = 1024;

#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    /// The number of outputs that can be previewed.
    pub(super) previewable: usize,
    /// The output's own object, with `nodeId` and `mediaType`.
    pub(super) preview: Option<String>,
}

/// One output with its node.
struct Output<'a> {
    node: &'a str,
    media: &'a str,
    file: File<'a>,
}

enum File<'a> {
    /// An object, as the node gave it.
    Told(Object<'a>),
    /// A bare name; it is a file if it has the ending of a model.
    Named(Cow<'a, str>),
}

/// The first output of each rank.
#[derive(Default)]
struct Ranks {
    saved: Option<String>,
    other: Option<String>,
    text_file: Option<String>,
    text: Option<String>,
}

/// Summarises the outputs of a history entry.
pub(super) fn summary(outputs: Option<&RawValue>) -> Summary {
    let mut sum = Summary::default();
    let mut ranks = Ranks::default();
    let nodes = outputs.and_then(object).unwrap_or_default();
    for (node, made) in nodes.iter() {
        let made = object(made).unwrap_or_default();
        for (media, item) in items(&made) {
            let Some(file) = File::read(item) else {
                if media == "text" && ranks.text.is_none() {
                    ranks.text = shown(node, item);
                }
                continue;
            };
            sum.count += 1;
            let output = Output { node, media, file };
            if output.can_be_looked_at() {
                sum.previewable += 1;
                ranks.rank(&output).get_or_insert_with(|| output.preview());
            }
        }
    }
    sum.preview = ranks.saved.or(ranks.other).or(ranks.text_file).or(ranks.text);
    sum
}

/// The outputs as a job's detail shows them: names of models become files, and null is left out.
pub(super) fn normalized(outputs: Option<&RawValue>) -> String {
    let mut all = Writer::new();
    let Some(nodes) = outputs.and_then(object) else { return all.finish() };
    for (node, told) in nodes.iter() {
        let Some(made) = object(told) else {
            all.raw(node, told.get());
            continue;
        };
        let mut written = Writer::new();
        for (media, value) in made.iter() {
            match list(value).filter(|_| media != "animated") {
                Some(items) => written.raw(media, &normalized_list(&items)),
                None => written.raw(media, value.get()),
            };
        }
        all.raw(node, &written.finish());
    }
    all.finish()
}

fn normalized_list(items: &[&RawValue]) -> String {
    let kept = items.iter().filter(|item| item.get() != "null");
    let written: Vec<Cow<'_, str>> = kept
        .map(|item| match File::read(item) {
            Some(File::Named(name)) => file_of_name(&name).finish().into(),
            Some(File::Told(_)) | None => item.get().into(),
        })
        .collect();
    format!("[{}]", written.join(", "))
}

/// Each item of a node's lists, with the list's key.
fn items<'o, 'a>(made: &'o Object<'a>) -> impl Iterator<Item = (&'o str, &'a RawValue)> {
    // `animated` says only whether pictures move.
    let lists = made.iter().filter(|(media, _)| *media != "animated");
    lists.flat_map(|(media, value)| {
        list(value).unwrap_or_default().into_iter().map(move |item| (media, item))
    })
}

/// The preview of a text that a node shows.
fn shown(node: &str, item: &RawValue) -> Option<String> {
    let value = match item.get() {
        // Python's tuples are lists in JSON.
        tuple if tuple.starts_with('[') => list(item)?.first().and_then(|first| text(first)),
        _ => text(item),
    };
    let content = match value {
        Some(content) => content,
        None => Python(&serde_json::from_str(item.get()).ok()?).to_string().into(),
    };
    let mut preview = Writer::new();
    match content.char_indices().nth(SHOWN_MAX) {
        None => preview.text("content", &content),
        Some((end, _)) => preview.text("content", &content[..end]).raw("truncated", "true"),
    };
    preview.text("nodeId", node).text("mediaType", "text");
    Some(preview.finish())
}

fn file_of_name(name: &str) -> Writer {
    let mut file = Writer::new();
    file.text("filename", name).text("type", "output").text("subfolder", "");
    file.text("mediaType", "3d");
    file
}

fn ends_so(name: &str, endings: &[&str]) -> bool {
    let name = name.to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

impl<'a> File<'a> {
    fn read(item: &'a RawValue) -> Option<Self> {
        if let Some(fields) = object(item) {
            return Some(Self::Told(fields));
        }
        text(item).filter(|name| ends_so(name, &MODELS)).map(Self::Named)
    }
}

impl Ranks {
    fn rank(&mut self, output: &Output<'_>) -> &mut Option<String> {
        match (output.is_text(), output.is_saved()) {
            (true, _) => &mut self.text_file,
            (false, true) => &mut self.saved,
            (false, false) => &mut self.other,
        }
    }
}

impl Output<'_> {
    fn is_saved(&self) -> bool {
        match &self.file {
            File::Told(fields) => fields.text("type").is_some_and(|kind| kind == "output"),
            File::Named(_) => true,
        }
    }

    fn name(&self) -> Cow<'_, str> {
        match &self.file {
            File::Told(fields) => fields.text("filename").unwrap_or_default(),
            File::Named(name) => Cow::Borrowed(name),
        }
    }

    fn is_text(&self) -> bool {
        self.media == "text" || ends_so(&self.name(), &TEXTS)
    }

    fn can_be_looked_at(&self) -> bool {
        let format = match &self.file {
            File::Told(fields) => fields.text("format").unwrap_or_default(),
            File::Named(_) => Cow::Borrowed(""),
        };
        MEDIA.contains(&self.media)
            || format.starts_with("video/")
            || format.starts_with("audio/")
            || ends_so(&self.name(), &MODELS)
            || ends_so(&self.name(), &TEXTS)
    }

    fn preview(&self) -> String {
        let fields = match &self.file {
            File::Named(name) => {
                let mut file = file_of_name(name);
                file.text("nodeId", self.node);
                return file.finish();
            }
            File::Told(fields) => fields,
        };
        let mut preview = Writer::new();
        let told = fields.iter().filter(|(key, value)| *key != "nodeId" && is_of_file(key, value));
        for (key, value) in told {
            preview.raw(key, value.get());
        }
        preview.text("nodeId", self.node);
        if fields.text("mediaType").is_none() {
            preview.text("mediaType", self.media);
        }
        preview.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(outputs: &Value, counts: (usize, usize), preview: Option<&Value>) {
        let raw = serde_json::value::to_raw_value(outputs).unwrap();
        let sum = summary(Some(&raw));
        assert_eq!((sum.count, sum.previewable), counts, "{outputs}");
        let shown = sum.preview.map(|it| serde_json::from_str::<Value>(&it).unwrap());
        assert_eq!(shown.as_ref(), preview, "{outputs}");
    }

    fn file(name: &str, kind: &str) -> Value {
        json!({ "filename": name, "subfolder": "", "type": kind })
    }

    fn of(mut file: Value, node: &str, media: &str) -> Value {
        file["nodeId"] = json!(node);
        file["mediaType"] = json!(media);
        file
    }

    #[test]
    fn what_was_saved_to_look_at_goes_first_then_other_pictures_then_text_files_then_texts() {
        let mut outputs = json!({
            "1": { "text": ["hello"] },
            "2": { "text": [file("a.txt", "output")] },
            "3": { "images": [file("t.png", "temp")], "animated": [true] },
            "4": { "images": [file("a.png", "output"), file("b.png", "output")] },
        });
        check(&outputs, (4, 4), Some(&of(file("a.png", "output"), "4", "images")));
        outputs["4"] = json!({});
        check(&outputs, (2, 2), Some(&of(file("t.png", "temp"), "3", "images")));
        outputs["3"] = json!({});
        check(&outputs, (1, 1), Some(&of(file("a.txt", "output"), "2", "text")));
        outputs["2"] = json!({});
        let text = json!({ "content": "hello", "nodeId": "1", "mediaType": "text" });
        check(&outputs, (0, 0), Some(&text));
    }

    #[test]
    fn what_can_be_looked_at_is_known_by_its_key_its_format_or_its_ending() {
        let made = |media: &str, item: Value| json!({ "7": { media: [item] } });
        for (media, name) in
            [("3d", "x"), ("files", "X.USDZ"), ("files", "notes.MD"), ("a", "b.json")]
        {
            let item = file(name, "output");
            check(&made(media, item.clone()), (1, 1), Some(&of(item, "7", media)));
        }
        let video = json!({ "format": "video/h264", "nodeId": "9" });
        let told = json!({ "format": "video/h264", "nodeId": "7", "mediaType": "gifs" });
        check(&made("gifs", video), (1, 1), Some(&told));
        check(&made("latents", file("x.latent", "output")), (1, 0), None);
    }

    #[test]
    fn a_name_that_ends_like_a_model_is_a_file_wherever_it_stands() {
        let outputs = json!({ "4": { "result": ["3d/x.GLB", null, "other", { "camera": 1 }] } });
        let told = json!({
            "filename": "3d/x.GLB", "type": "output", "subfolder": "", "nodeId": "4",
            "mediaType": "3d",
        });
        check(&outputs, (2, 1), Some(&told));
        let raw = serde_json::value::to_raw_value(&outputs).unwrap();
        let shown: Value = serde_json::from_str(&normalized(Some(&raw))).unwrap();
        let model = json!({
            "filename": "3d/x.GLB", "type": "output", "subfolder": "", "mediaType": "3d",
        });
        assert_eq!(shown, json!({ "4": { "result": [model, "other", { "camera": 1 }] } }));
        let odd = r#"{"1": [null], "2": {"animated": [null], "text": "x"}}"#;
        assert_eq!(normalized(serde_json::from_str(odd).unwrap()), odd);
        assert_eq!(normalized(None), "{}");
    }

    #[test]
    fn a_long_text_is_cut_and_what_is_no_text_is_shown_as_python_shows_it() {
        let long = "é".repeat(SHOWN_MAX + 1);
        let cut = json!({
            "content": "é".repeat(SHOWN_MAX), "truncated": true, "nodeId": "1",
            "mediaType": "text",
        });
        check(&json!({ "1": { "text": [long] } }), (0, 0), Some(&cut));
        for (item, shown) in [(json!(7), "7"), (json!(true), "True"), (json!(["a", 1]), "a")] {
            let told = json!({ "content": shown, "nodeId": "1", "mediaType": "text" });
            check(&json!({ "1": { "text": [item] } }), (0, 0), Some(&told));
        }
    }

    #[test]
    fn what_a_page_cannot_read_is_left_out_of_a_preview() {
        let odd =
            json!({ "filename": "a.png", "subfolder": null, "type": "output", "mediaType": 1 });
        let told = json!({
            "filename": "a.png", "type": "output", "nodeId": "1", "mediaType": "images",
        });
        check(&json!({ "1": { "images": [odd] } }), (1, 1), Some(&told));
    }

    #[test]
    fn what_is_no_output_is_not_counted() {
        let none = json!({ "1": { "n": 3, "animated": [{}] }, "2": [], "3": null });
        check(&none, (0, 0), None);
        check(&json!({ "1": { "images": [null, "a.png", ["b"], 4] } }), (0, 0), None);
        check(&json!([]), (0, 0), None);
        assert_eq!(summary(None), Summary::default());
    }
}
