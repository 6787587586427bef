//! What people at the front do and may not do, for the audit log.

use std::net::IpAddr;

use http::Request;
use serde_json::{Value, json};

use super::Front;
use super::caller::{self, Caller, IdentityHints};
use super::error::GatewayError;
use crate::audit::{Entry, Who};
use crate::auth::{Refusal, User};
use crate::routing::ids::PromptId;
use crate::routing::realm::Realm;

/// A user at an address.
fn user_at(user: &User, address: IpAddr) -> Who {
    Who::user(user.name.as_str(), user.role.as_str(), address)
}

/// A user by his name. Where no file has him, a proxy has named him, and his role is unknown.
fn named_at(front: &Front, name: &str, address: IpAddr) -> Who {
    let users = front.admission.users();
    match users.iter().find(|user| user.name.as_str() == name) {
        Some(user) => user_at(user, address),
        None => Who { user: Some(name.to_owned()), ..Who::at(address) },
    }
}

/// Where a request comes from, after trusted proxies.
pub(super) fn address_of<B>(front: &Front, peer: IpAddr, request: &Request<B>) -> IpAddr {
    caller::address(&front.shared.config().server, peer, &IdentityHints::of(request))
}

pub(super) fn logged_in(front: &Front, user: &User, address: IpAddr) {
    front.shared.audit.note(|| Entry::done(user_at(user, address), "login", Value::Null));
}

/// A login that was refused. Only the name of a user is noted: another may be a password that was
/// typed in the wrong field.
pub(super) fn login_refused(front: &Front, typed: &str, address: IpAddr, error: &GatewayError) {
    front.shared.audit.note_refusal(|| {
        let users = front.admission.users();
        let user = users.iter().find(|user| user.name.as_str() == typed);
        let who = user.map_or_else(|| Who::at(address), |user| user_at(user, address));
        Entry::refused(who, "login", Value::Null, error.code())
    });
}

pub(super) fn logged_out(front: &Front, name: &str, address: IpAddr, everywhere: Option<u64>) {
    front.shared.audit.note(|| {
        let on = json!({ "everywhere": everywhere.is_some() });
        Entry::done(named_at(front, name, address), "logout", on)
    });
}

/// A key or a session that lets nobody in. Who shows none has tried nothing.
pub(super) fn not_let_in(front: &Front, refusal: Refusal, address: IpAddr) {
    match refusal {
        Refusal::Missing | Refusal::NoKeys => return,
        Refusal::Unknown
        | Refusal::Ambiguous
        | Refusal::BadName
        | Refusal::OnlyReads
        | Refusal::NoRole => {}
    }
    front.shared.audit.note_refusal(|| {
        Entry::refused(Who::at(address), "request", Value::Null, refusal.as_str())
    });
}

/// A command on a prompt that is somebody else's.
pub(super) fn not_his(front: &Front, caller: &Caller, (verb, prompt): (&'static str, &PromptId)) {
    front.shared.audit.note_refusal(|| {
        let who = match &caller.realm {
            Realm::Everybody => Who::at(caller.address),
            Realm::User(name) => named_at(front, name, caller.address),
        };
        let client = caller.named.as_ref().map(|it| crate::masked::mask(it).to_string());
        let on = json!({ "prompt": prompt.as_str(), "client": client, "verb": verb });
        Entry::refused(who, "prompt.command", on, "it is another's")
    });
}
