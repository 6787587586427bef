//! Routes that ComfyUI itself does not have: those of node packs.
//!
//! What lies behind them is not known, but that a server may remember who used them: a picture that
//! was put there for the next prompt, a login, a dialogue in steps.

use super::endpoint::first_segment;

/// True if the path is a route of a node pack, by all that is known.
#[must_use]
pub fn is_foreign(path: &str) -> bool {
    let mut rest = path.trim_start_matches('/');
    // `/api/x` is `/x`, and a few routes have it twice.
    while let Some(after) = rest.strip_prefix("api/") {
        rest = after;
    }
    !is_known(first_segment(rest))
}

/// The first part of every route of ComfyUI's own (0.3.64 to 0.33), of its Manager and of ours.
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

/// True if a read of it may be a step of a dialogue: a file that a pack's page loads is not.
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
