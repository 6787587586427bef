//! Tests of the bodies of submissions.

use super::super::graph::Unknown;
use super::*;

fn finished(body: &str) -> Result<String, Refusal> {
    let draft = read(Bytes::copy_from_slice(body.as_bytes()), &Unknown)?;
    let client = ClientId::parse(draft.client_name().map_or("minted", ClientName::as_str)).unwrap();
    let prompt = draft.prompt_id().cloned().unwrap_or(PromptId::parse("given").unwrap());
    let body = draft.finish(&client, &prompt, &[]).body;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[track_caller]
fn check(body: &str, expected: &str) {
    assert_eq!(finished(body).as_deref(), Ok(expected), "{body}");
}

#[track_caller]
fn refused(body: &str, code: &str) {
    assert_eq!(finished(body).map_err(|refusal| refusal.code()), Err(code), "{body}");
}

#[test]
fn a_body_with_its_ids_goes_on_as_it_came() {
    let body = r#"{"prompt":{"1":{}}, "prompt_id":"p",  "client_id":"c","x":[1, 2]}"#;
    check(body, body);
}

#[test]
fn ids_are_added_and_values_are_not_touched() {
    check(
        r#"{"prompt":{"1":{"a": 1.50}}}"#,
        r#"{"client_id": "minted", "prompt_id": "given", "prompt": {"1":{"a": 1.50}}}"#,
    );
    check(
        r#"{"client_id":"","prompt_id":null,"prompt":{}}"#,
        r#"{"client_id": "minted", "prompt_id": "given", "prompt": {}}"#,
    );
    check(
        r#"{"prompt":{},"extra_data":{"client_id":"x"}}"#,
        concat!(
            r#"{"client_id": "x", "prompt_id": "given", "prompt": {}, "#,
            r#""extra_data": {"client_id":"x"}}"#
        ),
    );
}

#[test]
fn extra_data_that_breaks_comfyui_is_dropped() {
    let ids = r#"{"client_id": "c", "prompt_id": "p", "prompt": {}"#;
    let given = r#"{"client_id":"c","prompt_id":"p","prompt":{},"extra_data":"#;
    check(&format!("{given}null}}"), &format!("{ids}}}"));
    check(
        &format!(r#"{given}{{"extra_pnginfo":null,"a":1}}}}"#),
        &format!(r#"{ids}, "extra_data": {{"a": 1}}}}"#),
    );
    // `jobs.py`, `_extract_job_metadata`: one such prompt makes `/api/jobs` answer 500 for
    // everyone.
    for odd in ["null", "\"abc\"", "[1]", "7", "false", "NaN"] {
        for before in ["", r#""workflow":{"id":1},"#] {
            check(
                &format!(r#"{given}{{"extra_pnginfo":{{{before}"workflow":{odd}}}}}}}"#),
                &format!(r#"{ids}, "extra_data": {{"extra_pnginfo": {{}}}}}}"#),
            );
        }
    }
    let good = format!(r#"{given}{{"extra_pnginfo":{{"workflow":1,"workflow":{{}}}}}}}}"#);
    check(&good, &good);
}

#[test]
fn what_breaks_comfyui_is_refused() {
    refused("", "invalid_json");
    refused("[]", "invalid_json");
    refused(r#"{"prompt":{},"number":NaN}"#, "invalid_json");
    refused(r#"{"client_id":"a"}"#, "no_prompt");
    refused(r#"{"prompt":null}"#, "invalid_prompt");
    refused(r#"{"prompt":{},"client_id":["a"]}"#, "invalid_client_id");
    refused(r#"{"prompt":{},"client_id":true}"#, "invalid_client_id");
    refused(r#"{"prompt":{},"extra_data":{"client_id":{}}}"#, "invalid_client_id");
    refused(r#"{"prompt":{},"prompt_id":"é"}"#, "invalid_prompt_id");
    refused(r#"{"prompt":{},"prompt_id":7}"#, "invalid_prompt_id");
    refused(r#"{"prompt":{},"number":"NaN"}"#, "invalid_number");
    refused(r#"{"prompt":{},"number":1e999}"#, "unsafe_json");
    refused(r#"{"prompt":{},"number":null}"#, "invalid_number");
    refused(r#"{"prompt":{},"extra_data":[]}"#, "invalid_extra_data");
    let twice = r#"{"prompt":{},"extra_data":{"extra_pnginfo":{},"extra_pnginfo":"x"}}"#;
    refused(twice, "invalid_extra_data");
    refused(r#"{"prompt":{},"client_id":"a","client_id":"b"}"#, "duplicate_key");
    refused(r#"{"prompt":{"1":{"x":1e999}}}"#, "unsafe_json");
    let digits = "9".repeat(4_301);
    refused(&format!(r#"{{"prompt":{{"1":{{"x":{digits}}}}}}}"#), "unsafe_json");
    for odd in ["5", "true", "false", "0.5"] {
        refused(
            &format!(r#"{{"prompt":{{}},"partial_execution_targets":{odd}}}"#),
            "invalid_targets",
        );
    }
    // The worker of 0.3.64 to 0.33 dies of these.
    let good = r#""1":{"class_type":"SaveImage","inputs":{"images":["2",0]}}"#;
    let beside = |node: &str| format!(r#"{{"prompt":{{{good},{node}}}}}"#);
    refused(&beside(r#""9":{"class_type":"EmptyImage"}"#), "invalid_prompt");
    refused(&beside(r#""9":{"class_type":"EmptyImage","inputs":[]}"#), "invalid_prompt");
    refused(
        &beside(r#""9":{"class_type":"A","inputs":{"x":{"__value__":["8",0]}}}"#),
        "invalid_prompt",
    );
    refused(&format!(r#"{{"prompt":{}}}"#, chain(1_500)), "graph_too_deep");
    // ComfyUI answers these with 500.
    refused(&beside(r#""9":"class_type""#), "invalid_prompt");
    refused(&beside(r#""9":{"class_type":[],"inputs":{}}"#), "invalid_prompt");
    let saved = r#"{"prompt":{"last_node_id":9,"nodes":[{"id":1}],"version":0.4}}"#;
    refused(saved, "not_api_format");
    let long = format!(r#"{{"prompt":{{"{}":{{}}}}}}"#, "1".repeat(257));
    refused(&long, "node_id_too_long");
}

fn chain(nodes: usize) -> String {
    let node = |at: usize| {
        format!(r#""{at}":{{"class_type":"A","inputs":{{"x":["{}",0]}}}}"#, at.saturating_sub(1))
    };
    format!("{{{}}}", (0..nodes).map(node).collect::<Vec<_>>().join(","))
}

#[test]
fn what_breaks_comfyui_and_can_be_mended_is() {
    let head = r#"{"client_id": "minted", "prompt_id": "given", "prompt": "#;
    check(
        r#"{"prompt":{"1":{"class_type":"A","inputs":{"x":["9",0]}}}}"#,
        &format!(
            r#"{head}{{"1":{{"class_type":"A","inputs":{{"x":["9",null]}}, "_meta": {{}}}}}}}}"#
        ),
    );
}

/// Python's own JSON has these numbers, and Python writes the graph into a picture.
#[test]
fn what_is_no_number_becomes_null() {
    for odd in ["NaN", "Infinity", "-Infinity"] {
        let graph = |it: &str| format!(r#"{{"1":{{"is_changed":[{{"a":[{it}]}}],"x":"{odd}"}}}}"#);
        let extra = |it: &str| format!(r#""extra_data": {{"y":{it}}}"#);
        check(
            &format!(r#"{{"prompt":{},{}}}"#, graph(odd), extra(odd)),
            &format!(
                r#"{{"client_id": "minted", "prompt_id": "given", "prompt": {}, {}}}"#,
                graph("null"),
                extra("null")
            ),
        );
    }
    refused(r#"{"prompt":{"1":{"x":nan}}}"#, "invalid_json");
}

#[test]
fn a_client_that_is_a_number_is_its_text() {
    check(
        r#"{"client_id":1764310000123,"prompt_id":"p","prompt":{}}"#,
        r#"{"client_id": "1764310000123", "prompt_id": "p", "prompt": {}}"#,
    );
    check(
        r#"{"prompt_id":"p","prompt":{},"extra_data":{"client_id":-7}}"#,
        r#"{"client_id": "-7", "prompt_id": "p", "prompt": {}, "extra_data": {"client_id":-7}}"#,
    );
}

#[test]
fn what_python_reads_as_a_number_becomes_one() {
    let with = |number: &str| finished(&format!(r#"{{"prompt":{{}},"number":{number}}}"#)).unwrap();
    assert!(with("\"5\"").ends_with(r#""number": 5}"#));
    assert!(with("true").ends_with(r#""number": 1}"#));
    assert!(with("-2.50").ends_with(r#""number": -2.50}"#));
}

#[test]
fn nodes_that_answer_over_the_socket_are_found() {
    let body = r#"{"prompt":{"7":{"class_type":"SaveImageWebsocket","inputs":{}},
        "8":{"class_type":"SaveImage","inputs":{"x":"SaveImageWebsocket"}}}}"#;
    let draft = read(Bytes::from_static(body.as_bytes()), &Unknown).unwrap();
    let client = ClientId::parse("c").unwrap();
    let prompt = PromptId::parse("p").unwrap();
    let classes = ["SaveImageWebsocket".to_owned()];
    assert_eq!(draft.finish(&client, &prompt, &classes).output_nodes, ["7"]);
}

#[test]
fn only_so_many_nodes_that_answer_over_the_socket_are_remembered() {
    let node = |at: usize| format!(r#""{at}":{{"class_type":"SaveImageWebsocket","inputs":{{}}}}"#);
    let nodes: Vec<String> = (0..OUTPUT_NODES_MAX + 50).map(node).collect();
    let body = format!(r#"{{"prompt":{{{}}}}}"#, nodes.join(","));
    let draft = read(body.into(), &Unknown).unwrap();
    let (client, prompt) = (ClientId::parse("c").unwrap(), PromptId::parse("p").unwrap());
    let ready = draft.finish(&client, &prompt, &["SaveImageWebsocket".to_owned()]);
    assert_eq!(ready.output_nodes.len(), OUTPUT_NODES_MAX);
}
