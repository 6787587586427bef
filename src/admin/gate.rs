//! Who may use the admin listener.
//!
//! Its own dashboard is the only page that may. A page of any other origin could otherwise call a
//! loopback port, and DNS rebinding gives a page the gateway's own origin.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::{dashboard, refusal};
use crate::auth::{Pass, Refusal, User};
use crate::body::ResponseBody;
use crate::config::{AdminConfig, Secret, ServerConfig};
use crate::front::operators::{Found, Operators};
use crate::masked::{mask, mask_prompt};
use crate::report::{ClientSummary, PendingReport};
use crate::routing::ids::{ClientId, PromptId};
use crate::server::wire::Wire;
use crate::session::Sessions;

/// What decides here whether and what somebody is answered, besides the address.
const VARIES: &str = "accept, authorization, host, origin, sec-fetch-dest, sec-fetch-mode, \
                      sec-fetch-site, x-api-key";

/// What whoever asks may do. It is an extension of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum May {
    /// Change things: the token was sent, or none is configured, or an operator was found.
    Act,
    /// Look, and see hashes in place of clientIds and ids of prompts: the token for that was sent.
    /// Or no token, to what needs none.
    Look,
}

impl May {
    /// What it may see of a client.
    pub(super) fn see(self, mut client: ClientSummary) -> ClientSummary {
        if self == Self::Look {
            client.client_id.clear();
        }
        client
    }

    /// How a client is called for it: by its clientId or its hash.
    pub(super) fn name(self, client: &ClientId) -> String {
        match self {
            Self::Act => client.name().to_owned(),
            Self::Look => mask(client).to_string(),
        }
    }

    /// How a prompt is called for it: by its id or its hash.
    pub(super) fn prompt(self, prompt: &PromptId) -> String {
        match self {
            Self::Act => prompt.to_string(),
            Self::Look => mask_prompt(prompt.as_str()),
        }
    }

    /// What it may see of a pending prompt.
    pub(super) fn see_prompt(self, prompt: PendingReport) -> PendingReport {
        match self {
            Self::Act => prompt,
            Self::Look => {
                let prompt_id = mask_prompt(&prompt.prompt_id);
                PendingReport { prompt_id, ..prompt }
            }
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Look => "look",
        }
    }
}

/// How much whoever asks may be told. It is an extension of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Everything,
    /// Health in a word. A page that leads its own name to this listener (DNS rebinding) can read
    /// what needs no token.
    InAWord,
}

impl Told {
    pub(super) fn of<B>(sessions: &Sessions, by: &By, request: &Request<B>) -> Self {
        let is_for_us = || is_for_us(&sessions.shared.config().server, request);
        match by {
            By::Token | By::Operator(_) => Self::Everything,
            // Without a token, foreign names were refused.
            By::Nothing if is_for_us() => Self::Everything,
            By::Nothing => Self::InAWord,
        }
    }
}

/// What has let somebody in.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// The admin token, or that to look.
    Token,
    /// A user with the role `operator`.
    Operator(Pass),
    /// What was asked for needs nothing.
    Nothing,
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) may: May,
    pub(super) by: By,
}

/// Somebody who was not.
#[derive(Debug)]
pub(super) struct Refused {
    /// Who it is, if that is known.
    pub(super) user: Option<Arc<User>>,
    pub(super) answer: Response<ResponseBody>,
}

impl Refused {
    fn with(status: StatusCode, message: &str) -> Box<Self> {
        Box::new(Self { user: None, answer: refusal(status, message) })
    }
}

/// Says to caches that another sender may get another answer from the same address.
pub(super) fn mark(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(VARY, HeaderValue::from_static(VARIES));
}

/// Refuses pages of others, and requests without the token if one is configured, unless an operator
/// was found. Health is open to everybody, because a kubelet has no token. So are the files of the
/// dashboard: they show nothing before they have asked with the token. Metrics are if the operator
/// says so.
///
/// # Errors
/// The refusal.
pub(super) async fn admit<B: Sync>(
    sessions: &Sessions,
    operators: &Operators,
    request: &Request<B>,
) -> Result<Admitted, Box<Refused>> {
    if is_of_foreign_page(request) {
        let message = "only the gateway's own dashboard may use the admin listener from a page";
        return Err(Refused::with(StatusCode::FORBIDDEN, message));
    }
    let path = request.uri().path();
    let config = sessions.shared.config();
    if let Some(admitted) = by_token(&config.admin, request) {
        return admitted;
    }
    // RFC 9110 section 15.5.20. Who sends a token or a key is no foreign page.
    let if_for_us = |may| match is_for_us(&config.server, request) {
        true => Ok(Admitted { may, by: By::Nothing }),
        false => Err(Refused::with(StatusCode::MISDIRECTED_REQUEST, FOREIGN_NAME)),
    };
    // A key for a user may have to be fetched. Nothing that needs none waits for that.
    let is_anybodys = path == "/livez" || dashboard::is_file(request);
    let found = match is_anybodys {
        true => Found::Nobody(Refusal::Missing),
        false => operators.find(request).await,
    };
    let AdminConfig { token, open_metrics, .. } = &config.admin;
    match (token, found) {
        (_, Found::Operator(pass)) => Ok(Admitted { may: May::Act, by: By::Operator(pass) }),
        (None, _) => if_for_us(May::Act),
        (Some(_), _) if is_anybodys || path == "/readyz" => {
            Ok(Admitted { may: May::Look, by: By::Nothing })
        }
        (Some(_), _) if path == "/metrics" && *open_metrics => if_for_us(May::Look),
        (Some(_), Found::Nobody(why)) => Err(nobody(why)),
        (Some(_), Found::Other(user)) => {
            let refused = *Refused::with(StatusCode::FORBIDDEN, NO_OPERATOR);
            Err(Box::new(Refused { user: Some(user), ..refused }))
        }
    }
}

/// What one of the two tokens says; `None` if neither was sent.
fn by_token<B>(
    AdminConfig { token, read_token, .. }: &AdminConfig,
    request: &Request<B>,
) -> Option<Result<Admitted, Box<Refused>>> {
    let has = |token: &Secret| has_token(request.headers(), token.reveal());
    if token.as_ref().is_some_and(has) {
        return Some(Ok(Admitted { may: May::Act, by: By::Token }));
    }
    read_token.as_ref().is_some_and(has).then(|| looks(request))
}

/// The answer to somebody who needs the token and has not sent it.
fn nobody(why: Refusal) -> Box<Refused> {
    match why {
        Refusal::NoRole => Refused::with(StatusCode::FORBIDDEN, NO_OPERATOR),
        Refusal::NoKeys => {
            let message = "no key is known yet that could have signed the token: try again";
            Refused::with(StatusCode::SERVICE_UNAVAILABLE, message)
        }
        Refusal::Missing
        | Refusal::Unknown
        | Refusal::Ambiguous
        | Refusal::OnlyReads
        | Refusal::BadName => {
            let mut refused = Refused::with(StatusCode::UNAUTHORIZED, "a bearer token is needed");
            let bearer = HeaderValue::from_static("Bearer");
            refused.answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
            refused
        }
    }
}

const NO_OPERATOR: &str = "this user does not have the role `operator`";

const FOREIGN_NAME: &str = "without a token, the admin listener accepts only a loopback name, an \
                            address, or a name that is listed whole in server.hosts";

/// Lets in who may only look, unless the request changes something.
fn looks<B>(request: &Request<B>) -> Result<Admitted, Box<Refused>> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if (reads && !is_acting_read(request)) || is_looking_post(request) {
        return Ok(Admitted { may: May::Look, by: By::Token });
    }
    let message = "this token may only look (`admin.read_token`): to change something, send \
                   `admin.token`";
    Err(Refused::with(StatusCode::FORBIDDEN, message))
}

/// True for what a page of another origin asks. A picture in a page has no `Origin`, but browsers
/// report the site of each request (Fetch Metadata). It is `none` if somebody typed the address.
///
/// A link of another site may open the dashboard: nobody but the person at the browser sees it,
/// because no other site can frame it.
fn is_of_foreign_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is_foreign = |origin: &HeaderValue| !is_own_origin(request, origin.as_bytes());
    if headers.get_all(ORIGIN).iter().any(is_foreign) {
        return true;
    }
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|it| it == value);
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.all(|site| site == "none" || (site == "same-origin" && !is_acting_read(request))) {
        return false;
    }
    let opens = *request.method() == Method::GET
        && has("sec-fetch-mode", "navigate")
        && has("sec-fetch-dest", "document");
    !(opens && dashboard::is_page(request))
}

/// True for a question that is too long for an address.
fn is_looking_post<B>(request: &Request<B>) -> bool {
    *request.method() == Method::POST && request.uri().path() == "/api/v1/explain"
}

/// True for a read that does something: a kubelet can only read, and its `preStop` hook drains. No
/// page needs it.
fn is_acting_read<B>(request: &Request<B>) -> bool {
    *request.method() != Method::POST && request.uri().path().ends_with("/drain")
}

/// True for the origin of the dashboard (RFC 6454 section 7): what the request was sent to, by the
/// scheme of the listener. Behind a proxy with TLS the scheme is another one; then the browser has
/// to say that it is the same origin, which it does over HTTPS.
fn is_own_origin<B>(request: &Request<B>, origin: &[u8]) -> bool {
    let (own, other): (&[u8], &[u8]) = match Wire::of_request(request) {
        Wire::Plain => (b"http://", b"https://"),
        Wire::Tls => (b"https://", b"http://"),
    };
    let is_said = || request.headers().get("sec-fetch-site").is_some_and(|it| it == "same-origin");
    let named = match origin.strip_prefix(own) {
        Some(named) => Some(named),
        None => origin.strip_prefix(other).filter(|_| is_said()),
    };
    let host = host_of(request);
    named.zip(host).is_some_and(|(named, host)| host.eq_ignore_ascii_case(named))
}

/// True for a name of the gateway, and for no name: a client that sends none is not a browser.
fn is_for_us<B>(server: &ServerConfig, request: &Request<B>) -> bool {
    host_of(request).is_none_or(|host| server.is_called_exactly(host))
}

fn host_of<B>(request: &Request<B>) -> Option<&[u8]> {
    let named = || request.uri().authority().map(|it| it.as_str().as_bytes());
    request.headers().get(HOST).map(HeaderValue::as_bytes).or_else(named)
}

/// Compares in constant time, so that the time does not show how much of a guess was right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let Some(given) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
    else {
        return false;
    };
    let differs = given
        .bytes()
        .zip(token.bytes())
        .fold(given.len() ^ token.len(), |differs, (a, b)| differs | usize::from(a ^ b));
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_foreign(method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_of_foreign_page(&request.body(()).unwrap())
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8181");

    #[test]
    fn programs_and_the_dashboard_are_let_in() {
        assert!(!is_foreign("GET", "/api/v1/backends", &[HERE]));
        assert!(!is_foreign("GET", "/api/v1/backends", &[]));
        assert!(!is_foreign("GET", "/metrics", &[HERE, ("sec-fetch-site", "none")]));
        let own = [HERE, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8181")];
        assert!(!is_foreign("POST", "/api/v1/reload", &own));
        let named = [("host", "Ops.example"), ("origin", "http://ops.example")];
        assert!(!is_foreign("POST", "/api/v1/reload", &named));
    }

    #[test]
    fn another_scheme_is_another_origin_unless_the_browser_says_that_it_is_not() {
        let is_foreign = |wire: Wire, origin: &str, site: Option<&str>| {
            let mut request = Request::post("/api/v1/reload").header("host", "ops.example");
            request = request.header("origin", origin);
            if let Some(site) = site {
                request = request.header("sec-fetch-site", site);
            }
            let mut request = request.body(()).unwrap();
            wire.mark(&mut request);
            is_of_foreign_page(&request)
        };
        let (plain, tls) = ("http://ops.example", "https://ops.example");
        for (wire, own, other) in [(Wire::Plain, plain, tls), (Wire::Tls, tls, plain)] {
            assert!(!is_foreign(wire, own, None) && !is_foreign(wire, own, Some("same-origin")));
            assert!(is_foreign(wire, other, None) && is_foreign(wire, other, Some("none")));
            assert!(is_foreign(wire, other, Some("cross-site")));
            assert!(!is_foreign(wire, other, Some("same-origin")), "a proxy ends TLS");
        }
    }

    #[test]
    fn pages_of_others_are_not() {
        for origin in [
            "http://127.0.0.1:8180",
            "http://localhost:8181",
            "http://evil.example",
            "http://127.0.0.1:8181.evil.example",
            "ftp://127.0.0.1:8181",
            "127.0.0.1:8181",
            "null",
            "",
        ] {
            assert!(is_foreign("POST", "/api/v1/reload", &[HERE, ("origin", origin)]), "{origin}");
        }
        let two = [HERE, ("origin", "http://127.0.0.1:8181"), ("origin", "http://evil.example")];
        assert!(is_foreign("POST", "/api/v1/reload", &two));
        assert!(is_foreign("POST", "/api/v1/reload", &[("origin", "http://127.0.0.1:8181")]));
        for site in ["cross-site", "same-site", "other", ""] {
            let headers = [HERE, ("sec-fetch-site", site)];
            assert!(is_foreign("GET", "/api/v1/backends", &headers), "{site}");
            assert!(is_foreign("GET", "/", &headers), "{site}");
        }
        let own = [HERE, ("sec-fetch-site", "same-origin")];
        assert!(is_foreign("GET", "/api/v1/backends/a/drain", &own));
        assert!(!is_foreign("POST", "/api/v1/backends/a/drain", &own));
    }

    #[test]
    fn a_link_of_another_site_opens_the_dashboard_and_nothing_else() {
        let link = [
            HERE,
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("accept", "text/html"),
        ];
        assert!(!is_foreign("GET", "/", &link));
        assert!(is_foreign("POST", "/", &link));
        assert!(is_foreign("GET", "/metrics", &link));
        let mut framed = link;
        framed[3] = ("sec-fetch-dest", "iframe");
        assert!(is_foreign("GET", "/", &framed));
    }
}
