//! The queue of `src/queue/` against simulated fleets in virtual time, beside what others do.
//!
//! `make bench-placement` runs it. It writes `docs/placement.md` and `docs/placement.svg`, or to
//! the folder that is its argument, and fails if placement has become worse than it may be.

#![expect(clippy::print_stdout, reason = "what fails is said there")]

mod bounds;
mod cases;
mod chance;
mod figures;
mod guesses;
mod ideal;
mod ours;
mod plot;
mod report;
mod rules;
mod runs;
mod workload;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use plot::Line;
use report::LINES;
use runs::{Column, Which, Who};

/// Loads of the plot; those of the table are among them.
const LOADS: [f64; 6] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

fn main() -> ExitCode {
    // Cargo adds flags of its own.
    let folder = env::args().skip(1).find(|it| !it.starts_with('-')).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
    let columns = [
        Column::run(Who::Team, 0.6, &Which::ALL),
        Column::run(Who::Team, 0.8, &Which::ALL),
        Column::run(Who::Many, 0.4, &Which::ALL),
        Column::run(Who::Many, 0.6, &Which::ALL),
    ];
    let (held, cases) = (bounds::held(&columns), cases::all());
    let page = report::page(&columns, &held, &cases, &guesses::Row::all());
    if let Err(error) = write(&folder, &page, &picture(&columns)) {
        println!("placement: {} cannot be written: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    println!("{page}");
    let mut failed = Vec::new();
    for row in &held {
        let figures = row.figures.iter().flatten();
        failed.extend(
            figures
                .filter(|it| !it.is_held())
                .map(|it| format!("{}: {:.3}, which should be {}", row.what, it.measured, it.goal)),
        );
    }
    let cases = cases.iter().filter(|it| !it.is_met);
    failed.extend(cases.map(|it| format!("{}: {}, should be {}", it.what, it.ours, it.goal)));
    failed.iter().for_each(|it| println!("placement: {it}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn picture(columns: &[Column; 4]) -> String {
    let rules = LINES.map(|(_, _, which)| which);
    let points: Vec<Column> = LOADS
        .into_iter()
        .filter(|load| columns.iter().all(|it| it.who != Who::Team || it.load != *load))
        .map(|load| Column::run(Who::Team, load, &rules))
        .collect();
    let mut all: Vec<&Column> =
        points.iter().chain(columns.iter().filter(|it| it.who == Who::Team)).collect();
    all.sort_by(|a, b| a.load.total_cmp(&b.load));
    let mut lines: Vec<Line> = LINES
        .into_iter()
        .map(|(name, colour, which)| {
            let points = all.iter().map(|it| (it.load, it.of(which).mean)).collect();
            Line { name, colour, points }
        })
        .collect();
    let points = all.iter().map(|it| (it.load, it.ideal)).collect();
    lines.push(Line { name: "ideal, which nothing reaches", colour: "#333333", points });
    plot::svg("team: 8 unequal GPUs, 24 people, 2 bots", &lines)
}

fn write(folder: &Path, page: &str, picture: &str) -> io::Result<()> {
    fs::write(folder.join("placement.md"), page)?;
    fs::write(folder.join("placement.svg"), picture)
}
