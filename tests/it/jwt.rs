//! Who is let in under `auth.mode = "jwt"`: whom a token names that is signed by one of the keys,
//! and nobody else.

pub(crate) mod forge;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Method;
use mooring::auth::Role;
use mooring::auth::jwt::keys::KeySet;
use mooring::config::{AuthMode, Config, KeysCa, OnOff};
use mooring::net::Network;
use mooring::tasks::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::audit::{AuditLog, said};
use crate::certificates::{Authority, Secured};
use crate::keys::close_code;
use crate::passthrough::{Act, world as puppet_world};
use crate::support::{Answer, Socket, World, network, quick, send, until};
use forge::{AUDIENCE, By, Forge, ISSUER, claims, claims_with, encoded, header, now};

/// By the way of what is only passed on, and by the other.
const BOTH_WAYS: [&str; 2] = ["/system_stats?x=1", "/embeddings?filename=x"];

const OWN_PAGE: (&str, &str) = ("sec-fetch-site", "same-origin");

pub(crate) fn config(config: &mut Config, keys: &Value) {
    config.auth.mode = AuthMode::Jwt;
    let jwt = &mut config.auth.jwt;
    jwt.issuer = ISSUER.to_owned();
    jwt.audience = AUDIENCE.to_owned();
    jwt.cookie = Some("token".to_owned());
    jwt.role_claim = "role".to_owned();
    jwt.keys = Arc::new(KeySet::of_jwks(keys.to_string().as_bytes()).unwrap());
}

async fn world(forge: &Forge, change: impl FnOnce(&mut Config)) -> World {
    let keys = forge.jwks();
    let world = World::with(1, |it| {
        config(it, &keys);
        change(it);
    })
    .await;
    world.all_up().await;
    world
}

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("mooring-error"))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

/// Asks with a token in `Authorization`.
async fn get_with(world: &World, path: &str, token: &str) -> Answer {
    get(world, path, &[("authorization", &bearer(token))]).await
}

/// What the only backend was told in the last request for a path.
fn headers_of(world: &World, target: &str) -> http::HeaderMap {
    let seen = world.sim("a").requests();
    seen.into_iter().rev().find(|it| it.target == target).expect("it was asked").headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_forged_token_lets_anybody_in() {
    let forge = Forge::new();
    let forged = forge.forged();
    assert!(200 < forged.len(), "{}", forged.len());
    let world = world(&forge, |_| {}).await;
    for path in BOTH_WAYS {
        for (what, token) in &forged {
            let cookie = format!("a=b; token={token}");
            for (name, value) in [("authorization", bearer(token)), ("cookie", cookie)] {
                let answer = get(&world, path, &[(name, &value)]).await;
                let is_huge = answer.status == 431 && what == "huge";
                assert!(
                    told(&answer) == (401, "unauthorized") || is_huge,
                    "{path}, {name}: {what}: {:?}",
                    told(&answer)
                );
            }
        }
    }
    let asked = world.sim("a").requests();
    assert!(asked.iter().all(|it| !BOTH_WAYS.contains(&it.target.as_str())), "no server hears");
    // What is forged takes no good one along.
    assert_eq!(get_with(&world, BOTH_WAYS[0], &forge.good(&claims("ada"))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_token_names_comes_in_and_no_backend_is_told() {
    let forge = Forge::new();
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(&forge, |config| config.server.passthrough = passthrough).await;
        for (name, id, by) in [
            ("RS256", "rsa", By::Rsa),
            ("ES256", "p256", By::P256),
            ("EdDSA", "other", By::OtherEd),
        ] {
            let token = forge.token(&header(name, id), &claims("ada"), by);
            let bearer = bearer(&token);
            let cookie = format!("a=b; token={token}; c=d");
            let alone = format!("Token={token}; token={token}");
            for path in BOTH_WAYS {
                for lines in [
                    &[("authorization", bearer.as_str())][..],
                    &[("cookie", cookie.as_str())],
                    &[("cookie", alone.as_str())],
                    &[("authorization", bearer.as_str()), ("cookie", cookie.as_str())],
                    &[("cookie", "x=y"), ("cookie", cookie.as_str())],
                    &[("authorization", bearer.as_str()), ("Comfy-User", "bob")],
                ] {
                    let answer = get(&world, path, lines).await;
                    assert_eq!(answer.status, 200, "{name} {path}: {}", answer.text());
                    assert!(answer.header("cache-control").contains("private"), "{path}");
                    let seen = format!("{:?}", headers_of(&world, path));
                    assert!(!seen.contains(&token), "{name} {path}: {seen}");
                    assert!(!seen.contains("comfy-user"), "{name} {path}: {seen}");
                    let has_others = lines.iter().any(|line| line.1 == cookie);
                    assert_eq!(seen.contains("a=b") && seen.contains("c=d"), has_others, "{seen}");
                }
            }
        }
        let token = forge.good(&claims("ada.l@example.org"));
        let who = get_with(&world, "/-/whoami", &token).await.json();
        assert_eq!(who["user"]["name"], "ada.l@example.org");
        assert_eq!(who["user"]["role"], "artist");
    }
}

/// A token that lets in nobody here may do so a moment later, or at another place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backend_gets_what_has_the_form_of_a_token() {
    let forge = Forge::new();
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(&forge, |config| config.server.passthrough = passthrough).await;
        let good = forge.good(&claims("ada"));
        let cookie = format!("token={good}");
        let early = forge.good(&claims_with(&[("nbf", json!(now() + 120))]));
        let others = forge.good(&claims_with(&[("sub", json!("eve")), ("role", json!("root"))]));
        let strange = forge.token(&header("EdDSA", "new"), &claims("eve"), By::Stranger);
        let (key, with) = ("x-api-key", "authorization");
        for path in BOTH_WAYS {
            for (name, value, token) in [
                (with, bearer(&early), &early),
                (with, bearer(&others), &others),
                (with, bearer(&strange), &strange),
                (with, format!("JWT {good}"), &good),
                (with, format!("Bearer \"{good}\""), &good),
                (with, format!("Bearer x,{good}"), &good),
                (with, format!("Token token={good}"), &good),
                (with, good.clone(), &good),
                (key, good.clone(), &good),
                (key, bearer(&strange), &strange),
            ] {
                let answer = get(&world, path, &[(name, &value), ("cookie", &cookie)]).await;
                assert_eq!(answer.status, 200, "{path} {name}: {value}");
                let seen = format!("{:?}", headers_of(&world, path));
                assert!(!seen.contains(token.as_str()), "{path} {name}: {seen}");
            }
            for theirs in ["Bearer theirs", "Bearer a.b.c", "Basic YTpi"] {
                get(&world, path, &[(with, theirs), (key, "1.2.3"), ("cookie", &cookie)]).await;
                let seen = headers_of(&world, path);
                assert!(seen[with] == theirs && seen[key] == "1.2.3", "{seen:?}");
            }
            let asked = format!("{path}&token={strange}&%74oken={good}");
            assert_eq!(get(&world, &asked, &[("cookie", &cookie)]).await.status, 200);
            assert!(!headers_of(&world, path).is_empty(), "without the token it is this path");
        }
        let seen = world.sim("a").requests();
        let has = |text: &str| seen.iter().any(|it| it.target.contains(text));
        assert!(!has(&strange) && !has(&good) && !has("token"));
    }
}

/// Whoever sets it makes its reader work as somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backend_sets_the_cookie_of_the_token() {
    let forge = Forge::new();
    let keys = forge.jwks();
    let planted = ["token=x; Path=/", "Token = x", "=token=x", "token=; Max-Age=0", "token"];
    let lines = planted.map(|it| format!("Set-Cookie: {it}\r\n")).concat();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\n{lines}Set-Cookie: tokens=2\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let acts = [("/pack/a", Act::Answer(vec![answer]))];
    let bearer = bearer(&forge.good(&claims("ada")));
    for way in [OnOff::On, OnOff::Off] {
        let (world, _puppet) = puppet_world(&acts, |it| {
            config(it, &keys);
            it.server.passthrough = way;
        })
        .await;
        let told = get(&world, "/pack/a", &[("authorization", &bearer)]).await;
        let cookies: Vec<_> = told.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "tokens=2"], "{way:?}");
    }
}

/// Files of PEM name no keys. While keys change, there are two of a kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_keys_without_a_name_each_is_tried() {
    let forge = Forge::new();
    let mut keys = forge.jwks();
    for key in keys["keys"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("kid");
    }
    let world = world(&forge, |it| config(it, &keys)).await;
    for by in [By::Ed, By::OtherEd] {
        for header in [header("EdDSA", "any"), json!({ "alg": "EdDSA" })] {
            let token = forge.token(&header, &claims("ada"), by);
            assert_eq!(get_with(&world, BOTH_WAYS[0], &token).await.status, 200, "{header}");
        }
    }
    let strange = forge.token(&header("EdDSA", "any"), &claims("ada"), By::Stranger);
    assert_eq!(told(&get_with(&world, BOTH_WAYS[0], &strange).await), (401, "unauthorized"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_was_not_proved_is_nobodys_name() {
    let forge = Forge::new();
    let world = world(&forge, |config| config.auth.jwt.user_claim = "email".to_owned()).await;
    let email = ("email", json!("ada@example.org"));
    for (verified, status) in [
        (None, 200),
        (Some(json!(true)), 200),
        (Some(json!("true")), 200),
        (Some(json!(false)), 401),
        (Some(json!("false")), 401),
        (Some(json!(1)), 401),
    ] {
        let mut said = vec![email.clone()];
        said.extend(verified.clone().map(|it| ("email_verified", it)));
        let token = forge.good(&claims_with(&said));
        let answer = get_with(&world, BOTH_WAYS[0], &token).await;
        assert_eq!(answer.status, status, "{verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_may_say_is_taken() {
    let forge = Forge::new();
    let world = world(&forge, |_| {}).await;
    for (name, value) in [
        ("aud", json!(["other", AUDIENCE])),
        ("exp", json!(now() - 30)),
        ("exp", json!(now() as f64 + 600.5)),
        ("exp", json!(1e300)),
        ("nbf", json!(now() + 30)),
        ("nbf", json!(now() - 900)),
        ("iat", json!("whenever")),
        ("events", json!(["summer"])),
        ("events", json!({ "summer": { "from": 1 } })),
    ] {
        let token = forge.good(&claims_with(&[(name, value.clone())]));
        assert_eq!(get_with(&world, BOTH_WAYS[1], &token).await.status, 200, "{name} {value}");
    }
    for header in [
        json!({ "alg": "RS256", "kid": "rsa" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "RS256", "kid": "rsa", "typ": "at+jwt" }),
        json!({ "alg": "RS256", "kid": "rsa", "typ": "application/JWT", "x5t": "AA" }),
    ] {
        let token = forge.token(&header, &claims("ada"), By::Rsa);
        assert_eq!(get_with(&world, BOTH_WAYS[1], &token).await.status, 200, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tokens_of_two_users_are_nobodys() {
    let forge = Forge::new();
    let world = world(&forge, |_| {}).await;
    let (ada, eve) = (forge.good(&claims("ada")), forge.good(&claims("eve")));
    let (of_ada, of_eve) = (bearer(&ada), bearer(&eve));
    let (cookie, both) = (format!("token={eve}"), format!("token={ada}; token={eve}"));
    for path in BOTH_WAYS {
        for lines in [
            &[("authorization", of_ada.as_str()), ("authorization", of_ada.as_str())][..],
            &[("authorization", &of_ada), ("authorization", &of_eve)],
            &[("authorization", &of_ada), ("cookie", &cookie)],
            &[("cookie", &both)],
            &[("x-api-key", &ada)],
            &[("authorization", &ada)],
            &[("cookie", &of_ada)],
        ] {
            assert_eq!(told(&get(&world, path, lines).await), (401, "unauthorized"), "{lines:?}");
        }
        let query = format!("{path}&token={ada}");
        assert_eq!(told(&get(&world, &query, &[]).await), (401, "unauthorized"));
    }
    assert_eq!(told(&get(&world, &format!("/ws?token={ada}"), &[]).await), (401, "unauthorized"));
    let answer = get(&world, "/", &[("accept", "text/html")]).await;
    assert_eq!(told(&answer), (401, "unauthorized"));
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
}

/// A neighbour of the same domain can set cookies of the same name for longer paths, which a
/// browser sends first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_that_somebody_has_planted_do_not_hide_the_right_one() {
    let forge = Forge::new();
    let world = world(&forge, |_| {}).await;
    let ada = forge.good(&claims("ada"));
    let old = forge.good(&claims_with(&[("exp", json!(now() - 900))]));
    let forged = |count: usize| {
        // Each has claims that are right, and the signature of another token.
        let (signed, _) = ada.rsplit_once('.').unwrap();
        let one =
            |number: usize| format!("token={signed}.{}", encoded([number.to_le_bytes()[0]; 64]));
        (0..count).map(one).collect::<Vec<_>>().join("; ")
    };
    let cheap = vec![format!("token=x; token={old}"); 9].join("; ");
    for path in BOTH_WAYS {
        for planted in [forged(2), forged(3), cheap.clone()] {
            let cookie = format!("{planted}; token={ada}");
            let answer = get(&world, path, &[("cookie", &cookie)]).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            // So do those that come after it.
            let cookie = format!("token={ada}; {planted}; {planted}");
            let answer = get(&world, path, &[("cookie", &cookie)]).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        let cookie = format!("{}; token={ada}", forged(4));
        let answer = get(&world, path, &[("cookie", &cookie)]).await;
        assert_eq!(told(&answer), (401, "unauthorized"), "signatures are not checked without end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_says_what_somebody_may_do() {
    let forge = Forge::new();
    let grouped = world(&forge, |config| {
        let group = |name: &str, role| (name.to_owned(), role);
        config.auth.group_roles = vec![group("guests", Role::Viewer), group("gpu", Role::Operator)];
    })
    .await;
    for (role, expected) in [
        (json!("guests"), Ok("viewer")),
        (json!(["guests", "gpu", "staff"]), Ok("operator")),
        (json!("operator"), Err("no_role")),
        (json!(["viewer", "artist", "operator"]), Err("no_role")),
        (json!(["guests", "operator"]), Ok("viewer")),
    ] {
        let token = forge.good(&claims_with(&[("role", role.clone())]));
        let answer = get_with(&grouped, "/-/whoami", &token).await;
        match expected {
            Ok(name) => assert_eq!(answer.json()["user"]["role"], name, "{role}"),
            Err(error) => assert_eq!(told(&answer), (403, error), "{role}"),
        }
    }
    for (name, value) in [("_claim_names", json!({ "role": "src1" })), ("hasgroups", json!(true))] {
        let token = forge.good(&claims_with(&[(name, value)]));
        assert_eq!(told(&get_with(&grouped, "/-/whoami", &token).await), (403, "no_role"));
    }
    let world = world(&forge, |_| {}).await;
    for (role, expected) in [
        (json!(null), Ok("artist")),
        (json!("viewer"), Ok("viewer")),
        (json!(["offline", "operator", "viewer"]), Ok("operator")),
        (json!("guests"), Err("no_role")),
        (json!("root"), Err("no_role")),
        (json!("Operator"), Err("no_role")),
        (json!(""), Err("no_role")),
        (json!([]), Err("no_role")),
        (json!(7), Err("no_role")),
        (json!({ "operator": true }), Err("no_role")),
        (json!([["operator"]]), Err("no_role")),
        (json!("viewer,operator"), Err("no_role")),
    ] {
        let token = forge.good(&claims_with(&[("role", role.clone())]));
        let answer = get_with(&world, "/-/whoami", &token).await;
        match expected {
            Ok(name) => assert_eq!(answer.json()["user"]["role"], name, "{role}"),
            Err(error) => assert_eq!(told(&answer), (403, error), "{role}"),
        }
    }
    let viewer = bearer(&forge.good(&claims_with(&[("role", json!("viewer"))])));
    let headers = [("authorization", viewer.as_str())];
    let answer = send(world.front, Method::POST, "/interrupt", &headers, "").await;
    assert_eq!(told(&answer), (403, "viewers_only_read"));
}

/// A browser sends the cookie along with whatever any page makes it send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_something_by_the_cookie_has_to_say_of_which_page_it_is() {
    let forge = Forge::new();
    let origins = ["https://app.example", "null"].map(str::to_owned);
    let world = world(&forge, |config| config.server.allowed_origins = origins.to_vec()).await;
    let token = forge.good(&claims("ada"));
    let (cookie, bearer) = (format!("token={token}"), bearer(&token));
    let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    for (page, by_cookie, by_header) in [
        (OWN_PAGE, (200, ""), (200, "")),
        (("origin", "https://app.example"), (200, ""), (200, "")),
        (("x", "y"), (403, "page_unsaid"), (200, "")),
        (("sec-fetch-site", "cross-site"), (403, "foreign_origin"), (403, "foreign_origin")),
        (("origin", "null"), (401, "unauthorized"), (200, "")),
    ] {
        for (by, expected) in
            [(("cookie", cookie.as_str()), by_cookie), (("authorization", &*bearer), by_header)]
        {
            let answer = send(world.front, Method::POST, "/prompt", &[by, page], &body).await;
            assert_eq!(told(&answer), expected, "{page:?} {}", by.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_with_one_name_for_their_client_see_their_own() {
    let forge = Forge::new();
    let world = world(&forge, |_| {}).await;
    let (ada, bob) = (forge.good(&claims("ada")), forge.good(&claims("bob")));
    let (ada, bob) = (bearer(&ada), bearer(&bob));
    let of = |user| [("authorization", user)];
    let body = json!({ "client_id": "same", "prompt": quick(1) }).to_string();
    let mut socket = Socket::open_with(world.front, "/ws?clientId=same", &of(&*ada)).await;
    let prompt = send(world.front, Method::POST, "/prompt", &of(&*ada), &body).await.prompt_id();
    socket.until_end(&prompt).await;
    let path = format!("/history/{prompt}");
    assert!(get(&world, &path, &of(&*ada)).await.json()[&prompt].is_object());
    assert_eq!(get(&world, &path, &of(&*bob)).await.json(), json!({}));
    let seen = headers_of(&world, "/prompt");
    assert!(!seen.contains_key("authorization"), "{seen:?}");
}

/// A token that holds for two more seconds, of those that clocks may be off.
fn brief() -> Value {
    claims_with(&[("exp", json!(now() - 58))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_ends_when_its_token_does() {
    let forge = Forge::new();
    let world = world(&forge, |_| {}).await;
    let token = forge.good(&brief());
    let (bearer, cookie) = (bearer(&token), format!("token={token}"));
    let mut one =
        Socket::open_with(world.front, "/ws?clientId=a", &[("authorization", &bearer)]).await;
    let mut other =
        Socket::open_with(world.front, "/ws?clientId=b", &[("cookie", &cookie), OWN_PAGE]).await;
    assert_eq!(close_code(&mut one).await, Some(1008));
    assert_eq!(close_code(&mut other).await, Some(1008));
    for path in BOTH_WAYS {
        assert_eq!(told(&get_with(&world, path, &token).await), (401, "unauthorized"));
    }
}

/// What was opened stays through a reload that changes nothing of who is let in, and through no
/// other. What was found good before is not good for others' rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_stays_while_the_same_tokens_count() {
    let forge = Forge::new();
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 5] = [
        ("another issuer", |it| it.auth.jwt.issuer = "https://other.example".to_owned()),
        ("another audience", |it| it.auth.jwt.audience = "other".to_owned()),
        ("another key", |it| {
            let keys = Forge::new().jwks().to_string();
            it.auth.jwt.keys = Arc::new(KeySet::of_jwks(keys.as_bytes()).unwrap());
        }),
        ("another claim", |it| it.auth.jwt.user_claim = "email".to_owned()),
        ("keys", |it| it.auth = crate::keys::keys()),
    ];
    let token = forge.good(&claims("ada"));
    let bearer = bearer(&token);
    for (what, change) in changes {
        let world = world(&forge, |_| {}).await;
        let headers = [("authorization", bearer.as_str())];
        let mut socket = Socket::open_with(world.front, "/ws?clientId=ada", &headers).await;
        socket.until("status").await;
        world.reload(|config| config.affinity.max_clients = 7).await.unwrap();
        for path in BOTH_WAYS {
            assert_eq!(get_with(&world, path, &token).await.status, 200, "{what}");
        }
        world.reload(change).await.unwrap();
        assert_eq!(close_code(&mut socket).await, Some(1008), "{what}");
        for path in BOTH_WAYS {
            let answer = get_with(&world, path, &token).await;
            assert_eq!(told(&answer), (401, "unauthorized"), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_from_a_server_whose_authority_is_named_and_from_no_other() {
    let (forge, authority) = (Forge::new(), Authority::new());
    let server = Secured(authority.issue("login").server());
    let server = KeyServer::start_over(&server, Some(forge.jwks())).await;
    let ada = forge.good(&claims("ada"));
    let ca = |authority: &Authority| {
        let path = std::path::PathBuf::from(authority.ca());
        let text = std::fs::read_to_string(&path).unwrap();
        Some(KeysCa { path, text })
    };
    let other = Authority::new();
    for (ca, status) in [(ca(&authority), 200), (ca(&other), 503), (None, 503)] {
        let world = world(&forge, |config| {
            server.configure(config);
            let url = format!("https://{}/keys", server.at);
            config.auth.jwt.jwks_url = Some(url.parse().unwrap());
            config.auth.jwt.ca = ca;
        })
        .await;
        for path in BOTH_WAYS {
            assert_eq!(get_with(&world, path, &ada).await.status, status, "{path}");
        }
    }
}

/// Browsers have it for longer than a mode is in effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cookie_of_tokens_goes_to_no_backend_in_any_mode() {
    let forge = Forge::new();
    let token = forge.good(&claims("ada"));
    for (mode, key) in [(AuthMode::Keys, "key-of-ada"), (AuthMode::Off, "none")] {
        for passthrough in [OnOff::On, OnOff::Off] {
            let world = World::with(1, |config| {
                config.auth = crate::keys::keys();
                config.auth.mode = mode;
                config.auth.jwt.cookie = Some("token".to_owned());
                config.server.passthrough = passthrough;
            })
            .await;
            world.all_up().await;
            for path in BOTH_WAYS {
                let cookie = format!("a=b; token={token}; Token={token}");
                let answer = get(&world, path, &[("x-api-key", key), ("cookie", &cookie)]).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                let seen = headers_of(&world, path);
                assert_eq!(seen["cookie"], "a=b", "{mode:?} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_noted_once_and_stands_in_no_entry() {
    let forge = Forge::new();
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(&forge, |config| config.server.passthrough = passthrough).await;
        let log = AuditLog::of(&world);
        let old = forge.good(&claims_with(&[("exp", json!(now() - 600))]));
        assert_eq!(get_with(&world, BOTH_WAYS[0], &old).await.status, 401);
        assert_eq!(get(&world, BOTH_WAYS[0], &[]).await.status, 401, "who tries nothing");
        assert_eq!(get_with(&world, BOTH_WAYS[1], &old).await.status, 401);
        let lines = log.lines(2).await;
        let told: Vec<(&str, &str)> = lines.iter().map(said).collect();
        assert_eq!(told, [("request", "refused: unknown"); 2]);
        assert_eq!(lines[0]["who"]["address"], "127.0.0.1");
        assert!(!log.end().await.contains(&old[..20]));
    }
}

/// Where keys are published.
struct KeyServer {
    at: SocketAddr,
    /// `None` is away.
    keys: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
    _tasks: Tasks,
}

impl KeyServer {
    async fn start(keys: Option<Value>) -> Self {
        Self::start_over(&*network(), keys).await
    }

    async fn start_over(network: &dyn Network, keys: Option<Value>) -> Self {
        let listener = network.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (at, tasks) = (listener.local_addr(), Tasks::default());
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (Arc::clone(&keys), Arc::clone(&asked));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                count.fetch_add(1, Ordering::SeqCst);
                let answer = told.lock().unwrap().as_ref().map(|keys| {
                    let keys = keys.to_string();
                    let length = keys.len();
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{keys}")
                });
                if let Some(answer) = answer {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                let _ = stream.shutdown().await;
            }
        });
        Self { at, keys, asked, _tasks: tasks }
    }

    fn publish(&self, keys: Option<Value>) {
        *self.keys.lock().unwrap() = keys;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn configure(&self, config: &mut Config) {
        config.auth.jwt.keys = Arc::default();
        config.auth.jwt.jwks_url = Some(format!("http://{}/keys", self.at).parse().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_fetched_and_a_flood_of_unknown_ones_is_not() {
    let forge = Forge::new();
    let server = KeyServer::start(Some(forge.jwks())).await;
    let world = world(&forge, |config| server.configure(config)).await;
    let ada = forge.good(&claims("ada"));
    assert_eq!(get_with(&world, BOTH_WAYS[0], &ada).await.status, 200, "the first one waits");
    let before = server.asked();
    let mut rotated = forge.jwks();
    rotated["keys"].as_array_mut().unwrap().push(forge.strange_jwk("new"));
    server.publish(Some(rotated));
    let new = forge.token(&header("EdDSA", "new"), &claims("eve"), By::Stranger);
    assert_eq!(before, 1, "the first token needs no fetch of its own");
    let status = get_with(&world, BOTH_WAYS[0], &new).await.status;
    assert_eq!(status, 200, "a new key is known at once");
    let after = server.asked();
    for number in 0..200 {
        let header = header("EdDSA", &format!("unknown-{number}"));
        let token = forge.token(&header, &claims("eve"), By::Stranger);
        let answer = get_with(&world, BOTH_WAYS[number % 2], &token).await;
        assert_eq!(told(&answer), (401, "unauthorized"));
    }
    assert_eq!(server.asked(), after, "at most one fetch a minute");
    assert!(after <= 2, "{after}");
    assert_eq!(get_with(&world, BOTH_WAYS[1], &ada).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_keys_stay_while_the_new_ones_cannot_be_fetched() {
    let forge = Forge::new();
    let server = KeyServer::start(Some(forge.jwks())).await;
    let world = world(&forge, |config| server.configure(config)).await;
    let ada = forge.good(&claims("ada"));
    assert_eq!(get_with(&world, BOTH_WAYS[0], &ada).await.status, 200);
    for keys in [None, Some(json!({ "no": [] })), Some(json!("no keys"))] {
        server.publish(keys.clone());
        // The configuration of another place and back would fetch anew; here nothing does.
        world.reload(|config| config.affinity.max_clients = 7).await.unwrap();
        let other = forge.good(&claims("bob"));
        assert_eq!(get_with(&world, BOTH_WAYS[1], &other).await.status, 200, "{keys:?}");
    }
    let unknown = forge.token(&header("EdDSA", "new"), &claims("eve"), By::Stranger);
    assert_eq!(told(&get_with(&world, BOTH_WAYS[0], &unknown).await), (401, "unauthorized"));
    let other = forge.good(&claims("cy"));
    assert_eq!(get_with(&world, BOTH_WAYS[0], &other).await.status, 200, "after a failed fetch");
    // A place that was never there has no keys, and those of another place are not its.
    let away = KeyServer::start(None).await;
    world.reload(|config| away.configure(config)).await.unwrap();
    until("it was asked", || 0 < away.asked()).await;
    for path in BOTH_WAYS {
        let answer = get_with(&world, path, &ada).await;
        assert_eq!(told(&answer), (503, "no_token_keys"), "nothing is known about it");
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(told(&get_with(&world, path, "x.y.z").await), (401, "unauthorized"));
        assert_eq!(told(&get(&world, path, &[]).await), (401, "unauthorized"));
    }
}

/// Waits until keys were fetched so often. No token has asked for that.
async fn fetched(world: &World, count: usize) {
    let line = format!("mooring_auth_key_fetches_total{{outcome=\"ok\"}} {count}\n");
    while !world.admin_get("/metrics").await.text().contains(&line) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_known_beside_a_good_cookie_is_fetched_too() {
    let forge = Forge::new();
    let server = KeyServer::start(Some(forge.jwks())).await;
    let world = world(&forge, |config| server.configure(config)).await;
    fetched(&world, 1).await;
    let cookie = format!("token={}", forge.good(&claims("ada")));
    assert_eq!(get(&world, BOTH_WAYS[0], &[("cookie", &cookie)]).await.status, 200);
    let mut rotated = forge.jwks();
    rotated["keys"].as_array_mut().unwrap().push(forge.strange_jwk("new"));
    server.publish(Some(rotated));
    let new = bearer(&forge.token(&header("EdDSA", "new"), &claims("eve"), By::Stranger));
    let lines = [("authorization", new.as_str()), ("cookie", cookie.as_str())];
    let answer = get(&world, BOTH_WAYS[0], &lines).await;
    assert_eq!(told(&answer), (401, "unauthorized"), "they are two users");
    assert_eq!(server.asked(), 2);
}

/// Whoever publishes no key has taken back the one that he had: it may be stolen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_taken_back_let_in_nobody_any_more() {
    let forge = Forge::new();
    let server = KeyServer::start(Some(forge.jwks())).await;
    let world = world(&forge, |config| server.configure(config)).await;
    fetched(&world, 1).await;
    let ada = forge.good(&claims("ada"));
    let headers = [("authorization", &*bearer(&ada))];
    let mut socket = Socket::open_with(world.front, "/ws?clientId=ada", &headers).await;
    server.publish(Some(json!({ "keys": [] })));
    let unknown = forge.token(&header("EdDSA", "new"), &claims("eve"), By::Stranger);
    assert_eq!(told(&get_with(&world, BOTH_WAYS[0], &unknown).await), (503, "no_token_keys"));
    assert_eq!(close_code(&mut socket).await, Some(1008));
    for path in BOTH_WAYS {
        assert_eq!(told(&get_with(&world, path, &ada).await), (503, "no_token_keys"));
    }
}
