//! Do the pages of the documentation hold together? Every link leads somewhere, and every page is
//! found from the first one. `make site` asks the same of the site that is built from them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What is not ours, or is made by a build.
const NOT_OURS: [&str; 4] = [".git", ".cache", "target", "node_modules"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files of the repository whose names end with `ending`, by their paths from its root.
pub(crate) fn ours(ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it can be read") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            if path.is_dir() {
                if !NOT_OURS.contains(&name) {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let path = path.strip_prefix(root()).expect("below the root").to_owned();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The lines outside of fenced blocks.
pub(crate) fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    markdown.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// The text without what stands in code marks, where brackets are no links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// What a link to a heading ends with, as GitHub and MkDocs both make it.
fn anchor(heading: &str) -> String {
    let text = heading.replace('`', "").to_lowercase();
    let kept = text.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

fn anchors(markdown: &str) -> Vec<String> {
    let headings = prose(markdown).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Where the links of a text lead that are no addresses: path and anchor, each of which may be
/// empty.
fn links(markdown: &str) -> Vec<(String, String)> {
    let text: Vec<String> = prose(markdown).map(without_code).collect();
    let text = text.join("\n");
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let ours = links.filter(|link| !link.contains("://"));
    ours.map(|link| link.split_once('#').unwrap_or((link, "")))
        .map(|(path, anchor)| (path.to_owned(), anchor.to_owned()))
        .collect()
}

/// The path that a link in a file leads to, with `..` taken out.
fn target(from: &Path, link: &str) -> PathBuf {
    let mut path = from.parent().expect("a file is in a folder").to_owned();
    for part in Path::new(link).components() {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path
}

#[test]
fn every_link_and_its_anchor_leads_somewhere() {
    let documents = ours(".md");
    let mut problems = Vec::new();
    let mut anchored = 0;
    for (from, markdown) in &documents {
        for (link, place) in links(markdown) {
            let to = if link.is_empty() { from.clone() } else { target(from, &link) };
            if !root().join(&to).exists() {
                problems.push(format!("{}: {link} is not there", from.display()));
            } else if !place.is_empty() {
                anchored += 1;
                let document = documents.iter().find(|(path, _)| *path == to);
                let is_there = document.is_some_and(|(_, text)| anchors(text).contains(&place));
                if !is_there {
                    problems.push(format!("{}: {link}#{place} is no heading", from.display()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(30 < anchored, "only {anchored} links to headings were seen");
}

/// A link out of `docs` leads nowhere on the site, and two headings of one name are told apart
/// otherwise by GitHub than by MkDocs.
#[test]
fn a_page_can_be_shown_by_a_site_too() {
    for (path, markdown) in ours(".md").iter().filter(|(path, _)| path.starts_with("docs")) {
        let page = path.display();
        for (link, _) in links(markdown) {
            assert!(target(path, &link).starts_with("docs"), "{page}: {link} leaves docs/");
        }
        let anchors = anchors(markdown);
        let names: BTreeSet<&String> = anchors.iter().collect();
        assert_eq!(names.len(), anchors.len(), "{page}: two headings have one name");
        for anchor in anchors {
            assert!(!anchor.contains("--"), "{page}: #{anchor} is another one on the site");
        }
        // Both are no list, or no table, for MkDocs.
        let lines: Vec<&str> = prose(markdown).collect();
        for pair in lines.windows(2) {
            let begins = |mark: &str| pair[1].starts_with(mark) && !pair[0].starts_with(mark);
            let is_after_text = !pair[0].is_empty() && !pair[0].starts_with("  ");
            let is_cut_off = is_after_text && (begins("- ") || begins("|"));
            assert!(!is_cut_off, "{page}: an empty line is missing above {}", pair[1]);
        }
    }
}

/// From the first page, and in the navigation of the site, in the same order.
#[test]
fn no_page_is_an_orphan() {
    let text = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let all: BTreeSet<String> = ours(".md")
        .into_iter()
        .filter_map(|(path, _)| path.strip_prefix("docs").ok().map(|it| it.display().to_string()))
        .filter(|name| name != "README.md")
        .collect();
    let is_page = |name: &String| name.ends_with(".md");
    let first: Vec<String> =
        links(&text("docs/README.md")).into_iter().map(|(path, _)| path).filter(is_page).collect();
    assert_eq!(first.iter().cloned().collect::<BTreeSet<_>>(), all, "docs/README.md");
    let site = text("packaging/site/mkdocs.yml");
    let navigation = site.split("\nnav:").nth(1).expect("it has one");
    let named: Vec<String> = navigation
        .lines()
        .filter_map(|line| line.rsplit_once(": ").map(|(_, page)| page.to_owned()))
        .filter(|page| page != "README.md")
        .collect();
    assert_eq!(named, first, "packaging/site/mkdocs.yml and docs/README.md");
}

/// In messages, comments, manifests and scripts.
#[test]
fn every_page_that_is_named_anywhere_is_there() {
    let mut named = 0;
    for (path, text) in ours("") {
        for (at, _) in text.match_indices("docs/") {
            let rest = &text[at..];
            let is_part = |it: char| it.is_ascii_alphanumeric() || "-_./".contains(it);
            let name = rest.split(|it| !is_part(it)).next().unwrap_or_default();
            let name = name.trim_end_matches('.');
            let begins = text[..at].chars().next_back();
            let is_ours = !begins.is_some_and(|it| it.is_alphanumeric() || "-_/.".contains(it));
            if is_ours && name.ends_with(".md") {
                named += 1;
                let is_there = root().join(name).is_file();
                assert!(is_there, "{} names {name}, which is not there", path.display());
            }
        }
    }
    assert!(100 < named, "only {named} names were seen");
}
