//! The errors for a body that could not be read.

use super::GatewayError;
use crate::body::CollectError;
use crate::body::inflate::InflateError;

impl From<InflateError> for GatewayError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Collect(error) => error.into(),
            InflateError::Corrupt => Self::BodyCorrupt,
        }
    }
}

/// A body was not collected: it is larger than the limit, or the client sent a broken one.
impl From<CollectError> for GatewayError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::TooLarge { max } => Self::BodyTooLarge { max },
            CollectError::Busy => Self::BodiesBusy,
            CollectError::Broken(_) => Self::BodyBroken,
        }
    }
}
