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
//! one. So a path belongs to an area if any of its readings does ([`super::spelling`]).

use percent_encoding::percent_decode_str;

use super::spelling::{Segments, readings};

/// Who may use a route. Of several areas the last counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Area {
    /// Everybody.
    Open,
    /// Everybody, for reading: a list of Manager. The query must be a single line of text.
    List,
    /// `/free`: everybody may read there, where ComfyUI has nothing.
    Memory,
    /// A server's scan for assets, and the removal of lost ones: reads are no commands.
    Scan,
    /// A server's log and its paths.
    Inside,
    /// Only operators: it changes a server, or shows its secrets.
    Shut,
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

/// The area of the route at `raw_path`. `path` is the same, decoded as ComfyUI matches it. It is
/// asked of each request, so what is common is told apart by lengths.
#[must_use]
pub fn area(raw_path: &str, path: &str) -> Area {
    let mut found = Area::Open;
    readings(raw_path).any(|segments| {
        found = found.max(area_of(segments));
        found == Area::Shut
    });
    if found == Area::Shut && is_list(bare(path)) { Area::List } else { found }
}

/// True for a path that belongs to more than one area of operators, by how it is read: no route
/// looks like this.
#[must_use]
pub fn is_of_several(raw_path: &str) -> bool {
    let mut found = Area::Open;
    readings(raw_path).any(|segments| match area_of(segments) {
        Area::Open | Area::List => false,
        area @ (Area::Memory | Area::Scan | Area::Inside | Area::Shut) => {
            found != area && std::mem::replace(&mut found, area) != Area::Open
        }
    })
}

fn area_of(segments: Segments<'_>) -> Area {
    let mut segments = segments.filter(|segment| !is_prefix(segment));
    let Some(first) = segments.next() else { return Area::Open };
    let is = |name: &str| first.eq_ignore_ascii_case(name);
    let servers = match first.len() {
        4 if is("free") => segments.clone().next().is_none().then_some(Area::Memory),
        6 if is("assets") => area_of_assets(segments.clone()),
        8 if is("internal") => segments.clone().next().and_then(area_inside),
        _ if AREAS.iter().any(|area| is(area)) => return Area::Shut,
        _ => None,
    };
    if let Some(area) = servers {
        return area;
    }
    let does = is_deed(first) || segments.any(is_deed);
    if does && !NAMING.contains(&first) { Area::Shut } else { Area::Open }
}

/// The prefixes of ComfyUI and of Manager's second generation, which count in any order and number.
fn is_prefix(segment: &str) -> bool {
    match segment.len() {
        1 => segment == ".",
        2 => segment.eq_ignore_ascii_case("v2"),
        3 => segment.eq_ignore_ascii_case("api"),
        _ => false,
    }
}

fn area_inside(segment: &str) -> Option<Area> {
    let is_it = |name: &&str| segment.eq_ignore_ascii_case(name);
    ["logs", "folder_paths"].iter().any(is_it).then_some(Area::Inside)
}

/// The area of what is below `assets`.
fn area_of_assets<'a>(mut below: impl Iterator<Item = &'a str>) -> Option<Area> {
    let is = |segment: &str, name: &str| segment.eq_ignore_ascii_case(name);
    let name = below.next()?;
    let is_scan = match below.next() {
        None => is(name, "seed") || is(name, "prune"),
        Some(last) => is(name, "seed") && is(last, "cancel") && below.next().is_none(),
    };
    is_scan.then_some(Area::Scan)
}

/// True if a query contains a character that ends a line or a text. Manager writes some queries
/// into its configuration unchanged, and each line there is a setting.
#[must_use]
pub fn breaks_lines(query: &str) -> bool {
    percent_decode_str(query).any(|byte| byte.is_ascii_control())
}

fn bare(path: &str) -> &str {
    let cut = |path, prefix| begins_with(path, prefix).unwrap_or(path);
    cut(cut(path, "/api"), "/v2")
}

fn begins_with<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn is_list(bare: &str) -> bool {
    let pack = bare.strip_prefix(VERSIONS).unwrap_or("");
    LISTS.contains(&bare) || (!pack.is_empty() && !pack.contains(['/', '%']))
}

/// Compares in any letter case, with `-` equal to `_`.
fn is_deed(segment: &str) -> bool {
    const LONGEST: usize = 15;
    let is_same = |(given, known): (u8, u8)| given == known || (known == b'_' && given == b'-');
    let may_be = matches!(
        segment.as_bytes().first().map(u8::to_ascii_lowercase),
        Some(b'r' | b's' | b'i' | b'u' | b'p' | b'g')
    );
    may_be
        && (6..=LONGEST).contains(&segment.len())
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
            assert_eq!(area(path, path), expected, "{path}");
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
        let odd = [
            "//manager/x",
            "/api//v2/./manager/x",
            "/v2/api/manager/x",
            "/manager%2Freboot",
            "/API/V2/Manager/x",
            "/x/..;/manager/reboot",
            "/%2566ree/%2e%2e/customnode\\install",
            "/manager;x/version",
            "/manager/version%20",
        ];
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
        check(
            &["/api/internal/logs", "//Internal/./logs", "/internal%2flogs", "/internal;/logs/raw"],
            Area::Inside,
        );
        check(&["/internal/files/input", "/internal/logsx", "/logs"], Area::Open);
    }

    #[test]
    fn what_acts_on_a_whole_server_is_known_in_every_spelling() {
        check(&["/free", "/api/free", "/FREE/", "/%66ree", "/x/../free", "/free;x"], Area::Memory);
        check(
            &[
                "/api/assets/seed",
                "/assets/seed/cancel",
                "/api/api/Assets//prune",
                "/assets%2Fseed",
            ],
            Area::Scan,
        );
        check(&["/free/x", "/freed", "/x/free", "/assets/seed/status", "/assets/x"], Area::Open);
    }

    #[test]
    fn a_path_of_several_areas_is_told() {
        for path in ["/manager/..%2Finternal/logs", "/internal/logs/../../free"] {
            assert!(is_of_several(path), "{path}");
        }
        for path in ["/manager/reboot", "/api/../internal/logs", "/x/../free", "/", "/a;b"] {
            assert!(!is_of_several(path), "{path}");
        }
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
