//! Assets of several servers as one (promise R11), over real sockets and simulated backends.

use bytes::Bytes;
use http::Method;
use mooring::config::Config;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::pictures::{BLUE, RED, color, form, inverse, invert, png, run, upload};
use crate::support::{Answer, World, network, quick, send, send_bytes};

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=xyz");

async fn over(options: &[Options], change: impl FnOnce(&mut Config)) -> World {
    let mut sims = Vec::new();
    for options in options {
        sims.push(Sim::start(network(), options.clone()).await.unwrap());
    }
    World::over(sims, change).await
}

fn keeper(name: &str) -> Options {
    Options { assets: true, ..Options::named(name) }
}

/// So many backends, all with assets.
async fn keepers(count: usize) -> World {
    let all: Vec<Options> = ["a", "b", "c"].into_iter().take(count).map(keeper).collect();
    over(&all, |_| {}).await
}

async fn ask(world: &World, client: &str, method: Method, path: &str, body: &str) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    if !client.is_empty() {
        headers.push(("comfy-client-id", client));
    }
    send(world.front, method, path, &headers, body).await
}

async fn get(world: &World, client: &str, path: &str) -> Answer {
    ask(world, client, Method::GET, path, "").await
}

/// The form of `POST /api/assets`.
pub(crate) fn asset_form(filename: &str, picture: &[u8], fields: &[(&str, &str)]) -> Bytes {
    let body = form(filename, picture, fields);
    let named = b"name=\"image\"";
    let at = body.windows(named.len()).position(|it| it == named).unwrap();
    [&body[..at], b"name=\"file\"", &body[at + named.len()..]].concat().into()
}

async fn post_asset(world: &World, headers: &[(&str, &str)], picture: &[u8]) -> Answer {
    let body = asset_form("photo.png", picture, &[("tags", "input,mine")]);
    let headers = [&[FORM][..], headers].concat();
    send_bytes(world.front, Method::POST, "/api/assets", &headers, body).await
}

async fn uploaded(world: &World, client: &str, picture: &[u8]) -> Answer {
    post_asset(world, &[("comfy-client-id", client)], picture).await
}

#[track_caller]
fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_else(|| panic!("no {key}: {json}")).to_owned()
}

/// The names in a list, in its order.
fn names(list: &Answer) -> Vec<String> {
    assert_eq!(list.status, 200, "{}", list.text());
    list.json()["assets"].as_array().unwrap().iter().map(|it| text(it, "name")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_is_its_makers_wherever_he_is_and_for_another_it_is_not_there() {
    let world = keepers(2).await;
    let mut made = Vec::new();
    for (client, shade) in [("ada", 0x11_22_33), ("bob", 0x44_55_66)] {
        let (answer, images) = run(&world, client, &quick(shade)).await;
        made.push((client, answer.backend().to_owned(), text(&images[0], "id"), images));
    }
    assert_ne!(made[0].1, made[1].1);
    for (client, backend, id, images) in &made {
        let asset = get(&world, client, &format!("/api/assets/{id}")).await;
        assert_eq!((asset.status, asset.backend()), (200, backend.as_str()), "{client}");
        assert_eq!(asset.header("mooring-placement"), "ledger");
        // Both have a test_00001_.png.
        let preview = get(&world, "eve", &text(&asset.json(), "preview_url")).await;
        assert_eq!((preview.status, preview.backend()), (200, backend.as_str()));
        let own = crate::pictures::view(&world, &images[0], None).await;
        let content = get(&world, client, &format!("/api/assets/{id}/content")).await;
        assert_eq!((content.status, &content.body), (200, &own.body));
        assert_eq!(get(&world, "", &format!("/api/assets/{id}/content")).await.body, own.body);
        let loader = text(&asset.json(), "loader_path");
        let expected = match images[0]["subfolder"].as_str().unwrap() {
            "" => "test_00001_.png".to_owned(),
            tagged => format!("{tagged}/test_00001_.png"),
        };
        assert_eq!(loader, expected);
    }
    let (_, backend, id, _) = &made[0];
    for (method, rest, body) in [
        (Method::GET, "", ""),
        (Method::GET, "/content", ""),
        (Method::PUT, "", r#"{"name": "taken"}"#),
        (Method::POST, "/tags", r#"{"tags": ["taken"]}"#),
        (Method::DELETE, "/tags", r#"{"tags": ["output"]}"#),
        (Method::DELETE, "", ""),
    ] {
        let path = format!("/api/assets/{id}{rest}");
        let refused = ask(&world, "bob", method.clone(), &path, body).await;
        let code = refused.json()["error"]["code"].clone();
        assert_eq!((refused.status, code), (404, json!("ASSET_NOT_FOUND")), "{method} {rest}");
    }
    let asset = get(&world, "ada", &format!("/api/assets/{id}")).await.json();
    assert_eq!(asset["name"], "test_00001_.png");
    assert!(!asset["tags"].as_array().unwrap().contains(&json!("taken")));
    let path = format!("/api/assets/{id}");
    let renamed = ask(&world, "ada", Method::PUT, &path, r#"{"name": "mine.png"}"#).await;
    assert_eq!((renamed.backend(), text(&renamed.json(), "name")), (&**backend, "mine.png".into()));
    let stolen = format!(r#"{{"preview_id": "{}"}}"#, made[1].2);
    assert_eq!(ask(&world, "ada", Method::PUT, &path, &stolen).await.status, 404);
    let tags = format!("{path}/tags");
    let tagged = ask(&world, "ada", Method::POST, &tags, r#"{"tags": ["best"]}"#).await;
    assert_eq!(tagged.json()["added"], json!(["best"]));
    assert_eq!(ask(&world, "ada", Method::DELETE, &path, "").await.status, 204);
    assert_eq!(get(&world, "ada", &path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_nobody_knows_is_asked_for_everywhere_and_not_again_at_once() {
    let world = keepers(3).await;
    let body = asset_form("old.png", &png(RED), &[("tags", "input")]);
    let told = send_bytes(world.sim("c").addr(), Method::POST, "/api/assets", &[FORM], body).await;
    let path = format!("/api/assets/{}", text(&told.json(), "id"));
    let found = get(&world, "ada", &path).await;
    assert_eq!((found.status, found.backend()), (200, "c"));
    let nowhere = "/api/assets/0f8fad5b-d9cb-469f-a165-70867728950e";
    let asked = || {
        let seen = |sim: &Sim| sim.requests().iter().filter(|it| it.target == nowhere).count();
        world.sims.iter().map(seen).sum::<usize>()
    };
    assert_eq!(get(&world, "ada", nowhere).await.status, 404);
    assert_eq!((get(&world, "bob", nowhere).await.status, asked()), (404, 3));
    world.sim("c").crash().await;
    world.is_down("c").await;
    let down = get(&world, "ada", &path).await;
    assert_eq!((down.status, down.header("mooring-error")), (503, "backend_down"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_ones_own_and_nobodys_of_all_backends_in_one_order() {
    let world = keepers(2).await;
    for (client, count) in [("ada", 3), ("bob", 2)] {
        for number in 0..count {
            let name = format!("{client}{number}.png");
            let shade = if client == "ada" { RED } else { BLUE };
            upload(&world, Some(client), &name, &png([shade[0], number, shade[2]])).await;
        }
    }
    for (sim, name) in [("a", "old-a.png"), ("b", "old-b.png")] {
        let body = form(name, &png([1, 2, 3]), &[]);
        let sim = world.sim(sim).addr();
        assert_eq!(send_bytes(sim, Method::POST, "/upload/image", &[FORM], body).await.status, 200);
    }
    let expected = ["ada0.png", "ada1.png", "ada2.png", "old-a.png", "old-b.png"];
    let whole = get(&world, "ada", "/api/assets?sort=name&order=asc").await;
    assert_eq!(names(&whole), expected);
    let whole = whole.json();
    assert_eq!((&whole["total"], &whole["has_more"]), (&json!(5), &json!(false)));
    assert_eq!(whole.get("next_cursor"), None);
    // By pages, with a cursor and without.
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/api/assets?sort=name&order=asc&limit=2{cursor}");
        let page = get(&world, "ada", &path).await;
        seen.extend(names(&page));
        pages += 1;
        let page = page.json();
        assert_eq!(page["total"], 5);
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&after={next}");
    }
    assert_eq!((seen, pages), (expected.map(str::to_owned).to_vec(), 3));
    let page = get(&world, "ada", "/api/assets?sort=name&order=desc&limit=2&offset=3").await;
    assert_eq!(
        (names(&page), &page.json()["has_more"]),
        (vec!["ada1.png".into(), "ada0.png".into()], &json!(false))
    );
    let page = get(&world, "ada", "/api/assets?sort=last_access_time&limit=2").await.json();
    assert_eq!((&page["has_more"], page.get("next_cursor")), (&json!(true), None));
    let found = get(&world, "ada", "/api/assets?name_contains=0&tags_all=input").await;
    assert_eq!(names(&found), ["ada0.png"]);
    // Nobody in particular sees what is nobody's.
    assert_eq!(
        names(&get(&world, "", "/api/assets?sort=name&order=asc").await),
        ["old-a.png", "old-b.png"]
    );
    for bad in ["limit=501", "sort=color", "after=x", "tags_all=a&tags_none=a"] {
        let refused = get(&world, "ada", &format!("/api/assets?{bad}")).await;
        assert_eq!(refused.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_counted_over_what_one_sees() {
    let world = keepers(2).await;
    for client in ["ada", "bob"] {
        let id =
            text(&upload(&world, Some(client), "x.png", &png(RED)).await.json()["asset"], "id");
        let tags = json!({ "tags": [client, "both"] }).to_string();
        let path = format!("/api/assets/{id}/tags");
        assert_eq!(ask(&world, client, Method::POST, &path, &tags).await.status, 200);
    }
    let body = form("old.png", &png(BLUE), &[]);
    for sim in &world.sims {
        let sent = send_bytes(sim.addr(), Method::POST, "/upload/image", &[FORM], body.clone());
        assert_eq!(sent.await.status, 200);
    }
    let count = |tags: &Value, name: &str| {
        let mut rows = tags["tags"].as_array().unwrap().iter();
        rows.find(|row| row["name"] == name).map(|row| row["count"].as_u64().unwrap())
    };
    let tags = get(&world, "ada", "/api/tags").await.json();
    assert_eq!(
        ["input", "ada", "both", "bob"].map(|name| count(&tags, name)),
        [Some(3), Some(1), Some(1), None],
        "{tags}"
    );
    let some = get(&world, "ada", "/api/tags?prefix=bo&include_zero=false").await.json();
    assert_eq!((count(&some, "both"), some["total"].as_u64()), (Some(1), Some(1)));
    let refined = get(&world, "bob", "/api/assets/tags/refine?tags_all=both").await.json();
    assert_eq!(refined["tag_counts"]["bob"], 1);
    assert_eq!(
        (&refined["tag_counts"]["input"], refined["tag_counts"].get("ada")),
        (&json!(1), None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_asset_reserves_its_backend_and_is_used_by_its_path() {
    let world = keepers(3).await;
    let up = uploaded(&world, "ada", &png(RED)).await;
    assert_eq!(up.status, 201, "{}", up.text());
    let (asset, backend) = (up.json(), up.backend().to_owned());
    let (ran, images) = run(&world, "ada", &invert(&text(&asset, "loader_path"))).await;
    assert_eq!((ran.backend(), ran.header("mooring-placement")), (&*backend, "reserved"));
    let shown = crate::pictures::view(&world, &images[0], None).await;
    assert_eq!(color(&shown.body), inverse(RED));
    // And elsewhere it is copied; the copy is in nobody's list.
    let blue = uploaded(&world, "bob", &png(BLUE)).await;
    assert_ne!(blue.backend(), backend);
    let mut two = invert(&text(&asset, "loader_path"));
    let other = invert(&text(&blue.json(), "loader_path"));
    (two["4"], two["5"]) = (other["1"].clone(), other["3"].clone());
    two["5"]["inputs"]["images"] = json!(["4", 0]);
    run(&world, "ada", &two).await;
    assert!(0 < world.gateway.shared.metrics.files_copied.get());
    let inputs = get(&world, "ada", "/api/assets?tags_all=input").await;
    assert_eq!(names(&inputs), ["photo.png"], "{}", inputs.text());
    assert_eq!(names(&get(&world, "eve", "/api/assets?tags_all=input").await), [""; 0]);
    let again = uploaded(&world, "ada", &png(RED)).await;
    assert_eq!((again.status, &again.json()["created_new"]), (200, &json!(false)));
    let nameless = post_asset(&world, &[], &png([9, 9, 9])).await;
    assert_eq!(nameless.status, 201);
    let (ran, _) = run(&world, "script", &invert(&text(&nameless.json(), "loader_path"))).await;
    assert_eq!(ran.backend(), nameless.backend());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_found_by_their_hash_wherever_they_lie() {
    let world = keepers(2).await;
    let up = uploaded(&world, "ada", &png(RED)).await;
    let hash = text(&up.json(), "hash");
    // On the other one.
    let other = uploaded(&world, "bob", &png(BLUE)).await.backend().to_owned();
    assert_ne!(other, up.backend());
    let head = |hash: String| {
        let (world, path) = (&world, format!("/api/assets/hash/{hash}"));
        async move { ask(world, "bob", Method::HEAD, &path, "").await.status }
    };
    let unknown = hash.chars().rev().take(64).collect::<String>();
    assert_eq!(head(hash.clone()).await, 200);
    assert_eq!(head(format!("blake3:{unknown}")).await, 404);
    assert_eq!(head("md5:1".to_owned()).await, 400);
    let body = json!({ "hash": hash, "name": "mine.png", "tags": ["x"] }).to_string();
    let made = ask(&world, "bob", Method::POST, "/api/assets/from-hash", &body).await;
    assert_eq!((made.status, made.backend()), (201, up.backend()), "{}", made.text());
    let id = text(&made.json(), "id");
    assert_eq!(get(&world, "bob", &format!("/api/assets/{id}")).await.status, 200);
    assert_eq!(get(&world, "ada", &format!("/api/assets/{id}")).await.status, 404);
    let body = json!({ "hash": format!("blake3:{unknown}") }).to_string();
    let none = ask(&world, "bob", Method::POST, "/api/assets/from-hash", &body).await;
    assert_eq!((none.status, &none.json()["error"]["code"]), (404, &json!("ASSET_NOT_FOUND")));
    // A view of it is a view of any copy.
    let path = format!("/api/view?filename={hash}&type=input");
    let seen = get(&world, "bob", &path).await;
    assert_eq!((seen.status, seen.backend(), color(&seen.body)), (200, up.backend(), RED));
    let body = asset_form("other.png", &png(RED), &[("tags", "input")]);
    let sim = world.sim(&other).addr();
    assert_eq!(send_bytes(sim, Method::POST, "/api/assets", &[FORM], body).await.status, 201);
    world.sim(up.backend()).crash().await;
    world.is_down(up.backend()).await;
    let seen = get(&world, "bob", &path).await;
    assert_eq!((seen.status, seen.backend()), (200, other.as_str()), "it is not pinned");
    let nowhere = format!("/api/view?filename=blake3:{unknown}&type=input");
    assert_eq!(get(&world, "bob", &nowhere).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_in_a_graph_is_a_file_that_has_it_and_never_a_file_of_that_name() {
    let world = keepers(2).await;
    let up = uploaded(&world, "ada", &png(RED)).await;
    let (_, images) = run(&world, "bob", &invert(&text(&up.json(), "hash"))).await;
    let seen = crate::pictures::view(&world, &images[0], None).await;
    assert_eq!(color(&seen.body), inverse(RED));
    // Bytes that lie on a backend, of which nobody has told us.
    let body = asset_form("old.png", &png(BLUE), &[("tags", "input")]);
    let told = send_bytes(world.sim("b").addr(), Method::POST, "/api/assets", &[FORM], body).await;
    let hash = text(&told.json(), "hash");
    assert_eq!(get(&world, "eve", &format!("/view?filename={hash}")).await.status, 200);
    for _ in 0..2 {
        let refused = world.submit("eve", &invert(&hash)).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains(&format!("Invalid image file: {hash}")));
    }
    for sim in &world.sims {
        let files = send(sim.addr(), Method::GET, "/internal/files/input", &[], "").await;
        assert!(!files.text().contains("blake3"), "{}", files.text());
    }
    // Once a list has told of them they can be used.
    assert_eq!(get(&world, "eve", "/api/assets").await.status, 200);
    let (_, images) = run(&world, "eve", &invert(&hash)).await;
    let seen = crate::pictures::view(&world, &images[0], None).await;
    assert_eq!(color(&seen.body), inverse(BLUE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_without_assets_are_not_asked_while_another_has_them() {
    let old = Options { version: "0.3.64".to_owned(), ..Options::named("b") };
    let mixed = [Options::named("a"), old.clone(), keeper("c")];
    let world = over(&mixed, |_| {}).await;
    for client in ["ada", "bob", "eve", ""] {
        for path in ["/api/assets", "/api/tags", "/api/assets/tags/refine"] {
            let list = get(&world, client, path).await;
            assert_eq!((list.status, list.backend()), (200, "c"), "{client} {path}");
        }
    }
    let up = uploaded(&world, "fay", &png(RED)).await;
    assert_eq!((up.status, up.backend()), (201, "c"));
    let (ran, _) = run(&world, "fay", &invert(&text(&up.json(), "loader_path"))).await;
    assert_eq!((ran.backend(), ran.header("mooring-placement")), ("c", "reserved"));
    world.sim("c").crash().await;
    world.is_down("c").await;
    let down = get(&world, "ada", "/api/assets").await;
    assert_eq!((down.status, down.header("mooring-error")), (503, "backend_down"));
    let none = over(&[Options::named("a"), old], |_| {}).await;
    let up = uploaded(&none, "ada", &png(RED)).await;
    for answer in [get(&none, "ada", "/api/assets").await, get(&none, "", "/api/tags").await, up] {
        let code = answer.json()["error"]["code"].clone();
        assert_eq!((answer.status, code), (503, json!("SERVICE_DISABLED")));
    }
    let sim = none.sim("a").addr();
    let raw = send(sim, Method::GET, "/api/assets", &[], "").await;
    assert_eq!(raw.json(), get(&none, "ada", "/api/assets").await.json(), "ComfyUI's own words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_assets_goes_to_a_server_that_does_not_know_its_user() {
    let several = |name| Options { multi_user: true, ..keeper(name) };
    let world = over(&[several("a"), several("b")], |_| {}).await;
    let made = send(world.sim("b").addr(), Method::POST, "/users", &[], r#"{"username": "cy"}"#);
    let user: String = serde_json::from_slice(&made.await.body).unwrap();
    let headers = |client| [("comfy-client-id", client), ("comfy-user", user.as_str())];
    // Whichever their own backend is.
    let mut ids = Vec::new();
    for client in ["ada", "bob"] {
        let list = send(world.front, Method::GET, "/api/assets", &headers(client), "").await;
        assert_eq!((list.status, list.backend()), (200, "b"), "{client}: {}", list.text());
        let shade = if client == "ada" { RED } else { BLUE };
        let up = post_asset(&world, &headers(client), &png(shade)).await;
        assert_eq!((up.status, up.backend()), (201, "b"), "{client}: {}", up.text());
        ids.push((text(&up.json(), "id"), text(&up.json(), "hash")));
        for path in ["/api/tags", &format!("/view?filename={}", ids[0].1)] {
            let answer = send(world.front, Method::GET, path, &headers(client), "").await;
            assert_eq!((answer.status, answer.backend()), (200, "b"), "{client} {path}");
        }
    }
    // A user is one person, also in another tab.
    let path = format!("/api/assets/{}", ids[0].0);
    assert_eq!(send(world.front, Method::GET, &path, &headers("bob"), "").await.status, 200);
    let list = send(world.front, Method::GET, "/api/assets", &headers("tab"), "").await;
    assert_eq!(names(&list).len(), 2);
    // Nobody knows these: an answer that says so, and no 500.
    for user in ["who_1", "__x"] {
        let headers = [("comfy-client-id", "ada"), ("comfy-user", user)];
        for path in ["/api/assets", "/api/tags"] {
            let refused = send(world.front, Method::GET, path, &headers, "").await;
            assert_eq!((refused.status, refused.header("mooring-error")), (403, "unknown_user"));
        }
        let view = format!("/view?filename={}", ids[0].1);
        assert_eq!(send(world.front, Method::GET, &view, &headers, "").await.status, 404);
        assert_eq!(send(world.front, Method::GET, &path, &headers, "").await.status, 404);
    }
    for sim in &world.sims {
        let asked = sim.requests();
        let is_strange = |it: &&mooring::sim::Seen| {
            let named = it.headers.get("comfy-user").and_then(|it| it.to_str().ok());
            let is_of_assets = it.target.contains("/assets") || it.target.contains("blake3");
            is_of_assets && (sim.name() == "a" || named != Some(user.as_str()))
        };
        let strange: Vec<_> = asked.iter().filter(is_strange).map(|it| &it.target).collect();
        assert!(strange.is_empty(), "{}: {strange:?}", sim.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_of_a_whole_server_are_the_operators() {
    let world = keepers(1).await;
    for action in ["seed", "seed/cancel", "prune", "%73eed"] {
        let path = format!("/api/assets/{action}");
        let refused = ask(&world, "ada", Method::POST, &path, "{}").await;
        assert_eq!((refused.status, refused.header("mooring-error")), (403, "operators_only"));
    }
    let scans = |sim: &Sim| sim.requests().iter().filter(|it| it.method == "POST").count();
    assert_eq!(scans(world.sim("a")), 0);
    assert_eq!(get(&world, "ada", "/api/assets/seed/status").await.status, 200);
    let world = over(&[keeper("a")], |config| config.server.allow_asset_scans = true).await;
    let begun = ask(&world, "ada", Method::POST, "/api/assets/seed", "{}").await;
    assert_eq!((begun.status, begun.json()), (202, json!({ "status": "started" })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_named_as_missing_in_a_list() {
    let world = keepers(2).await;
    for (client, shade) in [("ada", RED), ("bob", BLUE)] {
        uploaded(&world, client, &png(shade)).await;
    }
    let own = get(&world, "ada", "/api/assets").await.backend().to_owned();
    let other = if own == "a" { "b" } else { "a" };
    world.sim(other).set_faults(|faults| faults.status = 500);
    let list = get(&world, "ada", "/api/assets").await;
    assert_eq!((names(&list).len(), list.header("mooring-missing")), (1, other));
}
