//! The dashboard: a page of the admin listener that shows the fleet while it works.
//!
//! The page is part of the binary and asks nobody else. It gets all that it shows from [`live`],
//! and acts by the calls of the API, as a script would.

mod live;
mod snapshot;

use std::sync::Arc;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response};

use super::gate::{Admitted, By, May};
use crate::body::ResponseBody;
use crate::config::AdminConfig;
use crate::front::operators::Operators;
use crate::session::Sessions;
use live::{Live, MaySee};

/// Nothing but files of this listener. No page can hold this one in a frame.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// Where the page listens.
const LIVE: &str = "/api/v1/live";

const PAGE: &str = include_str!("page/index.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and content.
const FILES: [(&str, &str, &str); 9] = [
    ("/dashboard/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/dashboard/main.js", SCRIPT, include_str!("page/main.js")),
    ("/dashboard/api.js", SCRIPT, include_str!("page/api.js")),
    ("/dashboard/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/dashboard/fleet.js", SCRIPT, include_str!("page/fleet.js")),
    ("/dashboard/clients.js", SCRIPT, include_str!("page/clients.js")),
    ("/dashboard/plots.js", SCRIPT, include_str!("page/plots.js")),
    ("/dashboard/events.js", SCRIPT, include_str!("page/events.js")),
    ("/dashboard/mark.svg", "image/svg+xml", include_str!("page/mark.svg")),
];

/// What pages are told: those that may act, and those that may only look.
#[derive(Clone, Debug)]
pub(super) struct Lives {
    act: Arc<Live>,
    look: Arc<Live>,
    sessions: Arc<Sessions>,
    operators: Operators,
}

impl Lives {
    pub(super) fn of(sessions: &Arc<Sessions>, operators: &Operators) -> Self {
        let (act, look) = (Live::of(sessions, May::Act), Live::of(sessions, May::Look));
        let operators = operators.clone();
        Self { act, look, sessions: Arc::clone(sessions), operators }
    }

    /// The answer to one that was let in just now. It ends when the tokens are others, or when the
    /// user is no operator any more.
    fn answer(&self, Admitted { may, by }: &Admitted) -> Response<ResponseBody> {
        let live = self.of_who(*may);
        match by {
            By::Operator(pass) => {
                let (operators, pass) = (self.operators.clone(), pass.clone());
                live.answer(Box::new(move || operators.still_has(&pass)))
            }
            By::Token | By::Nothing => live.answer(self.while_tokens_are_the_same()),
        }
    }

    fn while_tokens_are_the_same(&self) -> MaySee {
        let sessions = Arc::clone(&self.sessions);
        let tokens = move || {
            let AdminConfig { token, read_token, .. } = &sessions.shared.config().admin;
            (token.clone(), read_token.clone())
        };
        let then = tokens();
        Box::new(move || tokens() == then)
    }

    fn of_who(&self, may: May) -> &Arc<Live> {
        match may {
            May::Act => &self.act,
            May::Look => &self.look,
        }
    }
}

/// Answers a request for the dashboard; `None` if it is for something else.
pub(super) fn answer<B>(
    lives: &Lives,
    admitted: &Admitted,
    request: &Request<B>,
) -> Option<Response<ResponseBody>> {
    if request.uri().path() == LIVE {
        return (*request.method() == Method::GET).then(|| lives.answer(admitted));
    }
    if !is_read(request) {
        return None;
    }
    let (kind, content) = if is_page(request) {
        ("text/html; charset=utf-8", PAGE)
    } else {
        file(request.uri().path())?
    };
    Some(sent(kind, content))
}

/// True if a person opens the dashboard. A script gets the list of endpoints there.
pub(super) fn is_page<B>(request: &Request<B>) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    let wants_page = |it: &HeaderValue| it.to_str().is_ok_and(|it| it.contains("text/html"));
    request.uri().path() == "/" && accepted.any(wants_page)
}

/// True for what may be read without the token.
pub(super) fn is_file<B>(request: &Request<B>) -> bool {
    is_read(request) && (is_page(request) || file(request.uri().path()).is_some())
}

fn is_read<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn file(path: &str) -> Option<(&'static str, &'static str)> {
    let found = FILES.iter().find(|(known, ..)| *known == path);
    found.map(|(_, kind, content)| (*kind, *content))
}

fn sent(kind: &'static str, content: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(content));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Another version of the gateway has other files under the same names.
        (CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_its_files_stay_small() {
        let size: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(size + PAGE.len() <= 200_000);
    }

    #[test]
    fn the_page_names_only_files_that_are_there() {
        let named = |text: &'static str, before: &'static str| {
            text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
        };
        let mut count = 0;
        for path in named(PAGE, "href=\"").chain(named(PAGE, "src=\"")) {
            assert!(path.starts_with('#') || file(path).is_some(), "{path}");
            count += 1;
        }
        for (_, kind, content) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for path in named(content, "from \"./") {
                assert!(file(&format!("/dashboard/{path}")).is_some(), "{kind}: {path}");
                count += 1;
            }
        }
        assert!(8 <= count, "{count}");
    }
}
