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

use super::endpoint::{decode, first_segment};
use super::spelling::{Readings, Segments, readings};

/// Who may use a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    /// Nobody: it can be read as a route of more than one area, as one of Mooring's own that it is
    /// not, or in ways that nobody knows. No client means such a path.
    Doubtful,
}

impl Area {
    /// The area of a path that belongs to both of these, by how it is read. What is open in one
    /// reading is not open, and Manager's lists are lists in every reading.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, another) if one == another => one,
            (Self::Open, Self::List) | (Self::List, Self::Open) => Self::Shut,
            (Self::List, Self::Shut) | (Self::Shut, Self::List) => Self::Shut,
            (Self::Open, area) | (area, Self::Open) => area,
            (_one, _another) => Self::Doubtful,
        }
    }
}

/// The routes of both generations of Manager: `/manager/…`, `/v2/manager/…` and related ones.
const AREAS: [&str; 5] = ["manager", "customnode", "externalmodel", "snapshot", "comfyui_manager"];

/// Lists in these areas. `*` is the id of a pack.
const LISTS: [&[&str]; 10] = [
    &["manager", "version"],
    &["manager", "notice"],
    &["manager", "is_legacy_manager_ui"],
    &["manager", "queue", "status"],
    &["customnode", "getlist"],
    &["customnode", "getmappings"],
    &["customnode", "installed"],
    &["customnode", "versions", "*"],
    &["externalmodel", "getlist"],
    &["snapshot", "getlist"],
];

/// The first segments of routes that Mooring answers by what it knows of clients and prompts. A
/// path that only another reader takes for one of them would go past that.
const OURS: [&str; 10] =
    ["ws", "tags", "view", "jobs", "queue", "assets", "prompt", "upload", "history", "interrupt"];

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
    let readings = readings(raw_path);
    if readings.is_doubtful() {
        return Area::Doubtful;
    }
    let first = first_of(path);
    // All readers see the same route in a plain path, but for letter case.
    if let Readings::Plain(path) = readings
        && !first.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return area_of(Segments::Raw(path));
    }
    let is_in_doubt =
        |segments: &Segments<'_>| first_of_ours(segments.clone()).is_some_and(|ours| ours != first);
    let mut found = None;
    readings.any(|segments| {
        let area = if is_in_doubt(&segments) { Area::Doubtful } else { area_of(segments) };
        let both = found.map_or(area, |found: Area| found.and(area));
        found = Some(both);
        both == Area::Doubtful
    });
    found.unwrap_or(Area::Open)
}

/// The first segment that ComfyUI matches. Jobs have the prefix twice.
fn first_of(path: &str) -> &str {
    let mut rest = path;
    while let Some(below) = rest.strip_prefix("/api").filter(|it| it.starts_with('/')) {
        rest = below;
    }
    rest.strip_prefix('/').map_or("", first_segment)
}

/// True for a path that is refused whatever is configured: see [`Area::Doubtful`].
#[must_use]
pub fn is_doubtful(raw_path: &str) -> bool {
    area(raw_path, &decode(raw_path)) == Area::Doubtful
}

/// The route of [`OURS`] that a reading begins with.
fn first_of_ours(mut segments: Segments<'_>) -> Option<&'static str> {
    let is_api = |segment: &&str| segment.len() == 3 && segment.eq_ignore_ascii_case("api");
    let first = segments.find(|segment| !is_api(segment))?;
    if !(2..=9).contains(&first.len()) {
        return None;
    }
    OURS.into_iter().find(|ours| ours.eq_ignore_ascii_case(first))
}

fn area_of(segments: Segments<'_>) -> Area {
    let mut segments = segments.filter(|segment| !is_prefix(segment));
    let Some(first) = segments.next() else { return Area::Open };
    let is = |name: &str| first.eq_ignore_ascii_case(name);
    let servers = match first.len() {
        4 if is("free") => segments.clone().next().is_none().then_some(Area::Memory),
        6 if is("assets") => area_of_assets(segments.clone()),
        8 if is("internal") => segments.clone().next().and_then(area_inside),
        _ if AREAS.iter().any(|area| is(area)) && is_list(first, &segments) => {
            return Area::List;
        }
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

/// True for one of [`LISTS`], as ComfyUI matches it.
fn is_list<'a>(first: &'a str, rest: &(impl Iterator<Item = &'a str> + Clone)) -> bool {
    LISTS.iter().any(|list| {
        let mut given = std::iter::once(first).chain(rest.clone());
        let is_part = |part: &&str| match (*part, given.next()) {
            ("*", Some(pack)) => !pack.is_empty() && !pack.contains(['/', '\\', '%']),
            (name, given) => given == Some(name),
        };
        list.iter().all(is_part) && given.next().is_none()
    })
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
            for list in LISTS {
                let list = list.join("/").replace('*', "rgthree-comfy");
                check(&[&format!("{prefix}/{list}")], Area::List);
            }
        }
        let odd = [
            "//manager/x",
            "/api//v2/./manager/x",
            "/v2/api/manager/x",
            "/manager%2Freboot",
            "/API/V2/Manager/x",
            "/manager;x/version",
            "/manager/version%20",
            "//manager/version",
            "/customnode/versions/a%2Fb",
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
        check(&["/free", "/api/free", "/FREE/", "/%66ree", "/free;x"], Area::Memory);
        check(&["/api/assets/seed", "/assets/seed/cancel", "/api/assets//prune"], Area::Scan);
        check(&["/free/x", "/freed", "/x/free", "/assets/seed/status", "/assets/x"], Area::Open);
    }

    #[test]
    fn what_leads_to_several_routes_is_nobodys() {
        check(
            &[
                "/manager/..%2Finternal/logs",
                "/api/api/Assets//prune",
                "/assets%2Fseed",
                "//api/tags",
                "/internal/logs/../../free",
                "/x/..;/manager/reboot",
                "/customnode/versions/..%5c..%5cmanager%5creboot",
                "/internal//../logs",
                "/free%3F/x/assets/seed%2F../x",
                "/internal%2flogs%3f/x/..",
                "/x/../free",
                "//prompt",
                "/PROMPT",
                "/prompt;x",
                "/%2570rompt",
                "/API/queue",
                "/history%00/x",
                "/%2577s",
            ],
            Area::Doubtful,
        );
        check(
            &[
                "/prompt",
                "/api/prompt",
                "/api/api/jobs/x",
                "/history/a%2Fb",
                "/prompts",
                "/x/prompt",
                "/",
                "/a;b",
            ],
            Area::Open,
        );
        assert_eq!(area("/api/%70rompt", "/api/prompt"), Area::Open);
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
