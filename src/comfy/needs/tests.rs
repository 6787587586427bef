//! Tests of what is read off graphs.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value as Json, json};

use super::size::SIZE_MAX;
use super::*;

fn info(text: &str) -> NodeInfo {
    NodeInfo::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

impl Lists for NodeInfo {
    fn of(&self, class: &str, input: &str, value: &str) -> Known {
        Known::by(self.has(class, input, value))
    }
}

fn of(graph: &Json, lists: &dyn Lists) -> Needs {
    Needs::of(json!({ "client_id": "c", "prompt": graph }).to_string().as_bytes(), lists)
}

fn node(class: &str, inputs: &Json) -> Json {
    json!({ "class_type": class, "inputs": inputs, "_meta": { "title": "vae.pt" } })
}

/// A server that lists these models of `ckpt_name`, and samplers.
fn server(models: &[&str]) -> NodeInfo {
    let input = |name: &str, list: &Json| json!({ "input": { "required": { name: [list] } } });
    let samplers = json!(["euler", "caf\u{e9}"]);
    info(
        &json!({
            "CheckpointLoaderSimple": input("ckpt_name", &json!(models)),
            "LoraLoader": input("lora_name", &json!(["l.safetensors"])),
            "KSampler": input("sampler_name", &samplers),
            "LoadImage": input("image", &json!(["pet.png", "x.bin"])),
            "SaveImage": {},
        })
        .to_string()
        .replace('\u{e9}', "\\u00e9"),
    )
}

#[test]
fn models_choices_and_sizes_are_read_and_texts_are_not() {
    let graph = json!({
        "1": node("LoraLoader", &json!({ "lora_name": "l.safetensors", "model": ["2", 0] })),
        "2": node("CheckpointLoaderSimple", &json!({ "ckpt_name": "sub/B.SafeTensors" })),
        "3": node("KSampler", &json!({ "steps": 20, "sampler_name": "café", "seed": 1 })),
        "4": node("EmptyLatentImage", &json!({ "width": 512, "height": 1024, "batch_size": 4 })),
        "5": node("CLIPTextEncode", &json!({ "text": "euler", "clip": ["2", 1] })),
        "6": node("LoadImage", &json!({ "image": "x.bin" })),
        "7": node("Power Lora", &json!({ "a": { "on": true, "lora": "m.safetensors" },
            "b": ["n.pt", "o"] })),
        "8": node("KSampler", &json!({ "steps": 5, "sampler_name": ["3", 0] })),
    });
    let server = server(&["sub/B.SafeTensors"]);
    let needs = of(&graph, &server);
    assert_eq!(needs.classes.len(), 7);
    let models: Vec<&str> = needs.models.iter().map(AsRef::as_ref).collect();
    assert_eq!(models, ["sub/B.SafeTensors", "l.safetensors", "m.safetensors", "n.pt"]);
    let values: Vec<&str> = needs.choices.iter().map(|it| &*it.value).collect();
    assert_eq!(values, ["sub/B.SafeTensors", "café", "l.safetensors"]);
    assert_eq!(needs.size, 25 * 512 * 1024 * 4);
    let unread = of(&graph, &NoLists);
    assert!(unread.models.iter().any(|it| &**it == "x.bin"), "nobody says what it is");
    assert!(unread.choices.iter().all(|it| is_model(&it.value)));
}

#[test]
fn what_a_server_lacks_is_a_class_or_an_entry_of_a_list() {
    let graph = |model: &str| {
        json!({ "1": node("CheckpointLoaderSimple", &json!({ "ckpt_name": model })),
            "2": node("SaveImage", &json!({ "filename_prefix": "x", "images": ["1", 0] })) })
    };
    let (one, other) = (server(&["a.ckpt", "b.ckpt"]), server(&["a.ckpt"]));
    let needs = of(&graph("b.ckpt"), &one);
    assert_eq!((needs.lacking(&one), needs.lacking(&other)), (None, Some("b.ckpt")));
    let needs = of(&graph("c.ckpt"), &one);
    assert_eq!(needs.lacking(&one), Some("c.ckpt"), "a model, although nobody lists it");
    let needs = of(&json!({ "1": node("Rare", &json!({ "x": "y.ckpt" })) }), &one);
    assert_eq!(needs.lacking(&one), Some("Rare"));
    let bare = info(r#"{"CheckpointLoaderSimple": {}, "SaveImage": {}}"#);
    assert_eq!(of(&graph("b.ckpt"), &one).lacking(&bare), None, "it says nothing about it");
}

#[test]
fn families_are_told_apart_by_all_but_sizes() {
    let graph = |model: &str, steps: u32, text: &str| {
        of(
            &json!({ "1": node("CheckpointLoaderSimple", &json!({ "ckpt_name": model })),
                "2": node("KSampler", &json!({ "steps": steps })),
                "3": node("Text", &json!({ "text": text })) }),
            &NoLists,
        )
    };
    let first = graph("a.ckpt", 20, "x");
    let alike = graph("a.ckpt", 30, "y");
    assert_eq!((first.family(), first.size), (alike.family(), 20));
    let other = graph("b.ckpt", 20, "x");
    assert_ne!(first.family(), other.family());
    assert_eq!(first.of_classes(), other.of_classes());
}

#[test]
fn odd_bodies_need_nothing() {
    for body in
        ["", "{}", "[]", r#"{"prompt": []}"#, r#"{"prompt": {"1": 5, "2": {}}}"#, "{\"prompt\": {"]
    {
        assert_eq!(Needs::of(body.as_bytes(), &NoLists), Needs::default(), "{body}");
    }
    let odd = of(&json!({ "1": { "class_type": 5, "inputs": { "x": "a.ckpt" } } }), &NoLists);
    assert_eq!(odd, Needs::default());
    let twice = br#"{"prompt": {"1": {"class_type": "A"}}, "prompt": {"1": {"class_type": "B"}}}"#;
    assert!(Needs::of(twice, &NoLists).classes.contains("B"));
    let many: serde_json::Map<String, Json> = (0..999)
        .map(|it| (it.to_string(), node("L", &json!({ "x": format!("{it}.pt") }))))
        .collect();
    let many = of(&Json::Object(many), &NoLists);
    assert_eq!((many.choices.len(), many.models.len()), (CHOICES_MAX, MODELS_MAX));
}

#[test]
fn what_is_kept_of_a_graph_is_bounded() {
    let long = "x".repeat(1 << 20);
    let inputs: serde_json::Map<String, Json> =
        (0..300).map(|it| (it.to_string(), json!(format!("{it}.pt")))).collect();
    let of_long = of(&json!({ "1": node(&long, &Json::Object(inputs)) }), &NoLists);
    assert_eq!(of_long, Needs::default(), "no class is so long");
    let of_long = of(&json!({ "1": node("L", &json!({ &long: "a.pt" })) }), &NoLists);
    assert!(of_long.choices.is_empty());
    let many: serde_json::Map<String, Json> = (0..2_000)
        .map(|it| (it.to_string(), node(&format!("{it}{}", "x".repeat(200)), &json!({}))))
        .collect();
    assert_eq!(of(&Json::Object(many), &NoLists), Needs::default());
    // Each choice would have a class of its own to keep.
    let wide: serde_json::Map<String, Json> =
        (0..256).map(|it| (format!("a{it}"), json!("b.pt"))).collect();
    let body =
        json!({ "prompt": { "1": node(&"c".repeat(240), &Json::Object(wide)) } }).to_string();
    let wide = Needs::of(body.as_bytes(), &NoLists);
    assert!(wide.bytes() <= BYTES_LEAST + 2 * body.len(), "{}", wide.bytes());
    let huge = json!({ "width": 9e14, "height": 9e14, "batch_size": 9e14, "steps": 9e14 });
    assert_eq!(of(&json!({ "1": node("L", &huge) }), &NoLists).size, SIZE_MAX);
}

/// Counts how often it is asked.
struct Counted(std::cell::Cell<usize>);

impl Lists for Counted {
    fn of(&self, _class: &str, _input: &str, _value: &str) -> Known {
        self.0.set(self.0.get() + 1);
        Known::Nothing
    }
}

#[test]
fn lists_are_looked_through_so_many_times_at_most() {
    let many: serde_json::Map<String, Json> =
        (0..5_000).map(|it| (it.to_string(), node("L", &json!({ "x": "y" })))).collect();
    let counted = Counted(std::cell::Cell::default());
    let _needs = of(&Json::Object(many), &counted);
    assert_eq!(counted.0.get(), LOOKUPS_MAX);
}

#[test]
fn of_a_wide_node_not_all_is_kept_until_its_class_is_known() {
    let (mut values, mut sizes) = (Vec::new(), Sizes::default());
    let json = format!("{{{}\"z\":\"m.pt\"}}", "\"a\":\"b\",".repeat(99_999));
    let mut cursor = Cursor::new(json.as_bytes());
    cursor.object(|cursor, name| input(json.as_bytes(), cursor, name, &mut values, &mut sizes));
    assert_eq!(values.len(), LOOKUPS_MAX + 1, "and the model at its end");
}

#[test]
fn sizes_of_other_measures_are_of_other_families() {
    let graph = |inputs: &Json| of(&json!({ "1": node("L", inputs) }), &NoLists);
    let steps = graph(&json!({ "steps": 20 }));
    let both = graph(&json!({ "steps": 20, "width": 64, "height": 64 }));
    assert_eq!((steps.measure, both.measure), (Measure::Steps, Measure::Both));
    assert!(steps.family() != both.family() && steps.of_classes() != both.of_classes());
}

/// The same, read from the whole value.
fn naive(graph: &BTreeMap<String, (String, BTreeMap<String, Json>)>) -> (Vec<String>, u64) {
    let texts = |value: &Json| match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(all) => all.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        Json::Object(all) => all.values().filter_map(Json::as_str).map(str::to_owned).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) => Vec::new(),
    };
    let inputs = || graph.values().flat_map(|(_, inputs)| inputs.values());
    let mut models: Vec<String> = inputs().flat_map(texts).filter(|it| is_model(it)).collect();
    models.sort();
    models.dedup();
    let steps = graph.values().filter_map(|(_, inputs)| inputs.get("steps")?.as_u64()).sum();
    (models, steps)
}

fn value() -> impl Strategy<Value = Json> {
    let named = "[a-c\"\\\\é/]{0,4}(\\.safetensors|\\.PT|\\.txt|)";
    let text = prop_oneof![named, Just("x.gguf".to_owned())];
    prop_oneof![
        text.clone().prop_map(Json::from),
        any::<u16>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        Just(Json::Null),
        proptest::collection::vec(text.clone(), 0..3).prop_map(Json::from),
        text.prop_map(|text| json!({ "k": text, "n": 1 })),
    ]
}

proptest! {
    #[test]
    fn what_is_read_is_what_a_reader_of_the_whole_finds(
        graph in proptest::collection::btree_map(
            "[0-9]{1,3}",
            ("[A-D]{1,2}", proptest::collection::btree_map(
                prop_oneof!["[a-d]{1,2}", Just("steps".to_owned())], value(), 0..5)),
            0..6,
        ),
    ) {
        let body: BTreeMap<&String, Json> = graph.iter()
            .map(|(id, (class, inputs))| (id, node(class, &json!(inputs))))
            .collect();
        let needs = of(&json!(body), &NoLists);
        let classes: BTreeSet<Arc<str>> =
            graph.values().map(|(class, _)| class.as_str().into()).collect();
        prop_assert_eq!(&needs.classes, &classes);
        let (models, steps) = naive(&graph);
        let mut found: Vec<String> = needs.models.iter().map(|it| it.to_string()).collect();
        found.sort();
        prop_assert_eq!(found, models);
        prop_assert_eq!(needs.size, steps);
    }

    #[test]
    fn no_body_makes_it_panic(bytes in any::<Vec<u8>>(), marks in "[\\[\\]{}\",:\\\\a1 ]{0,64}") {
        for body in [bytes, marks.clone().into_bytes(), format!("{{\"prompt\":{marks}").into()] {
            let needs = Needs::of(&body, &NoLists);
            prop_assert!(needs.models.len() <= MODELS_MAX);
        }
    }
}
