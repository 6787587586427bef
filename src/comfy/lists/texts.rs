//! Merges lists of strings of several servers: names of models and files.

use std::collections::HashSet;

use bytes::Bytes;

use crate::comfy::walk::quote;

/// The list of strings of each server; `None` if the first answer is not such a list.
#[must_use]
pub fn lists_of(lists: &[Bytes]) -> Option<Vec<(usize, String)>> {
    let read = |list: &Bytes| serde_json::from_slice::<Vec<String>>(list).ok();
    read(lists.first()?)?;
    let lists = lists.iter().enumerate();
    let texts = lists.map(|(server, list)| (server, read(list).unwrap_or_default()));
    Some(texts.flat_map(|(server, all)| all.into_iter().map(move |it| (server, it))).collect())
}

/// The strings as one list, each once.
#[must_use]
pub fn list_of(names: &[Option<String>]) -> Bytes {
    let mut known = HashSet::new();
    let names = names.iter().flatten().filter(|name| known.insert(name.as_str()));
    let told: Vec<String> = names.map(|name| quote(name)).collect();
    format!("[{}]", told.join(", ")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lists_are_one_list_without_doubles() {
        let lists = [Bytes::from(r#"["a", "b!"]"#), Bytes::from(r#"["c", "a"]"#), Bytes::from("x")];
        let texts = lists_of(&lists).unwrap();
        let all: Vec<(usize, &str)> = texts.iter().map(|(server, it)| (*server, &**it)).collect();
        assert_eq!(all, [(0, "a"), (0, "b!"), (1, "c"), (1, "a")]);
        let name = |(_, text): &(usize, String)| (!text.contains('!')).then(|| text.clone());
        assert_eq!(list_of(&texts.iter().map(name).collect::<Vec<_>>()), r#"["a", "c"]"#);
        assert_eq!(lists_of(&[Bytes::from("{}")]), None);
    }
}
