//! Why a request is refused because of its head, before its purpose is known.
//!
//! Each refusal ends the connection, because the start of the next request is uncertain, or because
//! the sender does not speak HTTP.

use http::StatusCode;

/// The methods that a server behind Mooring may use, for `Allow` (RFC 9110 section 10.2.1).
pub const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a head is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("the request's head has more than {max} bytes")]
    HeadTooLarge { max: usize },
    #[error("a header of the request has more than {max} bytes")]
    HeaderTooLong { max: usize },
    #[error("the request has more than {max} headers")]
    TooManyHeaders { max: usize },
    #[error("the request's target has more than {max} bytes")]
    TargetTooLong { max: usize },
    #[error("no known method is that long")]
    UnknownMethod,
    #[error("this method is not supported, or not written in capitals")]
    BadMethod,
    #[error("only HTTP/1.1 and HTTP/1.0 are supported")]
    BadVersion,
    #[error("`chunked` is the only transfer coding that a request may use")]
    UnknownTransferCoding,
    #[error("100-continue is the only supported expectation")]
    UnknownExpectation,
    #[error("the plain HTTP request was sent to an HTTPS port: use https://")]
    PlainHttp,
}

impl Refusal {
    /// True if the head was too large. This happens to a browser with many cookies. A browser does
    /// not send heads that are refused for other reasons. Those may be refused before they have
    /// come completely.
    #[must_use]
    pub fn is_of_size(&self) -> bool {
        match self {
            Self::HeadTooLarge { .. }
            | Self::HeaderTooLong { .. }
            | Self::TooManyHeaders { .. }
            | Self::TargetTooLong { .. } => true,
            Self::Malformed(_)
            | Self::UnknownMethod
            | Self::BadMethod
            | Self::BadVersion
            | Self::UnknownTransferCoding
            | Self::UnknownExpectation
            | Self::PlainHttp => false,
        }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            // RFC 9112 sections 2.2, 3, 3.2, 5, 6.3.
            Self::Malformed(_) | Self::PlainHttp => StatusCode::BAD_REQUEST,
            // RFC 6585 section 5.
            Self::HeadTooLarge { .. }
            | Self::HeaderTooLong { .. }
            | Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // RFC 9112 section 3.
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            // RFC 9112 sections 3.1 and 6.1.
            Self::UnknownMethod | Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            // RFC 9110 section 15.6.6.
            Self::BadVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            // RFC 9110 section 10.1.1.
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
        }
    }

    /// Stable and documented; also the label of `mooring_errors_total`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::HeadTooLarge { .. }
            | Self::HeaderTooLong { .. }
            | Self::TooManyHeaders { .. } => "head_too_large",
            Self::TargetTooLong { .. } => "target_too_long",
            Self::UnknownMethod => "unknown_method",
            Self::BadMethod => "bad_method",
            Self::BadVersion => "bad_version",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::UnknownExpectation => "unknown_expectation",
            Self::PlainHttp => "plain_http",
        }
    }
}
