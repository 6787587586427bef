//! Serves the files of the playground, the page of the demo.
//!
//! The page is written by hand, needs no build step and no network, and is part of the binary. The
//! simulated backends serve it as their own frontend, so that it reaches a browser through the
//! gateway as ComfyUI's page does.
//!
//! # Invariants
//!
//! - Every file of `page/` is in `FILES`, and the page requests no other file.
//! - No file names another host: the demo works without a network.

/// One file of the playground.
#[derive(Debug)]
pub(super) struct PageFile {
    /// Its path, with the leading slash.
    pub(super) path: &'static str,
    pub(super) bytes: &'static [u8],
}

/// Finds the file at `path` (decoded, without a query); `/` is the page itself.
#[must_use]
pub(super) fn find(path: &str) -> Option<&'static PageFile> {
    let path = if path == "/" { "/index.html" } else { path };
    FILES.iter().find(|file| file.path == path)
}

static FILES: &[PageFile] = &[
    PageFile { path: "/index.html", bytes: include_bytes!("page/index.html") },
    PageFile { path: "/demo.js", bytes: include_bytes!("page/demo.js") },
    PageFile { path: "/client.js", bytes: include_bytes!("page/client.js") },
    PageFile { path: "/prompts.js", bytes: include_bytes!("page/prompts.js") },
    PageFile { path: "/view.js", bytes: include_bytes!("page/view.js") },
    PageFile { path: "/demo.css", bytes: include_bytes!("page/demo.css") },
    PageFile { path: "/mark.svg", bytes: include_bytes!("page/mark.svg") },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn text(file: &PageFile) -> &'static str {
        std::str::from_utf8(file.bytes).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/page");
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        let served: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(served, on_disk);
    }

    #[test]
    fn each_file_that_the_page_asks_for_is_there() {
        for file in FILES {
            // References are written as `./name`, in markup and in imports.
            for part in text(file).split("\"./").skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(find(&format!("/{name}")).is_some(), "{} asks for {name}", file.path);
            }
        }
    }

    #[test]
    fn no_file_asks_another_host() {
        for file in FILES {
            let names = text(file).replace("http://www.w3.org/2000/svg", "");
            let strangers = names.contains("http://") || names.contains("https://");
            assert!(!strangers, "{} names another host", file.path);
        }
    }

    #[test]
    fn the_bare_path_is_the_page() {
        assert_eq!(find("/").map(|file| file.path), Some("/index.html"));
        assert!(find("/nothing.js").is_none());
    }
}
