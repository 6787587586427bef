//! What is closed to a caller, whoever he says that he is.

/// A route that the configuration closes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Closed {
    #[error("this path is refused here; see server.deny")]
    Path,
    #[error("this is for operators; see server.allow_manager and server.allow_asset_scans")]
    Operators,
    #[error("the log and the paths of a server are for operators; see server.allow_logs")]
    Logs,
    #[error("an operator of this gateway says who its users are: servers' users are not made here")]
    Users,
}

impl Closed {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Path => "path_denied",
            Self::Operators | Self::Logs => "operators_only",
            Self::Users => "users_are_given",
        }
    }
}
