//! The groups of endpoints in which requests are counted.

use super::Endpoint;

/// What a request is about. A closed set, so that nothing that a client sends adds a series.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestClass {
    /// The page's socket.
    Socket,
    /// A submission.
    Submit,
    /// The queue, its length, and what ends a prompt.
    Queue,
    History,
    Jobs,
    /// Uploads, views, lists of files.
    Files,
    Assets,
    /// The page and its files.
    Page,
    /// Settings, saved workflows, users.
    UserData,
    /// Facts about servers: nodes, models, features.
    Facts,
    /// What is for operators.
    Operator,
    /// Routes of Mooring.
    Own,
    /// Routes that ComfyUI does not have: those of node packs.
    Other,
    /// It was answered before anybody looked what it is for: refused, or sent elsewhere.
    Unread,
}

impl RequestClass {
    pub const ALL: [Self; 14] = [
        Self::Socket,
        Self::Submit,
        Self::Queue,
        Self::History,
        Self::Jobs,
        Self::Files,
        Self::Assets,
        Self::Page,
        Self::UserData,
        Self::Facts,
        Self::Operator,
        Self::Own,
        Self::Other,
        Self::Unread,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Submit => "submit",
            Self::Queue => "queue",
            Self::History => "history",
            Self::Jobs => "jobs",
            Self::Files => "files",
            Self::Assets => "assets",
            Self::Page => "page",
            Self::UserData => "user_data",
            Self::Facts => "facts",
            Self::Operator => "operator",
            Self::Own => "own",
            Self::Other => "other",
            Self::Unread => "unread",
        }
    }
}

impl Endpoint {
    #[must_use]
    pub fn class(&self) -> RequestClass {
        match self {
            Self::Socket => RequestClass::Socket,
            Self::Submit => RequestClass::Submit,
            Self::QueueLength | Self::Queue | Self::EditQueue | Self::Interrupt => {
                RequestClass::Queue
            }
            Self::HistoryList | Self::HistoryOf(_) | Self::EditHistory => RequestClass::History,
            Self::JobList | Self::Job(_) | Self::CancelJob(_) | Self::CancelJobs => {
                RequestClass::Jobs
            }
            Self::Upload | Self::UploadMask | Self::View | Self::FileList(_) => RequestClass::Files,
            Self::Assets(_) => RequestClass::Assets,
            Self::Page | Self::Asset => RequestClass::Page,
            Self::UserData => RequestClass::UserData,
            Self::Features
            | Self::Start(_)
            | Self::NodeInfo
            | Self::NodeInfoOf
            | Self::ModelList
            | Self::Subgraph => RequestClass::Facts,
            Self::SubscribeLogs
            | Self::Free
            | Self::Guarded
            | Self::ManagerList
            | Self::ServerLog => RequestClass::Operator,
            Self::Own(_) => RequestClass::Own,
            Self::Unserved | Self::Other => RequestClass::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use super::super::classify;
    use super::*;

    #[test]
    fn each_class_has_a_place_and_a_name_of_its_own() {
        for (place, class) in RequestClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
        }
        let names: BTreeSet<&str> = RequestClass::ALL.map(RequestClass::as_str).into();
        assert_eq!(names.len(), RequestClass::ALL.len());
    }

    #[test]
    fn a_request_is_counted_by_what_it_is_about() {
        for (method, path, class) in [
            (Method::GET, "/api/ws", RequestClass::Socket),
            (Method::POST, "/api/prompt", RequestClass::Submit),
            (Method::GET, "/api/prompt", RequestClass::Queue),
            (Method::GET, "/history/x", RequestClass::History),
            (Method::GET, "/view", RequestClass::Files),
            (Method::GET, "/system_stats", RequestClass::Facts),
            (Method::POST, "/free", RequestClass::Operator),
            (Method::GET, "/-/fleet", RequestClass::Own),
            (Method::GET, "/some/pack", RequestClass::Other),
        ] {
            assert_eq!(classify(&method, path).class(), class, "{method} {path}");
        }
    }
}
