//! Attacks on the files of another user, over real sockets and on both ways of answering. Simulated
//! servers read forms and names as aiohttp and ComfyUI do, so what gets past the gateway works.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Method;
use mooring::config::OnOff;
use mooring::routing::ids::{FileRef, Folder};
use mooring::routing::user_folder::UserFolder;
use serde_json::{Value, json};

use crate::owners::{TAB, User, both, world};
use crate::pictures::{BLUE, RED, color, form, inverse, invert, png, value};
use crate::support::{Answer, World, quick, send};

const BOTH_WAYS: [OnOff; 2] = [OnOff::On, OnOff::Off];

/// What ada has uploaded.
const PHOTO: &str = "photo.png";

/// What ada's prompt has made.
const MADE: &str = "ComfyUI_00001_.png";

/// Ada with a file of each kind, and bob, who wants them.
struct Prey {
    world: World,
    ada: User,
    bob: User,
}

impl Prey {
    async fn new(passthrough: OnOff) -> Self {
        let world = world(passthrough).await;
        let (ada, bob) = both(world.front);
        assert_eq!(ada.upload("/upload/image", form(PHOTO, &png(RED), &[])).await.status, 200);
        let mut socket = ada.socket(TAB).await;
        let prompt = ada.submit(TAB, &invert(PHOTO)).await;
        socket.until_end(&prompt).await;
        let prey = Self { world, ada, bob };
        prey.is_whole("at first").await;
        prey
    }

    /// Ada still has what she had.
    async fn is_whole(&self, after: &str) {
        for (name, kind, expected) in [(PHOTO, "input", RED), (MADE, "output", inverse(RED))] {
            let answer = self.ada.get(&format!("/view?filename={name}&type={kind}")).await;
            assert_eq!(answer.status, 200, "{after}: {name}: {}", answer.text());
            assert_eq!(color(&answer.body), expected, "{after}: {name}");
        }
    }

    /// How many requests reached a server whose target begins so.
    fn reached(&self, begin: &str) -> usize {
        let seen = |sim: &mooring::sim::Sim| {
            sim.requests().iter().filter(|it| it.target.starts_with(begin)).count()
        };
        self.world.sims.iter().map(seen).sum()
    }
}

/// Text with the names of ada's things in it.
fn named(text: &str) -> String {
    let folder = UserFolder::of("ada");
    text.replace("{folder}", folder.as_str()).replace("{made}", MADE).replace("{photo}", PHOTO)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_view_shows_anothers_file() {
    for passthrough in BOTH_WAYS {
        let prey = Prey::new(passthrough).await;
        for path in [
            "/view?filename={made}",
            "/view?filename={made}%20[output]%20[output]",
            "/view?filename={made}X[output][output]",
            "/view?filename={made}X[output]&type=input",
            "/view?filename={made}%0A[output]",
            "/view?filename={made}%01%5Boutput%5D&x=type=path",
            "/view?file%6Eame={made}%01%5Boutput%5D",
            "/view?file%6Eame={made}&type=output",
            "/view?filename=x%5C{made}&type=output&x=type=path",
            "/view?filename=output/{made}&type=path",
            "/view?filename=blake3:x/{made}&type=output",
            "/view?filename=blake3:x/{photo}&type=input&subfolder={folder}",
            "/view?filename={photo}&type=input&subfolder={folder}",
            "/view?filename={photo}%20[input]&subfolder={folder}",
            "/view?filename={photo}X[input]&subfolder=./x/../{folder}/.",
            "/view?filename={photo}&type=input&subfolder=%2565{folder}",
            "/view?filename={photo}&type=input&subfolder=MOORIN~1",
            "/view?filename={photo}&type=input&subfolder=x/mo0a1b~3",
            "/view?filename={made}&type=output&subfolder=/root/ComfyUI/output",
        ] {
            for path in [named(path), format!("/api{}&clientId={TAB}", named(path))] {
                for method in [Method::GET, Method::HEAD] {
                    let answer = prey.bob.ask(method, &path, "").await;
                    assert!([400, 403, 404].contains(&answer.status), "{path}: {}", answer.status);
                }
            }
        }
        prey.is_whole("after the views").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_of_a_pack_is_asked_for_anothers_file() {
    for passthrough in BOTH_WAYS {
        let prey = Prey::new(passthrough).await;
        for path in [
            "/pack/file?path={folder}/{photo}",
            "/pack/file?path=%6d{folder}",
            "/pack/file?path=x%2F..%252F{folder}",
            "/pack/get/{folder}/{photo}",
            "/api/pack/get/{folder}",
            "/pack/get?path=MOORIN~1/{photo}",
            "/pack/get?path=moorin%7E1",
            "/pack/get?filename={made}&type=output",
            "/pack/get?filename={made}",
            "/pack/get?file%6Eame={made}&type=output",
            "/pack/get?filename={made}%01[output]&type=output",
            "/pack/get?filename={made}X[output]X[output]&type=output",
            "/pack/get?filename={photo}&type=input&subfolder={folder}",
        ] {
            let path = named(path);
            let answer = prey.bob.get(&path).await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            let upgrade = [
                ("x-api-key", "key-of-bob"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            if UserFolder::of("bob").is_left_by(&path) {
                let answer = send(prey.world.front, Method::GET, &path, &upgrade, "").await;
                assert_eq!(answer.status, 404, "with `Upgrade`: {path}: {}", answer.text());
            }
        }
        assert_eq!((prey.reached("/pack"), prey.reached("/api/pack")), (0, 0));
        // All other routes of packs are there, for the user's own files too.
        let own = UserFolder::of("bob");
        for path in ["/pack/get?x=1", &format!("/pack/get?path={}/a.png", own.as_str())] {
            assert_eq!(prey.bob.get(path).await.status, 404);
        }
        assert_eq!(prey.reached("/pack"), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_graph_opens_anothers_file() {
    for passthrough in BOTH_WAYS {
        let prey = Prey::new(passthrough).await;
        let far = "./".repeat(1_600);
        let mut bodies = Vec::new();
        for name in [
            "{made} [output]",
            "{made}X[output]",
            r"{made}\n[output]",
            r"{made}\ud800[output]",
            r"{folder}/{photo}\ud800[input]",
            "{folder}/{photo}",
            r"\u006d{folder}",
            "{folder}/{photo}X[input]",
            "x/../{folder}/{photo}",
            "MOORIN~1/{photo}",
            &format!("{far}{{folder}}/{{photo}}"),
            &format!("{far}{{made}} [output]"),
            "/root/ComfyUI/output/{made} [output]",
            "C:/ComfyUI/output/{made}X[output]",
        ] {
            let name = named(name);
            let load = format!(
                r#"{{"1": {{"class_type": "LoadImage", "inputs": {{"image": "{name}"}}}},
                "3": {{"class_type": "SaveImage", "inputs": {{"images": ["1", 0],
                "filename_prefix": "x"}}}}}}"#
            );
            bodies.push(format!(r#"{{"prompt": {load}, "client_id": "{TAB}"}}"#));
            bodies.push(format!(r#"{{"\u0070rompt": {load}, "client_id": "{TAB}"}}"#));
            bodies.push(
                format!(r#"{{"prompt": {load}, "client_id": "{TAB}"}}"#)
                    .replace("\"inputs\"", "\"in\\u0070uts\""),
            );
        }
        for body in bodies {
            let answer = prey.bob.ask(Method::POST, "/prompt", &body).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text());
            let told = answer.text();
            assert!(!told.contains(UserFolder::of("ada").as_str()), "{body}: {told}");
        }
        prey.is_whole("after the graphs").await;
    }
}

/// What the event of a node says gives no right to a file, and takes none from its user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lets_a_node_say_a_name_gets_nothing_and_takes_nothing() {
    for passthrough in BOTH_WAYS {
        let prey = Prey::new(passthrough).await;
        let names = [MADE, "ComfyUI_00002_.png", "photo.png[input]", "shared.png[input]"];
        for tab in 0..20 {
            let client = format!("tab-{tab}");
            let mut socket = prey.bob.socket(&client).await;
            let says = |name: &&str| {
                let meta =
                    json!({ "title": "x", "output": { "filename": name, "type": "output" } });
                json!({ "class_type": "PreviewAny", "inputs": { "source": name }, "_meta": meta })
            };
            let nodes = names.iter().enumerate().map(|(at, it)| (at.to_string(), says(it)));
            let prompt = prey.bob.submit(&client, &Value::Object(nodes.collect())).await;
            socket.until_end(&prompt).await;
        }
        // Nor does what stands in his graphs, when his histories tell it.
        assert_eq!(prey.bob.get("/history").await.status, 200);
        for path in ["/view?filename={made}", "/view?filename={photo}&type=input"] {
            let answer = prey.bob.get(&named(path)).await;
            assert_eq!(answer.status, 404, "{path}");
        }
        let stolen = json!({ "prompt": invert(&format!("{MADE} [output]")), "client_id": TAB });
        assert_ne!(prey.bob.post("/prompt", &stolen).await.status, 200);
        prey.is_whole("after the events").await;
        // A name that bob has said before it was made is hers too.
        let mut socket = prey.ada.socket(TAB).await;
        let prompt = prey.ada.submit(TAB, &invert(PHOTO)).await;
        socket.until_end(&prompt).await;
        assert_eq!(prey.bob.get("/view?filename=ComfyUI_00002_.png").await.status, 404);
    }
}

/// A part of a form, by its whole head.
fn part(head: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn whole(parts: &[Vec<u8>]) -> Bytes {
    [parts.concat(), b"--xyz--\r\n".to_vec()].concat().into()
}

/// The heads are read otherwise by aiohttp than by a plain reader of forms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_form_writes_over_anothers_file_or_beside_it() {
    for passthrough in BOTH_WAYS {
        let prey = Prey::new(passthrough).await;
        let folder = UserFolder::of("ada");
        let over = || part("name=\"overwrite\"", b"true");
        let image = || part(&format!("name=\"image\"; filename=\"{PHOTO}\""), &png(BLUE));
        let hidden = folder.as_str().replace('-', "%2D");
        let within = |head: &str| {
            let leads = format!("..%2F{hidden}%2F{PHOTO}");
            whole(&[over(), part(&head.replace('^', &leads), &png(BLUE))])
        };
        let to = |field: &str| whole(&[part(field, folder.as_str().as_bytes()), over(), image()]);
        for (form, status) in [
            (to("name=\"/subfolder\""), 400),
            (to("name=\"\\\\subfolder\""), 400),
            (to("name=\"subfolder\""), 400),
            (to("name=subfolder; filename=\"x\""), 400),
            (to("name=\"x\"; name*=UTF-8''subfolder"), 400),
            (whole(&[part("name=\"/type\"", b"output"), over(), image()]), 400),
            (
                whole(&[
                    part("name=\"subfolder\"", b"x"),
                    part("name=\"subfolder\"", folder.as_str().as_bytes()),
                    over(),
                    image(),
                ]),
                400,
            ),
            (whole(&[part("name=\"subfolder\"", b"MOORIN~1"), over(), image()]), 400),
            // The name of the file is the user's, whatever stands in it.
            (within("name=\"image\"; filename=\"x\\\"; filename*=UTF-8''^; [=z\""), 200),
            (within("name=\"image\"; filename=\"x\"; filename*=UTF-8''^"), 400),
            (within("name=image; filename*=utf-8'en'^"), 400),
        ] {
            let answer = prey.bob.upload("/upload/image", form.clone()).await;
            let shown = String::from_utf8_lossy(&form).into_owned();
            assert_eq!(answer.status, status, "{shown}: {}", answer.text());
            prey.is_whole(&shown).await;
            let own = prey.bob.get(&format!("/view?filename={PHOTO}&type=input")).await;
            assert_eq!(own.status, 404, "{shown}");
        }
        // A name with everything in it that a head has is the user's own.
        let odd = "a;b \"c\" (1)~'.png";
        let head = "name=\"image\"; filename*=UTF-8''a%3Bb%20%22c%22%20%281%29~%27.png";
        let answer = prey.bob.upload("/upload/image", whole(&[part(head, &png(BLUE))])).await;
        assert_eq!((answer.status, value(&answer)), (200, odd.to_owned()), "{}", answer.text());
        let escaped = "a%3Bb%20%22c%22%20%281%29~%27.png";
        let own = prey.bob.get(&format!("/view?filename={escaped}&type=input")).await;
        assert_eq!(color(&own.body), BLUE);
        // His own folder, named by himself, is where his files are anyhow.
        let own = UserFolder::of("bob");
        let fields = [("subfolder", own.as_str()), ("overwrite", "true")];
        let answer = prey.bob.upload("/upload/image", form("own.png", &png(BLUE), &fields)).await;
        assert_eq!((answer.status, value(&answer)), (200, "own.png".to_owned()));
        assert_eq!(prey.bob.get("/view?filename=own.png&type=input").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mask_is_painted_over_anothers_file() {
    let prey = Prey::new(OnOff::On).await;
    let original = |filename: &str, subfolder: &str, kind: &str| {
        named(&json!({ "filename": filename, "subfolder": subfolder, "type": kind }).to_string())
    };
    let mask = |field: &str, original: &str| {
        let image = part("name=\"image\"; filename=\"mask.png\"", &png(BLUE));
        whole(&[part(field, original.as_bytes()), image])
    };
    let plain = "name=\"original_ref\"";
    for (field, original) in [
        (plain, original("{made}", "", "output")),
        (plain, original("{made} [output] [output]", "", "input")),
        (plain, original("{made}X[output]", "", "input")),
        (plain, original("{made}\n[output]", "", "temp")),
        (plain, original("{photo}", "{folder}", "input")),
        (plain, original("{photo}", "MOORIN~1", "input")),
        (plain, original("{folder}/{photo}", "", "input")),
        ("name=\"/original_ref\"", original("{photo}", "{folder}", "input")),
        ("name=\"\\\\original_ref\"", original("{made}", "", "output")),
        (plain, named(r#"{"filename": "{made}\ud800[output]", "type": "input"}"#)),
    ] {
        let answer = prey.bob.upload("/upload/mask", mask(field, &original)).await;
        assert!([200, 400].contains(&answer.status), "{original}: {}", answer.text());
        let written = prey.bob.get("/view?filename=mask.png&type=input").await;
        assert_eq!(written.status, 404, "{field} {original}");
    }
    let own = mask(plain, &original("{photo}", "", "input"));
    assert_eq!(prey.ada.upload("/upload/mask", own).await.status, 200);
    assert_eq!(prey.ada.get("/view?filename=mask.png&type=input").await.status, 200);
}

/// A form of very many parts is refused at its second part that no upload has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_very_many_parts_keeps_nobody_waiting() {
    let prey = Prey::new(OnOff::On).await;
    let mut many = String::new();
    for _ in 0..50_000 {
        let _ = write!(many, "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n");
    }
    let many = Bytes::from(many);
    for path in ["/upload/image", "/upload/mask"] {
        let answer: Answer = prey.bob.upload(path, many.clone()).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains("bad_upload"), "{path}: {}", answer.text());
    }
    prey.is_whole("after the forms").await;
}

/// What the gateway has forgotten is still where its user put it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_forgotten_is_its_users_and_nobody_elses() {
    for passthrough in BOTH_WAYS {
        let mut old = world(passthrough).await;
        let (ada, bob) = both(old.front);
        for (user, picture) in [(&ada, RED), (&bob, BLUE)] {
            let answer = user.upload("/upload/image", form(PHOTO, &png(picture), &[])).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(ada.upload("/upload/image", form("hers.png", &png(RED), &[])).await.status, 200);
        // Another gateway over the same servers knows nothing.
        let world = World::over(std::mem::take(&mut old.sims), |config| {
            config.auth = crate::keys::keys();
            config.server.passthrough = passthrough;
        })
        .await;
        drop(old);
        world.all_up().await;
        let (ada, bob) = both(world.front);
        assert_eq!(made(&ada, PHOTO).await, inverse(RED));
        let view = bob.get(&format!("/view?filename={PHOTO}&type=input")).await;
        assert_eq!((view.status, color(&view.body)), (200, BLUE));
        assert_eq!(made(&bob, PHOTO).await, inverse(BLUE));
        assert_eq!(bob.get("/view?filename=hers.png&type=input").await.status, 404);
        let stolen = json!({ "prompt": invert("hers.png"), "client_id": TAB });
        assert_eq!(bob.post("/prompt", &stolen).await.status, 400);
        let over = json!({ "filename": "hers.png", "type": "input" }).to_string();
        let mask = form("mask.png", &png(BLUE), &[("original_ref", &over)]);
        for (user, expected) in [(&bob, 404), (&ada, 200)] {
            assert_eq!(user.upload("/upload/mask", mask.clone()).await.status, 200);
            let written = user.get("/view?filename=mask.png&type=input").await;
            assert_eq!(written.status, expected);
        }
    }
}

/// So is one whose name says its server, wherever that name stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_forgotten_is_found_under_a_name_that_says_its_server() {
    for way in ["view", "graph", "mask"] {
        let mut old = World::with(2, |config| config.auth = crate::keys::keys()).await;
        old.all_up().await;
        let (ada, _) = both(old.front);
        let uploaded = ada.upload("/upload/image", form(PHOTO, &png(RED), &[])).await;
        assert_eq!(uploaded.status, 200, "{}", uploaded.text());
        let server = uploaded.backend().to_owned();
        let sims = std::mem::take(&mut old.sims);
        let world = World::over(sims, |config| config.auth = crate::keys::keys()).await;
        drop(old);
        world.all_up().await;
        let (ada, bob) = both(world.front);
        let view = format!("/view?filename={PHOTO}&subfolder=~{server}&type=input");
        assert_eq!(bob.get(&view).await.status, 404, "{way}: it is not his");
        match way {
            "view" => {
                let view = ada.get(&view).await;
                assert_eq!((view.status, color(&view.body)), (200, RED));
            }
            "graph" => {
                // It runs on the other server, so the file has to be known before it is copied.
                let path = format!("/api/v1/backends/{server}/state");
                let drains = world.admin_post(&path, r#"{"state": "draining"}"#).await;
                assert_eq!(drains.status, 200, "{}", drains.text());
                assert_eq!(made(&ada, &format!("~{server}/{PHOTO}")).await, inverse(RED));
            }
            _ => {
                let over = json!({
                    "filename": PHOTO, "subfolder": format!("~{server}"), "type": "input"
                });
                let over = over.to_string();
                let mask = form("mask.png", &png(BLUE), &[("original_ref", &over)]);
                assert_eq!(ada.upload("/upload/mask", mask).await.status, 200);
                let written = ada.get("/view?filename=mask.png&type=input").await;
                assert_eq!(written.status, 200, "it was painted over the original");
            }
        }
    }
}

/// Runs a graph to its end, and returns the colour of its picture.
async fn made(user: &User, image: &str) -> [u8; 3] {
    let mut socket = user.socket(TAB).await;
    let prompt = user.submit(TAB, &invert(image)).await;
    socket.until_end(&prompt).await;
    let entry = user.get(&format!("/history/{prompt}")).await.json();
    let image = &entry[&prompt]["outputs"]["3"]["images"][0];
    let text = |key: &str| image[key].as_str().unwrap().to_owned();
    let (name, subfolder) = (text("filename"), text("subfolder"));
    color(&user.get(&format!("/view?filename={name}&subfolder={subfolder}")).await.body)
}

/// Its own history makes a user the owner of what the ledger has forgotten, and no text in a graph
/// makes anybody one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_history_tells_again_belongs_to_its_user() {
    for passthrough in BOTH_WAYS {
        let world = World::with(1, |config| {
            config.auth = crate::keys::keys();
            config.server.passthrough = passthrough;
            config.files.ledger = 1;
        })
        .await;
        world.all_up().await;
        let (ada, bob) = both(world.front);
        let mut socket = ada.socket(TAB).await;
        let prompt = ada.submit(TAB, &quick(1)).await;
        socket.until_end(&prompt).await;
        let entry = ada.get(&format!("/history/{prompt}")).await.json();
        let image = &entry[&prompt]["outputs"]["3"]["images"][0]["filename"];
        let image = image.as_str().unwrap().to_owned();
        let file = FileRef::of_path(Folder::Output, &image).unwrap();
        let knows = || {
            let files = world.gateway.shared.records.files_of(&file);
            files.is_named(Folder::Output, &image)
        };
        let path = format!("/view?filename={image}&type=output");
        for list in ["/history", "/api/jobs/{id}"] {
            for count in 0..400 {
                if !knows() {
                    break;
                }
                let name = format!("filler-{count}-{}.png", list.len());
                let answer = bob.upload("/upload/image", form(&name, &png(BLUE), &[])).await;
                assert_eq!(answer.status, 200);
            }
            assert!(!knows(), "it was forgotten");
            let list = list.replace("{id}", &prompt);
            assert!(ada.get(&list).await.text().contains(&image), "{list}");
            assert!(knows(), "{list}");
            assert_eq!(bob.get(&path).await.status, 404, "{list}");
            assert_eq!(ada.get(&path).await.status, 200, "{list}");
        }
    }
}

/// Names of outputs are counted, so anybody can ask for those that nobody has told of yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_nobodys_where_it_is_hidden() {
    for passthrough in BOTH_WAYS {
        let mut old = world(passthrough).await;
        let (ada, _) = both(old.front);
        assert_eq!(ada.upload("/upload/image", form(PHOTO, &png(RED), &[])).await.status, 200);
        assert_eq!(made(&ada, PHOTO).await, inverse(RED));
        // Another gateway over the same servers knows nothing.
        let world = World::over(std::mem::take(&mut old.sims), |config| {
            config.auth = crate::keys::keys();
            config.server.passthrough = passthrough;
            config.files.share_unknown = false;
        })
        .await;
        drop(old);
        world.all_up().await;
        let (ada, bob) = both(world.front);
        for user in [&ada, &bob] {
            for path in ["/view?filename={made}", "/view?filename={made}%20[output]&type=temp"] {
                assert_eq!(user.get(&named(path)).await.status, 404, "{path}");
            }
            let list = user.get("/internal/files/output").await;
            assert!(!list.text().contains(MADE), "{}", list.text());
            let load = json!({ "prompt": invert(&format!("{MADE} [output]")), "client_id": TAB });
            assert_eq!(user.post("/prompt", &load).await.status, 400);
            let over = json!({ "filename": MADE, "type": "output" }).to_string();
            let mask = form("mask.png", &png(BLUE), &[("original_ref", &over)]);
            assert_eq!(user.upload("/upload/mask", mask).await.status, 200);
            assert_eq!(user.get("/view?filename=mask.png&type=input").await.status, 404);
        }
        // Uploads are their users', and so is what they make now.
        assert_eq!(made(&ada, PHOTO).await, inverse(RED));
    }
}
