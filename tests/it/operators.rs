//! Users with the role `operator` at the admin listener, by what lets them in at the front.

use std::sync::Arc;

use http::Method;
use mooring::auth::{Role, User, UserTable};
use mooring::config::{AuthMode, Config, Secret};
use serde_json::json;

use crate::audit::{AuditLog, said};
use crate::dashboard::Watching;
use crate::jwt::forge::{Forge, claims_with};
use crate::keys::user;
use crate::support::{Answer, World, send};

const OLA: &str = "key-of-ola";
const ADA: &str = "key-of-ada";
const VIC: &str = "key-of-vic";

const STATE: &str = "/api/v1/backends/a/state";
const DRAIN: &str = r#"{"state": "draining"}"#;

/// What needs the token, if one is configured.
const GUARDED: [&str; 4] = ["/api/v1/backends", "/api/v1/clients", "/api/v1/live", "/metrics"];

fn ola(role: Role, key: &str) -> User {
    user("ola", role, key)
}

fn with(ola: User) -> Arc<UserTable> {
    let others = [user("ada", Role::Artist, ADA), user("vic", Role::Viewer, VIC)];
    Arc::new(UserTable::of(others.into_iter().chain([ola])).unwrap())
}

fn with_token(config: &mut Config) {
    config.admin.token = Some(Secret::parse("token-of-the-listener").unwrap());
}

fn with_keys(config: &mut Config) {
    with_token(config);
    config.auth.mode = AuthMode::Keys;
    config.auth.users = with(ola(Role::Operator, OLA));
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.admin, Method::GET, path, headers, "").await
}

async fn post(world: &World, headers: &[(&str, &str)]) -> Answer {
    send(world.admin, Method::POST, STATE, headers, DRAIN).await
}

async fn state(world: &World) -> String {
    let token = [("authorization", "Bearer token-of-the-listener")];
    let told = get(world, "/api/v1/backends", &token).await.json();
    told["backends"][0]["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_own_key_acts_and_is_named() {
    let world = World::with(1, with_keys).await;
    world.all_up().await;
    world.gateway.shared.records.journal.durable().await.unwrap();
    let log = AuditLog::of(&world);
    let bearer = format!("Bearer {OLA}");
    for key in [("authorization", bearer.as_str()), ("x-api-key", OLA)] {
        for path in ["/api/v1/backends", "/api/v1/clients", "/metrics", "/readyz", "/"] {
            assert_eq!(get(&world, path, &[key]).await.status, 200, "{key:?} {path}");
        }
    }
    let body = r#"{"state": "draining", "by": "somebody else", "why": "tests"}"#;
    let key = [("authorization", bearer.as_str())];
    let told = send(world.admin, Method::POST, STATE, &key, body).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let told = get(&world, "/api/v1/backends", &key).await.text();
    assert!(told.contains("somebody else (ola, 127.0.0.1)"), "{told}");
    assert_eq!(send(world.admin, Method::POST, "/api/v1/reload", &key, "").await.status, 200);
    let lines = log.lines(2).await;
    assert_eq!(said(&lines[0]), ("backend.state", "done"));
    assert_eq!(said(&lines[1]), ("configuration.reload", "done"));
    assert_eq!(lines[0]["who"], lines[1]["who"]);
    assert_eq!(
        (&lines[0]["who"]["user"], &lines[0]["who"]["role"]),
        (&json!("ola"), &json!("operator"))
    );
    assert!(!log.end().await.contains(OLA));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_let_in() {
    let world = World::with(1, with_keys).await;
    world.all_up().await;
    let log = AuditLog::of(&world);
    let (ada, vic) = (format!("Bearer {ADA}"), format!("Bearer {VIC}"));
    let ola = format!("Bearer {OLA}");
    for (headers, expected) in [
        (&[("authorization", ada.as_str())][..], 403),
        (&[("x-api-key", ADA)], 403),
        (&[("authorization", vic.as_str())], 403),
        (&[("authorization", ola.as_str()), ("x-api-key", ADA)], 401),
        (&[("authorization", ola.as_str()), ("authorization", ola.as_str())], 401),
        (&[("authorization", ola.as_str()), ("origin", "http://evil.example")], 403),
        (&[("authorization", ola.as_str()), ("sec-fetch-site", "cross-site")], 403),
        (&[("authorization", OLA)], 401),
        (&[("authorization", "Bearer key-of-ol")], 401),
        (&[], 401),
    ] {
        for path in GUARDED {
            assert_eq!(get(&world, path, headers).await.status, expected, "{path} {headers:?}");
        }
        assert_eq!(post(&world, headers).await.status, expected, "{headers:?}");
    }
    let token = [("authorization", "Bearer token-of-the-listener"), ("x-api-key", ADA)];
    assert_eq!(get(&world, "/api/v1/backends", &token).await.status, 200, "the token is enough");
    let in_address = get(&world, &format!("/api/v1/backends?token={OLA}"), &[]).await;
    assert_eq!(in_address.status, 401);
    assert_eq!(state(&world).await, "ready");
    let lines = log.lines(1).await;
    assert_eq!(said(&lines[0]), ("listener.refused", "refused: 403 Forbidden"));
    assert_eq!(lines[0]["who"]["user"], "ada");
}

/// Each of these ends what an operator watches, and lets nobody in with the old key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_operator_any_more_sees_nothing_more() {
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 4] = [
        ("another role", |it| it.auth.users = with(ola(Role::Artist, OLA))),
        ("another key", |it| it.auth.users = with(ola(Role::Operator, "another"))),
        ("removed", |it| it.auth.users = Arc::new(UserTable::default())),
        ("off", |it| it.auth.mode = AuthMode::Off),
    ];
    for (what, change) in changes {
        let world = World::with(1, with_keys).await;
        world.all_up().await;
        let key = format!("Bearer {OLA}");
        let mut page =
            Watching::open(world.admin, &format!("connection: close\r\nauthorization: {key}\r\n"))
                .await;
        let seen = page.until(|seen| seen["backends"][0]["state"] == "ready").await;
        assert_eq!(seen["may"], "act", "{what}");
        world.reload(change).await.unwrap();
        while page.next().await.is_some() {}
        let again = get(&world, "/api/v1/backends", &[("authorization", &key)]).await;
        assert!(matches!(again.status, 401 | 403), "{what}: {}", again.status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_an_operator_is_still_named() {
    let world = World::with(1, |config| {
        with_keys(config);
        config.admin.token = None;
    })
    .await;
    world.all_up().await;
    let log = AuditLog::of(&world);
    assert_eq!(post(&world, &[("x-api-key", OLA)]).await.status, 200);
    assert_eq!(post(&world, &[("x-api-key", ADA)]).await.status, 200, "this machine may act");
    let lines = log.lines(2).await;
    assert_eq!((&lines[0]["who"]["user"], &lines[1]["who"]["user"]), (&json!("ola"), &json!(null)));
}

/// What proves a proxy at the front proves nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_proxy_names_is_nobody_here() {
    let world = World::with(1, |config| {
        with_token(config);
        config.auth.mode = AuthMode::Header;
        config.auth.header = Some("x-forwarded-user".parse().unwrap());
        config.auth.default_role = Some(Role::Operator);
        config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let named = ("x-forwarded-user", "ola");
    let at_front = send(world.front, Method::GET, "/-/whoami", &[named], "").await;
    assert_eq!(at_front.json()["user"]["role"], "operator");
    let headers = [named, ("sec-fetch-site", "same-origin")];
    for path in GUARDED {
        assert_eq!(get(&world, path, &headers).await.status, 401, "{path}");
    }
    assert_eq!(get(&world, "/api/v1/backends/a/drain", &[named]).await.status, 401);
    assert_eq!(post(&world, &headers).await.status, 401);
    let token = ("authorization", "Bearer token-of-the-listener");
    assert_eq!(get(&world, "/api/v1/backends", &[named, token]).await.status, 200);
    assert_eq!(state(&world).await, "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_an_operator_counts_in_the_header_alone() {
    let forge = Forge::new();
    let keys = forge.jwks();
    let world = World::with(1, |config| {
        with_token(config);
        crate::jwt::config(config, &keys);
    })
    .await;
    world.all_up().await;
    let of = |role: &str| forge.good(&claims_with(&[("role", json!(role))]));
    let (operator, artist) = (of("operator"), of("artist"));
    let (bearer, other) = (format!("Bearer {operator}"), format!("Bearer {artist}"));
    let cookie = format!("token={operator}");
    let own = ("sec-fetch-site", "same-origin");
    assert_eq!(post(&world, &[("cookie", &cookie), own]).await.status, 401);
    assert_eq!(
        post(&world, &[("authorization", &other), ("cookie", &cookie), own]).await.status,
        403
    );
    let forged = format!("{bearer}x");
    assert_eq!(post(&world, &[("authorization", &forged)]).await.status, 401);
    assert_eq!(state(&world).await, "ready");
    assert_eq!(post(&world, &[("authorization", &bearer)]).await.status, 200);
    assert_eq!(state(&world).await, "draining");
}
