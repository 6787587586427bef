//! `auth.adopt`: what was nobody's before there were users becomes one user's.

use http::Method;
use mooring::auth::UserName;
use mooring::config::Config;
use serde_json::json;

use crate::keys::keys;
use crate::owners::{TAB, User, both};
use crate::restart::Mortal;
use crate::support::{quick, send, slow, soon, until};

/// Users are required from now on, and this one adopts.
async fn with_users(mortal: &mut Mortal, adopt: Option<&str>) -> (User, User) {
    mortal.crash().await;
    let adopt: Option<UserName> = adopt.map(|name| name.parse().unwrap());
    let change = |config: &mut Config| {
        config.auth = keys();
        config.auth.adopt = adopt;
    };
    mortal.start_with(change).await;
    let fleet = &mortal.gateway().shared.fleet;
    until("the backend is up", || fleet.iter().all(|backend| backend.is_up())).await;
    both(mortal.front())
}

async fn has(user: &User, prompt: &str) -> bool {
    user.get("/history").await.json().get(prompt).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_nobody_becomes_that_of_the_user_who_adopts_it() {
    let mut mortal = Mortal::new(1).await;
    let mut socket = mortal.socket(TAB).await;
    let ended = mortal.submit(TAB, &quick(7)).await.prompt_id();
    socket.until_end(&ended).await;
    let entry = mortal.get(&format!("/history/{ended}")).await.json();
    let image = entry[&ended]["outputs"]["3"]["images"][0]["filename"].as_str().unwrap().to_owned();
    let running = mortal.submit(TAB, &slow(500, 120.0)).await.prompt_id();

    // Nobody's: it is there for no user.
    let (ada, bob) = with_users(&mut mortal, None).await;
    for user in [&ada, &bob] {
        assert!(!has(user, &ended).await);
        assert_eq!(user.get(&format!("/history/{ended}")).await.json(), json!({}));
    }

    let (ada, bob) = with_users(&mut mortal, Some("ada")).await;
    soon("the history is there", async { while !has(&ada, &ended).await {} }).await;
    assert!(!has(&bob, &ended).await, "it is no other's");
    assert_eq!(bob.get(&format!("/history/{ended}")).await.json(), json!({}));
    let view = format!("/view?filename={image}&type=output");
    assert_eq!(ada.get(&view).await.status, 200);
    assert_eq!(bob.get(&view).await.status, 404);
    let queue = ada.get("/queue").await.text();
    assert!(queue.contains(&running), "{queue}");
    assert!(!bob.get("/queue").await.text().contains(&running));
    let cancel = json!({ "prompt_id": running });
    // The backend is told before the client has the answer, in one of these two ways.
    let interrupts = || {
        let ways = ["/interrupt", "/cancel"];
        let is_one = |target: &str| ways.iter().any(|way| target.contains(way));
        let seen = mortal.sims[0].requests().into_iter();
        seen.filter(|it| it.method == "POST" && is_one(&it.target)).count()
    };
    assert_eq!(bob.post("/interrupt", &cancel).await.status, 200);
    assert_eq!(interrupts(), 0, "not another's to interrupt");
    assert!(ada.get("/queue").await.text().contains(&running), "it still runs");
    assert_eq!(ada.post("/interrupt", &cancel).await.status, 200);
    until("hers is sent", || interrupts() != 0).await;

    // It is hers from then on, and nobody else's who would adopt later.
    for adopt in [None, Some("bob")] {
        let (ada, bob) = with_users(&mut mortal, adopt).await;
        soon("the history is there", async { while !has(&ada, &ended).await {} }).await;
        assert!(!has(&bob, &ended).await, "{adopt:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_users_nobody_adopts() {
    let mut mortal = Mortal::new(1).await;
    let mut socket = mortal.socket(TAB).await;
    let ended = mortal.submit(TAB, &quick(7)).await.prompt_id();
    socket.until_end(&ended).await;
    mortal.crash().await;
    mortal.start_with(|config| config.auth.adopt = Some("ada".parse().unwrap())).await;
    let headers = [("comfy-client-id", TAB)];
    soon("the history is there", async {
        let path = format!("/history/{ended}");
        while send(mortal.front(), Method::GET, &path, &headers, "").await.json() == json!({}) {}
    })
    .await;
}
