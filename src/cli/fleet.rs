//! The verbs that change the fleet of the running gateway.

use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::admin::{escape, read, refused, send, send_within};
use super::answer::{finish, print_json, usual};
use super::args::{AddBackendArgs, DrainArgs, RemoveBackendArgs};
use super::ask::DEADLINE;
use super::{EXIT_FAILURE, say};
use crate::config;

/// `mooring backends add NAME URL`.
pub(super) async fn add(args: &AddBackendArgs) -> ExitCode {
    let path = format!("/api/v1/backends/{}", escape(&args.name));
    match send(&args.admin, Method::PUT, path, settings(args).to_string()).await {
        Ok(answer) if answer.status == StatusCode::UNPROCESSABLE_ENTITY => {
            refused(&args.admin, &answer)
        }
        Ok(answer) => finish(usual(&args.admin), read(&answer)),
        Err(failure) => failure.exit(),
    }
}

/// The body of the request. It contains only what was given.
fn settings(args: &AddBackendArgs) -> Value {
    let mut settings = Map::from_iter([("url".to_owned(), json!(args.url))]);
    let counts = [("weight", args.weight), ("max_pending", args.max_pending)];
    for (key, count) in counts {
        settings.extend(count.map(|count| (key.to_owned(), json!(count))));
    }
    for (key, text) in [("ca", &args.ca), ("server_name", &args.server_name)] {
        settings.extend(text.as_ref().map(|text| (key.to_owned(), json!(text))));
    }
    if !args.labels.is_empty() {
        settings.insert("labels".to_owned(), json!(args.labels));
    }
    if !args.headers.is_empty() {
        let file = |(name, file): &(String, String)| (name.clone(), json!({ "file": file }));
        let headers: Map<String, Value> = args.headers.iter().map(file).collect();
        settings.insert("headers".to_owned(), json!(headers));
    }
    Value::Object(settings)
}

/// `mooring backends remove NAME [--drain TIME | --force]`. Exits with 0 if the backend has left or
/// is leaving, and with 1 if the time was over first.
pub(super) async fn remove(args: &RemoveBackendArgs) -> ExitCode {
    let query = match (&args.drain, args.force) {
        (_, true) => "?drain=force".to_owned(),
        (Some(wait), false) => format!("?drain={}", escape(wait)),
        (None, false) => String::new(),
    };
    let path = format!("/api/v1/backends/{}{query}", escape(&args.name));
    let deadline = deadline(args.drain.as_deref().unwrap_or_default());
    let asked = (Method::DELETE, path, String::new());
    let answer = match send_within(&args.admin, asked, deadline).await {
        Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
            match args.admin.json {
                true => say::line("null"),
                false => say::line("It has left the fleet."),
            }
            return ExitCode::SUCCESS;
        }
        Ok(answer) => read(&answer),
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answer) if args.admin.json => print_json(&answer),
        Ok(answer) => {
            let held = &answer["held_clients"];
            say::line(&format!("It leaves when it is drained; held clients: {held}"));
            if answer["ran_out"] == json!(true) { EXIT_FAILURE.into() } else { ExitCode::SUCCESS }
        }
        Err(failure) => failure.exit(),
    }
}

/// `mooring drain NAME [--wait TIME]`.
pub(super) async fn drain(args: &DrainArgs) -> ExitCode {
    let mut query = format!("?wait={}", escape(&args.wait));
    for (key, text) in [("by", &args.by), ("why", &args.why)] {
        if let Some(text) = text {
            query += &format!("&{key}={}", escape(text));
        }
    }
    let path = format!("/api/v1/backends/{}/drain{query}", escape(&args.name));
    let asked = (Method::POST, path, String::new());
    let answer = match send_within(&args.admin, asked, deadline(&args.wait)).await {
        Ok(answer) => read(&answer),
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answer) => {
            let is_drained = answer["drained"] == json!(true);
            if args.admin.json {
                print_json(&answer);
            } else if is_drained {
                say::line("Drained.");
            } else {
                say::line(&format!("Still draining; held clients: {}", answer["held_clients"]));
            }
            if is_drained { ExitCode::SUCCESS } else { EXIT_FAILURE.into() }
        }
        Err(failure) => failure.exit(),
    }
}

/// How long the answer may take if the gateway itself waits for `wait`. The gateway reports an
/// invalid time.
fn deadline(wait: &str) -> Duration {
    config::duration(wait).unwrap_or_default() + DEADLINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_waits_is_waited_for() {
        assert_eq!(deadline("30m"), Duration::from_secs(1_830));
        assert_eq!(deadline("soon"), DEADLINE);
    }
}
