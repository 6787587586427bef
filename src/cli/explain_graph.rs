//! `mooring explain --graph FILE`: where a graph would go now.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::admin::post;
use super::answer::{finish, usual};
use super::args::AdminArgs;
use super::{EXIT_USAGE, say};
use crate::comfy::parts::{NotAGraph, graph_of};

/// No graph that a server takes is larger, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// Why there is nothing to ask about.
#[derive(Debug, thiserror::Error)]
enum NoGraph {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path} is larger than 64 MiB")]
    TooLarge { path: String },
    #[error("{path} is no graph: {source}")]
    Other { path: String, source: NotAGraph },
}

pub(super) async fn explain(path: &Path, admin: &AdminArgs) -> ExitCode {
    let body = match body_of(path) {
        Ok(body) => body,
        Err(error) => {
            say::failure(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    finish(usual(admin), post(admin, "/api/v1/explain".to_owned(), body).await)
}

/// Only the graph is sent: a file may also have the workflow, which is larger, and keys.
fn body_of(path: &Path) -> Result<String, NoGraph> {
    let name = || say::plain(&path.display().to_string());
    let text = read(path).map_err(|source| NoGraph::Unreadable { path: name(), source })?;
    if FILE_MAX < text.len() as u64 {
        return Err(NoGraph::TooLarge { path: name() });
    }
    let graph = graph_of(&text).map_err(|source| NoGraph::Other { path: name(), source })?;
    Ok(json!({ "prompt": graph }).to_string())
}

/// `-` is standard input.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_MAX + 1).read_to_end(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_graph_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph.json");
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            body_of(&path).map_err(|error| error.to_string())
        };
        let graph =
            r#"{"prompt": {"1": {"class_type": "A", "inputs": {}}}, "extra_data": {"k": 1}}"#;
        assert_eq!(told(graph).unwrap(), r#"{"prompt":{"1":{"class_type":"A","inputs":{}}}}"#);
        let error = told("{\"nodes\": []}").unwrap_err();
        assert!(error.contains("graph.json is no graph: it is a workflow"), "{error}");
        assert!(told("{").unwrap_err().contains("it is not JSON"));
        let missing = body_of(&folder.path().join("none.json")).unwrap_err().to_string();
        assert!(missing.contains("none.json cannot be read"), "{missing}");
        assert!(body_of(folder.path()).is_err(), "a folder");
    }
}
