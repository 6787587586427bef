//! The users that a server knows (`app/user_manager.py`, ComfyUI 0.33): the answer of `GET /users`
//! with `--multi-user`, and of making one. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::answers::Junk;

/// The header that says to a server with several users who somebody is.
pub const HEADER: &str = "comfy-user";

/// What a page of a server with a single user is told. With it, a page starts without asking the
/// person who he is.
pub const SINGLE: &str = r#"{"storage": "server", "migrated": true}"#;

/// The names of the users, by their ids. `None` if there is one user for all.
///
/// # Errors
/// It is not such an answer.
pub fn read(body: &[u8]) -> Result<Option<BTreeMap<String, String>>, Junk> {
    #[derive(Deserialize)]
    struct Told {
        users: Option<BTreeMap<String, String>>,
    }
    let told: Told = serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
    Ok(told.users)
}

/// The body of `POST /users`.
#[must_use]
pub fn make(name: &str) -> String {
    json!({ "username": name }).to_string()
}

/// The id of a user who was made just now.
///
/// # Errors
/// It is not such an answer.
pub fn made(body: &[u8]) -> Result<String, Junk> {
    serde_json::from_slice(body).map_err(|_| Junk::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_whether_it_tells_users_apart() {
        let several = read(br#"{"storage": "server", "users": {"ada_1": "ada", "bob_2": "bob"}}"#);
        let several = several.unwrap().unwrap();
        assert_eq!(several.get("bob_2").map(String::as_str), Some("bob"));
        assert_eq!(read(br#"{"storage": "server", "users": {}}"#), Ok(Some(BTreeMap::new())));
        assert_eq!(read(br#"{"storage": "server", "migrated": true}"#), Ok(None));
        assert_eq!(read(SINGLE.as_bytes()), Ok(None));
        for odd in [&b"<html>"[..], b"", b"[]", br#"{"users": ["ada"]}"#] {
            assert!(read(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn who_is_made_gets_an_id() {
        assert_eq!(make("ada@example.org"), r#"{"username":"ada@example.org"}"#);
        assert_eq!(made(br#""ada-example-org_1""#), Ok("ada-example-org_1".to_owned()));
        for odd in [&b"{}"[..], b"", br#"{"error": "Duplicate username."}"#] {
            assert!(made(odd).is_err(), "{odd:?}");
        }
    }
}
