//! The errors of the gateway itself, and what the caller is told.
//!
//! An answer of a backend is never an error here, whatever its status is: it is passed on
//! unchanged. Every error has a status, a stable code, a responsible side, and an answer to whether
//! waiting helps. The matches have no `_`, so that none of these is forgotten. `docs/errors.md`
//! lists the codes; a test compares both.

mod bodies;
mod causes;
mod closed;
mod code;
mod response;

use http::StatusCode;
use http::header::HeaderName;

use crate::body::CollectError;
use crate::comfy::commands::BadBody;
use crate::comfy::lists::history::NotAnInteger;
use crate::comfy::multipart::BadUpload;
use crate::comfy::submission;
use crate::fleet::pool::ExchangeError;
use crate::fleet::user_ids::NoUserId;
use crate::routing::decision::{Refusal, StillPending};
use crate::routing::ids::BadClientId;
use crate::server::refusal;
use crate::session::registry::TooManyClients;
use crate::session::subscriber::TooManySockets;
use crate::session::waiting::Full;
use crate::tunnels::TooMany;
use crate::ws::HandshakeError;
pub use causes::Unknown;
pub use closed::Closed;

/// The code of the failure, for programs.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("mooring-error");

/// A request failed in the gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("no server is available for you: {0}")]
    Refused(#[from] Refusal),
    #[error("{backend} has what you asked for, but it is down; other servers are not asked")]
    BackendDown { backend: String },
    #[error("{backend} has what you asked for, but its operator has turned it off")]
    BackendOff { backend: String },
    #[error("{backend} is {state}: not saved", state = if *is_off { "off" } else { "down" })]
    NotSaved { backend: String, is_off: bool },
    #[error("the gateway cannot write to its disk: not saved")]
    NotSavedUnmarked,
    #[error("the gateway has too much to save: not saved; try again")]
    SavingFull,
    #[error(transparent)]
    TooManyClients(#[from] TooManyClients),
    #[error(transparent)]
    BadClientId(#[from] BadClientId),
    #[error(transparent)]
    Submission(#[from] submission::Refusal),
    #[error("this prompt id was used before")]
    PromptIdKnown,
    #[error("Maximum request body size {max} exceeded")]
    BodyTooLarge { max: u64 },
    #[error("the gateway already holds its maximum of request bodies; try again")]
    BodiesBusy,
    #[error("your request's body broke off")]
    BodyBroken,
    #[error("your request's body does not match its Content-Encoding")]
    BodyCorrupt,
    #[error("a body may be compressed once, with gzip or deflate")]
    UnknownCoding,
    #[error("the charset in your request's Content-Type is unknown")]
    UnknownCharset,
    #[error(transparent)]
    BadBody(#[from] BadBody),
    #[error(transparent)]
    BadQuery(#[from] NotAnInteger),
    #[error("{backend} could not be reached")]
    Unreachable { backend: String, source: ExchangeError },
    #[error("{backend} broke off before it answered")]
    Lost { backend: String, source: ExchangeError },
    #[error("{backend} did not answer in time")]
    NoAnswer { backend: String, source: ExchangeError },
    #[error("{backend} could not be reached, so the job was not sent")]
    LinkTimeout { backend: String },
    #[error("{backend} failed before it accepted the job; the job was not queued")]
    NotQueued { backend: String },
    #[error(transparent)]
    StateUnknown(Unknown),
    #[error("{backend} broke off its answer")]
    AnswerBroken { backend: String, source: CollectError },
    #[error("{file} is on {backend}, which is down, so it cannot be copied now")]
    InputUnavailable { file: String, backend: String },
    #[error("Invalid image file: {file}: {backend}, which had it, does not have it any more")]
    InputGone { file: String, backend: String },
    #[error("{file} was on {backend}, which is no longer configured")]
    FileGone { file: String, backend: String },
    #[error("{file} is larger than {max} bytes, the maximum for copies between servers")]
    InputTooLarge { file: String, max: u64 },
    #[error("the job uses more than {max} files of other servers")]
    TooManyInputs { max: usize },
    #[error("{file} could not be copied from {from} to {backend}: {why}")]
    InputNotCopied { file: String, from: String, backend: String, why: String },
    #[error("you must be a known user: send your key as `Authorization: Bearer KEY`")]
    Unauthorized,
    #[error("you must be a known user: connect through the proxy that names you")]
    Unnamed,
    #[error("you must be a known user: send a valid token as `Authorization: Bearer TOKEN`")]
    NoToken,
    #[error("the keys that sign tokens are not known at the moment; try again")]
    NoKeys,
    #[error("none of your groups may use this gateway")]
    NoRole,
    #[error("your role only allows you to read")]
    ViewersOnlyRead,
    #[error("the name, the password or the key is wrong")]
    BadLogin,
    #[error("too many wrong passwords were sent from your address; try again in {seconds} s")]
    TooManyGuesses { seconds: u16 },
    #[error("too many people are logging in at the moment; try again")]
    LoginsBusy,
    #[error(transparent)]
    QueueFull(Full),
    #[error(transparent)]
    LimitReached(#[from] crate::limits::LimitReached),
    #[error("{0}")]
    BadForm(&'static str),
    #[error(transparent)]
    BadUpload(BadUpload),
    #[error(
        "a request of a logged-in browser must say which page it comes from (`Origin` or \
         `Sec-Fetch-Site`); programs send a key instead, or `Sec-Fetch-Site: same-origin`"
    )]
    PageUnsaid,
    #[error("pages of other origins may not use this gateway")]
    ForeignOrigin,
    #[error(
        "`{host}` is not a name of this gateway; if it should be one, its operator must list it in \
         server.hosts"
    )]
    ForeignHost { host: String },
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("no server with assets knows the user that `Comfy-User` names")]
    UnknownUser,
    #[error("{backend} could not be asked what it calls you, or could not make you its user")]
    NoUserThere { backend: String, source: NoUserId },
    #[error("say who you are: send a clientId")]
    Nameless,
    #[error(transparent)]
    StillPending(#[from] StillPending),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    TooManySockets(#[from] TooManySockets),
    #[error(transparent)]
    TooManyTunnels(#[from] TooMany),
    #[error("{backend} answered 101 but did not open the socket")]
    BadUpgrade { backend: String },
    #[error("the address of a backend leads back to this gateway")]
    Ourselves,
    #[error("nothing has this name")]
    NotFound,
    #[error("you refuse this file uncompressed and in every possible coding")]
    NotAcceptable,
    #[error("there is nothing here: everything is below {base}")]
    OutsideBasePath { base: String },
    #[error("this path does not accept this method")]
    BadMethod { allowed: &'static str },
    #[error(transparent)]
    BadRequest(#[from] refusal::Refusal),
    #[error("the gateway is stopping")]
    Stopping,
    #[error("the journal cannot be written, and no job is accepted without it; nothing was sent")]
    JournalFailed,
}

/// Who has to act. This chooses the log level: a client's mistake is never a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    Backend,
    Client,
    Gateway,
}

impl GatewayError {
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(refusal) => causes::fault_of(refusal),
            Self::QueueFull(full) => causes::fault_of_full(full),
            Self::StateUnknown(unknown) => unknown.fault(),
            Self::BadClientId(_)
            | Self::Submission(_)
            | Self::PromptIdKnown
            | Self::BodyTooLarge { .. }
            | Self::BadRequest(_)
            | Self::BodyBroken
            | Self::BodyCorrupt
            | Self::UnknownCoding
            | Self::UnknownCharset
            | Self::BadBody(_)
            | Self::BadQuery(_)
            | Self::InputGone { .. }
            | Self::FileGone { .. }
            | Self::InputTooLarge { .. }
            | Self::TooManyInputs { .. }
            | Self::Unauthorized
            | Self::Unnamed
            | Self::NoToken
            | Self::NoRole
            | Self::ViewersOnlyRead
            | Self::BadLogin
            | Self::TooManyGuesses { .. }
            | Self::LimitReached(_)
            | Self::BadForm(_)
            | Self::BadUpload(_)
            | Self::PageUnsaid
            | Self::ForeignOrigin
            | Self::ForeignHost { .. }
            | Self::Closed(_)
            | Self::Nameless
            | Self::UnknownUser
            | Self::StillPending(_)
            | Self::Handshake(_)
            | Self::TooManySockets(_)
            | Self::TooManyTunnels(TooMany::OfOwner { .. })
            | Self::NotFound
            | Self::OutsideBasePath { .. }
            | Self::NotAcceptable
            | Self::BadMethod { .. } => Fault::Client,
            // It counts as an error of the fleet, so that a copy may replace the answer.
            Self::BackendDown { .. }
            | Self::BackendOff { .. }
            | Self::NotSaved { .. }
            | Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::NoAnswer { .. }
            | Self::LinkTimeout { .. }
            | Self::BadUpgrade { .. }
            | Self::NotQueued { .. }
            | Self::AnswerBroken { .. }
            | Self::InputUnavailable { .. }
            | Self::InputNotCopied { .. } => Fault::Backend,
            Self::TooManyClients(_)
            | Self::TooManyTunnels(TooMany::InAll { .. })
            | Self::BodiesBusy
            | Self::SavingFull
            | Self::LoginsBusy
            | Self::NoKeys
            | Self::NoUserThere { .. }
            | Self::NotSavedUnmarked
            | Self::JournalFailed
            | Self::Ourselves
            | Self::Stopping => Fault::Gateway,
        }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(Refusal::TooManyPending { .. })
            | Self::TooManyGuesses { .. }
            | Self::LimitReached(_)
            | Self::TooManySockets(_)
            | Self::TooManyTunnels(TooMany::OfOwner { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refusal::AlreadyPending)
            | Self::BadClientId(_)
            | Self::Submission(_)
            | Self::PromptIdKnown
            | Self::BodyBroken
            | Self::BodyCorrupt
            | Self::InputGone { .. }
            | Self::TooManyInputs { .. }
            | Self::BadBody(_)
            | Self::BadForm(_)
            | Self::BadUpload(_)
            | Self::BadQuery(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } | Self::InputTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownCoding | Self::UnknownCharset => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRequest(refusal) => refusal.status(),
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::AnswerBroken { .. }
            | Self::InputNotCopied { .. }
            | Self::BadUpgrade { .. }
            | Self::NotQueued { .. } => StatusCode::BAD_GATEWAY,
            Self::NoAnswer { .. } | Self::StateUnknown(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unauthorized | Self::Unnamed | Self::NoToken | Self::BadLogin => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoRole
            | Self::ViewersOnlyRead
            | Self::PageUnsaid
            | Self::ForeignOrigin
            | Self::Closed(_)
            | Self::Nameless
            | Self::UnknownUser => StatusCode::FORBIDDEN,
            Self::StillPending(_) => StatusCode::CONFLICT,
            Self::Handshake(error) => error.status(),
            Self::QueueFull(full) => causes::status_of_full(full),
            Self::NotFound | Self::FileGone { .. } | Self::OutsideBasePath { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::ForeignHost { .. } => StatusCode::MISDIRECTED_REQUEST, // RFC 9110 section 15.5.20
            // RFC 5842 section 7.2.
            Self::Ourselves => StatusCode::LOOP_DETECTED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::BadMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(
                Refusal::BackendDown { .. } | Refusal::BackendWedged { .. } | Refusal::NoPlace(_),
            )
            | Self::BackendDown { .. }
            | Self::BackendOff { .. }
            | Self::NotSaved { .. }
            | Self::NotSavedUnmarked
            | Self::SavingFull
            | Self::TooManyClients(_)
            | Self::TooManyTunnels(TooMany::InAll { .. })
            | Self::BodiesBusy
            | Self::LoginsBusy
            | Self::NoKeys
            | Self::NoUserThere { .. }
            | Self::LinkTimeout { .. }
            | Self::InputUnavailable { .. }
            | Self::JournalFailed
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
