//! What is told of a body that could not be read.

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

/// A body could not be collected: too large is the limit's word, broken is the client's fault.
impl From<CollectError> for GatewayError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::TooLarge { max } => Self::BodyTooLarge { max },
            CollectError::Busy => Self::BodiesBusy,
            CollectError::Broken(_) => Self::BodyBroken,
        }
    }
}
