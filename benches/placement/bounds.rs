//! What must hold, so that a change that makes placement worse is seen.

use crate::figures::Figures;
use crate::runs::{Column, Which};

/// What a figure is to be, on the right side of a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => least <= figure,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) what: &'static str,
    /// In the order of the columns; `None` where it is not asked.
    pub(crate) figures: Vec<Option<Figure>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) measured: f64,
    pub(crate) goal: Limit,
    /// A goal that is known not to be reached, and what must hold instead.
    pub(crate) instead: Option<Limit>,
}

impl Figure {
    pub(crate) fn is_reached(self) -> bool {
        self.goal.is_met(self.measured)
    }

    /// False for what makes the bench fail.
    pub(crate) fn is_held(self) -> bool {
        self.is_reached() || self.instead.is_some_and(|limit| limit.is_met(self.measured))
    }
}

/// A figure of a column.
type Measure = fn(&Column) -> f64;

/// Each row of goals, and what holds instead where a goal is not reached.
struct Row {
    what: &'static str,
    measure: Measure,
    goals: [Option<Limit>; 4],
    instead: [Option<Limit>; 4],
}

impl Row {
    /// What holds where a goal is known to be missed, some hundredths worse than it is.
    fn instead(self, instead: [Option<Limit>; 4]) -> Self {
        Self { instead, ..self }
    }
}

const NO_LIMIT: Which = Which::Ours(0);

fn by_today(column: &Column, which: Which, of: fn(&Figures) -> f64) -> f64 {
    of(&column.of(which)) / of(&column.of(Which::Today))
}

const fn most(values: [f64; 4]) -> [Option<Limit>; 4] {
    let [a, b, c, d] = values;
    [Some(Limit::AtMost(a)), Some(Limit::AtMost(b)), Some(Limit::AtMost(c)), Some(Limit::AtMost(d))]
}

const NONE: [Option<Limit>; 4] = [None; 4];

fn rows() -> Vec<Row> {
    let at_most = |limit| Some(Limit::AtMost(limit));
    let at_least = |limit| Some(Limit::AtLeast(limit));
    let row = |what, measure, goals| Row { what, measure, goals, instead: NONE };
    vec![
        row(
            "mean / *ideal*, no limit",
            |it| it.of(NO_LIMIT).mean / it.ideal,
            most([2.3, 3.0, 2.1, 3.0]),
        )
        .instead([None, at_most(3.7), None, at_most(3.65)]),
        row(
            "mean / 0.1's, no limit",
            |it| by_today(it, NO_LIMIT, |it| it.mean),
            most([0.36, 0.22, 0.65, 0.10]),
        )
        .instead([at_most(0.39), None, at_most(0.68), at_most(0.105)]),
        row(
            "p95 of single prompts / 0.1's, no limit",
            |it| by_today(it, NO_LIMIT, |it| it.single_p95),
            most([0.15, 0.11, 0.60, 0.11]),
        )
        .instead([at_most(0.28), None, at_most(0.62), at_most(0.19)]),
        row(
            "p50 of batches / 0.1's, no limit",
            |it| by_today(it, NO_LIMIT, |it| it.batch_p50),
            [at_most(0.52), at_most(0.35), None, None],
        )
        .instead([at_most(0.56), at_most(0.43), None, None]),
        row(
            "mean / 0.1's, spread 1",
            |it| by_today(it, Which::Ours(1), |it| it.mean),
            most([0.95, 0.60, 0.78, 0.16]),
        ),
        row(
            "p95 of single prompts / 0.1's, spread 1",
            |it| by_today(it, Which::Ours(1), |it| it.single_p95),
            most([0.60, 0.50, 0.65, 0.16]),
        )
        .instead([None, None, None, at_most(0.30)]),
        row(
            "cold starts of 100, no limit",
            |it| it.of(NO_LIMIT).cold,
            most([20.0, 18.0, 20.0, 21.0]),
        ),
        row(
            "Jain's index of 1 / mean slowdown of each person, no limit",
            |it| it.of(NO_LIMIT).jain,
            [at_least(0.85), at_least(0.78), at_least(0.80), at_least(0.70)],
        )
        .instead([None, None, at_least(0.78), at_least(0.63)]),
    ]
}

pub(crate) fn held(columns: &[Column; 4]) -> Vec<Held> {
    let figures = |row: &Row| {
        let each = columns.iter().zip(row.goals).zip(row.instead);
        each.map(|((column, goal), instead)| {
            goal.map(|goal| Figure { measured: (row.measure)(column), goal, instead })
        })
        .collect()
    };
    rows().iter().map(|row| Held { what: row.what, figures: figures(row) }).collect()
}
