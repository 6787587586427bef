//! Decides whether a route is ComfyUI's or a node pack's, and recognises paths that imitate the
//! socket's.

use super::endpoint::{decode, decode_all, first_segment, without_api};

/// True for routes of ComfyUI and of Mooring: only there, `clientId` in the query is the id of a
/// client. On a route of a node pack it may mean something else (`/ps/ws?clientId=…`).
#[must_use]
pub fn is_comfyuis(raw_path: &str) -> bool {
    // All routes of 0.3.45 to 0.33, and the official page's files.
    const FIRST: [&str; 34] = [
        "",
        "-",
        "api",
        "assets",
        "docs",
        "embeddings",
        "experiment",
        "extensions",
        "features",
        "free",
        "global_subgraphs",
        "history",
        "i18n",
        "index.html",
        "internal",
        "interrupt",
        "jobs",
        "models",
        "node_replacements",
        "object_info",
        "prompt",
        "queue",
        "scripts",
        "settings",
        "system_stats",
        "tags",
        "tasks",
        "templates",
        "upload",
        "userdata",
        "users",
        "view",
        "view_metadata",
        "ws",
    ];
    let path = decode(raw_path);
    let bare = without_api(&path);
    let first = first_segment(bare.trim_start_matches('/'));
    FIRST.contains(&first)
        || matches!(first, "workflow_templates")
        || bare.starts_with("/v2/userdata")
}

/// True for a path that a proxy or server between Mooring and ComfyUI may read as the socket's:
/// with other slashes, dots, letter case or escapes. Mooring serves the socket itself. Passing such
/// a request to a backend would open a link that Mooring does not observe.
#[must_use]
pub fn is_like_socket(raw_path: &str) -> bool {
    let mut path = raw_path.to_owned();
    // Escapes may be nested; there are fewer proxies in a row than this.
    for _ in 0..4 {
        path = decode_all(&path);
    }
    let path = path.to_ascii_lowercase().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment.split(';').next().unwrap_or("").trim() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let is_api = |segment: &&&str| **segment == "api";
    let bare = segments.iter().skip(segments.iter().take_while(is_api).count());
    bare.copied().eq(["ws"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_in_the_query_of_comfyuis_own_routes() {
        for own in [
            "/ws",
            "/api/ws",
            "/prompt",
            "/api/object_info/X",
            "/",
            "/api/",
            "/-/whoami",
            "/api/v2/userdata",
            "/v2/userdata",
            "/internal/logs",
            "/%70rompt",
            "/workflow_templates",
        ] {
            assert!(is_comfyuis(own), "{own}");
        }
        for pack in ["/ps/ws", "/sd-ppp/", "/api/ps/ws", "/v2/manager/x", "/wss", "/vhs/viewvideo"]
        {
            assert!(!is_comfyuis(pack), "{pack}");
        }
    }

    #[test]
    fn no_spelling_of_the_socket_is_another_socket() {
        for spelling in [
            "/ws/",
            "//ws",
            "/WS",
            "/api//ws",
            "/api/ws/",
            "/api/api/ws",
            "/./ws",
            "/x/../ws",
            "/ws;a=1",
            "/%2577s",
            "/%2fws",
            "/ws%2f",
            "/%5cws",
            "\\\\ws",
            "/ws%20",
            "/api/%2e/ws",
        ] {
            assert!(is_like_socket(spelling), "{spelling}");
        }
        for another in ["/ps/ws", "/ws/x", "/api/sd-ppp/", "/wss", "/api", "/", "/ws.js"] {
            assert!(!is_like_socket(another), "{another}");
        }
    }
}
