//! Style that is not a matter of opinion is a test, and its messages tell what to do.

use std::fs;
use std::path::{Path, PathBuf};

/// Past this a module has two responsibilities. Unit tests are not counted.
const MODULE_LINES_MAX: usize = 400;
const LINE_COLUMNS_MAX: usize = 100;
/// Nine functions in ten have 30 lines or fewer; none has more than these.
const FUNCTION_LINES_MAX: usize = 70;

/// What decides and never does.
const PURE: [&str; 13] = [
    "src/routing/",
    "src/comfy/",
    "src/queue/",
    "src/auth/head.rs",
    "src/auth/logouts.rs",
    "src/auth/session.rs",
    "src/auth/users.rs",
    "src/session/event_log.rs",
    "src/session/send_queue.rs",
    "src/cache.rs",
    "src/discovery/found.rs",
    "src/discovery/lines.rs",
    "src/discovery/slices.rs",
];

/// What would betray it. Words are whole words.
const IMPURE_WORDS: [&str; 5] = ["tokio", "hyper", "axum", "rand", "Mutex"];
const IMPURE_PATHS: [&str; 4] = ["std::net", "std::env", "std::fs", "::now()"];

/// What is not finished, spelled so that this file does not have it.
const UNFINISHED: [&str; 5] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), "todo!", "unimplemented!", "#[ignore"];

#[test]
fn sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut problems = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for path in sources(&root.join(folder)) {
            let text = fs::read_to_string(&path).expect("a source is text");
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            for (line, what) in problems_in(&name, &text) {
                problems.push(format!("{name}:{}: {what}", line + 1));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

/// All `.rs` files below a folder, which need not exist.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| match path.extension() {
            None if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => vec![path],
            Some(_) | None => Vec::new(),
        })
        .collect()
}

/// The problems of one file, each with the line that it begins on, counted from 0.
fn problems_in(name: &str, text: &str) -> Vec<(usize, String)> {
    let bare = without_comments_and_strings(text);
    // Unit tests that are too many for the bottom of their file have one of their own.
    let code_lines = if name.ends_with("/tests.rs") { 0 } else { lines_before_tests(text) };
    let mut problems = Vec::new();
    let mut report = |line: usize, what: String| problems.push((line, what));

    if !text.starts_with("//!") {
        report(0, "a module starts with what it is for (`//!`)".to_owned());
    }
    if name.starts_with("src/") && MODULE_LINES_MAX < code_lines {
        let what = format!("{code_lines} lines of code; which responsibility can leave?");
        report(MODULE_LINES_MAX, what);
    }
    for (line, content) in text.lines().enumerate() {
        if LINE_COLUMNS_MAX < content.chars().count() {
            report(line, format!("a line has at most {LINE_COLUMNS_MAX} columns"));
        }
    }
    // Comments count for the first two, code alone for the others.
    for (line, (content, code)) in text.lines().zip(bare.lines()).enumerate() {
        let is_unfinished = |what: &&str| {
            let place = if what.chars().all(char::is_uppercase) { content } else { code };
            has_word(place, what)
        };
        if let Some(what) = UNFINISHED.iter().find(|what| is_unfinished(what)) {
            report(line, format!("`{what}`: finish it, or leave it out"));
        }
    }
    if PURE.iter().any(|pure| name.starts_with(pure)) {
        for (line, code) in bare.lines().take(code_lines).enumerate() {
            for what in impurities(code) {
                report(line, format!("`{what}` in a module that decides and never does"));
            }
        }
    }
    for (line, function, lines) in functions(&bare) {
        if FUNCTION_LINES_MAX < lines {
            report(line, format!("`{function}` has {lines} lines; which step has a name?"));
        }
    }
    problems
}

fn impurities(code: &str) -> impl Iterator<Item = &'static str> {
    let words = IMPURE_WORDS.into_iter().filter(|word| has_word(code, word));
    let paths = IMPURE_PATHS.into_iter().filter(|path| code.contains(path));
    words.chain(paths)
}

/// True if `text` has `word`, and not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let goes_on = word.ends_with(is_name) && after.is_some_and(is_name);
        !before.is_some_and(is_name) && !goes_on
    })
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// How many lines there are before the module of unit tests.
pub(crate) fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && has_word(pair[1], "mod"))
        .unwrap_or(lines.len())
}

/// Each function that has a body: the line it begins on, its name, and its lines.
fn functions(bare: &str) -> Vec<(usize, &str, usize)> {
    let mut functions = Vec::new();
    for (at, _) in bare.match_indices("fn ") {
        let rest = &bare[at + 3..];
        let name = &rest[..rest.find(|it| !is_name(it)).unwrap_or(rest.len())];
        let is_part = bare[..at].chars().next_back().is_some_and(is_name);
        if is_part || name.is_empty() {
            continue;
        }
        if let Some(len) = body_end(rest) {
            let line = bare[..at].matches('\n').count();
            functions.push((line, name, rest[..len].matches('\n').count() + 1));
        }
    }
    functions
}

/// Where the body ends of the function whose name `rest` begins with; `None` if it has no body.
fn body_end(rest: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, character) in rest.char_indices() {
        match character {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The text with comments, strings and characters blanked out, line for line and byte for byte
/// (as far as it is ASCII).
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_after_name = bare.chars().next_back().is_some_and(is_name);
        let hidden = hidden_len(rest, is_after_name);
        let len = hidden.unwrap_or(first.len_utf8());
        let blank = |it: char| if it == '\n' { '\n' } else { ' ' };
        match hidden {
            Some(_) => bare.extend(rest[..len].chars().map(blank)),
            None => bare.push(first),
        }
        rest = &rest[len..];
    }
    bare
}

/// How long the comment, string or character is that `rest` begins with, if it does.
fn hidden_len(rest: &str, is_after_name: bool) -> Option<usize> {
    let upto = |end: Option<usize>, len: usize| end.map_or(rest.len(), |end| end + len);
    if rest.starts_with("//") {
        return Some(upto(rest.find('\n'), 0));
    }
    if rest.starts_with("/*") {
        return Some(upto(rest.find("*/"), 2));
    }
    if rest.starts_with("r\"") || rest.starts_with("r#") {
        let hashes = rest[1..].chars().take_while(|it| *it == '#').count();
        let is_raw = !is_after_name && rest[1 + hashes..].starts_with('"');
        let end = format!("\"{}", "#".repeat(hashes));
        let begin = 2 + hashes;
        return is_raw
            .then(|| rest[begin..].find(&end).map_or(rest.len(), |it| begin + it + end.len()));
    }
    if let Some(after) = rest.strip_prefix('"') {
        return Some(1 + quoted_len(after, '"'));
    }
    let after = rest.strip_prefix('\'')?;
    let is_character = after.starts_with('\\') || after.chars().nth(1) == Some('\'');
    is_character.then(|| 1 + quoted_len(after, '\''))
}

/// How long a quoted text is with its closing quote, which no backslash stands before.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices() {
        if character == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    rest.len()
}

#[track_caller]
fn check(name: &str, text: &str, expected: &[(usize, &str)]) {
    let problems = problems_in(name, text);
    let found: Vec<(usize, &str)> =
        problems.iter().map(|(line, what)| (*line, what.as_str())).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_long_function_is_found_whatever_its_strings_say() {
    let long = |body: &str| format!("//! x\n\nfn long(a: [u8; 2]) {{\n{body}}}\n");
    check("src/a.rs", &long(&"    a();\n".repeat(68)), &[]);
    let what = [(2, "`long` has 71 lines; which step has a name?")];
    check("src/a.rs", &long(&"    a();\n".repeat(69)), &what);
    check("src/a.rs", &long(&"    a(\"}\", '}', r#\"}\"}\"#); // }\n".repeat(69)), &what);
    check(
        "src/a.rs",
        &format!("//! x\n\ntrait T {{\n    fn short();\n{}}}\n", "\n".repeat(99)),
        &[],
    );
}

#[test]
fn a_long_module_and_a_long_line_are_found_and_tests_are_not_counted() {
    let long = "401 lines of code; which responsibility can leave?";
    let what_for = "a module starts with what it is for (`//!`)";
    let tests = "\n#[cfg(test)]\nmod tests {\n}\n";
    let most = format!("//! x\n{}", "a!();\n".repeat(399));
    check("src/a.rs", &format!("{most}{tests}{}", "b!();\n".repeat(99)), &[(400, long)]);
    check("src/a.rs", &format!("{}{tests}{}", &most[6..], "b!();\n".repeat(99)), &[(0, what_for)]);
    check("tests/it/a.rs", &format!("{most}{most}"), &[]);
    check("src/a/tests.rs", &format!("{most}{most}"), &[]);
    let line = format!("//! x\n// {}\n", "é".repeat(98));
    check("src/a.rs", &line, &[(1, "a line has at most 100 columns")]);
}

/// What an operator searches for are words, and not how a type of ours happens to be written.
#[test]
fn the_log_has_words_and_no_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for path in sources(&root.join("src")) {
        let text = fs::read_to_string(&path).expect("a source is text");
        for level in ["error!(", "warn!(", "info!(", "debug!("] {
            for (at, _) in text.match_indices(level) {
                let call = text[at..].split(");").next().unwrap_or("");
                let is_type = call.contains(" ?") || call.contains("(?");
                assert!(!is_type, "{}: a field by its `Debug`: {call}", path.display());
                read += 1;
            }
        }
    }
    assert!(50 < read, "{read}");
}

#[test]
fn what_is_not_finished_is_found_and_a_word_in_a_string_is_not() {
    let unfinished = format!("//! x\n// {}: later\n    todo!()\n#[ignore]\n", UNFINISHED[0]);
    let lines: Vec<usize> = problems_in("src/a.rs", &unfinished).iter().map(|it| it.0).collect();
    assert_eq!(lines, [1, 2, 3]);
    check("src/a.rs", "//! x\nlet a = \"todo!\";\n", &[]);
}

#[test]
fn a_clock_in_a_pure_folder_is_found_and_elsewhere_it_is_not() {
    let text = "//! No tokio here.\nuse tokio::time;\nlet a = Instant::now();\nlet random = 1;\n";
    let what = " in a module that decides and never does";
    let expected = [(1, &*format!("`tokio`{what}")), (2, &*format!("`::now()`{what}"))];
    check("src/routing/a.rs", text, &expected);
    check("src/session/send_queue.rs", text, &expected);
    check("src/fleet/a.rs", text, &[]);
    check("src/comfy/a.rs", &format!("//! x\n\n#[cfg(test)]\nmod tests {{}}\n{text}"), &[]);
}
