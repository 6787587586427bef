//! The screen of `mooring top`, without a terminal.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::rows::View;
use super::*;

fn snapshot() -> Value {
    let gpu = |name: &str, more: Value| {
        let mut backend = json!({
            "name": name, "up": true, "state": "ready", "condition": "well", "leaving": null,
            "drained": false, "trouble": null, "running": 0, "waiting": 0, "held_clients": 0,
            "oldest_waiting_ms": null, "bound_clients": 0, "devices": [], "doing": [],
        });
        for (key, value) in more.as_object().unwrap() {
            backend[key] = value.clone();
        }
        backend
    };
    let node = "“Refine” (KSampler, node 3)";
    let doing = json!([{ "node": node, "value": 5.0, "max": 20.0 }]);
    let device = json!([{ "vram_total": 25_769_803_776_u64, "vram_free": 21_474_836_480_u64 }]);
    let busy = json!({ "running": 1, "waiting": 2, "oldest_waiting_ms": 61_000, "held_clients": 2,
        "bound_clients": 3, "doing": doing, "devices": device });
    let prompt = |id: &str, state: &str, age: u64| {
        let backend = "gpu-a";
        json!({ "prompt_id": id, "backend": backend, "state": state, "age_ms": age })
    };
    let shown = json!([
        { "client": { "client_id": "ada", "hash": "c-1", "backend": "gpu-a", "pending": 2,
                      "sockets": 1 },
          "prompts": [prompt("p-1", "running", 90_000), prompt("p-2", "queued", 61_000)] },
        { "client": { "hash": "c-2", "backend": "gpu-a", "pending": 1, "sockets": 0 },
          "prompts": [prompt("p-3", "queued", 100_000)] },
    ]);
    json!({
        "may": "act", "version": "0.1.0",
        "backends": [
            gpu("gpu-a", busy),
            gpu("gpu-b", json!({ "up": false, "trouble": "cannot connect\u{1b}[2J" })),
        ],
        "clients": { "shown": shown },
    })
}

fn model() -> Model {
    let mut model = Model::default();
    model.take(snapshot());
    model
}

/// The screen, line by line.
fn screen(model: &Model, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, model, Colours::Off)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(model: &mut Model, keys: &str) -> Wish {
    let mut last = Wish::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        last = model.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    last
}

#[test]
fn the_fleet_is_drawn() {
    let shown = screen(&model(), (100, 8));
    assert_eq!(shown[0], "Mooring 0.1.0  live  1 of 2 up, 1 running, 2 waiting");
    assert_eq!(shown[1], " 1 Fleet   2 Clients   3 Prompts");
    let titles: Vec<&str> = shown[2].split_whitespace().collect();
    assert_eq!(
        titles,
        ["BACKEND", "STATE", "RUN", "WAIT", "OLDEST", "FREE", "VRAM", "CLIENTS", "NOW"]
    );
    for text in ["gpu-a", "busy", "1m1s", "20/24 GiB", "25 % of “Refine” (KSampler"] {
        assert!(shown[3].contains(text), "{text}: {}", shown[3]);
    }
    assert!(shown[4].contains("down") && shown[4].contains("cannot connect\u{fffd}[2J"));
    assert_eq!(shown[7], "q leave  Tab view  ↑↓ choose  s sort  / filter  d drain  r ready  o off");
    // Nothing breaks where there is no room.
    for size in [(1, 1), (20, 3), (39, 4), (300, 60)] {
        screen(&model(), size);
    }
    let connecting = screen(&Model::default(), (60, 4));
    assert!(connecting[0].contains("connecting"), "{connecting:?}");
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    for (colours, expected) in [(Colours::On, Color::Red), (Colours::Off, Color::Reset)] {
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        terminal.draw(|frame| draw::draw(frame, &model(), colours)).unwrap();
        let buffer = terminal.backend().buffer();
        assert_eq!(buffer[(0, 4)].fg, expected);
        assert!(buffer[(0, 3)].modifier.contains(Modifier::REVERSED), "the chosen row");
    }
}

#[test]
fn keys_show_sort_and_filter() {
    let mut model = model();
    press(&mut model, "2");
    let shown = screen(&model, (80, 8));
    assert!(shown[3].starts_with("ada") && shown[4].starts_with("c-2"), "{shown:?}");
    press(&mut model, "\t");
    assert_eq!(model.view, View::Prompts);
    let ids = |model: &Model| model.rows().into_iter().map(|row| row.key).collect::<Vec<_>>();
    assert_eq!(ids(&model), ["p-1", "p-2", "p-3"]);
    press(&mut model, "sssss");
    assert_eq!(ids(&model), ["p-3", "p-1", "p-2"], "the oldest first");
    assert!(screen(&model, (80, 8))[2].contains("AGE↓"));
    press(&mut model, "s");
    assert_eq!(model.sorted, None);
    press(&mut model, "/AdaX\u{8}");
    assert!(screen(&model, (80, 8))[7].starts_with("/Ada_"));
    assert_eq!(ids(&model), ["p-1", "p-2"]);
    press(&mut model, "\n");
    assert!(screen(&model, (80, 8))[1].contains("filter: Ada"));
    press(&mut model, "\u{1b}");
    assert_eq!(ids(&model).len(), 3);
    assert_eq!(press(&mut model, "/q"), Wish::Nothing, "it is a part of the filter");
    assert_eq!(press(&mut model, "\u{1b}q"), Wish::Leave);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(interrupt), Wish::Leave);
}

#[test]
fn nothing_is_done_before_a_yes() {
    let mut model = model();
    assert_eq!(press(&mut model, "d"), Wish::Nothing);
    let asked = screen(&model, (100, 8));
    assert!(
        asked[7].starts_with("Drain gpu-a? It gets no new clients. 2 clients have work there.")
    );
    assert_eq!(press(&mut model, "x"), Wish::Nothing, "a slip");
    assert_eq!(press(&mut model, "n"), Wish::Nothing);
    assert_eq!(model.line, Line::Help);
    let Wish::Act(action) = press(&mut model, "jo y") else { panic!("it is asked for") };
    assert_eq!(action.path, "/api/v1/backends/gpu-b/state");
    assert_eq!(action.body, json!({ "state": "off", "by": "top" }));
    let Wish::Act(action) = press(&mut model, "kry") else { panic!("it is asked for") };
    assert_eq!(action.body["state"], "ready");
    let Wish::Act(action) = press(&mut model, "3jcy") else { panic!("it is asked for") };
    assert_eq!((&*action.path, &action.body), ("/api/v1/prompts/p-2/cancel", &Value::Null));
    assert!(action.question.contains("p-2 of ada on gpu-a? It is deleted"), "{action:?}");
    model.snapshot["may"] = json!("look");
    assert_eq!(press(&mut model, "cy"), Wish::Nothing);
    press(&mut model, "c");
    assert!(matches!(&model.line, Line::Told(why) if why.contains("may only look")));
}

#[test]
fn the_chosen_row_stays_chosen_where_it_goes_to() {
    let mut model = model();
    press(&mut model, "3jj");
    let chosen = |model: &Model| model.place(&model.rows());
    assert_eq!(chosen(&model), Some(2));
    press(&mut model, "sssss");
    assert_eq!(chosen(&model), Some(0));
    let mut fewer = snapshot();
    fewer["clients"]["shown"][1]["prompts"] = json!([]);
    model.take(fewer);
    assert_eq!(chosen(&model), Some(0), "it is gone");
    model.take(Value::Null);
    assert_eq!((chosen(&model), press(&mut model, "cjk")), (None, Wish::Nothing));
}

#[test]
fn a_gateway_that_is_away_is_told_over_what_it_told_last() {
    let mut model = model();
    model.away = Some("cannot connect\u{1b}".to_owned());
    let shown = screen(&model, (100, 8));
    assert!(shown[0].contains("cannot connect\u{fffd}  1 of 2 up"), "{}", shown[0]);
    assert!(shown[3].contains("gpu-a"));
    model.take(snapshot());
    assert!(screen(&model, (100, 8))[0].contains("live"));
}

#[test]
fn events_come_in_any_parts() {
    let whole =
        b"event: snapshot\ndata: {\"a\": 1}\n\nevent: snapshot\ndata: {\"a\": 2}\n\nevent: s";
    for at in 0..whole.len() {
        let mut events = Events::default();
        let (one, two) = whole.split_at(at);
        let first = events.take(&Bytes::from_static(one));
        let second = events.take(&Bytes::from_static(two));
        assert_eq!(second.or(first), Some(json!({ "a": 2 })), "{at}");
    }
    assert!(AGAIN_AFTER < Duration::from_secs(2));
    assert_eq!(Events::default().take(&Bytes::from_static(b"data: {bad\n\n")), None);
}
