//! Draws the screen. Pure: it reads the model and writes cells.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Paragraph, Row as Drawn, Table, TableState, Wrap};
use serde_json::Value;

use super::model::{Line, Model};
use super::rows::{Row, Tone, View};
use crate::cli::say::plain;
use crate::cli::table::Colours;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, colours: Colours) {
    let foot = foot(model);
    let wide = usize::from(frame.area().width.max(1));
    let lines = u16::try_from(foot.chars().count().div_ceil(wide)).unwrap_or(1).clamp(1, 3);
    let parts = [Constraint::Length(2), Constraint::Min(1), Constraint::Length(lines)];
    let [head, body, last] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model, colours)), head);
    table(frame, body, model, colours);
    let style = match model.line {
        Line::Question(_) => Style::new().add_modifier(Modifier::BOLD),
        Line::Help | Line::Filter | Line::Told(_) => Style::new(),
    };
    frame.render_widget(Paragraph::new(foot).wrap(Wrap { trim: true }).style(style), last);
}

fn heading(model: &Model, colours: Colours) -> Vec<Text<'static>> {
    let state = match &model.away {
        Some(why) => Span::styled(plain(why), tone(Tone::Bad, colours)),
        None if model.snapshot.is_null() => Span::raw("connecting…"),
        None => Span::styled("live", tone(Tone::Good, colours)),
    };
    let version = model.snapshot["version"].as_str().unwrap_or_default();
    let first = vec![
        Span::raw(format!("Mooring {}  ", plain(version))),
        state,
        Span::raw(totals(&model.snapshot)),
    ];
    let tabs = View::ALL.iter().enumerate().flat_map(|(index, view)| {
        let style = match *view == model.view {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        [Span::styled(format!(" {} {} ", index + 1, view.title()), style), Span::raw(" ")]
    });
    let filter = match &*model.filter {
        "" => Span::raw(""),
        filter => Span::raw(format!(" filter: {filter}")),
    };
    vec![first.into(), tabs.chain([filter]).collect::<Vec<_>>().into()]
}

/// `  2 of 3 up, 1 running, 4 waiting`.
fn totals(snapshot: &Value) -> String {
    let Some(backends) = snapshot["backends"].as_array() else { return String::new() };
    let up = backends.iter().filter(|it| it["up"] == Value::Bool(true)).count();
    let sum = |key: &str| backends.iter().filter_map(|it| it[key].as_u64()).sum::<u64>();
    let (running, waiting) = (sum("running"), sum("waiting"));
    format!("  {up} of {} up, {running} running, {waiting} waiting", backends.len())
}

fn table(frame: &mut Frame<'_>, area: Rect, model: &Model, colours: Colours) {
    let rows = model.rows();
    let columns = model.view.columns();
    let titles = columns.iter().enumerate().map(|(index, (title, _))| {
        let mark = if model.sorted == Some(index) { "↓" } else { "" };
        format!("{title}{mark}")
    });
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let widths = columns.iter().map(|(_, width)| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(*width),
    });
    let drawn = rows.iter().map(|row| drawn(row, colours));
    let table = Table::new(drawn, widths)
        .header(Drawn::new(titles).style(bold))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(model.place(&rows));
    frame.render_stateful_widget(table, area, &mut state);
}

fn drawn(row: &Row, colours: Colours) -> Drawn<'static> {
    let cells = row.cells.iter().map(|cell| cell.text.clone()).collect::<Vec<_>>();
    Drawn::new(cells).style(tone(row.tone, colours))
}

fn tone(tone: Tone, colours: Colours) -> Style {
    let colour = match (colours, tone) {
        (Colours::Off, _) | (Colours::On, Tone::Plain) => return Style::new(),
        (Colours::On, Tone::Good) => Color::Green,
        (Colours::On, Tone::Wait) => Color::Yellow,
        (Colours::On, Tone::Bad) => Color::Red,
    };
    Style::new().fg(colour)
}

fn foot(model: &Model) -> String {
    match &model.line {
        Line::Help => {
            let acts = match model.view {
                View::Fleet => "  d drain  r ready  o off",
                View::Clients => "",
                View::Prompts => "  c cancel",
            };
            format!("q leave  Tab view  ↑↓ choose  s sort  / filter{acts}")
        }
        Line::Filter => format!("/{}_  Enter keeps it, Esc clears it", model.filter),
        Line::Question(action) => format!("{}  y yes, n no", action.question),
        Line::Told(told) => plain(told),
    }
}
