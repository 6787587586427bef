//! The routes of assets, which ComfyUI 0.33 keeps in its database: `/api/assets…` and `/api/tags`
//! (`app/assets/api/routes.py`).
//!
//! - [`query`]: which page of a list a client asks for
//! - [`cursor`]: where that page begins
//! - [`item`]: one asset in a server's answer
//! - [`merged`]: the lists of several servers as one

pub mod cursor;
pub mod item;
pub mod merged;
pub mod query;

use http::Method;

use crate::routing::ids::AssetId;

/// True for names that ComfyUI reads as a hash and not as a file name (`server.py`, `view_image`).
#[must_use]
pub fn is_hash_name(name: &str) -> bool {
    name.starts_with("blake3:")
}

/// A request to one of these routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AssetRequest {
    /// `GET /api/assets`
    List,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/assets/tags/refine`
    Refine,
    /// `GET /api/assets/{id}`
    Item(AssetId),
    /// `GET /api/assets/{id}/content`
    Content(AssetId),
    /// `PUT /api/assets/{id}`
    Change(AssetId),
    /// `DELETE /api/assets/{id}`
    Delete(AssetId),
    /// `POST` and `DELETE /api/assets/{id}/tags`
    EditTags(AssetId),
    /// `HEAD /api/assets/hash/{hash}`
    Hash(String),
    /// `POST /api/assets/from-hash`
    FromHash,
    /// `POST /api/assets`
    Upload,
    /// `GET /api/assets/seed/status`
    ScanStatus,
    /// `POST /api/assets/seed`, `seed/cancel` and `prune`: they act on a whole server.
    /// What is asked: what follows `/api/assets/`, or the whole path if it is spelled otherwise.
    Scan(String),
}

/// The asset request at this path, if it is one. These routes exist with `/api` only; `path` is
/// decoded.
#[must_use]
pub fn asked(method: &Method, path: &str) -> Option<AssetRequest> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if path == "/api/tags" {
        return is_read.then_some(AssetRequest::Tags);
    }
    let rest = path.strip_prefix("/api/assets")?;
    let Some(rest) = rest.strip_prefix('/') else {
        let whole =
            if is_read { Some(AssetRequest::List) } else { posted(method, AssetRequest::Upload) };
        return whole.filter(|_| rest.is_empty());
    };
    match rest {
        "tags/refine" => return is_read.then_some(AssetRequest::Refine),
        "seed/status" => return is_read.then_some(AssetRequest::ScanStatus),
        "from-hash" => return posted(method, AssetRequest::FromHash),
        "seed" | "seed/cancel" | "prune" => {
            return posted(method, AssetRequest::Scan(rest.to_owned()));
        }
        _ => {}
    }
    if let Some(hash) = rest.strip_prefix("hash/") {
        let hash = percent_encoding::percent_decode_str(hash).decode_utf8_lossy().into_owned();
        let is_asked = *method == Method::HEAD && !rest["hash/".len()..].contains('/');
        return Some(AssetRequest::Hash(hash)).filter(|_| is_asked);
    }
    let (id, of_it) = rest.split_once('/').unwrap_or((rest, ""));
    let id = AssetId::parse(id)?;
    match (of_it, method.as_str()) {
        ("", "GET" | "HEAD") if !rest.ends_with('/') => Some(AssetRequest::Item(id)),
        ("", "PUT") if !rest.ends_with('/') => Some(AssetRequest::Change(id)),
        ("", "DELETE") if !rest.ends_with('/') => Some(AssetRequest::Delete(id)),
        ("content", "GET" | "HEAD") => Some(AssetRequest::Content(id)),
        ("tags", "POST" | "DELETE") => Some(AssetRequest::EditTags(id)),
        (_, _) => None,
    }
}

fn posted(method: &Method, asked: AssetRequest) -> Option<AssetRequest> {
    (*method == Method::POST).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn read(request: &str) -> Option<AssetRequest> {
        let (method, path) = request.split_once(' ').unwrap();
        asked(&method.parse().unwrap(), path)
    }

    #[test]
    fn every_route_is_known_and_no_other() {
        let id = AssetId::parse(ID).unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(AssetId::parse(&ID.to_uppercase()), Some(id));
        for (request, expected) in [
            ("GET /api/assets", AssetRequest::List),
            ("HEAD /api/assets", AssetRequest::List),
            ("POST /api/assets", AssetRequest::Upload),
            ("GET /api/tags", AssetRequest::Tags),
            ("GET /api/assets/tags/refine", AssetRequest::Refine),
            ("POST /api/assets/from-hash", AssetRequest::FromHash),
            ("HEAD /api/assets/hash/x%2Fy", AssetRequest::Hash("x/y".to_owned())),
            ("POST /api/assets/seed", AssetRequest::Scan("seed".to_owned())),
            ("POST /api/assets/seed/cancel", AssetRequest::Scan("seed/cancel".to_owned())),
            ("POST /api/assets/prune", AssetRequest::Scan("prune".to_owned())),
            ("GET /api/assets/seed/status", AssetRequest::ScanStatus),
        ] {
            assert_eq!(read(request), Some(expected), "{request}");
        }
        for (request, expected) in [
            ("GET /api/assets/ID", AssetRequest::Item(id)),
            ("GET /api/assets/ID/content", AssetRequest::Content(id)),
            ("PUT /api/assets/ID", AssetRequest::Change(id)),
            ("DELETE /api/assets/ID", AssetRequest::Delete(id)),
            ("POST /api/assets/ID/tags", AssetRequest::EditTags(id)),
            ("DELETE /api/assets/ID/tags", AssetRequest::EditTags(id)),
        ] {
            assert_eq!(read(&request.replace("ID", ID)), Some(expected), "{request}");
        }
        for request in [
            "GET /assets",
            "GET /api/assets/",
            "GET /api/assetsx",
            "PATCH /api/assets",
            "GET /api/assets/from-hash",
            "GET /api/assets/hash/x",
            "HEAD /api/assets/hash/x/y",
            "GET /api/assets/prune",
            "GET /api/assets/0f8fad5bd9cb469fa16570867728950e",
            "GET /api/api/assets",
        ] {
            assert_eq!(read(request), None, "{request}");
        }
        assert_eq!(read(&format!("GET /api/assets/{ID}/")), None);
    }

    #[test]
    fn a_name_that_is_a_hash_begins_so() {
        assert!(is_hash_name("blake3:0a") && !is_hash_name("a blake3:"));
    }
}
