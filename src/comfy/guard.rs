//! Decides which routes belong to operators: those that install, update, restart or configure a
//! server, and those that show what clients must not see.
//!
//! ComfyUI-Manager's areas are closed as a whole. Old versions change a server by GET too. Newer
//! ones show stored passwords (`get_matrix_auth`, 4.2.2) or write the query into `config.ini`
//! (`share_option`, `policy/component`). Lists that its window needs to open are the exception. For
//! other packs, known routes that restart the server or install something are closed.
//!
//! Also closed are paths that ComfyUI would not match: with empty segments, in other letter case,
//! or with encoded slashes. No route looks like this, and a middleware may turn such a path into
//! one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Who may use a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Area {
    /// Everybody.
    Open,
    /// Everybody, for reading: a list of Manager. The query must be a single line of text.
    List,
    /// Only operators: it changes a server, or shows its secrets.
    Shut,
    /// A server's log and its paths.
    Inside,
}

/// The routes of both generations of Manager: `/manager/…`, `/v2/manager/…` and related ones.
const AREAS: [&str; 5] = ["manager", "customnode", "externalmodel", "snapshot", "comfyui_manager"];

const LISTS: [&str; 9] = [
    "/manager/version",
    "/manager/notice",
    "/manager/is_legacy_manager_ui",
    "/manager/queue/status",
    "/customnode/getlist",
    "/customnode/getmappings",
    "/customnode/installed",
    "/externalmodel/getlist",
    "/snapshot/getlist",
];

/// The id of a pack follows.
const VERSIONS: &str = "/customnode/versions/";

/// Names of routes that install something or stop the server: `/easyuse/reboot`,
/// `/mixlab/re_start`, `/restart-button/restart`, `/model_manager/install_model`.
const DEEDS: [&str; 18] = [
    "reboot",
    "reboot_server",
    "reboot_comfyui",
    "restart",
    "re_start",
    "restart_server",
    "restart_comfyui",
    "shutdown",
    "shutdown_server",
    "install",
    "reinstall",
    "uninstall",
    "install_model",
    "install_node",
    "install_nodes",
    "install_package",
    "pip_install",
    "git_pull",
];

/// Below these are names that users chose: of files, classes, prompts.
const NAMING: [&str; 16] = [
    "-",
    "assets",
    "docs",
    "embeddings",
    "experiment",
    "extensions",
    "history",
    "internal",
    "jobs",
    "models",
    "object_info",
    "settings",
    "templates",
    "userdata",
    "view_metadata",
    "workflow_templates",
];

/// The area of the route at `path`, which is decoded as ComfyUI matches it.
#[must_use]
pub fn area(path: &str) -> Area {
    if let Some(rest) = path.strip_prefix("/internal/")
        && ["logs", "folder_paths"].iter().any(|inside| begins(rest, inside))
    {
        return Area::Inside;
    }
    if LISTS.contains(&bare(path)) || is_versions(bare(path)) {
        return Area::List;
    }
    let mended = if path.contains('%') {
        Cow::Owned(percent_decode_str(path).decode_utf8_lossy().into_owned())
    } else {
        Cow::Borrowed(path)
    };
    // The prefixes of ComfyUI and of Manager's second generation, in any order and number.
    let mut segments = mended.split('/').filter(|it| !matches!(*it, "" | "." | "api" | "v2"));
    let Some(first) = segments.next() else { return Area::Open };
    if AREAS.iter().any(|area| first.eq_ignore_ascii_case(area)) {
        return Area::Shut;
    }
    let does = is_deed(first) || segments.any(is_deed);
    if does && !NAMING.contains(&first) { Area::Shut } else { Area::Open }
}

/// True if a query contains a character that ends a line or a text. Manager writes some queries
/// into its configuration unchanged, and each line there is a setting.
#[must_use]
pub fn breaks_lines(query: &str) -> bool {
    percent_decode_str(query).any(|byte| byte.is_ascii_control())
}

fn begins(path: &str, segment: &str) -> bool {
    path.strip_prefix(segment).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn bare(path: &str) -> &str {
    let cut = |path, prefix| begins_with(path, prefix).unwrap_or(path);
    cut(cut(path, "/api"), "/v2")
}

fn begins_with<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn is_versions(path: &str) -> bool {
    let pack = path.strip_prefix(VERSIONS).unwrap_or("");
    !pack.is_empty() && !pack.contains(['/', '%'])
}

/// Compares in any letter case, with `-` equal to `_`.
fn is_deed(segment: &str) -> bool {
    const LONGEST: usize = 15;
    let is_same = |(given, known): (u8, u8)| given == known || (known == b'_' && given == b'-');
    (6..=LONGEST).contains(&segment.len())
        && DEEDS.iter().any(|deed| {
            let letters = segment.bytes().map(|byte| byte.to_ascii_lowercase());
            deed.len() == segment.len() && letters.zip(deed.bytes()).all(is_same)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paths: &[&str], expected: Area) {
        for path in paths {
            assert_eq!(area(path), expected, "{path}");
        }
    }

    #[test]
    fn managers_areas_are_shut_as_a_whole_and_some_lists_are_open() {
        for prefix in ["", "/api", "/v2", "/api/v2"] {
            for shut in [
                "/manager",
                "/manager/",
                "/manager/get_matrix_auth",
                "/manager/share_option",
                "/manager/policy/component",
                "/manager/youml/settings",
                "/manager/queue/statuses",
                "/manager/version/x",
                "/customnode/fetch_updates",
                "/customnode/versions",
                "/customnode/versions/a/b",
                "/snapshot/get_current",
                "/comfyui_manager/comfyui_versions",
                "/Manager/reboot",
            ] {
                check(&[&format!("{prefix}{shut}")], Area::Shut);
            }
            for list in LISTS.iter().copied().chain(["/customnode/versions/rgthree-comfy"]) {
                check(&[&format!("{prefix}{list}")], Area::List);
            }
        }
        let odd = ["//manager/x", "/api//v2/./manager/x", "/v2/api/manager/x", "/manager%2Freboot"];
        check(&odd, Area::Shut);
        check(&["/managers", "/x/manager", "/manager-x/y", "/"], Area::Open);
    }

    #[test]
    fn what_restarts_or_installs_is_shut_in_every_pack() {
        check(
            &[
                "/easyuse/reboot",
                "/api/mixlab/re_start",
                "/restart-button/restart",
                "/model_manager/install_model",
                "/x/Restart-ComfyUI",
                "/reboot",
            ],
            Area::Shut,
        );
        check(
            &[
                "/extensions/install/reboot",
                "/userdata/install",
                "/object_info/restart",
                "/history/reboot",
                "/pack/restarted",
                "/pack/install.js",
            ],
            Area::Open,
        );
    }

    #[test]
    fn logs_and_paths_are_inside() {
        check(
            &[
                "/internal/logs",
                "/internal/logs/raw",
                "/internal/logs/subscribe",
                "/internal/folder_paths",
            ],
            Area::Inside,
        );
        check(&["/internal/files/input", "/internal/logsx", "/logs"], Area::Open);
    }

    #[test]
    fn a_query_of_several_lines_is_told() {
        for query in ["value=a%0Db", "%0a", "x=%00", "x=\n", "a%09b", "a=%7f"] {
            assert!(breaks_lines(query), "{query}");
        }
        for query in ["", "mode=cache&skip_update=true", "x=%20%C3%A4+", "x=%250a", "%", "%0"] {
            assert!(!breaks_lines(query), "{query}");
        }
    }
}
