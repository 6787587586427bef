//! Login and logout with a browser: `/-/login` and `/-/logout`, if users are required.
//!
//! Somebody who opens an address without being let in gets the form instead, with status 401. So an
//! address means the same for programs and for people, nothing is redirected that should not be,
//! and after the login the user gets the page that was requested. `GET /-/login` also shows the
//! form, or the user who is logged in.
//!
//! A login is accepted only from a form that one of our pages has shown to this browser: the
//! request must say that it comes from our page, and the form has a token that matches a cookie. So
//! no other page can log somebody in or out.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{info, warn};

use super::admission::{self, Guest};
use super::browsers::BrowserId;
use super::caller::{self, Door, IdentityHints};
use super::cors::{self, CorsDecision};
use super::error::GatewayError;
use super::html::sentence;
use super::own_cookies::{Kept, OwnCookie};
use super::unavailable::Reader;
use super::{Answer, Front, audited, bodies};
use crate::auth::logouts::Logouts;
use crate::auth::{Session, User};
use crate::body::{CollectLimits, ResponseBody};
use crate::comfy::endpoint::{Endpoint, classify};
use crate::comfy::query::parameter;
use crate::config::{AuthMode, BasePath};
use crate::net::new_id;
use credentials::Checker;
use ended::EndedSessions;
use fields::Fields;
use finding::find;
use form::{By, Form, Notice};
use guesses::GuessLimiter;

mod credentials;
pub mod ended;
mod fields;
mod finding;
mod form;
mod guesses;
mod next;
mod places;

/// The largest form that is read, in bytes.
const FORM_MAX: u64 = 16 << 10;

/// The text for a form that was not shown to this browser, or that is too old.
const STALE: &str = "this form is too old, or your browser keeps no cookies of this address: try \
                     again";

/// What logins need and remember.
#[derive(Debug)]
pub struct Logins {
    checker: Checker,
    guesses: GuessLimiter,
    pub ended: Arc<EndedSessions>,
}

impl Logins {
    #[must_use]
    pub fn new(ended: Arc<EndedSessions>) -> Self {
        Self { checker: Checker::default(), guesses: GuessLimiter::default(), ended }
    }
}

/// The route of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    In,
    Out,
}

impl Asked {
    /// `None` for all other paths, and while no login is needed.
    #[must_use]
    pub fn of<B>(front: &Front, request: &Request<B>) -> Option<Self> {
        match front.shared.config().auth.mode {
            // In mode `header` the proxy handles logins, in mode `jwt` whoever issues the tokens.
            AuthMode::Off | AuthMode::Header | AuthMode::Jwt => return None,
            AuthMode::Keys => {}
        }
        let Endpoint::Own(path) = classify(request.method(), request.uri().path()) else {
            return None;
        };
        match path.as_str() {
            "/-/login" => Some(Self::In),
            "/-/logout" => Some(Self::Out),
            _ => None,
        }
    }
}

/// The origin of a request, and the base path.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub peer: IpAddr,
    pub decision: &'a CorsDecision,
    pub base: &'a BasePath,
    /// The request is for a path below the base path.
    pub is_inside: bool,
}

/// A browser that sees the form.
struct Visitor {
    door: Door,
    /// Binds the form to the browser.
    form: String,
    is_new: bool,
    prefix: String,
}

impl Visitor {
    fn of<B>(front: &Front, from: Origin<'_>, request: &Request<B>) -> Self {
        let hints = IdentityHints::of(request);
        let door = caller::door(&front.shared.config().server, from.peer, &hints);
        let known = form_of(request.headers(), door);
        let is_new = known.is_none();
        let form = known.unwrap_or_else(|| new_id().simple().to_string());
        Self { door, form, is_new, prefix: from.base.prefix().to_owned() }
    }

    fn token(&self, front: &Front) -> String {
        let token = front.admission.form_token(self.form.as_bytes());
        token.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The form instead of an answer.
    fn show(
        &self,
        front: &Front,
        mut response: Response<ResponseBody>,
        (next, name, notice): (&str, &str, Notice<'_>),
    ) -> Response<ResponseBody> {
        let (token, prefix) = (self.token(front), self.prefix.as_str());
        form::form(&mut response, Form { prefix, next, token: &token, name, notice });
        if self.is_new {
            let cookie = OwnCookie::Form.set(self.door, &self.form, Kept::WithBrowser);
            append(&mut response, &cookie);
        }
        response
    }
}

fn form_of(headers: &HeaderMap, door: Door) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    let mut values = lines.flat_map(|line| OwnCookie::Form.values(line.as_bytes(), door));
    let value = values.find(|it| it.len() == 32 && it.iter().all(u8::is_ascii_hexdigit))?;
    String::from_utf8(value.to_vec()).ok()
}

fn append(response: &mut Response<ResponseBody>, cookie: &str) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// The answer to a sender who was not let in: the form, if it is a person and a login helps.
///
/// # Errors
/// The original error, for programs and where a login does not help.
pub fn refuse<B>(
    front: &Front,
    from: Origin<'_>,
    request: &Request<B>,
    refused: GatewayError,
) -> Answer {
    let next = match (&refused, Reader::of(request)) {
        // A link on another page may open only the page itself, also after a login.
        (GatewayError::Unauthorized, Reader::Person)
            if from.is_inside && *from.decision != CorsDecision::Foreign =>
        {
            next::of_request(request.uri(), from.base)
        }
        // A GET for the address of a form is not the same request.
        (GatewayError::Unauthorized, Reader::Person | Reader::Sender) => from.base.to_string(),
        _ => return Err(refused),
    };
    let visitor = Visitor::of(front, from, request);
    let response = super::failed(&front.shared, &refused);
    Ok(visitor.show(front, response, (&next, "", Notice::None)))
}

/// Answers requests for login and logout.
///
/// # Errors
/// The method or the form is not accepted.
pub async fn answer(
    front: &Arc<Front>,
    asked: Asked,
    from: Origin<'_>,
    mut request: Request<Incoming>,
) -> Answer {
    match (asked, request.method()) {
        (Asked::In, &Method::GET | &Method::HEAD) => Ok(page(front, from, &mut request)),
        (Asked::In, &Method::POST) => log_in(front, from, request).await,
        (Asked::Out, &Method::POST) => log_out(front, from, &request).await,
        (Asked::In, _) => Err(GatewayError::BadMethod { allowed: "GET, HEAD, POST" }),
        (Asked::Out, _) => Err(GatewayError::BadMethod { allowed: "POST" }),
    }
}

/// Shows the user who is logged in, or the form.
fn page(
    front: &Front,
    from: Origin<'_>,
    request: &mut Request<Incoming>,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    if let Ok(Some(Guest { pass, .. })) =
        admission::admit(front, (from.peer, from.decision), request)
    {
        let by = if pass.session.is_some() { By::Session } else { By::Key };
        form::account(&mut response, &pass.user, by, from.base.prefix());
        return response;
    }
    let query = request.uri().query().unwrap_or("");
    let is_foreign = *from.decision == CorsDecision::Foreign;
    let next = parameter(query, "next").filter(|_| !is_foreign).unwrap_or_default();
    let notice = match parameter(query, "out") {
        Some(_) => Notice::Done("You are logged out."),
        None => Notice::None,
    };
    Visitor::of(front, from, request).show(front, response, (&next, "", notice))
}

/// Only our own pages may log somebody in or out.
fn check_page<B>(from: Origin<'_>, request: &Request<B>) -> Result<(), GatewayError> {
    match from.decision {
        CorsDecision::Same if cors::says_its_page(request.headers()) => Ok(()),
        CorsDecision::Same => Err(GatewayError::PageUnsaid),
        CorsDecision::Allowed(_) | CorsDecision::Preflight(_) | CorsDecision::Foreign => {
            Err(GatewayError::ForeignOrigin)
        }
    }
}

async fn log_in(front: &Arc<Front>, from: Origin<'_>, request: Request<Incoming>) -> Answer {
    let visitor = Visitor::of(front, from, &request);
    let reader = Reader::of(&request);
    let asks_for_page = reader == Reader::Sender
        || request.headers().get_all(http::header::ACCEPT).iter().any(is_html);
    let address = audited::address_of(front, from.peer, &request);
    let mut typed = Fields::default();
    let outcome = try_log_in(front, from, request, (&visitor, &mut typed)).await;
    front.shared.metrics.guests.tried(match &outcome {
        Ok(_) => "ok",
        Err(GatewayError::BadLogin) => "wrong",
        Err(GatewayError::TooManyGuesses { .. }) => "limited",
        Err(GatewayError::LoginsBusy) => "busy",
        Err(_) => "bad_form",
    });
    if let Err(error) = &outcome {
        audited::login_refused(front, &typed.name, address, error);
    }
    match outcome {
        Err(error) if asks_for_page => {
            let text = sentence(&error.to_string());
            let response = super::failed(&front.shared, &error);
            let said = (typed.next.as_str(), typed.name.as_str(), Notice::Problem(&text));
            Ok(visitor.show(front, response, said))
        }
        other => other,
    }
}

fn is_html(accept: &HeaderValue) -> bool {
    super::page_cookie::asks_for_a_page(accept.as_bytes())
}

async fn try_log_in(
    front: &Arc<Front>,
    from: Origin<'_>,
    request: Request<Incoming>,
    (visitor, typed): (&Visitor, &mut Fields),
) -> Answer {
    check_page(from, &request)?;
    let address = audited::address_of(front, from.peer, &request);
    let before = admission::session_in(front, (from.peer, from.decision), &request);
    let (mut parts, body) = request.into_parts();
    let is_form = |value: &HeaderValue| fields::is_form(value.as_bytes());
    if !parts.headers.get(CONTENT_TYPE).is_some_and(is_form) {
        return Err(GatewayError::BadForm("send the form as application/x-www-form-urlencoded"));
    }
    let limits = CollectLimits { max: FORM_MAX, idle: front.shared.config().server.body_timeout };
    let body = bodies::whole(&mut parts, body, limits, None).await?;
    *typed = Fields::read(&body)?;
    // A form without the cookie was shown to another browser, or this one stores no cookies.
    if visitor.is_new || !fields::is_same(&typed.token, &visitor.token(front)) {
        return Err(GatewayError::BadForm(STALE));
    }
    let user = find(front, from.peer, &parts, typed.said()?).await?;
    audited::logged_in(front, &user, address);
    let location = next::checked(&typed.next, from.base).to_owned();
    let is_ahead = front.admission.is_ahead(&user);
    if is_ahead {
        warn!(user = %user.name, "The clock was set back since this user logged out everywhere.");
    }
    if before.is_some() || is_ahead {
        let name = user.name.clone();
        let change = move |ended: &mut Logouts| {
            before.iter().for_each(|it| ended.end(it));
            ended.let_in(&name, crate::net::unix_millis());
        };
        front.logins.ended.end(&front.admission, change).await;
    }
    Ok(welcome(front, visitor.door, &user, &location))
}

/// Creates a session and a new name for the browser.
fn welcome(front: &Front, door: Door, user: &User, location: &str) -> Response<ResponseBody> {
    let browser = BrowserId::mint();
    let session = front.admission.begin(user, browser.number());
    let lifetime = Kept::For(front.shared.config().auth.session_lifetime);
    let mut response = go_to(location);
    for cookie in [
        OwnCookie::Session.set(door, &session, lifetime),
        OwnCookie::Mark.set(door, &front.admission.mark_of(user), lifetime),
        browser.set_cookie(&front.cookie_signer, door, Some(user.name.as_str())),
    ] {
        append(&mut response, &cookie);
    }
    response
}

async fn log_out(front: &Arc<Front>, from: Origin<'_>, request: &Request<Incoming>) -> Answer {
    check_page(from, request)?;
    let hints = IdentityHints::of(request);
    let door = caller::door(&front.shared.config().server, from.peer, &hints);
    let query = request.uri().query().unwrap_or("");
    let is_everywhere = parameter(query, "everywhere").is_some_and(|it| it == "1");
    if let Some(session) = admission::session_in(front, (from.peer, from.decision), request) {
        let all_until = is_everywhere.then(crate::net::unix_millis);
        let address = audited::address_of(front, from.peer, request);
        audited::logged_out(front, session.user.as_str(), address, all_until);
        end(front, session, all_until).await;
    }
    let mut response = go_to("/-/login?out=1");
    for cookie in [OwnCookie::Session, OwnCookie::Mark] {
        append(&mut response, &cookie.set(door, "", Kept::Never));
    }
    Ok(response)
}

/// Ends one session, or all sessions of its user that began before this time.
async fn end(front: &Arc<Front>, session: Arc<Session>, all_until: Option<u64>) {
    info!(user = %session.user, everywhere = all_until.is_some(), "Somebody has logged out.");
    let change = move |ended: &mut Logouts| match all_until {
        // The clock may have been set back a little since the session began.
        Some(until) => ended.end_all(&session.user, until.max(session.issued)),
        None => ended.end(&session),
    };
    front.logins.ended.end(&front.admission, change).await;
}

/// Redirects with GET, whatever the method of the request was (RFC 9110 section 15.4.4).
fn go_to(location: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    response
}
