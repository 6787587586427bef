//! Tests of graphs that break a server, and how they are refused or rewritten.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use super::*;

fn edited(graph: &str) -> Result<String, Unfit> {
    edited_with(graph, &Unknown)
}

fn edited_with(graph: &str, classes: &dyn Classes) -> Result<String, Unfit> {
    let edits = judge(graph.as_bytes(), classes)?;
    let mut text = graph.to_owned();
    for (at, by) in edits.into_iter().rev() {
        text.replace_range(at, &by);
    }
    Ok(text)
}

#[track_caller]
fn same(graph: &str) {
    assert_eq!(edited(graph).as_deref(), Ok(graph));
}

#[track_caller]
fn becomes(graph: &str, expected: &str) {
    assert_eq!(edited(graph).as_deref(), Ok(expected));
}

#[track_caller]
fn refused(graph: &str, unfit: &Unfit) {
    assert_eq!(edited(graph).as_ref(), Err(unfit), "{graph}");
}

fn node(id: &str) -> String {
    id.to_owned()
}

#[test]
fn a_node_is_an_object_with_a_class_and_inputs() {
    same(r#"{}"#);
    same(r#"{"1":{"class_type":"A","inputs":{},"_meta":{"title":"x"}}}"#);
    for odd in ["1", "null", "\"class_type inputs\"", "[]", "true"] {
        refused(&format!(r#"{{"1":{odd}}}"#), &Unfit::NotAnObject { node: node("1") });
        let graph = format!(r#"{{"1":{{"class_type":"A","inputs":{odd}}}}}"#);
        refused(&graph, &Unfit::InputsNotAnObject { node: node("1") });
    }
    refused(r#"{"9":{"class_type":"A"}}"#, &Unfit::NoInputs { node: node("9") });
    refused(r#"{"9":{"class_type":"A","Inputs":{}}}"#, &Unfit::NoInputs { node: node("9") });
    for odd in ["[]", "{}", "[\"A\"]"] {
        let graph = format!(r#"{{"1":{{"class_type":{odd},"inputs":{{}}}}}}"#);
        refused(&graph, &Unfit::ClassNotAString { node: node("1") });
    }
}

/// ComfyUI answers 400 to these at once, before it looks at anything else.
#[test]
fn what_comfyui_refuses_by_itself_is_left_to_it() {
    same(r#"{"1":{}}"#);
    same(r#"{"1":{}}"#);
    same(r#"{"prompt":{"inputs":{}}}"#);
    same(r#"{"1":{"class_type":null,"inputs":{},"_meta":{}}}"#);
    same(r#"{"1":{"class_type":5,"inputs":{},"_meta":{}}}"#);
    same(r#"{"1":{"class_type":"A","inputs":{"x":["2",0,1],"y":[2,0],"z":[]},"_meta":{}}}"#);
}

#[test]
fn a_workflow_as_the_page_saves_it_is_told_from_a_graph() {
    let saved = r#"{"last_node_id":9,"nodes":[{"id":1}],"version":0.4}"#;
    refused(saved, &Unfit::NotApiFormat);
    refused(r#"{"version":0.4,"nodes":[]}"#, &Unfit::NotApiFormat);
    same(r#"{"nodes":{"class_type":"A","inputs":{},"_meta":{}}}"#);
}

#[test]
fn what_is_around_a_graph_is_told_from_one() {
    let graph = r#"{"1":{"class_type":"A","inputs":{}}}"#;
    for around in
        ["{\"output\":G,\"workflow\":{}}", "{\"prompt\":G}", "{\"prompt\":G,\"client_id\":\"x\"}"]
    {
        refused(&around.replace('G', graph), &Unfit::NotApiFormat);
    }
    // A node without a required member is still a node, and ComfyUI refuses it.
    same(r#"{"1":{"inputs":{}}}"#);
    same(r#"{"output":{"class_type":"A","inputs":{},"_meta":{}},"workflow":{}}"#);
    same("{}");
}

/// 0.33 `node_replace_manager.py`: `copy_node_struct`; `execution.py`: `validate_prompt`.
#[test]
fn every_node_has_a_meta_afterwards_that_is_an_object() {
    becomes(
        r#"{"1":{"class_type":"A","inputs":{}}, "2": {"inputs":{"a":1},"class_type":"B" }}"#,
        concat!(
            r#"{"1":{"class_type":"A","inputs":{}, "_meta": {}}, "#,
            r#""2": {"inputs":{"a":1},"class_type":"B" , "_meta": {}}}"#
        ),
    );
    for odd in ["null", "\"x\"", "[1, {}]", "7"] {
        becomes(
            &format!(r#"{{"1":{{"_meta":{odd},"class_type":"A","inputs":{{}}}}}}"#),
            r#"{"1":{"_meta":{},"class_type":"A","inputs":{}}}"#,
        );
        becomes(&format!(r#"{{"1":{{"_meta":{odd}}}}}"#), r#"{"1":{"_meta":{}}}"#);
    }
}

/// An input that the class does not have is not validated, and `add_node` follows its link.
#[test]
fn a_link_to_nothing_is_none_any_more() {
    let graph =
        |input: &str| format!(r#"{{"1":{{"class_type":"A","_meta":{{}},"inputs":{input}}}}}"#);
    becomes(&graph(r#"{"x":["99", 0],"y":1}"#), &graph(r#"{"x":["99", null],"y":1}"#));
    becomes(&graph(r#"{"x":["99",true]}"#), &graph(r#"{"x":["99",null]}"#));
    becomes(&graph(r#"{"x":["1",0.0]}"#), &graph(r#"{"x":["1",null]}"#));
    becomes(&graph(r#"{"x":["1",1e0]}"#), &graph(r#"{"x":["1",null]}"#));
    same(&graph(r#"{"x":["1",0],"y":["1",-1],"z":["1",true],"w":["1",false]}"#));
    same(&graph(r#"{"x":["\u0031",0]}"#));
    same(&graph(r#"{"x":["99","0"],"y":[["99",0]],"z":{"a":["99",0]}}"#));
    let unfit = Unfit::LinkInValue { node: node("1") };
    refused(&graph(r#"{"x":{"__value__":["99",0]}}"#), &unfit);
    refused(&graph(r#"{"x":{"\u005f_value__":["1",0.5]}}"#), &unfit);
    same(&graph(r#"{"y":{"__value__":["99",0],"__value__":1},"z":{"__value__":["1",0,1]}}"#));
    // A link in a `__value__` that leads to a node is not checked either: the output may not exist.
    refused(&graph(r#"{"x":{"__value__":["1",0]}}"#), &unfit);
}

/// Nodes of class A have one output, and the server fills in their `unique_id`.
struct Few;

impl Classes for Few {
    fn outputs(&self, class: &str) -> Option<usize> {
        (class == "A").then_some(1)
    }

    fn is_hidden(&self, class: &str, input: &str) -> bool {
        (class, input) == ("A", "unique_id")
    }
}

#[test]
fn a_link_to_an_output_that_its_node_does_not_have_is_none_any_more() {
    let graph = |input: &str| {
        let node = |id: &str, class: &str, inputs: &str| {
            format!(r#""{id}":{{"inputs":{inputs},"_meta":{{}},"class_type":"{class}"}}"#)
        };
        let (other, own) = (node("2", "B", "{}"), node("1", "\\u0041", input));
        format!("{{{other},{own}}}")
    };
    let becomes = |input: &str, expected: &str| {
        assert_eq!(edited_with(&graph(input), &Few), Ok(graph(expected)), "{input}");
    };
    becomes(r#"{"x":["1",1],"y":["1",-2]}"#, r#"{"x":["1",null],"y":["1",null]}"#);
    becomes(r#"{"x":["1",true],"y":["1",9e9]}"#, r#"{"x":["1",null],"y":["1",null]}"#);
    for same in [r#"{"x":["1",0],"y":["1",-1],"z":["1",false]}"#, r#"{"x":["2",7]}"#] {
        becomes(same, same);
    }
    becomes(r#"{"unique_id":["2",0]}"#, r#"{"unique_id":["2",null]}"#);
    becomes(r#"{"\u0075nique_id":["2",0]}"#, r#"{"\u0075nique_id":["2",null]}"#);
    becomes(r#"{"unique_id":"7"}"#, r#"{"unique_id":"7"}"#);
}

#[test]
fn of_a_key_that_stands_twice_the_last_one_counts() {
    let graph = |node: &str| format!(r#"{{"1":{node}}}"#);
    same(&graph(r#"{"class_type":"A","inputs":null,"inputs":{},"_meta":{}}"#));
    same(&graph(r#"{"class_type":[],"class_type":"A","inputs":{},"_meta":1,"_meta":{}}"#));
    same(r#"{"1":"x","1":{"class_type":"A","inputs":{},"_meta":{}}}"#);
    same(r#"{"1":{"class_type":"A"},"\u0031":{"class_type":"A","inputs":{},"_meta":{}}}"#);
    let unfit = Unfit::InputsNotAnObject { node: node("1") };
    refused(&graph(r#"{"class_type":"A","inputs":{},"_meta":{},"inputs":1}"#), &unfit);
    refused(&graph(r#"{"class_type":"A","inputs":{},"\u0069nputs":[]}"#), &unfit);
    let none = Unfit::NotAnObject { node: node("1") };
    refused(r#"{"1":{"class_type":"A","inputs":{}},"1":0}"#, &none);
}

fn chain(nodes: usize) -> String {
    let node = |at: usize| {
        let inputs = if at == 0 { json!({}) } else { json!({ "x": [(at - 1).to_string(), 0] }) };
        (at.to_string(), json!({ "class_type": "A", "inputs": inputs, "_meta": {} }))
    };
    Value::Object((0..nodes).map(node).collect()).to_string()
}

#[test]
fn no_way_through_a_graph_is_too_long() {
    same(&chain(DEPTH_MAX));
    refused(&chain(DEPTH_MAX + 1), &Unfit::TooDeep);
    let wrapped = chain(DEPTH_MAX + 1).replace(r#"["7",0]"#, r#"{"__value__":["7",0]}"#);
    refused(&wrapped, &Unfit::TooDeep);
    // Any number of nodes beside each other is allowed.
    let wide: Map<String, Value> = (0..5_000)
        .map(|at| {
            let inputs = json!({ "x": [(at / 2).to_string(), 0] });
            (at.to_string(), json!({ "class_type": "A", "inputs": inputs, "_meta": {} }))
        })
        .collect();
    same(&Value::Object(wide).to_string());
    // ComfyUI itself reports cycles.
    same(&chain(DEPTH_MAX).replacen(r#""inputs":{}"#, r#""inputs":{"x":["3",0]}"#, 1));
}

#[test]
fn no_graph_keeps_a_server_busy_with_reading_it() {
    // Layers of nodes; each takes two nodes of the layer before.
    let layers = |count: usize, width: usize| {
        let node = |at: usize| {
            let from = |by: usize| (at / width - 1) * width + (at + by) % width;
            let link = |by: usize| json!([from(by).to_string(), 0]);
            let inputs = match at / width {
                0 => json!({}),
                _ => json!({ "a": link(0), "b": link(1) }),
            };
            (at.to_string(), json!({ "class_type": "A", "inputs": inputs, "_meta": {} }))
        };
        Value::Object((0..count * width).map(node).collect()).to_string()
    };
    same(&layers(60, 30));
    refused(&layers(200, 20), &Unfit::TooTangled);
    // Any number of nodes is allowed if each depends on few others.
    same(&layers(2, 5_000));
}

#[test]
fn a_node_id_has_an_end() {
    let graph = |len: usize| format!(r#"{{"{}":{{}}}}"#, "é".repeat(len / 2));
    same(&graph(ID_MAX));
    refused(&graph(ID_MAX + 2), &Unfit::LongId { bytes: ID_MAX + 2 });
    let escaped = format!(r#"{{"{}":{{}}}}"#, r"\u0031".repeat(ID_MAX));
    same(&escaped);
}

#[test]
fn a_graph_has_an_end() {
    let graph = |nodes: usize| {
        let node = |at: usize| format!("\"{at}\":{{}}");
        format!("{{{}}}", (0..nodes).map(node).collect::<Vec<_>>().join(","))
    };
    assert_eq!(judge(graph(NODES_MAX).as_bytes(), &Unknown), Ok(Edits::new()));
    refused(&graph(NODES_MAX + 1), &Unfit::TooLarge);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..9_i64).prop_map(Value::from),
        Just(json!(0.5)),
        "[0-9a\"\\\\{}\\[\\], é]{0,3}".prop_map(Value::from),
    ];
    let link = ("[0-9]", prop_oneof![Just(json!(0)), Just(json!(0.5)), Just(json!(true))])
        .prop_map(|(to, slot)| json!([to, slot]));
    prop_oneof![leaf, link].prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec(("[a_]|__value__", inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn graphs() -> impl Strategy<Value = Value> {
    let key = prop_oneof!["class_type", "inputs", "_meta", "is_changed"];
    let inputs = proptest::collection::vec(("[abc]", value()), 0..4)
        .prop_map(|inputs| Value::Object(inputs.into_iter().collect()));
    let good = inputs.prop_map(|inputs| json!({ "class_type": "A", "inputs": inputs }));
    let odd = proptest::collection::vec((key, value()), 0..4)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()));
    let node = prop_oneof![8 => good, 2 => odd, 1 => value()];
    proptest::collection::vec(("[0-9]|nodes", node), 0..8)
        .prop_map(|nodes| Value::Object(nodes.into_iter().collect()))
}

/// What ComfyUI 0.33 does with a graph in its handler and its worker: an error is a 500 or a dead
/// worker. Every input is unknown to its class, so none is validated.
fn comfyui(graph: &Value) -> Result<(), String> {
    let nodes = graph.as_object().ok_or("no object")?;
    let is_link = |value: &Value| {
        let pair = value.as_array().filter(|pair| pair.len() == 2);
        pair.is_some_and(|it| it[0].is_string() && (it[1].is_number() || it[1].is_boolean()))
    };
    for (id, node) in nodes {
        // Python's `in` searches a text for a part, and a list for an item.
        let has = |key: &str| match node {
            Value::Object(node) => Ok(node.contains_key(key)),
            Value::String(text) => Ok(text.contains(key)),
            Value::Array(items) => Ok(items.contains(&json!(key))),
            Value::Null | Value::Bool(_) | Value::Number(_) => Err(format!("{id}: no in")),
        };
        if !has("class_type")? || !has("inputs")? {
            continue;
        }
        let class = &node["class_type"];
        if class.is_array() || class.is_object() {
            return Err(format!("{id}: unhashable"));
        }
        // A retired class: copying the node needs `_meta`.
        if !node["_meta"].is_object() {
            return Err(format!("{id}: no _meta"));
        }
        if !node["inputs"].is_object() {
            return Err(format!("{id}: inputs"));
        }
    }
    for (id, node) in nodes {
        let node = node.as_object().ok_or(format!("{id}: get"))?;
        match node.get("class_type") {
            Some(Value::String(_)) => {}
            // `.get('_meta', {}).get('title')`.
            Some(_) | None if node.get("_meta").is_none_or(Value::is_object) => return Ok(()),
            Some(_) | None => return Err(format!("{id}: title")),
        }
    }
    for (id, node) in nodes {
        let inputs = node["inputs"].as_object().ok_or(format!("{id}: KeyError"))?;
        for value in inputs.values() {
            let unwrapped = value.get("__value__").filter(|_| value.is_object()).unwrap_or(value);
            if !is_link(unwrapped) {
                continue;
            }
            if value.is_object() {
                return Err(format!("{id}: nothing of it is checked"));
            }
            let target = unwrapped[0].as_str().unwrap_or_default();
            if !nodes.contains_key(target) {
                return Err(format!("{id}: NodeNotFoundError"));
            }
            if unwrapped[1].is_f64() {
                return Err(format!("{id}: outputs[0.5]"));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_let_through_breaks_no_server(graph in graphs()) {
        if let Ok(text) = edited(&graph.to_string()) {
            let sent: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(comfyui(&sent), Ok(()), "{}", text);
            prop_assert_eq!(edited(&text), Ok(text.clone()), "once is enough");
        }
    }

    #[test]
    fn what_breaks_no_server_is_let_through_as_it_is(graph in graphs()) {
        if comfyui(&graph).is_ok() {
            let sent = edited(&graph.to_string()).map(|it| serde_json::from_str::<Value>(&it));
            match sent {
                Ok(sent) => {
                    let sent = sent.unwrap();
                    let nodes = graph.as_object().unwrap();
                    prop_assert!(nodes.keys().eq(sent.as_object().unwrap().keys()));
                }
                Err(unfit) => {
                    // Only beside a node without a class; the whole graph is then refused anyway.
                    let has_class = |node: &Value| node["class_type"].is_string();
                    let all = graph.as_object().unwrap().values().all(has_class);
                    prop_assert!(!all, "{unfit}: {graph}");
                }
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(
        text in any::<String>(),
        marks in "[\\[\\]{}\",:\\\\a1 ]{0,64}",
        members in "\\{(\"(inputs|class_type|_meta|é)\":[\\[\\]{}\",:1ae]{0,8},?){0,6}",
    ) {
        for graph in [text, marks, members] {
            if let Ok(edits) = judge(graph.as_bytes(), &Unknown) {
                let is_in_order = edits.windows(2).all(|two| two[0].0.end <= two[1].0.start);
                prop_assert!(is_in_order);
            }
        }
    }
}
