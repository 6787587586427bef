//! Finds strings in the outputs of nodes that name files (promise R3).
//!
//! `Preview3D` names its model as a bare string, `{"result": ["mesh/M_00001_.glb", …]}`
//! (`comfy_api/latest/_ui.py`, `PreviewUI3D`), and so do packs for video, audio and text. Such a
//! string is a path in the folder of outputs, or in another folder if it says so: `x.glb [input]`,
//! `temp/bg_1.png`.

use super::files::without_annotation;
use super::walk::Level;
use crate::routing::ids::{FileRef, Folder};

/// The endings of files that nodes make, in lower case. Endings of model weights are not included:
/// they name what a node has used.
const ENDINGS: [&str; 58] = [
    "png", "apng", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "svg",
    "exr", "hdr", "psd", "mp4", "m4v", "webm", "mkv", "mov", "avi", "mpg", "mpeg", "wav", "mp3",
    "flac", "ogg", "opus", "m4a", "aac", "glb", "gltf", "obj", "mtl", "fbx", "stl", "usd", "usdz",
    "ply", "spz", "splat", "ksplat", "bvh", "txt", "md", "json", "csv", "srt", "vtt", "html",
    "xml", "yaml", "pdf", "zip", "npy", "npz", "latent", "dae",
];

/// What a file is of, by its ending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Media {
    Image,
    Video,
    Audio,
    Other,
}

impl Media {
    /// True if the name of an input says that it takes such files.
    pub(super) fn is_of_input(self, input: &str) -> bool {
        let has = |words: &[&str]| words.iter().any(|word| input.contains(word));
        match self {
            Self::Image => has(&["image", "mask"]),
            // `LoadVideo` calls its input `file`, and `LoadAudio` takes the sound of a video
            // (0.33 `comfy_extras/nodes_video.py`, `nodes_audio.py`).
            Self::Video => has(&["video", "file", "audio"]),
            Self::Audio => has(&["audio"]),
            Self::Other => has(&["file", "mesh", "model"]),
        }
    }
}

/// What a file is of; `None` if the name ends like none that nodes make or take.
pub(super) fn media_of(name: &str) -> Option<Media> {
    let (_, ending) = name.rsplit_once('.').filter(|_| has_ending(name))?;
    let is = |endings: &[&str]| endings.iter().any(|it| it.eq_ignore_ascii_case(ending));
    Some(match () {
        () if is(&ENDINGS[..15]) => Media::Image,
        () if is(&ENDINGS[15..23]) => Media::Video,
        () if is(&ENDINGS[23..30]) => Media::Audio,
        () => Media::Other,
    })
}

/// Characters that no file name has on all systems, but that are common in prose.
const NEVER: [char; 7] = ['<', '>', ':', '"', '|', '?', '*'];

/// True inside a node's output: `output` of an event, `outputs` of a history entry or a job, and
/// its preview. Never true inside the graph.
pub(super) fn is_in_output(levels: &[Level<'_>]) -> bool {
    for key in levels.iter().filter_map(|level| level.key) {
        match key {
            b"output" | b"outputs" | b"preview_output" => return true,
            b"prompt" | b"workflow" | b"extra_data" | b"extra_pnginfo" | b"inputs" => {
                return false;
            }
            _ => {}
        }
    }
    false
}

/// True in there, whatever keys a client has chosen: a `prompt_id` may be `outputs`, and an error
/// repeats what stood in the inputs.
pub(super) fn is_only_in_output(levels: &[Level<'_>]) -> bool {
    let is_other = |key: &[u8]| {
        matches!(
            key,
            b"prompt"
                | b"workflow"
                | b"extra_data"
                | b"extra_pnginfo"
                | b"inputs"
                | b"status"
                | b"messages"
                | b"current_inputs"
                | b"current_outputs"
        )
    };
    is_in_output(levels) && !levels.iter().filter_map(|level| level.key).any(is_other)
}

/// The file that a string names, if it names one. Text under `text` is shown to people unchanged,
/// so there a string counts as a name only if it has no spaces.
pub(super) fn file_of(text: &str, key: Option<&[u8]>) -> Option<FileRef> {
    let (name, annotated) = without_annotation(text);
    let is_shown = matches!(key, Some(b"text" | b"string"));
    if !is_path(name) || (is_shown && text.contains(' ')) {
        return None;
    }
    match (annotated, name.strip_prefix("temp/")) {
        (Some(folder), _) => FileRef::of_path(folder, name),
        (None, Some(rest)) => FileRef::of_path(Folder::Temp, rest),
        (None, None) => FileRef::of_path(Folder::Output, name),
    }
}

/// The same string with the backend as the last segment of its folder.
pub(super) fn tagged(text: &str, tag: &str) -> String {
    let (name, _) = without_annotation(text);
    let at = name.rfind(['/', '\\']).map_or(0, |slash| slash + 1);
    format!("{}{tag}/{}", text[..at].replace('\\', "/"), &text[at..])
}

/// True if it has the ending of a file that nodes make.
pub(super) fn has_ending(name: &str) -> bool {
    let ending = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty());
    ending.is_some_and(|(_, ending)| {
        ending.len() <= 6 && ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
    })
}

/// True for a relative path: one line, and not a sentence.
fn is_path(name: &str) -> bool {
    let is_sentence = || [". ", ", ", "! ", "; "].iter().any(|end| name.contains(end));
    has_ending(name)
        && name.trim() == name
        && !name.starts_with(['/', '\\'])
        && !name.contains(NEVER)
        && !name.contains(char::is_control)
        && !name.split(['/', '\\']).any(|part| matches!(part, "" | "." | ".."))
        && !is_sentence()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(text: &str, folder: Folder, path: &str) {
        assert_eq!(file_of(text, Some(b"result")), FileRef::of_path(folder, path), "{text}");
    }

    #[test]
    fn a_string_that_ends_like_a_file_names_one() {
        names("mesh/M_00001_.glb", Folder::Output, "mesh/M_00001_.glb");
        names("My Film.MP4", Folder::Output, "My Film.MP4");
        names("a\\b.usdz", Folder::Output, "a/b.usdz");
        names("3d/x.glb [input]", Folder::Input, "3d/x.glb");
        names("x.png [temp]", Folder::Temp, "x.png");
        names("temp/bg_1.png", Folder::Temp, "bg_1.png");
        assert!(file_of("notes/N_00001_.txt", Some(b"text")).is_some());
    }

    #[test]
    fn what_is_only_said_names_none() {
        for text in [
            "",
            "png",
            ".png",
            "video/h264-mp4",
            "sd_xl_base_1.0.safetensors",
            "v1.5",
            "https://example.com/a.png",
            "/root/ComfyUI/output/a.png",
            "C:\\out\\a.png",
            "../a.png",
            "a//b.png",
            "Done. See a.png",
            "a cat, a dog.png",
            "a\nb.png",
            " a.png",
            "seed: 5.png",
        ] {
            assert_eq!(file_of(text, Some(b"result")), None, "{text}");
        }
        assert_eq!(file_of("a cat.png", Some(b"text")), None, "it is shown as it is");
    }

    #[test]
    fn the_backend_stands_before_the_name() {
        for (text, expected) in [
            ("a.glb", "~b/a.glb"),
            ("x/y/a.glb", "x/y/~b/a.glb"),
            ("x\\a.glb", "x/~b/a.glb"),
            ("x/a.glb [input]", "x/~b/a.glb [input]"),
        ] {
            assert_eq!(tagged(text, "~b"), expected);
        }
    }
}
