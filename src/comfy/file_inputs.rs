//! Does this input of a node take a file? A string that happens to be a file's name is not touched
//! anywhere else: the prefix of what is saved, a text that is drawn.
//!
//! `/object_info` says it for inputs with an upload and for lists of choices. For the rest, and
//! where it was not read yet, the names of node and input do: `Load…`, `image`, `video_path`.

/// What `/object_info` says of an input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Files of a folder are uploaded to it or listed in it.
    Files,
    /// A list of other choices, or an empty one.
    Choices,
    /// A text of several lines.
    Prose,
    /// Anything else, or nothing is known of it.
    Other,
}

/// What nodes call an input that takes a file.
const FILES: [&str; 16] = [
    "image", "img", "picture", "photo", "video", "movie", "audio", "sound", "mask", "file", "path",
    "model", "mesh", "latent", "source", "media",
];

/// And one that takes a folder of them.
const FOLDERS: [&str; 4] = ["dir", "folder", "path", "location"];

/// What nodes are called that take files, whatever they call the input.
const READERS: [&str; 6] = ["load", "read", "import", "open", "preview", "primitive"];

/// And those that write them: what is a name there is that of a new file.
const WRITERS: [&str; 4] = ["save", "export", "write", "encode"];

/// True if a string in this input, which is a known file's name, means that file.
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

/// True if a string in this input, which is a known folder's name, means the files in it.
#[must_use]
pub fn a_folder(class: &str, input: &str, kind: Kind) -> bool {
    let writes = has_one(&class.to_lowercase(), &WRITERS);
    let is_folder = has_one(&lower(input), &FOLDERS) && !is_for_new(input);
    kind != Kind::Prose && is_folder && !writes
}

/// True for an input that says how something new is called.
fn is_for_new(input: &str) -> bool {
    has_one(&lower(input), &["prefix", "suffix", "output", "text", "prompt", "pattern"])
}

fn lower(input: &str) -> String {
    // Inputs of dynamic nodes stand behind a dot: `mode.image`.
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
