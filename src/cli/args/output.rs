//! How the verbs that list something print it.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Form {
    /// A table; columns that do not fit on the terminal follow below each row
    Table,
    /// A table with one line for each row, however long
    Wide,
    /// The answer unchanged, as JSON
    Json,
    /// Only the names or ids, one on each line
    Name,
}

#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// The form of the answer; `--json` is short for `-o json`
    #[arg(short = 'o', long = "output", value_name = "FORM", conflicts_with = "json")]
    pub form: Option<Form>,
}

/// The pause between two answers that may be asked for.
const PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(3_600);

pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let pause = config::duration(text).ok().filter(|pause| PAUSES.contains(pause));
    pause.ok_or_else(|| "expected a duration from 200ms to 1h, such as 5s".to_owned())
}
