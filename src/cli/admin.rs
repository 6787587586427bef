//! The verbs that ask the admin listener of the running gateway.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::answer::{finish, form, print_json, usual};
use super::args::{
    About, AdminArgs, BackendsArgs, BackendsVerb, ClientsArgs, ExplainArgs, HealthcheckArgs,
    ReleaseArgs, ReloadArgs,
};
use super::ask::{self, Answer, AskError, DEADLINE, Question, Server, ask};
use super::explain_graph;
use super::find::{self, Asks, Found, NotFound};
use super::fleet;
use super::{EXIT_CONFIG, EXIT_FAILURE, EXIT_USAGE, say};
use crate::config::Secret;
use crate::net::Tcp;

/// The characters that need no escape in a segment or a query (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The gateway tells something every 4 s (`admin::dashboard`).
const STALE_AFTER: Duration = Duration::from_secs(10);

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("the admin listener is off (`admin.listen`): only `mooring healthcheck` works")]
    Off,
    #[error("the gateway at {admin} does not answer: {source}")]
    Ask { admin: String, source: AskError },
    #[error(
        "the gateway requires its token, or the key of an operator: give --token or \
             MOORING_ADMIN__TOKEN"
    )]
    Unauthorized,
    #[error("the gateway refused: {message} ({status})")]
    Refused { status: StatusCode, message: String },
    #[error(
        "{admin} is the address for clients (`server.listen`): the answer came from a \
         backend. Give --admin with the address of `admin.listen`"
    )]
    Front { admin: String },
    #[error("the answer is not JSON; is this Mooring's address?")]
    NotJson,
    #[error("there is no backend `{name}`; there {names}")]
    NoBackend { name: String, names: String },
}

impl Failure {
    pub(super) fn exit(&self) -> ExitCode {
        let exit = say::failure(&self.to_string());
        match self {
            Self::NotFound(NotFound::Token(_) | NotFound::AnyPort | NotFound::Tls(_)) => {
                ExitCode::from(EXIT_USAGE)
            }
            Self::NotFound(NotFound::Configuration(_)) => ExitCode::from(EXIT_CONFIG),
            Self::Off
            | Self::Ask { .. }
            | Self::Unauthorized
            | Self::Refused { .. }
            | Self::Front { .. }
            | Self::NotJson
            | Self::NoBackend { .. } => exit,
        }
    }
}

/// `mooring clients [ID]`.
pub(super) async fn clients(args: &ClientsArgs) -> ExitCode {
    let path = match &args.id {
        Some(id) => format!("/api/v1/clients/{}", escape(id)),
        None => "/api/v1/clients".to_owned(),
    };
    finish(form(args.output, &args.admin), get(&args.admin, path).await)
}

/// `mooring release ID [--force]`.
pub(super) async fn release(args: &ReleaseArgs) -> ExitCode {
    let query = if args.force { "?force=true" } else { "" };
    let path = format!("/api/v1/clients/{}/release{query}", escape(&args.id));
    finish(usual(&args.admin), post(&args.admin, path, String::new()).await)
}

/// `mooring backends [NAME [STATE]]`.
pub(super) async fn backends(args: &BackendsArgs) -> ExitCode {
    match &args.verb {
        Some(BackendsVerb::Add(args)) => return fleet::add(args).await,
        Some(BackendsVerb::Remove(args)) => return fleet::remove(args).await,
        None => {}
    }
    let all = || get(&args.admin, "/api/v1/backends".into());
    let answer = match (&args.name, args.state) {
        (Some(name), Some(state)) => {
            let path = format!("/api/v1/backends/{}/state", escape(name));
            let body = json!({
                "state": state.as_str(), "force": args.force, "by": args.by, "why": args.why,
            });
            post(&args.admin, path, body.to_string()).await
        }
        (Some(name), None) => all().await.and_then(|answer| one_of(&answer, name)),
        (None, _) => all().await,
    };
    finish(form(args.output, &args.admin), answer)
}

/// Finds the backend of that name in the list of all.
fn one_of(answer: &Value, name: &str) -> Result<Value, Failure> {
    let all = answer["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = || all.iter().filter_map(|backend| backend["name"].as_str());
    all.iter().find(|backend| backend["name"] == name).cloned().ok_or_else(|| {
        let names = match names().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "is none".to_owned(),
            names => format!("are: {}", say::plain(&names)),
        };
        Failure::NoBackend { name: say::plain(name), names }
    })
}

/// `mooring explain --client ID | --prompt ID | --graph FILE`.
pub(super) async fn explain(args: &ExplainArgs) -> ExitCode {
    let About { client, prompt, graph } = &args.about;
    let query = match (client, prompt, graph) {
        (_, _, Some(graph)) => return explain_graph::explain(graph, &args.admin).await,
        (Some(client), _, None) => format!("client={}", escape(client)),
        (None, Some(prompt), None) => format!("prompt={}", escape(prompt)),
        // clap has checked that one of them is given.
        (None, None, None) => String::new(),
    };
    finish(usual(&args.admin), get(&args.admin, format!("/api/v1/explain?{query}")).await)
}

/// `mooring reload`.
pub(super) async fn reload(args: &ReloadArgs) -> ExitCode {
    let sent = send(&args.admin, Method::POST, "/api/v1/reload".into(), String::new()).await;
    let answer = match sent {
        Ok(answer) if answer.status == StatusCode::UNPROCESSABLE_ENTITY => {
            return refused(&args.admin, &answer);
        }
        Ok(answer) => read(&answer),
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answer) if args.admin.json => print_json(&answer),
        Ok(answer) => {
            let keys = |name: &str| {
                let keys = answer[name].as_array().into_iter().flatten();
                keys.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            };
            let applied = match keys("applied") {
                none if none.is_empty() => "nothing has changed".to_owned(),
                keys => format!("applied: {keys}"),
            };
            say::line(&say::plain(&applied));
            match keys("need_restart") {
                none if none.is_empty() => {}
                keys => say::line(&say::plain(&format!("after a restart: {keys}"))),
            }
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                let warning = warning.as_str().unwrap_or_default();
                say::line(&say::plain(&format!("warning: {warning}")));
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failure.exit(),
    }
}

/// Prints the problems of a refused configuration, one per line, or the answer unchanged.
pub(super) fn refused(admin: &AdminArgs, answer: &Answer) -> ExitCode {
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    if admin.json {
        print_json(&body);
        return ExitCode::from(EXIT_CONFIG);
    }
    let problems = body["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
    problems.for_each(|problem| say::note(&say::plain(problem)));
    say::failure(body["error"].as_str().unwrap_or("the gateway refused"));
    ExitCode::from(EXIT_CONFIG)
}

/// `mooring healthcheck`. It prints nothing if all is well, because it may be called every second.
///
/// If the gateway has no admin listener, its front is asked.
pub(super) async fn healthcheck(args: &HealthcheckArgs) -> ExitCode {
    let answer = match find::gateway(&args.admin, Asks::Health, std::env::vars_os()) {
        Ok(Found { admin: None, front: Some(front), base_path, .. }) => {
            let path = format!("{}/-/ready", base_path.prefix());
            let answer = question(&front, None, (Method::GET, path, String::new()), DEADLINE).await;
            // The front serves, but it does not tell strangers whether it is ready.
            if answer.as_ref().is_ok_and(|it| it.status == StatusCode::UNAUTHORIZED) {
                return ExitCode::SUCCESS;
            }
            answer
        }
        Ok(found) => send_to(found, (Method::GET, "/readyz".into(), String::new()), DEADLINE).await,
        Err(not_found) => Err(not_found.into()),
    };
    match answer {
        Ok(answer) if args.admin.json => {
            say::line(&String::from_utf8_lossy(&answer.body));
            if answer.status.is_success() { ExitCode::SUCCESS } else { EXIT_FAILURE.into() }
        }
        Ok(answer) if answer.status.is_success() => ExitCode::SUCCESS,
        Ok(answer) => say::failure(&format!("not ready: {}", why_not_ready(&answer))),
        Err(failure) => failure.exit(),
    }
}

/// The reasons that `/readyz` gives.
fn why_not_ready(answer: &Answer) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return message(answer);
    };
    if body["stopping"] == json!(true) {
        return "the gateway is stopping".to_owned();
    }
    let backends = body["backends"].as_array().into_iter().flatten();
    let troubles = backends.filter(|it| it["takes_work"] != json!(true)).map(|backend| {
        let name = backend["name"].as_str().unwrap_or("a backend");
        let state = backend["state"].as_str().filter(|state| *state != "ready");
        let why = backend["said"]["why"].as_str().filter(|_| state.is_some());
        let trouble = backend["trouble"].as_str().or(state).unwrap_or("down");
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        say::plain(&format!("{name}: {trouble}{why}"))
    });
    let troubles: Vec<String> = troubles.collect();
    if troubles.is_empty() { message(answer) } else { troubles.join("; ") }
}

pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

pub(super) async fn get(admin: &AdminArgs, path: String) -> Result<Value, Failure> {
    read(&send(admin, Method::GET, path, String::new()).await?)
}

pub(super) async fn post(admin: &AdminArgs, path: String, body: String) -> Result<Value, Failure> {
    read(&send(admin, Method::POST, path, body).await?)
}

pub(super) async fn send(
    admin: &AdminArgs,
    method: Method,
    path: String,
    body: String,
) -> Result<Answer, Failure> {
    send_within(admin, (method, path, body), DEADLINE).await
}

/// The same for a request whose answer may take longer than usual.
pub(super) async fn send_within(
    admin: &AdminArgs,
    (method, path, body): (Method, String, String),
    deadline: Duration,
) -> Result<Answer, Failure> {
    let found = find::gateway(admin, Asks::Anything, std::env::vars_os())?;
    send_to(found, (method, path, body), deadline).await
}

/// Follows an answer that goes on until it ends.
pub(super) async fn follow(
    admin: &AdminArgs,
    path: &str,
    part: impl FnMut(Bytes),
) -> Result<(), Failure> {
    let found = find::gateway(admin, Asks::Anything, std::env::vars_os())?;
    let server = found.admin.ok_or(Failure::Off)?;
    let asked = Question::get(&server, path);
    let question = Question { token: found.token.as_ref(), deadline: STALE_AFTER, ..asked };
    let answer = ask::follow(&Tcp, question, part).await;
    let answer = answer.map_err(|source| Failure::Ask { admin: server.to_string(), source })?;
    match answer.status {
        StatusCode::UNAUTHORIZED => Err(Failure::Unauthorized),
        _ if answer.is_of_backend => Err(Failure::Front { admin: server.to_string() }),
        _ => read(&answer).map(drop),
    }
}

async fn send_to(
    found: Found,
    asked: (Method, String, String),
    deadline: Duration,
) -> Result<Answer, Failure> {
    let server = found.admin.ok_or(Failure::Off)?;
    let answer = question(&server, found.token.as_ref(), asked, deadline).await?;
    if answer.is_of_backend {
        return Err(Failure::Front { admin: server.to_string() });
    }
    Ok(answer)
}

async fn question(
    to: &Server,
    token: Option<&Secret>,
    (method, path, body): (Method, String, String),
    deadline: Duration,
) -> Result<Answer, Failure> {
    let headers = HeaderMap::new();
    let answer = ask(&Tcp, Question { to, method, path, token, headers, body, deadline })
        .await
        .map_err(|source| Failure::Ask { admin: to.to_string(), source })?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Err(Failure::Unauthorized);
    }
    Ok(answer)
}

pub(super) fn read(answer: &Answer) -> Result<Value, Failure> {
    if !answer.status.is_success() {
        return Err(Failure::Refused { status: answer.status, message: message(answer) });
    }
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer.body).map_err(|_not_json| Failure::NotJson)
}

/// The text of an answer: the message of an error, or the start of the body.
fn message(answer: &Answer) -> String {
    const CHARACTERS_MAX: usize = 300;
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let from_json = body.as_ref().and_then(|body| {
        ["/error/message", "/message", "/reason", "/error"]
            .iter()
            .find_map(|place| body.pointer(place).and_then(Value::as_str))
    });
    let text = String::from_utf8_lossy(&answer.body);
    let text = from_json.unwrap_or(text.trim());
    let text: String = text.chars().take(CHARACTERS_MAX).collect();
    if text.is_empty() { "no reason given".to_owned() } else { say::plain(&text) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[track_caller]
    fn check_message(body: &'static str, expected: &str) {
        let body = Bytes::from_static(body.as_bytes());
        assert_eq!(
            message(&Answer { status: StatusCode::CONFLICT, body, is_of_backend: false }),
            expected
        );
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_gateway() {
        check_message(
            r#"{"error":{"type":"held","message":"2 prompts are pending"}}"#,
            "2 prompts are pending",
        );
        check_message(
            r#"{"error":"held","message":"2 prompts are pending"}"#,
            "2 prompts are pending",
        );
        check_message(r#"{"error":"held"}"#, "held");
        check_message("no backend is up\n", "no backend is up");
        check_message("a\u{1b}[31mb", "a\u{fffd}[31mb");
        check_message("", "no reason given");
    }

    #[test]
    fn what_keeps_the_gateway_from_being_ready_is_named() {
        let why = |body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            why_not_ready(&Answer {
                status: StatusCode::SERVICE_UNAVAILABLE,
                body,
                is_of_backend: false,
            })
        };
        assert_eq!(why(r#"{"ready":false,"stopping":true}"#), "the gateway is stopping");
        let body = r#"{"ready":false,"stopping":false,"backends":[
            {"name":"a","up":false,"trouble":"connection refused"},{"name":"b","up":false},
            {"name":"c","up":true,"state":"draining","takes_work":false}]}"#;
        assert_eq!(why(body), "a: connection refused; b: down; c: draining");
        assert_eq!(why("draining"), "draining");
    }

    #[test]
    fn a_name_is_escaped_where_it_stands_in_a_path() {
        assert_eq!(escape("a/b?c=d&é ~"), "a%2Fb%3Fc%3Dd%26%C3%A9%20~");
    }
}
