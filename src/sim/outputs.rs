//! Summarises a prompt's outputs for its job: how many, and which one is the preview
//! (`comfy_execution/jobs.py`).

use serde_json::{Map, Value, json};

use super::release::Release;

/// The summary of all outputs of a history entry.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub count: usize,
    pub previewable: usize,
    pub preview: Option<Value>,
}

const TEXT_ENDINGS: [&str; 3] = [".txt", ".md", ".json"];

/// The most characters of a text that are shown.
const TEXT_MAX: usize = 1_024;

/// Which outputs can be previewed, by version.
struct Rules {
    media: &'static [&'static str],
    solid: &'static [&'static str],
    texts: &'static [&'static str],
    is_new: bool,
}

impl Rules {
    fn of(release: &Release) -> Self {
        if release.is_of_2026() {
            Self {
                media: &["images", "video", "audio", "3d", "text"],
                solid: &[".obj", ".fbx", ".gltf", ".glb", ".usdz"],
                texts: &TEXT_ENDINGS,
                is_new: true,
            }
        } else {
            Self {
                media: &["images", "video", "audio"],
                solid: &[".obj", ".fbx", ".gltf", ".glb"],
                texts: &[],
                is_new: false,
            }
        }
    }

    fn can_be_looked_at(&self, media: &str, item: &Map<String, Value>) -> bool {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("filename").to_lowercase();
        self.media.contains(&media)
            || text("format").starts_with("video/")
            || text("format").starts_with("audio/")
            || self.solid.iter().chain(self.texts).any(|ending| name.ends_with(ending))
    }

    fn is_text(&self, media: &str, item: &Map<String, Value>) -> bool {
        let name = item.get("filename").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        self.is_new && (media == "text" || self.texts.iter().any(|ending| name.ends_with(ending)))
    }

    /// An item as a file, if it is one: a bare string may name a file.
    fn file(&self, item: &Value) -> Option<Map<String, Value>> {
        if let Some(fields) = item.as_object() {
            return Some(fields.clone());
        }
        let name = item.as_str().filter(|_| self.is_new)?;
        let lower = name.to_lowercase();
        if !self.solid.iter().any(|ending| lower.ends_with(ending)) {
            return None;
        }
        let file =
            json!({ "filename": name, "type": "output", "subfolder": "", "mediaType": "3d" });
        file.as_object().cloned()
    }
}

/// Every list of items of every node.
fn lists(outputs: &Value) -> impl Iterator<Item = (&str, &str, &[Value])> {
    let nodes = outputs.as_object().into_iter().flatten();
    nodes.flat_map(|(node, made)| {
        let lists = made.as_object().into_iter().flatten();
        lists.filter(|(media, _)| *media != "animated").filter_map(|(media, items)| {
            Some((node.as_str(), media.as_str(), items.as_array()?.as_slice()))
        })
    })
}

/// Summarises outputs. A saved picture has priority over any other, that over a text file, and that
/// over a text.
pub(super) fn summary(release: &Release, outputs: &Value) -> Summary {
    let rules = Rules::of(release);
    let mut summary = Summary::default();
    let [mut saved, mut other, mut text_file, mut text] = [const { None }; 4];
    for (node, media, items) in lists(outputs) {
        for item in items {
            let Some(mut file) = rules.file(item) else {
                if rules.is_new && media == "text" && !item.is_null() {
                    text.get_or_insert_with(|| text_preview(item, node));
                }
                continue;
            };
            summary.count += 1;
            if !rules.can_be_looked_at(media, &file) {
                continue;
            }
            summary.previewable += 1;
            let is_text = rules.is_text(media, &file);
            let is_saved = file.get("type").is_some_and(|kind| kind == "output");
            file.insert("nodeId".to_owned(), json!(node));
            if !rules.is_new || !file.contains_key("mediaType") {
                file.insert("mediaType".to_owned(), json!(media));
            }
            let slot = match (is_text, is_saved) {
                (true, _) => &mut text_file,
                (false, true) => &mut saved,
                (false, false) => &mut other,
            };
            slot.get_or_insert(Value::Object(file));
        }
    }
    summary.preview = saved.or(other).or(text_file).or(text);
    summary
}

fn text_preview(item: &Value, node: &str) -> Value {
    let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    let shown: String = text.chars().take(TEXT_MAX).collect();
    let mut preview = json!({ "content": shown });
    if shown.len() < text.len() {
        preview["truncated"] = json!(true);
    }
    preview["nodeId"] = json!(node);
    preview["mediaType"] = json!("text");
    preview
}

/// The outputs as the detail of a job shows them: strings that name files become files, and nulls
/// are removed.
pub(super) fn normalized(release: &Release, outputs: &Value) -> Value {
    let rules = Rules::of(release);
    let mut outputs = outputs.clone();
    if !rules.is_new {
        return outputs;
    }
    for made in outputs.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let lists = made.as_object_mut().into_iter().flatten();
        for (_, items) in lists.filter(|(media, _)| *media != "animated") {
            let Some(items) = items.as_array_mut() else { continue };
            items.retain(|item| !item.is_null());
            for item in items {
                if let Some(file) = rules.file(item) {
                    *item = Value::Object(file);
                }
            }
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: &str, outputs: &Value) -> (usize, usize, Value) {
        let summary = summary(&Release::parse(version), outputs);
        (summary.count, summary.previewable, summary.preview.unwrap_or_default())
    }

    #[test]
    fn a_saved_picture_stands_for_all_and_a_text_only_where_nothing_else_is() {
        let text = json!({ "text": ["hello"] });
        let file = json!({ "files": [{ "filename": "a.txt", "type": "output" }] });
        let temp = json!({ "images": [{ "filename": "t.png", "type": "temp" }] });
        let saved = json!({ "images": [{ "filename": "s.png", "type": "output" }] });
        let latent = json!({ "latents": [{ "filename": "x.latent", "type": "output" }] });
        let all = json!({ "1": text, "2": file, "3": temp, "4": saved, "5": latent });
        let (count, previewable, preview) = of("0.33.0", &all);
        assert_eq!((count, previewable), (4, 3));
        assert_eq!(preview["filename"], "s.png");
        let (_, _, preview) = of("0.33.0", &json!({ "1": text, "2": file, "3": temp }));
        assert_eq!(preview["filename"], "t.png");
        let (_, _, preview) = of("0.33.0", &json!({ "1": text, "2": file }));
        assert_eq!((&preview["filename"], &preview["nodeId"]), (&json!("a.txt"), &json!("2")));
        let (count, _, preview) = of("0.33.0", &json!({ "1": text }));
        let content = json!({ "content": "hello", "nodeId": "1", "mediaType": "text" });
        assert_eq!((count, preview), (0, content));
        assert_eq!(of("0.8.0", &json!({ "1": text, "2": file })), (1, 0, Value::Null));
    }

    #[test]
    fn a_string_that_names_a_model_is_a_file() {
        let outputs = json!({ "7": { "result": ["mesh/M_1_.glb", null, { "position": 1 }] } });
        let file = json!({
            "filename": "mesh/M_1_.glb", "type": "output", "subfolder": "", "mediaType": "3d",
            "nodeId": "7",
        });
        assert_eq!(of("0.33.0", &outputs), (2, 1, file.clone()));
        assert_eq!(of("0.8.0", &outputs), (1, 0, Value::Null));
        let full = normalized(&Release::parse("0.33.0"), &outputs);
        assert_eq!(full["7"]["result"][0]["filename"], "mesh/M_1_.glb");
        assert_eq!(full["7"]["result"].as_array().map(Vec::len), Some(2));
        assert_eq!(normalized(&Release::parse("0.8.0"), &outputs), outputs);
    }
}
