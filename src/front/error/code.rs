//! The code of each error, for programs.

use super::GatewayError;
use crate::routing::decision::Refusal;
use crate::routing::placement::NoPlace;
use crate::tunnels::TooMany;

impl GatewayError {
    /// Stable and documented; also the label of `mooring_errors_total`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BackendOff { .. } | Self::NotSaved { is_off: true, .. } => "backend_off",
            Self::Refused(Refusal::BackendDown { .. })
            | Self::BackendDown { .. }
            | Self::NotSaved { is_off: false, .. } => "backend_down",
            Self::Refused(Refusal::BackendWedged { .. }) => "backend_wedged",
            Self::Refused(Refusal::NoPlace(NoPlace::FleetEmpty)) => "fleet_empty",
            Self::Refused(Refusal::NoPlace(NoPlace::NoneReady)) => "no_backend",
            Self::Refused(Refusal::NoPlace(NoPlace::FleetFull)) => "fleet_full",
            Self::Refused(Refusal::TooManyPending { .. }) => "too_many_pending",
            Self::Refused(Refusal::AlreadyPending) | Self::PromptIdKnown => "prompt_id_known",
            Self::TooManyClients(_) => "too_many_clients",
            Self::BadClientId(_) => "bad_client_id",
            Self::Submission(refusal) => refusal.code(),
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BadRequest(refusal) => refusal.code(),
            Self::BodiesBusy => "bodies_busy",
            Self::SavingFull => "saving_full",
            Self::BodyBroken => "body_broken",
            Self::BodyCorrupt => "body_corrupt",
            Self::UnknownCoding => "unknown_coding",
            Self::UnknownCharset => "unknown_charset",
            Self::BadBody(_) => "bad_body",
            Self::BadQuery(_) => "bad_query",
            Self::Unreachable { .. } => "backend_unreachable",
            Self::Lost { .. } | Self::AnswerBroken { .. } => "backend_lost",
            Self::InputUnavailable { .. } => "input_unavailable",
            Self::InputGone { .. } => "input_gone",
            Self::FileGone { .. } => "file_gone",
            Self::InputTooLarge { .. } => "input_too_large",
            Self::TooManyInputs { .. } => "too_many_inputs",
            Self::InputNotCopied { .. } => "input_not_copied",
            Self::NoAnswer { .. } => "backend_timeout",
            Self::LinkTimeout { .. } => "link_timeout",
            Self::NotQueued { .. } => "not_queued",
            Self::StateUnknown(_) => "prompt_state_unknown",
            Self::Unauthorized | Self::Unnamed | Self::NoToken => "unauthorized",
            Self::NoRole => "no_role",
            Self::NoKeys => "no_token_keys",
            Self::NoUserThere { .. } => "no_user_there",
            Self::ViewersOnlyRead => "viewers_only_read",
            Self::BadLogin => "bad_login",
            Self::TooManyGuesses { .. } => "too_many_guesses",
            Self::QueueFull(full) => full.code(),
            Self::LimitReached(_) => "limit_reached",
            Self::LoginsBusy => "logins_busy",
            Self::BadForm(_) => "bad_form",
            Self::BadUpload(_) => "bad_upload",
            Self::PageUnsaid => "page_unsaid",
            Self::ForeignOrigin => "foreign_origin",
            Self::ForeignHost { .. } => "foreign_host",
            Self::Closed(closed) => closed.code(),
            Self::Nameless => "nameless",
            Self::UnknownUser => "unknown_user",
            Self::StillPending(_) => "still_pending",
            Self::Handshake(_) => "bad_handshake",
            Self::TooManySockets(_) => "too_many_sockets",
            Self::TooManyTunnels(TooMany::OfOwner { .. }) => "too_many_tunnels",
            Self::TooManyTunnels(TooMany::InAll { .. }) => "tunnels_full",
            Self::BadUpgrade { .. } => "bad_upgrade",
            Self::Ourselves => "loop_detected",
            Self::NotFound => "not_found",
            Self::OutsideBasePath { .. } => "outside_base_path",
            Self::NotAcceptable => "not_acceptable",
            Self::BadMethod { .. } => "bad_method",
            Self::Stopping => "stopping",
            Self::JournalFailed | Self::NotSavedUnmarked => "journal_failed",
        }
    }
}
