//! Uploads of users: each has his own, whatever it is called, and names nobody else's.

use http::Method;
use mooring::config::OnOff;
use mooring::routing::user_folder::UserFolder;
use serde_json::{Value, json};

use crate::owners::{TAB, User, both, world};
use crate::pictures::{BLUE, RED, color, form, inverse, invert, png, value};
use crate::support::Answer;

const NAME: &str = "photo.png";

/// Begins the names of users' folders.
const MARK: &str = "mooring-of-";

async fn view(user: &User, name: &str, kind: &str) -> Answer {
    user.get(&format!("/view?filename={name}&type={kind}")).await
}

/// Runs a graph of theirs to its end, and returns the colour of what it has made.
async fn made(user: &User, client: &str, graph: &Value) -> [u8; 3] {
    let mut socket = user.socket(client).await;
    let prompt = user.submit(client, graph).await;
    socket.until_end(&prompt).await;
    let history = user.get(&format!("/history/{prompt}")).await;
    assert!(!history.text().contains(MARK), "{}", history.text());
    let image = &history.json()[&prompt]["outputs"]["3"]["images"][0];
    let (name, subfolder) = (&image["filename"], &image["subfolder"]);
    let (name, subfolder) = (name.as_str().unwrap(), subfolder.as_str().unwrap());
    let path = format!("/view?filename={name}&type=output&subfolder={subfolder}");
    color(&user.get(&path).await.body)
}

/// The names that a list of inputs shows.
async fn listed(user: &User) -> Vec<String> {
    let info = user.get("/object_info/LoadImage").await;
    assert!(!info.text().contains(MARK), "{}", info.text());
    let list = info.json()["LoadImage"]["input"]["required"]["image"][0].clone();
    let names: Vec<String> = serde_json::from_value(list).unwrap();
    let files = user.get("/internal/files/input").await;
    assert!(!files.text().contains(MARK), "{}", files.text());
    for name in names.iter().filter(|name| name.starts_with("photo")) {
        assert!(files.text().contains(&format!("{name} [input]")), "{}", files.text());
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_have_each_his_own_file_of_one_name() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    for overwrite in ["false", "true"] {
        for (user, picture) in [(&ada, RED), (&bob, BLUE)] {
            let body = form(NAME, &png(picture), &[("overwrite", overwrite)]);
            let answer = user.upload("/upload/image", body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(value(&answer), NAME, "{}", answer.text());
        }
        for (user, picture) in [(&ada, RED), (&bob, BLUE)] {
            assert_eq!(color(&view(user, NAME, "input").await.body), picture);
            assert_eq!(made(user, TAB, &invert(NAME)).await, inverse(picture));
            let listed = listed(user).await;
            assert_eq!(listed.iter().filter(|name| *name == NAME).count(), 1, "{listed:?}");
        }
    }
    // On every backend: one of his other clients works elsewhere, and the file is copied.
    for client in ["one", "two", "three"] {
        assert_eq!(made(&bob, client, &invert(NAME)).await, inverse(BLUE), "{client}");
    }
    let below = form(NAME, &png(BLUE), &[("subfolder", "x/y")]);
    let answer = ada.upload("/upload/image", below).await;
    assert_eq!(value(&answer), format!("x/y/{NAME}"), "{}", answer.text());
    let path = format!("/view?filename={NAME}&type=input&subfolder=x/y");
    assert_eq!(color(&ada.get(&path).await.body), BLUE);
    assert_eq!(bob.get(&path).await.status, 404);
    assert_eq!(color(&view(&ada, NAME, "input").await.body), RED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_that_names_anothers_file_is_refused_as_for_an_unknown_one() {
    let world = world(OnOff::Off).await;
    let (ada, bob) = both(world.front);
    let answer = ada.upload("/upload/image", form(NAME, &png(RED), &[])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    made(&ada, TAB, &invert(NAME)).await;
    let folder = UserFolder::of("ada");
    let hers = folder.path(NAME);
    let output = "ComfyUI_00001_.png";
    assert_eq!(view(&ada, output, "output").await.status, 200);
    for name in [
        NAME.to_owned(),
        hers.clone(),
        hers.to_uppercase(),
        format!("./{hers}"),
        format!("x/../{hers}"),
        format!("/{hers}"),
        hers.replace('/', "\\"),
        format!("{hers} [input]"),
        format!("{output} [output]"),
        format!("./{output} [output]"),
        format!("/{output} [output]"),
        format!("x/../{output} [output]"),
        format!("~{}/{output} [output]", world.gateway.shared.fleet.iter().next().unwrap().name()),
        format!("{}{output} [output]", "./".repeat(2_000)),
    ] {
        let body = json!({ "prompt": invert(&name), "client_id": TAB });
        let answer = bob.post("/prompt", &body).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        let told = answer.text();
        assert!(told.contains("Invalid image file"), "{name}: {told}");
        assert!(!told.contains(UserFolder::of("bob").as_str()), "{name}: {told}");
    }
    let pack = json!({ "1": { "class_type": "VHS_LoadImages",
        "inputs": { "directory": folder.as_str() } } });
    let answer = bob.post("/prompt", &json!({ "prompt": pack, "client_id": TAB })).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    // Hers still works for her.
    assert_eq!(made(&ada, "other", &invert(NAME)).await, inverse(RED));
    assert_eq!(made(&ada, TAB, &invert(&format!("{output} [output]"))).await, RED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_is_painted_over_its_users_own_picture_and_no_others() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    assert_eq!(ada.upload("/upload/image", form(NAME, &png(RED), &[])).await.status, 200);
    let over = |filename: &str, subfolder: &str| {
        json!({ "filename": filename, "subfolder": subfolder, "type": "input" }).to_string()
    };
    let mask = |original: &str| form("mask.png", &png(BLUE), &[("original_ref", original)]);
    let answer = ada.upload("/upload/mask", mask(&over(NAME, ""))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(value(&answer), "mask.png");
    assert_eq!(view(&ada, "mask.png", "input").await.status, 200);
    let folder = UserFolder::of("ada");
    for original in [
        over(NAME, ""),
        over(NAME, folder.as_str()),
        over(NAME, &format!("x/../{}", folder.as_str())),
        over("unknown.png", ""),
    ] {
        let answer = bob.upload("/upload/mask", mask(&original)).await;
        assert_eq!(answer.status, 200, "{original}: {}", answer.text());
        // As ComfyUI does it for an original that is not there: nothing is written.
        assert_eq!(view(&bob, "mask.png", "input").await.status, 404, "{original}");
    }
    let twice = format!(r#"{{"filename": "x.png", "filename": "{NAME}", "type": "input"}}"#);
    assert_eq!(bob.upload("/upload/mask", mask(&twice)).await.status, 400);
    assert_eq!(view(&ada, "mask.png", "input").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_leads_elsewhere_is_refused_and_changes_nothing() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    assert_eq!(ada.upload("/upload/image", form(NAME, &png(RED), &[])).await.status, 200);
    let folder = UserFolder::of("ada");
    for (name, subfolder) in [
        (NAME, folder.as_str()),
        (NAME, ".."),
        (NAME, "x/../.."),
        ("../photo.png", ""),
        (&*format!("../{}", folder.path(NAME)), ""),
    ] {
        let fields = [("subfolder", subfolder), ("overwrite", "true")];
        let answer = bob.upload("/upload/image", form(name, &png(BLUE), &fields)).await;
        assert_eq!(answer.status, 400, "{name} {subfolder}: {}", answer.text());
        assert!(answer.text().contains("bad_upload"), "{}", answer.text());
    }
    let headers = [("x-api-key", "key-of-bob"), ("content-type", "text/plain")];
    let none =
        crate::support::send(world.front, Method::POST, "/upload/image", &headers, "x").await;
    assert_eq!(none.status, 400, "{}", none.text());
    assert_eq!(color(&view(&ada, NAME, "input").await.body), RED);
    assert_eq!(view(&bob, NAME, "input").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_of_one_name_are_each_his_own() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    // The first prompts keep their clients apart: each makes its first picture on a server.
    for (user, picture) in [(&ada, RED), (&bob, BLUE)] {
        assert_eq!(user.upload("/upload/image", form(NAME, &png(picture), &[])).await.status, 200);
        assert_eq!(made(user, TAB, &invert(NAME)).await, inverse(picture));
    }
    for number in 1..=2 {
        let name = format!("ComfyUI_{number:05}_.png");
        for (user, picture) in [(&ada, RED), (&bob, BLUE)] {
            let seen = view(user, &name, "output").await;
            assert!(seen.status == 404 || color(&seen.body) == inverse(picture), "{name}");
        }
    }
    let first = "ComfyUI_00001_.png";
    let seen = [view(&ada, first, "output").await, view(&bob, first, "output").await];
    assert!(seen.iter().any(|it| it.status == 200));
}
