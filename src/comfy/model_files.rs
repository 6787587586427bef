//! The files of models that a server has, with their sizes: `GET /experiment/models` lists its
//! folders, and `GET /experiment/models/FOLDER` what is in one (ComfyUI 0.33,
//! `app/model_manager.py`; older servers do not say sizes).

use super::raw::{self, Object};

/// So many folders of a server are looked at, and files of one.
const FOLDERS_MAX: usize = 64;
const FILES_MAX: usize = 65_536;

/// Numbers from here on are no sizes of a file; up to here, an `f64` is exact.
const BYTES_MAX: f64 = 9_007_199_254_740_992.0;

/// The names of the folders.
#[must_use]
pub fn folders(body: &[u8]) -> Vec<String> {
    let names = list(body).into_iter().filter_map(|it| Some(it.text("name")?.into_owned()));
    names.take(FOLDERS_MAX).collect()
}

/// The files of a folder whose sizes are told, with their bytes. They are named as in graphs.
#[must_use]
pub fn sizes(body: &[u8]) -> Vec<(String, u64)> {
    let files = list(body).into_iter().filter_map(|it| {
        let size = it.number("size").filter(|size| (1.0..BYTES_MAX).contains(size))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Some((it.text("name")?.into_owned(), size as u64))
    });
    files.take(FILES_MAX).collect()
}

fn list(body: &[u8]) -> Vec<Object<'_>> {
    let Ok(body) = serde_json::from_slice::<&serde_json::value::RawValue>(body) else {
        return Vec::new();
    };
    raw::list(body).unwrap_or_default().into_iter().filter_map(raw::object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_sizes_are_read_and_what_is_odd_is_left_out() {
        let all = br#"[{"name": "checkpoints", "folders": ["/m/c"]}, {"folders": []}, 5]"#;
        assert_eq!(folders(all), ["checkpoints"]);
        let files = br#"[{"name": "sub/a.safetensors", "pathIndex": 0, "size": 6938040682},
            {"name": "b.pt"}, {"name": "c.pt", "size": -1}, {"size": 7}, null]"#;
        assert_eq!(sizes(files), [("sub/a.safetensors".to_owned(), 6_938_040_682)]);
        assert!(sizes(b"junk").is_empty() && folders(b"{}").is_empty());
    }
}
