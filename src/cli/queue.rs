//! `mooring queue`: what waits in the gateway.

use std::process::ExitCode;

use serde_json::Value;

use super::admin::{Failure, escape, get, post};
use super::answer::{self, finish, form, usual};
use super::args::{AdminArgs, Form, OnePromptArgs, QueueArgs, QueueVerb};
use super::say;

/// `mooring queue`, with its verbs.
pub(super) async fn queue(args: &QueueArgs) -> ExitCode {
    match &args.verb {
        Some(QueueVerb::Front(it)) => return act(it, |id| format!("queue/{id}/front")).await,
        Some(QueueVerb::Cancel(it)) => return act(it, |id| format!("prompts/{id}/cancel")).await,
        None => {}
    }
    let form = form(args.output, &args.admin);
    match list(args).await {
        Ok(answer) => {
            if let Some(text) = text(&answer, form, say::look()) {
                say::line(&text);
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failure.exit(),
    }
}

async fn act(it: &OnePromptArgs, path: impl Fn(String) -> String) -> ExitCode {
    let path = format!("/api/v1/{}", path(escape(&it.id)));
    finish(usual(&it.admin), post(&it.admin, path, String::new()).await)
}

async fn list(args: &QueueArgs) -> Result<Value, Failure> {
    let QueueArgs { client, user, limit, skip, .. } = args;
    let mut query = format!("?limit={limit}&skip={skip}");
    for (key, text) in [("client", client), ("user", user)] {
        if let Some(text) = text {
            query += &format!("&{key}={}", escape(text));
        }
    }
    let admin: &AdminArgs = &args.admin;
    get(admin, format!("/api/v1/queue{query}")).await
}

/// The answer as text; `None` if there is nothing to be printed.
fn text(answer: &Value, form: Form, look: super::table::Look) -> Option<String> {
    let shown = match form {
        Form::Json => return Some(answer::text(answer, form, look)),
        Form::Table | Form::Wide | Form::Name => answer::text(&answer["prompts"], form, look),
    };
    let more = answer["next_skip"].as_u64().filter(|_| form != Form::Name);
    let more = more.map(|next| {
        let waiting = &answer["waiting"];
        format!("\n{waiting} wait; the next are shown by --skip {next}")
    });
    Some(shown + &more.unwrap_or_default()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::table::{Colours, Look};
    use super::*;

    #[test]
    fn each_form_shows_the_page_that_was_asked_for() {
        let look = Look { width: usize::MAX, colours: Colours::Off };
        let prompts = json!([{"place": 1, "prompt_id": "p1", "client": "c-1", "start_ms": 40_000,
            "waited_ms": 2_000}]);
        let answer = json!({"prompts": prompts, "waiting": 3, "next_skip": 1});
        let table = "PROMPT_ID  CLIENT  PLACE  START  WAITED\np1         c-1     1      40s    2s\
                     \n3 wait; the next are shown by --skip 1";
        assert_eq!(text(&answer, Form::Table, look).unwrap(), table);
        assert_eq!(text(&answer, Form::Name, look).unwrap(), "p1");
        let all: Value = serde_json::from_str(&text(&answer, Form::Json, look).unwrap()).unwrap();
        assert_eq!(all, answer);
        let none = json!({"prompts": [], "waiting": 0, "next_skip": null});
        assert_eq!(text(&none, Form::Table, look).unwrap(), "none");
        assert_eq!(text(&none, Form::Name, look), None);
    }
}
