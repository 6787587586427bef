//! Decides whether an input of a node takes a file. In other inputs a string is left alone, even if
//! it equals a file's name: the prefix of saved files, a text that is drawn.
//!
//! `/object_info` tells it for inputs with an upload and for lists of choices. For others, or
//! before it was read, the names of node and input tell it: `Load…`, `image`, `video_path`.

/// What `/object_info` says about an input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It lists the files of a folder, or uploads to it.
    Files,
    /// A list of other choices, or an empty list.
    Choices,
    /// A text of several lines.
    Prose,
    /// Anything else, or nothing is known about it.
    Other,
}

/// Names of inputs that take a file.
const FILES: [&str; 16] = [
    "image", "img", "picture", "photo", "video", "movie", "audio", "sound", "mask", "file", "path",
    "model", "mesh", "latent", "source", "media",
];

/// Names of inputs that take a folder.
const FOLDERS: [&str; 4] = ["dir", "folder", "path", "location"];

/// Names of nodes that read files, whatever the input is called.
const READERS: [&str; 6] = ["load", "read", "import", "open", "preview", "primitive"];

/// Names of nodes that write files: a name in their inputs is that of a new file.
const WRITERS: [&str; 4] = ["save", "export", "write", "encode"];

/// True if a string in this input means a file. The string equals a known file's name.
#[must_use]
pub fn a_file(class: &str, input: &str, kind: Kind) -> bool {
    match kind {
        Kind::Files => true,
        Kind::Prose => false,
        Kind::Choices | Kind::Other => {
            let class = class.to_lowercase();
            let is_reader = has_one(&class, &READERS);
            let may_read = is_reader || !has_one(&class, &WRITERS);
            may_read && !is_for_new(input) && (is_reader || has_one(&lower(input), &FILES))
        }
    }
}

/// True if a string in this input means the files of a folder. The string equals a known folder's
/// name.
#[must_use]
pub fn a_folder(class: &str, input: &str, kind: Kind) -> bool {
    let writes = has_one(&class.to_lowercase(), &WRITERS);
    let is_folder = has_one(&lower(input), &FOLDERS) && !is_for_new(input);
    kind != Kind::Prose && is_folder && !writes
}

/// True for an input that names something new.
fn is_for_new(input: &str) -> bool {
    has_one(&lower(input), &["prefix", "suffix", "output", "text", "prompt", "pattern"])
}

fn lower(input: &str) -> String {
    // Inputs of dynamic nodes come after a dot: `mode.image`.
    input.rsplit('.').next().unwrap_or(input).to_lowercase()
}

fn has_one(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_take_files_and_prefixes_and_texts_do_not() {
        for (class, input, kind) in [
            ("LoadImage", "image", Kind::Files),
            ("LoadImage", "image", Kind::Other),
            ("LoadLatent", "latent", Kind::Choices),
            ("VHS_LoadVideoPath", "video", Kind::Other),
            ("Load3D", "model_file", Kind::Choices),
            ("PrimitiveString", "value", Kind::Other),
            ("FaceSwap", "source_image", Kind::Other),
            ("Dynamic", "mode.image", Kind::Other),
            ("SaveImageWithOverlay", "overlay", Kind::Files),
        ] {
            assert!(a_file(class, input, kind), "{class}.{input}");
        }
        for (class, input, kind) in [
            ("SaveImage", "filename_prefix", Kind::Other),
            ("SaveText", "filename", Kind::Other),
            ("CLIPTextEncode", "text", Kind::Other),
            ("DrawText", "image_text", Kind::Other),
            ("Note", "image", Kind::Prose),
            ("KSampler", "sampler_name", Kind::Choices),
            ("LoadImage", "output_prefix", Kind::Other),
        ] {
            assert!(!a_file(class, input, kind), "{class}.{input}");
        }
    }

    #[test]
    fn folders_are_taken_by_inputs_that_are_called_so() {
        assert!(a_folder("VHS_LoadImages", "directory", Kind::Choices));
        assert!(a_folder("LoadImagesFromFolder", "folder_path", Kind::Other));
        assert!(!a_folder("KSampler", "sampler_name", Kind::Choices));
        assert!(!a_folder("SaveImage", "output_dir", Kind::Other));
        assert!(!a_folder("LoadImage", "image", Kind::Files));
    }
}
