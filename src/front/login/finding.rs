//! Finds the user at the form, if another attempt is allowed.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use tracing::info;

use super::credentials::{Said, by_key};
use super::guesses::Guesser;
use super::places::Asker;
use crate::auth::{User, UserName};
use crate::front::Front;
use crate::front::browsers::browser_of;
use crate::front::caller::{self, Door};
use crate::front::error::GatewayError;
use crate::front::identity_hints::IdentityHints;
use crate::net::now;

/// The user at the form. Checks first whether another attempt is allowed.
pub(super) async fn find(
    front: &Front,
    peer: IpAddr,
    parts: &http::request::Parts,
    said: Said,
) -> Result<Arc<User>, GatewayError> {
    let request = Request::from_parts(parts.clone(), ());
    let hints = IdentityHints::of(&request);
    let server = &front.shared.config().server;
    let address = caller::address(server, peer, &hints);
    // Nobody can guess a key of 256 bits. So a user with a key is not blocked by the guesses of
    // others at the same address.
    let by_key = by_key(&front.admission.users(), &said);
    let found = match by_key {
        Some(user) => Ok(user),
        None => {
            let door = caller::door(server, peer, &hints);
            let known = known_browser(front, door, &hints, &said);
            let (guesser, asker) = known.unwrap_or((Guesser::at(address), Asker::at(address)));
            guess(front, (guesser, asker), said).await
        }
    };
    match &found {
        Ok(user) => info!(user = %user.name, %address, "Somebody has logged in."),
        Err(GatewayError::TooManyGuesses { .. }) => {}
        // A password may have been typed instead of the name.
        Err(error) => info!(%address, code = error.code(), "A login was refused."),
    }
    found
}

/// Checks the credentials of somebody who may not be wrong too often.
async fn guess(
    front: &Front,
    (guesser, asker): (Guesser, Asker),
    said: Said,
) -> Result<Arc<User>, GatewayError> {
    let guesses = &front.logins.guesses;
    guesses.guess(guesser, now()).map_err(|wait| GatewayError::TooManyGuesses {
        seconds: u16::try_from(wait.as_secs() + 1).unwrap_or(u16::MAX),
    })?;
    let found = front.logins.checker.user(&front.admission, said, &asker).await;
    // If there was no place, the credentials were not checked.
    if matches!(found, Ok(_) | Err(GatewayError::LoginsBusy)) {
        guesses.was_right(guesser, now());
    }
    found
}

/// The browser, if this user was let in from there before.
fn known_browser(
    front: &Front,
    door: Door,
    hints: &IdentityHints<'_>,
    said: &Said,
) -> Option<(Guesser, Asker)> {
    let Said::Password { name, .. } = said else { return None };
    let name: UserName = name.parse().ok()?;
    let browser = |line: &&[u8]| browser_of(line, &front.cookie_signer, door, Some(name.as_str()));
    let browser = hints.cookies.iter().find_map(browser)?;
    Some((Guesser::Browser(browser.number()), Asker::Known(name)))
}
