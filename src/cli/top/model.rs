//! What is on the screen, and what keys do to it. Pure: keys and snapshots come in, actions go out.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::rows::{Row, View};
use crate::cli::admin::escape;

/// The longest filter, in characters.
const FILTER_MAX: usize = 60;

/// A change that the gateway is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Action {
    /// What it is and what it costs.
    pub(super) question: String,
    pub(super) path: String,
    pub(super) body: Value,
}

/// What the last line of the screen is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Line {
    /// The keys.
    #[default]
    Help,
    /// The filter is typed.
    Filter,
    /// Asks before it acts.
    Question(Action),
    /// What came of it.
    Told(String),
}

/// What a key asks the shell for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    Nothing,
    Act(Action),
    Leave,
}

/// The state of the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Null before the first.
    pub(super) snapshot: Value,
    /// Why nothing comes, if so.
    pub(super) away: Option<String>,
    pub(super) view: View,
    /// The column by which rows are sorted; none for the order of the gateway.
    pub(super) sorted: Option<usize>,
    pub(super) filter: String,
    pub(super) line: Line,
    /// The key of the row that is chosen. It stays chosen where it is sorted to.
    chosen: String,
}

impl Model {
    pub(super) fn take(&mut self, snapshot: Value) {
        (self.snapshot, self.away) = (snapshot, None);
    }

    /// The rows that match the filter, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let filter = self.filter.to_lowercase();
        let matches = |row: &Row| {
            filter.is_empty()
                || row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter))
        };
        let mut rows = self.view.rows(&self.snapshot);
        rows.retain(matches);
        if let Some(column) = self.sorted {
            rows.sort_by(|a, b| match (a.cells.get(column), b.cells.get(column)) {
                (Some(a), Some(b)) => a.order(b),
                (Some(_) | None, Some(_) | None) => std::cmp::Ordering::Equal,
            });
        }
        rows
    }

    /// The place of the chosen row: the first, if the chosen one is gone.
    pub(super) fn place(&self, rows: &[Row]) -> Option<usize> {
        let found = rows.iter().position(|row| row.key == self.chosen);
        found.or_else(|| (!rows.is_empty()).then_some(0))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of a library: other keys mean nothing")]
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Leave } else { Wish::Nothing };
        }
        match std::mem::take(&mut self.line) {
            Line::Filter => self.key_of_filter(key.code),
            Line::Question(action) => match key.code {
                KeyCode::Char('y' | 'Y') => return Wish::Act(action),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {}
                // Any other key may be a slip.
                _other => self.line = Line::Question(action),
            },
            Line::Help | Line::Told(_) => return self.key_of_table(key.code),
        }
        Wish::Nothing
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of a library: other keys mean nothing")]
    fn key_of_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                self.filter.clear();
                return;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(typed) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(typed);
            }
            _other => {}
        }
        self.line = Line::Filter;
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of a library: other keys mean nothing")]
    fn key_of_table(&mut self, key: KeyCode) -> Wish {
        match key {
            KeyCode::Char('q') => return Wish::Leave,
            KeyCode::Char('/') => self.line = Line::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.sort(),
            KeyCode::Tab => self.show(self.view.next()),
            KeyCode::Char('1') => self.show(View::Fleet),
            KeyCode::Char('2') => self.show(View::Clients),
            KeyCode::Char('3') => self.show(View::Prompts),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|place| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(|place| place + 1),
            KeyCode::Home => self.choose(|_| 0),
            KeyCode::End => self.choose(|_| usize::MAX),
            KeyCode::Char(act) => self.ask(act),
            _other => {}
        }
        Wish::Nothing
    }

    fn show(&mut self, view: View) {
        if self.view != view {
            (self.view, self.sorted) = (view, None);
            self.chosen.clear();
        }
    }

    /// By each column in turn, and then by none.
    fn sort(&mut self) {
        let next = self.sorted.map_or(0, |column| column + 1);
        self.sorted = (next < self.view.columns().len()).then_some(next);
    }

    fn choose(&mut self, moved: impl FnOnce(usize) -> usize) {
        let rows = self.rows();
        let place = self.place(&rows).map(|place| moved(place).min(rows.len() - 1));
        self.chosen = place.map(|place| rows[place].key.clone()).unwrap_or_default();
    }

    /// Asks whether to do what a key means for the chosen row.
    fn ask(&mut self, key: char) {
        let rows = self.rows();
        let Some(row) = self.place(&rows).map(|place| &rows[place]) else { return };
        let action = match (self.view, key) {
            (View::Fleet, 'd') => state_of(row, "draining"),
            (View::Fleet, 'r') => state_of(row, "ready"),
            (View::Fleet, 'o') => state_of(row, "off"),
            (View::Prompts, 'c') => cancel(row),
            (View::Fleet | View::Clients | View::Prompts, _) => return,
        };
        let looks = self.snapshot["may"] == "look";
        self.line = match looks {
            true => Line::Told("This token may only look (admin.read_token).".to_owned()),
            false => Line::Question(action),
        };
    }
}

/// As on the dashboard (`fleet.js`, `ACTIONS`).
fn state_of(row: &Row, state: &str) -> Action {
    let name = &row.cells[0].text;
    let held = match row.held {
        0 => "Nobody waits for anything there.".to_owned(),
        1 => "A client has work there.".to_owned(),
        held => format!("{held} clients have work there."),
    };
    let question = match state {
        "draining" => format!("Drain {name}? It gets no new clients. {held}"),
        "off" => format!("Turn {name} off? It gets no work; refused while work is pending. {held}"),
        _ready => format!("Make {name} ready? It gets new clients again."),
    };
    let path = format!("/api/v1/backends/{}/state", escape(&row.key));
    Action { question, path, body: json!({ "state": state, "by": "top" }) }
}

fn cancel(row: &Row) -> Action {
    let [prompt, client, backend, state] = [0, 1, 2, 3].map(|at| &*row.cells[at].text);
    let cost = match state {
        "running" => "It is interrupted: what it has made so far is lost.",
        _waits => "It is deleted from the queue.",
    };
    let question = format!("Cancel {prompt} of {client} on {backend}? {cost}");
    let path = format!("/api/v1/prompts/{}/cancel", escape(&row.key));
    Action { question, path, body: Value::Null }
}
