//! The areas that `server.allow_…` opens, for each role, on both ways of answering: where users are
//! asked for, they are the operators' alone.

use http::Method;
use mooring::auth::key::KeyHash;
use mooring::auth::{Role, User, UserTable};
use mooring::config::{AuthConfig, OnOff};
use mooring::sim::{Options, Sim};

use crate::support::{Socket, World, network, send};

const ROLES: [(&str, Role); 3] =
    [("vic", Role::Viewer), ("ada", Role::Artist), ("root", Role::Operator)];

/// A request of an area, and the status for who may not make it.
const AREAS: [(Method, &str, u16); 13] = [
    (Method::GET, "/manager/reboot?mark", 403),
    (Method::POST, "/manager/queue/install?mark", 403),
    (Method::POST, "/api/v2/manager/queue/start?mark", 403),
    (Method::GET, "/internal/logs?mark", 403),
    (Method::GET, "/internal/logs/raw?mark", 403),
    (Method::GET, "/api/internal/folder_paths?mark", 403),
    (Method::PATCH, "/internal/logs/subscribe", 403),
    // Answered, and nothing is done: the page asks for it by itself.
    (Method::POST, "/free?mark", 200),
    (Method::POST, "/api/free?mark", 200),
    (Method::POST, "/api/assets/seed", 403),
    (Method::POST, "/api/assets/seed/cancel", 403),
    (Method::POST, "/api/assets/prune", 403),
    // As of a server without assets: users have none.
    (Method::GET, "/api/assets/seed/status", 503),
];

fn users() -> AuthConfig {
    let user = |(name, role): (&str, Role)| {
        let key = KeyHash::of(format!("key-of-{name}").as_bytes());
        User { name: name.parse().unwrap(), role, generation: 1, key, password: None }
    };
    AuthConfig::keys(UserTable::of(ROLES.map(user)).unwrap())
}

async fn world(passthrough: OnOff, is_open: OnOff) -> World {
    let options = Options { assets: true, ..Options::named("a") };
    let sim = Sim::start(network(), options).await.unwrap();
    let world = World::over(vec![sim], |config| {
        config.auth = users();
        config.server.passthrough = passthrough;
        let is_open = is_open == OnOff::On;
        config.server.allow_manager = is_open;
        config.server.allow_logs = is_open;
        config.server.allow_free = is_open;
        config.server.allow_asset_scans = is_open;
    })
    .await;
    world.all_up().await;
    world
}

/// How often the server was asked this.
fn asked(world: &World, method: &Method, path: &str) -> usize {
    let bare = path.split('?').next().unwrap_or(path);
    let is_it = |it: &&mooring::sim::Seen| {
        it.method == method.as_str() && it.target.split('?').next() == Some(bare)
    };
    world.sim("a").requests().iter().filter(is_it).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_opened_is_opened_to_operators_and_to_no_other_user() {
    for (passthrough, is_open) in [
        (OnOff::On, OnOff::On),
        (OnOff::Off, OnOff::On),
        (OnOff::On, OnOff::Off),
        (OnOff::Off, OnOff::Off),
    ] {
        let world = world(passthrough, is_open).await;
        let mut page = Socket::open(world.front, "/ws?clientId=tab&token=key-of-root").await;
        page.until("status").await;
        for (method, path, refused) in AREAS {
            for (name, role) in ROLES {
                let key = format!("key-of-{name}");
                let headers = [("x-api-key", &*key), ("content-type", "application/json")];
                let body = r#"{"clientId": "tab", "enabled": true}"#;
                let before = asked(&world, &method, path);
                let answer = send(world.front, method.clone(), path, &headers, body).await;
                let has_reached = before < asked(&world, &method, path);
                let may = role == Role::Operator && is_open == OnOff::On;
                let case = format!("{method} {path} as {name}: {}", answer.text());
                assert_eq!(has_reached, may, "{case}");
                match (may, role, method == Method::GET) {
                    // It has no such pack, or it has done it.
                    (true, _, _) => assert_ne!(answer.status, 403, "{case}"),
                    (false, Role::Viewer, false) => assert_eq!(answer.status, 403, "{case}"),
                    (false, _, _) => assert_eq!(answer.status, refused, "{case}"),
                }
            }
        }
    }
}
