//! What the answers at a page's address mean (pure).

use serde_json::{Value, json};

/// What came back for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Answer(Answered),
    /// Nothing in time; the connection was open.
    Silence,
    /// The connection could not be made or ended without an answer.
    Failed(String),
}

/// An answer, as far as it says who gave it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// The code of an error of Mooring (`mooring-error`).
    pub(super) code: Option<String>,
    /// Where it sends the browser (`Location`).
    pub(super) location: Option<String>,
    pub(super) is_html: bool,
    /// The start of the body.
    pub(super) body: String,
}

impl Answered {
    /// What Mooring says about being ready, if this is its answer.
    fn ready(&self) -> Option<bool> {
        serde_json::from_str::<Value>(&self.body).ok()?.get("ready")?.as_bool()
    }

    /// What a login in front of Mooring does, if this is the answer of one. A redirect that only
    /// gives another address of the same page keeps the path.
    fn login(&self) -> Option<String> {
        let keeps_path = |to: &str| to.split('#').next().is_some_and(|to| to.ends_with(ASKED));
        match (self.status, self.location.as_deref()) {
            (301..=399, Some(to)) if to.contains('?') || !keeps_path(to) => {
                Some(format!("it sends the browser to {to}"))
            }
            (401 | 403, _) => Some(format!("it answers {}", self.status)),
            (200, _) if self.is_html => Some("it answers with a page".to_owned()),
            _other => None,
        }
    }

    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// The result of one check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Fine,
    Wrong,
    /// Nothing can be said, because of something else.
    Unknown,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }
}

/// What was found out about one thing, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Finding {
    pub(super) about: &'static str,
    pub(super) verdict: Verdict,
    pub(super) what: String,
    /// Empty if nothing is wrong.
    pub(super) fix: &'static str,
}

impl Finding {
    fn fine(about: &'static str, what: &str) -> Self {
        Self { about, verdict: Verdict::Fine, what: what.to_owned(), fix: "" }
    }

    fn wrong(about: &'static str, what: String, fix: &'static str) -> Self {
        Self { about, verdict: Verdict::Wrong, what, fix }
    }

    pub(super) fn unknown(about: &'static str, why: &str) -> Self {
        Self { about, verdict: Verdict::Unknown, what: why.to_owned(), fix: "" }
    }

    pub(super) fn as_json(&self) -> Value {
        let Self { about, verdict, what, fix } = self;
        let fix = Some(fix).filter(|fix| !fix.is_empty());
        json!({ "check": about, "result": verdict.as_str(), "what": what, "fix": fix })
    }
}

const LOGIN: &str = "Mooring requires a login first";

/// What is asked for to see who answers.
pub(super) const ASKED: &str = "/-/ready";

/// The answer to a `GET` of [`ASKED`]. It says whether Mooring was reached, and under which name.
pub(super) fn reach(seen: &Seen) -> Vec<Finding> {
    let answer = match seen {
        Seen::Answer(answer) => answer,
        Seen::Silence => {
            return vec![Finding::wrong(
                "reach",
                "something accepts connections and does not answer".to_owned(),
                "See whether the proxy reaches Mooring (`server.listen`), and whether it runs.",
            )];
        }
        Seen::Failed(why) => {
            return vec![Finding::wrong(
                "reach",
                why.clone(),
                "Start the proxy, or give the address that browsers use.",
            )];
        }
    };
    if answer.is("foreign_host") {
        return vec![
            Finding::fine("reach", "Mooring answers"),
            Finding::wrong(
                "host",
                "Mooring does not know the host name that arrives there (foreign_host)".to_owned(),
                "Add the name in the browser's address bar to `server.hosts`, and let the proxy \
                 pass it on (nginx: proxy_set_header Host $http_host;).",
            ),
        ];
    }
    if let Some(is_ready) = answer.ready() {
        let ready = if is_ready {
            Finding::fine("ready", "it takes work")
        } else {
            let what = "it takes no work now".to_owned();
            Finding::wrong("ready", what, "`mooring status` says why.")
        };
        return vec![Finding::fine("reach", "Mooring answers"), ready];
    }
    if answer.code.is_some() {
        return vec![Finding::fine("reach", "Mooring answers"), Finding::unknown("ready", LOGIN)];
    }
    if let Some(how) = answer.login() {
        return vec![Finding::wrong(
            "reach",
            format!(
                "something before Mooring answers, probably a login: {how}. Nothing behind it was \
                 examined, and it may be right"
            ),
            "Give an address behind the login, such as that of Mooring itself, or let the login \
             pass `/-/ready` and `/ws` on while you examine. If there is no login, the proxy must \
             pass all paths on unchanged.",
        )];
    }
    let what = format!("not Mooring answers, but something else ({})", answer.status);
    let fix = match answer.status {
        502..=504 => {
            "The proxy does not reach Mooring: compare its upstream with `server.listen`, and see \
             whether Mooring runs."
        }
        301..=399 => "Give the address that the redirect leads to.",
        _ => {
            "Let the proxy pass all paths on unchanged. If the page is below a path, set \
             `server.base_path` to it."
        }
    };
    vec![Finding::wrong("reach", what, fix)]
}

const ORIGIN_FIX: &str = "Let the proxy pass `Host` on as the browser sent it, with its port \
                          (nginx: proxy_set_header Host $http_host;), and keep `Origin`.";

/// The answer to a `POST` that a page of this address sends. Mooring refuses the method, if it gets
/// so far.
pub(super) fn origin(seen: &Seen) -> Finding {
    match seen {
        Seen::Answer(answer) if answer.is("foreign_origin") => Finding::wrong(
            "origin",
            "Mooring takes its own page for a foreign one (foreign_origin): another Host arrives \
             than the browser sent"
                .to_owned(),
            ORIGIN_FIX,
        ),
        Seen::Answer(answer) if answer.is("page_unsaid") => {
            Finding::wrong("origin", "`Origin` is removed on the way".to_owned(), ORIGIN_FIX)
        }
        Seen::Answer(answer) if answer.code.is_some() => {
            Finding::fine("origin", "the page may change things")
        }
        Seen::Answer(Answered { status, .. }) => Finding::wrong(
            "origin",
            format!("something before Mooring answers a POST ({status})"),
            "Let the proxy pass all methods on, such as POST, PUT and DELETE.",
        ),
        Seen::Silence => Finding::unknown("origin", "there was no answer"),
        Seen::Failed(why) => Finding::unknown("origin", why),
    }
}

/// The answer to the opening handshake of a browser socket.
pub(super) fn upgrade(seen: &Seen) -> Finding {
    let fix = "Let the proxy pass upgrades on (nginx: proxy_http_version 1.1; proxy_set_header \
               Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;).";
    match seen {
        Seen::Answer(Answered { status: 101, .. }) => Finding::fine("websocket", "it opens"),
        Seen::Answer(answer) if answer.is("foreign_origin") || answer.is("page_unsaid") => {
            Finding::unknown("websocket", "refused because of the origin, see there")
        }
        Seen::Answer(Answered { status: 401, .. }) => Finding::unknown("websocket", LOGIN),
        Seen::Answer(Answered { code: Some(code), .. }) => Finding::wrong(
            "websocket",
            format!("what arrives at Mooring is not a WebSocket's opening handshake ({code})"),
            fix,
        ),
        Seen::Answer(Answered { status, .. }) => {
            let what = format!("something before Mooring answers the handshake ({status})");
            Finding::wrong("websocket", what, fix)
        }
        Seen::Silence => {
            Finding::wrong("websocket", "the handshake gets no answer".to_owned(), fix)
        }
        Seen::Failed(why) => Finding::wrong("websocket", why.clone(), fix),
    }
}

/// What became of an open socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Socket {
    /// There was no event, although Mooring sends one at once.
    Mute,
    /// It ended after so many seconds.
    Ended {
        after_s: u64,
    },
    Stayed {
        for_s: u64,
    },
}

pub(super) fn socket(became: Socket) -> Finding {
    match became {
        Socket::Mute => Finding::wrong(
            "events",
            "the socket opens, but no event comes".to_owned(),
            "Let the proxy pass bytes of a socket on at once (nginx: proxy_buffering off;).",
        ),
        Socket::Ended { after_s } => Finding::wrong(
            "idle",
            format!("a silent socket was closed after {after_s} s"),
            "Let sockets be silent for longer than `sockets.ping_interval` (nginx: \
             proxy_read_timeout 10m; HAProxy: timeout tunnel 1h).",
        ),
        Socket::Stayed { for_s } => {
            Finding::fine("idle", &format!("a silent socket stays open for {for_s} s"))
        }
    }
}

/// The answer to the head of a large upload. Mooring answers before it has read the body.
pub(super) fn upload(seen: &Seen, megabytes: u64) -> Vec<Finding> {
    let unsaid = |about| Finding::unknown(about, "there was no answer");
    match seen {
        Seen::Answer(Answered { status: 413, code: None, .. }) => vec![
            Finding::wrong(
                "body limit",
                format!("an upload of {megabytes} MB is refused before Mooring (413)"),
                "Let the proxy take at least what the servers take, 100 MB by default (nginx: \
                 client_max_body_size 0;).",
            ),
            Finding::unknown("buffering", "see the limit of bodies"),
        ],
        Seen::Answer(answer) if answer.code.is_some() => vec![
            Finding::fine("body limit", &format!("an upload may have {megabytes} MB")),
            Finding::fine("buffering", "an upload is passed on while it arrives"),
        ],
        Seen::Answer(Answered { status, .. }) => {
            let what = format!("something before Mooring answers an upload ({status})");
            vec![Finding::unknown("body limit", &what), Finding::unknown("buffering", &what)]
        }
        Seen::Silence => vec![
            Finding::fine("body limit", &format!("an upload may have {megabytes} MB")),
            Finding::wrong(
                "buffering",
                "an upload is stored before it is passed on".to_owned(),
                "Let the proxy pass bodies on while they arrive (nginx: proxy_request_buffering \
                 off; proxy_buffering off;).",
            ),
        ],
        Seen::Failed(_) => vec![unsaid("body limit"), unsaid("buffering")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: Option<&str>, body: &str) -> Seen {
        let (code, body) = (code.map(str::to_owned), body.to_owned());
        Seen::Answer(Answered { status, code, body, ..Answered::default() })
    }

    #[test]
    fn a_login_before_mooring_is_called_so_and_another_address_is_not() {
        let what = |status, location: Option<&str>, is_html| {
            let location = location.map(str::to_owned);
            let answer = Answered { status, location, is_html, ..Answered::default() };
            let [finding] = reach(&Seen::Answer(answer)).try_into().unwrap();
            assert_eq!((finding.about, finding.verdict), ("reach", Verdict::Wrong));
            format!("{}: {}", finding.what, finding.fix)
        };
        for (status, location, is_html) in [
            (302, Some("https://login.example.org/auth?rd=https://gw.lan/-/ready"), true),
            (302, Some("/oauth2/start?rd=%2F-%2Fready"), false),
            (307, Some("https://login.example.org/"), false),
            (200, None, true),
            (401, None, false),
            (403, None, true),
        ] {
            let what = what(status, location, is_html);
            assert!(what.contains("probably a login"), "{status}: {what}");
            assert!(what.contains("Nothing behind it was examined"), "{status}: {what}");
            assert!(location.is_none_or(|to| what.contains(to)), "{status}: {what}");
        }
        for to in ["https://gw.lan/-/ready", "https://gw.lan/comfy/-/ready"] {
            let what = what(301, Some(to), true);
            assert!(what.contains("Give the address that the redirect leads to"), "{what}");
        }
        assert!(!what(404, None, true).contains("login"));
    }

    /// What is wrong, and what nothing can be said about.
    fn told(findings: &[Finding]) -> String {
        let all = findings.iter().filter(|it| it.verdict != Verdict::Fine).map(|it| {
            assert_eq!(it.fix.is_empty(), it.verdict == Verdict::Unknown, "{it:?}");
            format!("{} {}", it.about, it.verdict.as_str())
        });
        all.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn who_answers_is_told_from_the_answer() {
        let reached = |seen: &Seen| told(&reach(seen));
        assert_eq!(reached(&answer(200, None, r#"{"ready":true}"#)), "");
        assert_eq!(reached(&answer(503, None, r#"{"ready":false}"#)), "ready wrong");
        assert_eq!(reached(&answer(401, Some("unauthorized"), "{}")), "ready unknown");
        assert_eq!(reached(&answer(421, Some("foreign_host"), "{}")), "host wrong");
        for (status, body) in [(502, "<html>"), (404, "{}"), (301, ""), (200, "{\"a\":1}")] {
            assert_eq!(reached(&answer(status, None, body)), "reach wrong", "{status}");
        }
        assert_eq!(reached(&Seen::Silence), "reach wrong");
        assert_eq!(reached(&Seen::Failed("refused".to_owned())), "reach wrong");
    }

    #[test]
    fn a_page_that_is_taken_for_a_foreign_one_is_named_once() {
        let foreign = answer(403, Some("foreign_origin"), "{}");
        assert_eq!(told(&[origin(&foreign)]), "origin wrong");
        assert_eq!(told(&[upgrade(&foreign)]), "websocket unknown");
        assert_eq!(told(&[origin(&answer(405, Some("bad_method"), "{}"))]), "");
        assert_eq!(told(&[origin(&answer(405, None, "<html>"))]), "origin wrong");
        assert_eq!(told(&[origin(&answer(403, Some("page_unsaid"), ""))]), "origin wrong");
        assert_eq!(told(&[origin(&Seen::Silence)]), "origin unknown");
    }

    #[test]
    fn a_socket_has_to_open_to_speak_and_to_stay() {
        assert_eq!(told(&[upgrade(&answer(101, None, ""))]), "");
        assert_eq!(told(&[upgrade(&answer(401, Some("unauthorized"), ""))]), "websocket unknown");
        for seen in [answer(400, Some("bad_handshake"), ""), answer(502, None, ""), Seen::Silence] {
            assert_eq!(told(&[upgrade(&seen)]), "websocket wrong", "{seen:?}");
        }
        assert_eq!(told(&[socket(Socket::Stayed { for_s: 25 })]), "");
        assert_eq!(told(&[socket(Socket::Ended { after_s: 9 })]), "idle wrong");
        assert_eq!(told(&[socket(Socket::Mute)]), "events wrong");
    }

    #[test]
    fn a_large_upload_tells_of_limits_and_of_buffers() {
        let uploaded = |seen: &Seen| told(&upload(seen, 100));
        assert_eq!(uploaded(&answer(405, Some("bad_method"), "{}")), "");
        let limited = answer(413, None, "<html>");
        assert_eq!(uploaded(&limited), "body limit wrong, buffering unknown");
        assert_eq!(uploaded(&Seen::Silence), "buffering wrong");
        assert_eq!(uploaded(&answer(500, None, "")), "body limit unknown, buffering unknown");
    }
}
