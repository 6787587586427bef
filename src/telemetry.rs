//! Where does the log go? To standard error, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Goes over `log.level`, as everywhere in Rust.
const FILTER_VARIABLE: &str = "RUST_LOG";

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`{text}` in {FILTER_VARIABLE} is not a log filter")]
    Variable { text: String, source: ParseError },
    #[error("log.level is not a log filter")]
    Level(#[source] ParseError),
    #[error("the log has been set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of the process, once.
///
/// # Errors
/// A filter cannot be read, or this was done before.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = filter(config, std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    // Whoever read the log may be gone; saying so on the same broken pipe would panic.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    match config.format {
        LogFormat::Json => log.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => log.with_ansi(wants_colors()).finish().try_init()?,
    }
    Ok(())
}

fn filter(config: &LogConfig, variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    match variable.filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::builder()
            .parse(text)
            .map_err(|source| TelemetryError::Variable { text: text.to_owned(), source }),
        None => EnvFilter::builder().parse(&config.level).map_err(TelemetryError::Level),
    }
}

/// See no-color.org.
fn wants_colors() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    !is_refused && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variable: Option<&str>, expected: Result<&str, &str>) {
        let config = LogConfig { format: LogFormat::Text, level: "warn".into() };
        let found = filter(&config, variable);
        let found = found.map(|it| it.to_string()).map_err(|error| error.to_string());
        let found = found.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_variable_goes_over_the_configuration() {
        check(None, Ok("warn"));
        check(Some(""), Ok("warn"));
        check(Some("mooring=debug"), Ok("mooring=debug"));
        check(Some("mooring=loud"), Err("`mooring=loud` in RUST_LOG is not a log filter"));
    }
}
