//! Bodies of `POST /prompt`.
//!
//! - What is refused is answered in ComfyUI's shape.
//! - What is sent is JSON with the ids that it was given, and is sent again as it is.
//! - All that a client wrote is still there, but for what is documented to be written otherwise.
//! - No link of what is sent leads to a node that is not there.
//! - Files are found where a parser finds them, and get other names without any other change.

use bytes::Bytes;
use mooring::comfy::files;
use mooring::comfy::graph::{Classes, Unknown};
use mooring::comfy::scan;
use mooring::comfy::submission::{self, Refusal};
use mooring::routing::ids::{ClientId, PromptId};
use mooring::routing::realm::ClientName;
use serde_json::{Map, Value};

use super::json;

const LEN_MAX: usize = 64 << 10;

/// A server that knows two classes.
struct Known;

impl Classes for Known {
    fn outputs(&self, class: &str) -> Option<usize> {
        match class {
            "EmptyImage" => Some(1),
            "SaveImage" => Some(0),
            _ => None,
        }
    }

    fn is_hidden(&self, class: &str, input: &str) -> bool {
        class == "SaveImage" && input == "prompt"
    }
}

pub fn check(data: &[u8]) {
    let body = Bytes::copy_from_slice(&data[..data.len().min(LEN_MAX)]);
    check_with(&body, &Unknown);
    check_with(&body, &Known);
    check_files(&body);
}

fn check_with(body: &Bytes, classes: &dyn Classes) {
    let draft = match submission::read(body.clone(), classes) {
        Ok(draft) => draft,
        Err(refusal) => return check_refusal(&refusal),
    };
    let client = draft.client_name().map_or("ada \"1\"", ClientName::as_str);
    let client = ClientId::parse(client).expect("a name");
    let prompt = draft.prompt_id().cloned();
    let prompt = prompt.unwrap_or_else(|| PromptId::parse("p-1").expect("a name"));
    let sent = draft.finish(&client, &prompt, &["SaveImage".to_owned()]);
    assert!(json::is_json(&sent.body), "{}", sent.body.escape_ascii());
    assert!(sent.body.len() <= 4 * body.len() + 256, "it has not grown beyond measure");
    let again = submission::read(sent.body.clone(), classes);
    let again = again.unwrap_or_else(|error| panic!("{error}: {}", sent.body.escape_ascii()));
    let named = again.client_name().map(ClientName::as_str);
    assert_eq!((named, again.prompt_id()), (Some(client.as_str()), Some(&prompt)));
    let twice = again.finish(&client, &prompt, &["SaveImage".to_owned()]);
    assert_eq!(twice.body, sent.body, "{}", sent.body.escape_ascii());
    // A key that is there twice makes their order another one; nobody asks for it.
    let sorted = |nodes: &[String]| {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes
    };
    assert_eq!(sorted(&twice.output_nodes), sorted(&sent.output_nodes));
    let Some(Value::Object(after)) = json::value(&sent.body) else { return };
    assert_eq!(after.get("client_id"), Some(&Value::from(client.as_str())));
    assert_eq!(after.get("prompt_id"), Some(&Value::from(prompt.as_str())));
    if json::is_plain(&sent.body) {
        check_links(&after["prompt"]);
    }
    if let Some(Value::Object(before)) = json::value(body).filter(|_| json::is_plain(body)) {
        check_kept(&before, &after);
    }
}

fn check_refusal(refusal: &Refusal) {
    let answer = json::value(&refusal.body()).expect("an answer is JSON");
    assert_eq!(answer["error"]["type"], refusal.code());
    assert!(answer["error"]["message"].is_string() && answer["node_errors"].is_object());
}

fn check_kept(before: &Map<String, Value>, after: &Map<String, Value>) {
    let is_id = |key: &str| matches!(key, "client_id" | "prompt_id");
    for (key, now) in after.iter().filter(|(key, _)| !is_id(key)) {
        let was = before.get(key).unwrap_or_else(|| panic!("{key} is made up"));
        match key.as_str() {
            "prompt" => check_graph(was, now),
            "number" => assert!(now.is_number() && (now == was || !was.is_number())),
            "extra_data" => check_extra(was, now),
            _ => assert_eq!(now, was, "{key}"),
        }
    }
    let is_left_out = |key: &str, was: &Value| is_id(key) || (key == "extra_data" && was.is_null());
    for (key, was) in before.iter().filter(|(key, was)| !is_left_out(key, was)) {
        assert!(after.contains_key(key), "{key}: {was} is lost");
    }
}

fn check_graph(was: &Value, now: &Value) {
    let (was, now) = (was.as_object().expect("a graph"), now.as_object().expect("a graph"));
    assert!(was.keys().eq(now.keys()), "no node comes or goes");
    for (id, node) in now {
        let (Some(node), Some(old)) = (node.as_object(), was[id].as_object()) else {
            assert_eq!(node, &was[id]);
            continue;
        };
        for (key, value) in node {
            match key.as_str() {
                "_meta" => {
                    let is_mended = value.as_object().is_some_and(Map::is_empty)
                        && !old.get("_meta").is_some_and(Value::is_object);
                    assert!(is_mended || Some(value) == old.get("_meta"), "{value}");
                }
                "inputs" => assert!(is_same_but_for_links(value, &old["inputs"]), "{value}"),
                _ => assert_eq!(Some(value), old.get(key)),
            }
        }
        assert!(old.keys().all(|key| node.contains_key(key)));
    }
}

/// A link to nothing has lost its slot.
fn is_same_but_for_links(now: &Value, was: &Value) -> bool {
    let (Some(now), Some(was)) = (now.as_object(), was.as_object()) else { return now == was };
    now.keys().eq(was.keys())
        && now.iter().all(|(key, now)| {
            let was = &was[key];
            let is_cut =
                match (now.as_array().map(Vec::as_slice), was.as_array().map(Vec::as_slice)) {
                    (Some([to, Value::Null]), Some([target, slot])) => {
                        to == target && to.is_string() && (slot.is_number() || slot.is_boolean())
                    }
                    (_, _) => false,
                };
            is_cut || now == was
        })
}

fn check_links(graph: &Value) {
    let nodes = graph.as_object().expect("a graph");
    let inputs = nodes.values().filter_map(|node| node.get("inputs")?.as_object());
    for value in inputs.flat_map(Map::values) {
        let Some([Value::String(target), slot]) = value.as_array().map(Vec::as_slice) else {
            continue;
        };
        if slot.is_number() || slot.is_boolean() {
            assert!(nodes.contains_key(target), "a link to nothing: {value}");
            // Zero may have a sign, and an integer may be larger than one of 64 bits.
            let number = slot.as_f64().unwrap_or(0.0);
            let is_index = !slot.is_f64() || number == 0.0 || 1e18 < number.abs();
            assert!(is_index, "{slot} is no index");
        }
    }
}

fn check_extra(was: &Value, now: &Value) {
    let mut expected = was.clone();
    if was["extra_pnginfo"].is_null() {
        expected.as_object_mut().expect("an object").shift_remove("extra_pnginfo");
    } else if let Some(info) = expected["extra_pnginfo"].as_object_mut()
        && info.get("workflow").is_some_and(|workflow| !workflow.is_object())
    {
        info.shift_remove("workflow");
    }
    assert_eq!(*now, expected);
}

fn check_files(body: &Bytes) {
    let found = files::mentions(body, |spelled| Some(spelled.path.to_string()));
    let parts: Vec<_> =
        found.iter().map(|it| (it.at.clone(), it.renamed_to("moved/\"x\".png"))).collect();
    let renamed = files::with_renamed(body.clone(), &parts);
    assert_eq!(files::without_backends(body.clone(), |_| false), body);
    if !json::is_json(body) {
        return;
    }
    assert!(json::is_json(&renamed), "{}", renamed.escape_ascii());
    assert!(found.len() <= body.len() / 2);
    let again = files::mentions(&renamed, |spelled| Some(spelled.path.to_string()));
    assert_eq!(again.len(), found.len(), "{}", renamed.escape_ascii());
    for (again, found) in again.iter().zip(&found) {
        assert_eq!(again.known, "moved/\"x\".png");
        assert_eq!((&again.node, &again.input), (&found.node, &found.input));
    }
    let bare = files::without_backends(body.clone(), |name| name == "gpu-b");
    assert!(json::is_json(&bare), "{}", bare.escape_ascii());
    assert!(bare.len() <= 8 * body.len());
    let _ = (files::classes(body), scan::without_nan(body));
}
