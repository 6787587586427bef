//! How many outputs a prompt has, and the one that stands for it: the first that was saved, else
//! the first that can be looked at (ComfyUI 0.8.0).

use serde_json::value::RawValue;

use crate::comfy::raw::{Object, Writer, list, object, quoted};

/// Outputs that can be looked at, by the key under which their node has them.
const MEDIA: [&str; 3] = ["images", "video", "audio"];

/// Files that can be looked at, though there is no such key for them.
const ENDINGS: [&str; 4] = [".obj", ".fbx", ".gltf", ".glb"];

#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    /// The output's own object, with `nodeId` and `mediaType`.
    pub(super) preview: Option<String>,
}

/// One output: where it was made, and what is known of it.
struct Output<'a> {
    node: &'a str,
    media: &'a str,
    fields: Object<'a>,
}

/// Sums up the outputs of a history entry.
pub(super) fn summary(outputs: Option<&RawValue>) -> Summary {
    let mut count = 0;
    let (mut saved, mut other) = (None, None);
    let nodes = outputs.and_then(object).unwrap_or_default();
    for (node, made) in nodes.iter() {
        let made = object(made).unwrap_or_default();
        // `animated` says of pictures whether they move.
        for (media, items) in made.iter().filter(|(media, _)| *media != "animated") {
            for fields in list(items).unwrap_or_default().into_iter().filter_map(object) {
                count += 1;
                let output = Output { node, media, fields };
                if saved.is_none() && output.can_be_looked_at() {
                    let first = if output.is_saved() { &mut saved } else { &mut other };
                    first.get_or_insert_with(|| output.preview());
                }
            }
        }
    }
    Summary { count, preview: saved.or(other) }
}

impl Output<'_> {
    fn is_saved(&self) -> bool {
        self.fields.text("type").is_some_and(|kind| kind == "output")
    }

    fn can_be_looked_at(&self) -> bool {
        let format = self.fields.text("format").unwrap_or_default();
        let filename = self.fields.text("filename").unwrap_or_default().to_lowercase();
        MEDIA.contains(&self.media)
            || format.starts_with("video/")
            || format.starts_with("audio/")
            || ENDINGS.iter().any(|ending| filename.ends_with(ending))
    }

    fn preview(&self) -> String {
        let mut preview = Writer::new();
        let ours = [("nodeId", self.node), ("mediaType", self.media)];
        for (key, value) in self.fields.iter().filter(|(key, _)| ours.iter().all(|it| it.0 != *key))
        {
            preview.raw(key, value.get());
        }
        for (key, value) in ours {
            preview.raw(key, &quoted(value));
        }
        preview.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outputs: &str, count: usize, preview: Option<&str>) {
        let outputs: &RawValue = serde_json::from_str(outputs).unwrap();
        let expected = Summary { count, preview: preview.map(str::to_owned) };
        assert_eq!(summary(Some(outputs)), expected, "{outputs}");
    }

    #[test]
    fn the_first_that_was_saved_stands_for_all() {
        check(
            r#"{"1": {"images": [{"filename": "t.png", "type": "temp"}], "animated": [{}]},
                "3": {"text": ["x"], "images": [{"filename": "a.png", "subfolder": null,
                "type": "output"}, {"filename": "b.png", "type": "output"}]}}"#,
            3,
            Some(concat!(
                r#"{"filename": "a.png", "subfolder": null, "type": "output", "#,
                r#""nodeId": "3", "mediaType": "images"}"#,
            )),
        );
    }

    #[test]
    fn without_one_that_was_saved_the_first_to_look_at_does() {
        check(
            r#"{"1": {"latents": [{"filename": "x.latent", "type": "output"}]},
                "2": {"gifs": [{"format": "video/h264", "nodeId": "7"}]},
                "4": {"images": [{"type": "temp"}]}}"#,
            3,
            Some(r#"{"format": "video/h264", "nodeId": "2", "mediaType": "gifs"}"#),
        );
        check(
            r#"{"1": {"models": [{"filename": "X.GLB"}]}}"#,
            1,
            Some(r#"{"filename": "X.GLB", "nodeId": "1", "mediaType": "models"}"#),
        );
        check(r#"{"1": {"latents": [{"filename": "x.latent"}]}}"#, 1, None);
    }

    #[test]
    fn what_is_no_output_is_not_counted() {
        check(r#"{"1": {"text": ["x"], "n": 3, "animated": [{}]}, "2": [], "3": null}"#, 0, None);
        check(r#"{"1": {"images": [null, "a.png", ["b"], 4]}}"#, 0, None);
        check("[]", 0, None);
        assert_eq!(summary(None), Summary::default());
    }
}
