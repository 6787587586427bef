//! Recognises routes that ComfyUI itself does not have: those of node packs.
//!
//! Their meaning is unknown, except that a server may remember who used them: a picture that was
//! uploaded for the next prompt, a login, a dialogue in several steps.

use super::endpoint::first_segment;

/// True if the path is probably a route of a node pack.
#[must_use]
pub fn is_foreign(path: &str) -> bool {
    let mut rest = path.trim_start_matches('/');
    // `/api/x` is `/x`, and a few routes have the prefix twice.
    while let Some(after) = rest.strip_prefix("api/") {
        rest = after;
    }
    !is_known(first_segment(rest))
}

/// True for the first segment of a route of ComfyUI (0.3.64 to 0.33), of its Manager or of Mooring.
#[rustfmt::skip]
fn is_known(first: &str) -> bool {
    matches!(
        first,
        "" | "-" | "api" | "assets" | "comfyui_manager" | "css" | "cursor" | "customnode" | "docs"
            | "embeddings" | "experiment" | "extensions" | "externalmodel" | "features" | "fonts"
            | "free" | "global_subgraphs" | "history" | "i18n" | "internal" | "interrupt" | "jobs"
            | "lib" | "manager" | "materialdesignicons" | "models" | "node_replacements"
            | "object_info" | "prompt" | "queue" | "scripts" | "settings" | "snapshot"
            | "system_stats" | "tags" | "templates" | "users" | "userdata" | "v2" | "view"
            | "view_metadata" | "viewvideo" | "workflow_templates" | "ws"
    )
}

/// True if a read of the path may belong to a dialogue: files of a pack's page do not.
#[must_use]
pub fn may_be_a_session(path: &str) -> bool {
    is_foreign(path) && !path.rsplit('/').next().unwrap_or("").contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_packs_are_told_from_comfyuis_own() {
        for path in ["/etn/image/7", "/api/etn/image/7", "/pack/echo", "/upload/audio", "/vhs/x"] {
            assert!(is_foreign(path), "{path}");
        }
        for path in [
            "/",
            "/prompt",
            "/api/settings/x",
            "/api/userdata/workflows%2Fa.json",
            "/api/jobs",
            "/internal/logs/subscribe",
            "/api/internal/logs/subscribe",
            "/api/api/jobs",
            "/api/assets",
            "/api/v2/userdata",
            "/manager/queue/install",
            "/-/whoami",
            "/api",
        ] {
            assert!(!is_foreign(path), "{path}");
        }
    }

    #[test]
    fn files_of_a_packs_page_are_no_session() {
        assert!(may_be_a_session("/pack/echo") && may_be_a_session("/api/pack/login"));
        assert!(!may_be_a_session("/pack/web/main.js") && !may_be_a_session("/object_info"));
    }
}
