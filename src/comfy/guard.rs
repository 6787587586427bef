//! Is a route the operator's? Those that install, update, restart or configure a server, and those
//! that tell of it what is no client's business.
//!
//! ComfyUI-Manager's areas are shut as a whole: old versions change a server by GET too, newer ones
//! tell stored passwords (`get_matrix_auth`, 4.2.2) or write what a query says into `config.ini`
//! (`share_option`, `policy/component`). Lists that its window needs to open are the exception. Of
//! other packs those routes are known that restart the server or install something.
//!
//! Shut is also what ComfyUI would not match: a path with empty segments, in other letters, or with
//! its slashes encoded. Nobody has such a route, and a middleware may mend the path.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Whose a route is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Area {
    /// Everybody's.
    Open,
    /// One of Manager's lists: may be read, with a query that is a line of text.
    List,
    /// It changes a server, or tells its secrets.
    Shut,
    /// A server's log and its paths.
    Inside,
}

/// Manager of both generations: `/manager/…`, `/v2/manager/…` and their friends.
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

/// Followed by the id of a pack.
const VERSIONS: &str = "/customnode/versions/";

/// Names of routes that install something or end the server: `/easyuse/reboot`,
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

/// Below these stand names that others gave: of files, classes, prompts.
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

/// Whose the route at `path` is, which is decoded as ComfyUI matches it.
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
    // The prefixes of ComfyUI and of Manager's second generation, in whatever order and number.
    let mut segments = mended.split('/').filter(|it| !matches!(*it, "" | "." | "api" | "v2"));
    let Some(first) = segments.next() else { return Area::Open };
    if AREAS.iter().any(|area| first.eq_ignore_ascii_case(area)) {
        return Area::Shut;
    }
    let does = is_deed(first) || segments.any(is_deed);
    if does && !NAMING.contains(&first) { Area::Shut } else { Area::Open }
}

/// True if a query has what ends a line or a text. Manager writes what some queries say into its
/// configuration as it is, and there a line is a setting.
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

/// In whatever letters, and with `-` for `_`.
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
