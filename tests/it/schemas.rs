//! Does a value satisfy a JSON Schema? As much of draft 2020-12 as our own schema uses: a keyword
//! that is not known here is a panic and not a yes.

use std::cell::RefCell;
use std::collections::HashMap;

use regex_automata::Input;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::dense::DFA;
use serde_json::{Map, Value};

/// What is wrong with `value`: the first thing that is found, with its place.
pub(crate) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in schema {
        let is_good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => is_of_type(rule.as_str().expect("one type"), value),
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_f64().is_none_or(|it| rule.as_f64().unwrap() <= it),
            "maximum" => value.as_f64().is_none_or(|it| it <= rule.as_f64().unwrap()),
            "pattern" => value.as_str().is_none_or(|it| matches(rule.as_str().unwrap(), it)),
            "uniqueItems" => value.as_array().is_none_or(|list| {
                let is_new = |(at, it)| !list[..at].contains(it);
                rule == false || list.iter().enumerate().all(is_new)
            }),
            "maxItems" => size(value.as_array().map(Vec::len)) <= rule.as_u64().unwrap(),
            "maxProperties" => size(value.as_object().map(Map::len)) <= rule.as_u64().unwrap(),
            "anyOf" => {
                rule.as_array().expect("a list").iter().any(|it| validate(it, value).is_ok())
            }
            "required" => value.as_object().is_none_or(|table| {
                let mut names = rule.as_array().expect("a list").iter().filter_map(Value::as_str);
                names.all(|name| table.contains_key(name))
            }),
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                items.try_for_each(|it| validate(rule, it))?;
                true
            }
            "properties" | "patternProperties" | "additionalProperties" => true,
            other => panic!("unknown keyword `{other}`"),
        };
        if !is_good {
            return Err(format!("`{value}` is not of {keyword} {rule}"));
        }
    }
    value.as_object().map_or(Ok(()), |table| properties(schema, table))
}

fn properties(schema: &Map<String, Value>, table: &Map<String, Value>) -> Result<(), String> {
    let rules = |keyword: &str| schema.get(keyword).and_then(Value::as_object);
    for (name, value) in table {
        let named = rules("properties").and_then(|it| it.get(name));
        let alike = rules("patternProperties").into_iter().flatten();
        let alike = alike.filter(|(pattern, _)| matches(pattern, name)).map(|(_, rule)| rule);
        let known: Vec<&Value> = named.into_iter().chain(alike).collect();
        for rule in &known {
            validate(rule, value).map_err(|what| format!("{name}: {what}"))?;
        }
        match schema.get("additionalProperties").filter(|_| known.is_empty()) {
            None => {}
            Some(Value::Bool(false)) => return Err(format!("{name}: is not known")),
            Some(rule) => validate(rule, value).map_err(|what| format!("{name}: {what}"))?,
        }
    }
    Ok(())
}

fn size(len: Option<usize>) -> u64 {
    len.unwrap_or(0) as u64
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("unknown type `{other}`"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    thread_local!(static BUILT: RefCell<HashMap<String, DFA<Vec<u32>>>> = RefCell::default());
    BUILT.with_borrow_mut(|built| {
        let dfa = built
            .entry(pattern.to_owned())
            .or_insert_with(|| DFA::new(pattern).expect("it is a regular expression"));
        dfa.try_search_fwd(&Input::new(text)).expect("it has no bytes that end it").is_some()
    })
}

#[test]
fn what_does_not_satisfy_a_schema_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "n": { "type": "integer", "minimum": 1, "maximum": 3 } },
        "patternProperties": { "^x": { "anyOf": [{ "enum": ["a"] }, { "pattern": "^b+$" }] } },
        "additionalProperties": false,
    });
    let check = |text: &str| validate(&schema, &serde_json::from_str(text).unwrap()).is_ok();
    assert!(check(r#"{"n": 3, "x1": "a", "xy": "bb"}"#));
    for wrong in [r#"{"n": 4}"#, r#"{"n": "1"}"#, r#"{"x": "c"}"#, r#"{"y": 1}"#, "[]"] {
        assert!(!check(wrong), "{wrong}");
    }
}
