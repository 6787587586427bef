//! Names of pictures, videos and folders: whose they are, and which strings mean them.

use http::Method;
use mooring::config::Config;
use serde_json::{Value, json};

use super::{Cases, only};
use crate::pictures::{BLUE, RED, color, form, inverse, invert, png};
use crate::support::{Answer, World, send, send_bytes, soon};

const GREEN: [u8; 3] = [0, 255, 0];

fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

/// What a client has uploaded holds it nowhere any more.
async fn release(world: &World, client: &str) {
    let path = format!("/api/v1/clients/{client}/release");
    assert_eq!(world.admin_post(&path, "").await.status, 200);
}

/// Who asks: an address, or a client.
fn asker(who: &str) -> [(&str, &str); 1] {
    let header = if who.starts_with("10.") { "x-forwarded-for" } else { "comfy-client-id" };
    [(header, who)]
}

async fn upload(world: &World, who: &str, at: (&str, &str), picture: [u8; 3]) -> Answer {
    let (subfolder, name) = at;
    let body = form(name, &png(picture), &[("subfolder", subfolder), ("overwrite", "1")]);
    let mut headers = vec![("content-type", "multipart/form-data; boundary=xyz")];
    headers.extend(asker(who));
    let answer = send_bytes(world.front, Method::POST, "/upload/image", &headers, body).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    answer
}

async fn submit(world: &World, who: &str, graph: &Value) -> Answer {
    let body = json!({ "prompt": graph }).to_string();
    send(world.front, Method::POST, "/prompt", &asker(who), &body).await
}

/// The history entry of a prompt that has ended.
async fn entry(world: &World, answer: &Answer) -> Value {
    let prompt = answer.prompt_id();
    let sim = world.sim(answer.backend()).addr();
    soon("it has ended", async {
        loop {
            let path = format!("/history/{prompt}");
            let entry = send(sim, Method::GET, &path, &[], "").await.json()[&prompt].clone();
            if !entry.is_null() {
                return entry;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await
}

/// What a picture is that a prompt has made of another.
async fn inverted(world: &World, who: &str, image: &str) -> Result<[u8; 3], String> {
    let answer = submit(world, who, &invert(image)).await;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let entry = entry(world, &answer).await;
    let name = entry["outputs"]["3"]["images"][0]["filename"].as_str().unwrap_or_default();
    let path = format!("/view?filename={name}&type=output");
    let sim = world.sim(answer.backend()).addr();
    Ok(inverse(color(&send(sim, Method::GET, &path, &[], "").await.body)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_ones_own_file_and_else_the_one_that_was_written_last() {
    let names = [
        ("what batch tools write", "", "input.png"),
        ("Japanese, with spaces of two widths", "", "画像 　テスト.png"),
        ("Chinese, in a folder", "用户/头像", "照片.png"),
        ("Arabic", "", "صورة شخصية.png"),
        ("an emoji of several points", "", "👩‍👩‍👧.png"),
        ("é as one letter", "", "Zo\u{eb}.png"),
        ("é as two", "", "Zoe\u{308}.png"),
        ("what URLs escape", "", "50% #1 + a&b=c?.png"),
        ("what looks escaped", "", "a%20b%2Fc.png"),
        ("a tilde in front", "", "~draft.png"),
        ("a folder with a tilde", "~old/x~", "a.png"),
        ("dots and a number", "v1.5..final", "shot.0001.final (1).PNG"),
        ("brackets", "", "[a] [b].png"),
        ("an apostrophe", "it's", "d'été.png"),
        ("no ending", "", "avatar"),
    ];
    let world = World::with(2, behind_a_proxy).await;
    world.all_up().await;
    for (backend, who, picture) in [("a", "10.0.0.1", RED), ("b", "10.0.0.2", BLUE)] {
        only(&world, &[backend]).await;
        for (_, folder, name) in names {
            upload(&world, who, (folder, name), picture).await;
        }
    }
    only(&world, &["a", "b"]).await;
    let mut cases = Cases::default();
    for (case, folder, name) in names {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let mut found = Vec::new();
        for who in ["10.0.0.3", "10.0.0.1", "10.0.0.2", "eve"] {
            found.push(inverted(&world, who, &path).await);
        }
        cases.case(case, found, vec![Ok(BLUE), Ok(RED), Ok(BLUE), Ok(BLUE)]);
    }
    // Without the space ComfyUI cuts off the last letter of the name as well.
    let said_behind = inverted(&world, "10.0.0.3", "input.png [input]").await;
    cases.case("the folder said behind it", said_behind, Ok(BLUE));
    only(&world, &["a"]).await;
    upload(&world, "10.0.0.1", ("", "input.png"), GREEN).await;
    only(&world, &["a", "b"]).await;
    let mut found = Vec::new();
    for who in ["10.0.0.3", "10.0.0.1", "10.0.0.2"] {
        found.push(inverted(&world, who, "input.png").await);
    }
    cases.case("the older one is written anew", found, vec![Ok(GREEN), Ok(GREEN), Ok(BLUE)]);
    // One owner's two are his, and the last of them is meant.
    for (backend, picture) in [("b", RED), ("a", BLUE)] {
        only(&world, &[backend]).await;
        upload(&world, "ada", ("", "mine.png"), picture).await;
    }
    upload(&world, "bob", ("", "mine.png"), GREEN).await;
    only(&world, &["a", "b"]).await;
    let found = inverted(&world, "ada", "mine.png").await;
    cases.case("the last one of one's own two", found, Ok(BLUE));
    cases.end(18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_goes_with_the_prompt_whatever_it_is_called() {
    let world = World::with(2, behind_a_proxy).await;
    world.all_up().await;
    let inputs = |input: &str| {
        let mut inputs = json!({ "required": {} });
        inputs["required"][input] = json!(["STRING", { "default": "" }]);
        inputs
    };
    let folders = [
        ("VHS", "frames", "VHS_LoadImages", "directory", "frames"),
        ("VHS, in Chinese", "视频帧 01", "VHS_LoadImages", "directory", "视频帧 01"),
        ("VHS, below another", "shots/sc 1", "VHS_LoadImages", "directory", "shots/sc 1"),
        ("VHS, with a slash behind it", "seq", "VHS_LoadImages", "directory", "seq/"),
        ("KJNodes", "kj", "LoadImagesFromFolderKJ", "folder", "kj"),
        ("Inspire", "inspire", "LoadImageListFromDir //Inspire", "directory", "inspire"),
        ("easy-use", "バッチ", "easy loadImagesForLoop", "directory", "バッチ"),
        ("Impact", "faces", "ImpactLoadFaces", "image_dir", "faces"),
        ("WAS", "was", "Load Image Batch", "path", "was"),
    ];
    only(&world, &["a"]).await;
    for (_, folder, class, input, _) in folders {
        for name in ["1.png", "2 é.png"] {
            upload(&world, "ada", (folder, name), RED).await;
        }
        if class != "VHS_LoadImages" {
            for sim in &world.sims {
                sim.lend(class, &inputs(input), &json!({}));
            }
        }
    }
    release(&world, "ada").await;
    only(&world, &["b"]).await;
    let mut cases = Cases::default();
    for (case, folder, class, input, spelled) in folders {
        let mut graph = json!({
            "1": { "class_type": class, "inputs": {} },
            "3": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
        });
        graph["1"]["inputs"][input] = json!(spelled);
        if class != "VHS_LoadImages" {
            graph.as_object_mut().unwrap().remove("3");
        }
        let answer = submit(&world, "ada", &graph).await;
        let b = world.sim("b").addr();
        let mut found = vec![answer.status];
        for name in ["1.png", "2%20%C3%A9.png"] {
            let folder =
                percent_encoding::utf8_percent_encode(folder, percent_encoding::NON_ALPHANUMERIC);
            let path = format!("/view?filename={name}&subfolder={folder}&type=input");
            found.push(send(b, Method::GET, &path, &[], "").await.status);
        }
        if answer.status == 200 {
            entry(&world, &answer).await;
        }
        cases.case(case, (answer.backend().to_owned(), found), ("b".to_owned(), vec![200; 3]));
    }
    cases.end(9);
}

/// Both servers have a node with this input.
fn lend(world: &World, class: &str, input: &str, kind: &Value) {
    let mut known = json!({ "required": {} });
    known["required"][input] = kind.clone();
    for sim in &world.sims {
        sim.lend(class, &known, &json!({}));
    }
}

/// Each string is the name of an upload, which is called otherwise where the prompt goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_that_mean_a_file_are_changed_and_others_are_not() {
    let world = World::with(2, behind_a_proxy).await;
    world.all_up().await;
    let name = "foto.png";
    let text = || json!(["STRING", {}]);
    let prose = || json!(["STRING", { "multiline": true }]);
    let listed = |flag: &str| {
        let mut list = json!([[name], {}]);
        list[1][flag] = json!(true);
        list
    };
    let list_of_v3 = json!(["COMBO", { "options": [name], "image_upload": true }]);
    let (file, kept) = (true, false);
    let inputs = [
        ("LoadImageMask", "image", listed("image_upload"), file),
        ("VHS_LoadVideo", "video", listed("video_upload"), file),
        ("LoadAudio", "audio", listed("audio_upload"), file),
        ("LoadImageNew", "bild", list_of_v3.clone(), file),
        ("Load3D", "model_file", json!([[name], { "file_upload": true }]), file),
        ("VHS_LoadVideoPath", "video", text(), file),
        ("easy loadImage", "bild", text(), file),
        ("KJ ImageFromPath", "file_path", text(), file),
        ("ReActorFaceSwap", "source_image", text(), file),
        ("PrimitiveString", "value", text(), file),
        ("KJ Picker", "bild", listed("image_upload"), file),
        ("KJ PickerNew", "wahl", list_of_v3.clone(), file),
        ("LoadPromptLines", "lines", prose(), kept),
        ("CLIPTextEncode", "text", prose(), kept),
        ("ImpactWildcardEncode", "wildcard_text", prose(), kept),
        ("easy positive", "positive", prose(), kept),
        ("SaveImageKJ", "filename_prefix", text(), kept),
        ("VHS_VideoCombine", "filename_prefix", text(), kept),
        ("SaveTextFile", "file", text(), kept),
        ("Image Save", "output_path", text(), kept),
        ("CR Overlay Text", "text", text(), kept),
        ("LoadImageBatch", "pattern", text(), kept),
        ("KSamplerX", "sampler_name", json!([["euler", "ddim"], {}]), kept),
    ];
    inputs.iter().for_each(|(class, input, kind, _)| lend(&world, class, input, kind));
    for (backend, who, picture) in [("a", "ada", RED), ("b", "bob", BLUE)] {
        only(&world, &[backend]).await;
        upload(&world, who, ("", name), picture).await;
    }
    release(&world, "ada").await;
    // What a page reads first: it tells of inputs what their names do not.
    assert_eq!(world.get("/object_info?clientId=ada").await.status, 200);
    let mut graph = invert(name);
    graph["3"]["inputs"]["filename_prefix"] = json!(name);
    for (number, (class, input, _, _)) in inputs.iter().enumerate() {
        let mut node = json!({ "class_type": class, "inputs": {} });
        node["inputs"][input] = json!(name);
        graph[format!("n{number}")] = node;
    }
    let answer = submit(&world, "ada", &graph).await;
    let given = entry(&world, &answer).await["prompt"][2].clone();
    let is_other = |value: &Value| {
        let value = value.as_str().unwrap_or_default();
        value != name && value.ends_with(".png")
    };
    let mut cases = Cases::default();
    cases.case("LoadImage.image", is_other(&given["1"]["inputs"]["image"]), file);
    cases.case("SaveImage.filename_prefix", given["3"]["inputs"]["filename_prefix"] != name, kept);
    for (number, (class, input, _, is_file)) in inputs.iter().enumerate() {
        let value = &given[format!("n{number}")]["inputs"][input];
        let is_changed = if *is_file { is_other(value) } else { value != name };
        cases.case(&format!("{class}.{input}"), is_changed, *is_file);
    }
    cases.end(25);
}
