//! A kind of key that names a user.

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};
use crate::auth::UserName;

/// The name of a user, or none.
#[derive(Debug)]
pub(super) struct UserText;

impl Kind for UserText {
    type Value = Option<UserName>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| format!("`{text}`: {error}"))
    }

    fn takes(&self) -> String {
        "the name of a user".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}
