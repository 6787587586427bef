//! Rooms of the house use those below them and no others, so that none of them is in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::tidy::{lines_before_tests, sources, without_comments_and_strings};

/// Every folder and every file right below `src/`, from the ground up, and what it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("lock", &[]),
    ("net", &["lock"]),
    ("tasks", &["lock", "net"]),
    ("ordered_watch", &[]),
    ("lazy_poll", &[]),
    ("routing", &[]),
    ("limits", &["lock", "routing"]),
    ("comfy", &["routing"]),
    ("queue", &["routing"]),
    ("auth", &["comfy", "net"]),
    ("cache", &[]),
    ("masked", &["net", "routing"]),
    ("metrics", &["comfy", "lock", "net", "routing"]),
    ("config", &["auth", "comfy", "net", "routing"]),
    ("lines", &["config", "tasks"]),
    ("audit", &["lines", "net", "tasks"]),
    ("telemetry", &["config"]),
    ("ws", &["lock", "net"]),
    ("body", &[]),
    ("server", &["body", "config", "limits", "net", "lazy_poll", "tasks"]),
    ("tunnels", &["config", "lock", "net", "routing", "ordered_watch", "ws"]),
    ("journal", &["lock", "masked", "net", "routing", "tasks", "ordered_watch"]),
    ("store", &["config", "journal", "metrics", "net", "tasks"]),
    (
        "fleet",
        &["body", "comfy", "config", "lock", "net", "routing", "tasks", "ordered_watch", "ws"],
    ),
    (
        "records",
        &["comfy", "config", "fleet", "journal", "lock", "masked", "metrics", "net", "routing"],
    ),
    (
        "shared",
        &["audit", "config", "fleet", "journal", "lines", "metrics", "net", "records", "tasks"],
    ),
    (
        "session",
        &[
            "comfy",
            "config",
            "fleet",
            "journal",
            "limits",
            "lock",
            "masked",
            "metrics",
            "net",
            "queue",
            "routing",
            "lazy_poll",
            "shared",
            "tasks",
            "tunnels",
            "ordered_watch",
            "ws",
        ],
    ),
    ("discovery", &["config", "fleet", "lock", "net", "session", "tasks"]),
    ("report", &["fleet", "masked", "net", "routing", "session", "shared"]),
    (
        "front",
        &[
            "audit",
            "auth",
            "body",
            "cache",
            "comfy",
            "config",
            "fleet",
            "journal",
            "limits",
            "lines",
            "lock",
            "masked",
            "net",
            "ordered_watch",
            "records",
            "report",
            "routing",
            "server",
            "session",
            "shared",
            "tasks",
            "tunnels",
            "ws",
        ],
    ),
    ("reload", &["audit", "auth", "config", "discovery", "front", "net", "server", "session"]),
    (
        "admin",
        &[
            "audit", "auth", "body", "comfy", "config", "fleet", "front", "journal", "masked",
            "metrics", "net", "reload", "report", "routing", "server", "session", "tasks",
        ],
    ),
    (
        "run",
        &[
            "admin",
            "body",
            "config",
            "discovery",
            "front",
            "journal",
            "lines",
            "lock",
            "masked",
            "metrics",
            "net",
            "reload",
            "routing",
            "server",
            "session",
            "shared",
            "store",
            "tasks",
        ],
    ),
    ("sim", &["comfy", "net", "tasks", "ws"]),
    ("demo", &["body", "config", "front", "net", "report", "session", "sim"]),
    (
        "cli",
        &[
            "auth",
            "comfy",
            "config",
            "demo",
            "discovery",
            "journal",
            "lines",
            "net",
            "reload",
            "routing",
            "run",
            "sim",
            "store",
            "tasks",
            "telemetry",
        ],
    ),
];

#[test]
fn rooms_use_only_what_is_below_them() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ROOMS.iter().map(|(room, uses)| (*room, uses.iter().copied().collect())).collect();
    let mut problems = upward(ROOMS);
    let mut unused = allowed.clone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let name = path.strip_prefix(&root).expect("below the root").display().to_string();
        let room = name.split(['/', '.']).next().unwrap_or_default();
        if matches!(room, "lib" | "main") || name.ends_with("/tests.rs") {
            continue;
        }
        let Some((&room, may)) = allowed.get_key_value(room) else {
            problems.push(format!("{name}: `{room}` is not in the table of rooms"));
            continue;
        };
        let text = fs::read_to_string(&path).expect("a source is text");
        for used in uses(&text).into_iter().filter(|used| *used != room) {
            unused.entry(room).or_default().remove(used.as_str());
            if !may.contains(used.as_str()) {
                problems.push(format!("{name} uses `{used}`, which is not below `{room}`"));
            }
        }
    }
    for (room, uses) in unused {
        problems.extend(uses.iter().map(|it| format!("`{room}` does not use `{it}` any more")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What others use of the library is public, and nothing else.
#[test]
fn what_is_public_is_used_by_binaries_benches_or_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests", "benches", "fuzz"].map(|folder| sources(&root.join(folder)));
    let others = folders.into_iter().flatten().chain([root.join("src/main.rs")]);
    let mut used = BTreeSet::new();
    for path in others {
        let text = fs::read_to_string(&path).expect("a source is text");
        used.append(&mut named(&without_comments_and_strings(&text), "mooring::"));
    }
    let library = fs::read_to_string(root.join("src/lib.rs")).expect("it is there");
    let public =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let unused: Vec<&str> = public.filter(|room| !used.contains(*room)).collect();
    assert!(unused.is_empty(), "nobody outside uses {unused:?}");
}

/// What a room may use that does not stand before it.
fn upward(rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut before = BTreeSet::new();
    let mut problems = Vec::new();
    for (room, uses) in rooms {
        let above = uses.iter().filter(|it| !before.contains(*it));
        problems.extend(above.map(|it| format!("`{it}` does not stand below `{room}`")));
        before.insert(*room);
    }
    problems
}

/// The rooms that the code of a file names, but for its unit tests.
fn uses(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().take(lines_before_tests(text)).collect();
    named(&without_comments_and_strings(&code.join("\n")), "crate::")
}

/// The modules that stand right behind `root` in a text.
fn named(bare: &str, root: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, found) in bare.match_indices(root) {
        let rest = &bare[at + found.len()..];
        let names = rest.strip_prefix('{').map_or(rest, |group| group);
        let is_group = names.len() != rest.len();
        let end = names.find(if is_group { '}' } else { ';' }).unwrap_or(names.len());
        let listed = if is_group { names[..end].split(',').collect() } else { vec![names] };
        for path in listed {
            let path = path.trim_start();
            let name: String =
                path.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            rooms.insert(name);
        }
    }
    rooms
}

#[test]
fn a_room_that_is_used_is_seen_however_it_is_named() {
    let text = "use crate::net::{now, sleep};\nuse crate::{lock, tasks::Tasks};\n// crate::front\n\
                fn f() { crate::body::collect(\"crate::admin\"); }\n\
                #[cfg(test)]\nmod tests {\n    use crate::sim;\n}\n";
    let found: Vec<String> = uses(text).into_iter().collect();
    assert_eq!(found, ["body", "lock", "net", "tasks"]);
}

#[test]
fn a_room_that_may_use_what_is_above_it_is_told() {
    let found = upward(&[("low", &["high"]), ("high", &["low"])]);
    assert_eq!(found, ["`high` does not stand below `low`"]);
}
