//! Chooses the shard of the ledger for a file.

use super::super::shard::Key;

/// The shard for the files of a path. It depends only on the file name, without folders and without
/// the ` (1)` that a server adds if a name is taken. So files of the same path in different
/// folders, and copies in another folder or with such a number, are in one shard.
#[must_use]
pub fn key_of(path: &str) -> Key {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    match name.contains(" (") {
        false => Key::of(name.as_bytes()),
        true => Key::of(uncounted(name).as_bytes()),
    }
}

/// A name without any ` (1)` in it.
fn uncounted(name: &str) -> String {
    let mut parts = name.split(" (");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, after)) if is_number(number) => rest.push_str(after),
            Some(_) | None => {
                rest.push_str(" (");
                rest.push_str(part);
            }
        }
    }
    rest
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
