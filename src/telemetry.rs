//! Where does the log go? To standard error, as text for people or JSON for machines.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Goes over `log.level`, as everywhere in Rust.
const FILTER_VARIABLE: &str = "RUST_LOG";

#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("`{text}` in {FILTER_VARIABLE} is not a log filter")]
    Variable { text: String, source: ParseError },
    #[error("log.level is not a log filter")]
    Level(#[source] ParseError),
    #[error("the log has been set up already")]
    Twice(#[from] TryInitError),
    #[error("{FILTER_VARIABLE} is set, and goes over it")]
    Overridden,
    #[error("the log level can no longer be changed")]
    Reload(#[from] reload::Error),
}

/// Sets what is logged, while the process runs.
pub(crate) type SetLevel = Box<dyn Fn(&LogConfig) -> Result<(), TelemetryError> + Send + Sync>;

/// Sets up the log of the process, once, and returns what changes its level.
///
/// # Errors
/// A filter cannot be read, or this was done before.
pub(crate) fn init(config: &LogConfig) -> Result<SetLevel, TelemetryError> {
    let filter = filter_of_process(config)?;
    // Whoever read the log may be gone; saying so on the same broken pipe would panic.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    match config.format {
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.finish().try_init()?;
            Ok(Box::new(move |config| {
                Ok(handle.reload(next_filter(config, variable().as_deref())?)?)
            }))
        }
        LogFormat::Text => {
            let log = log.fmt_fields(debug_fn(write_field).delimited(" "));
            let log = log.with_ansi(wants_colors()).with_filter_reloading();
            let handle = log.reload_handle();
            log.finish().try_init()?;
            Ok(Box::new(move |config| {
                Ok(handle.reload(next_filter(config, variable().as_deref())?)?)
            }))
        }
    }
}

fn filter_of_process(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    filter(config, variable().as_deref())
}

/// What is logged after a reload, if the configuration says that.
fn next_filter(config: &LogConfig, variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    match variable.filter(|text| !text.is_empty()) {
        Some(_) => Err(TelemetryError::Overridden),
        None => filter(config, None),
    }
}

fn variable() -> Option<String> {
    std::env::var(FILTER_VARIABLE).ok()
}

fn filter(config: &LogConfig, variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    match variable.filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::builder()
            .parse(text)
            .map_err(|source| TelemetryError::Variable { text: text.to_owned(), source }),
        None => EnvFilter::builder().parse(&config.level).map_err(TelemetryError::Level),
    }
}

/// One field of a line. What may be somebody's choice must not look like another field, another
/// line or the end of this one: a value of other than plain characters is quoted and escaped.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    if field.name() == "message" {
        return text.chars().try_for_each(|character| match character {
            printable if printable.is_ascii_graphic() || printable == ' ' => {
                out.write_char(printable)
            }
            other => write!(out, "{}", other.escape_debug()),
        });
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/,+@#%[]()".contains(&byte);
    let is_word = !text.is_empty() && text.bytes().all(is_plain);
    if is_word || is_quoted(&text) {
        write!(out, "{}={text}", field.name())
    } else {
        write!(out, "{}={text:?}", field.name())
    }
}

/// True for what is quoted and escaped already, as all texts of a field's own are.
fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.is_some_and(|inner| {
        let mut escaped = false;
        let is_sound = inner.chars().all(|character| {
            let ends_it = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            !ends_it && (character == ' ' || !character.is_whitespace()) && !character.is_control()
        });
        is_sound && !escaped
    })
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
        let config = LogConfig::text("warn");
        let found = filter(&config, variable);
        let found = found.map(|it| it.to_string()).map_err(|error| error.to_string());
        let found = found.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(found, expected);
    }

    /// What a line has of these fields.
    fn written(log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || to.clone())
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_value_looks_like_another_field_or_another_line() {
        let line = written(|| {
            let evil = "x\nERROR all is lost\u{2028} prompt=fake backend=evil \"";
            let backend = "gpu-a:8188";
            tracing::info!(prompt = %evil, path = evil, count = 3, %backend, "Done.");
            tracing::info!(name = %"\"a\" b=\"c\"", empty = %"", "Two.");
        });
        assert_eq!(line.lines().count(), 2, "{line}");
        let quoted = r#""x\nERROR all is lost\u{2028} prompt=fake backend=evil \"""#;
        let expected = format!("prompt={quoted} path={quoted} count=3 backend=gpu-a:8188");
        assert!(line.contains(&expected), "{line}");
        assert!(line.contains(r#"name="\"a\" b=\"c\"" empty="""#), "{line}");
    }

    #[test]
    fn the_variable_goes_over_the_configuration() {
        check(None, Ok("warn"));
        check(Some(""), Ok("warn"));
        check(Some("mooring=debug"), Ok("mooring=debug"));
        check(Some("mooring=loud"), Err("`mooring=loud` in RUST_LOG is not a log filter"));
    }

    #[test]
    fn a_reload_that_the_variable_keeps_from_the_log_says_so() {
        let config = LogConfig::text("warn");
        let next = |variable| next_filter(&config, variable).map_err(|error| error.to_string());
        assert_eq!(next(None).unwrap().to_string(), "warn");
        assert_eq!(next(Some("")).unwrap().to_string(), "warn");
        assert_eq!(next(Some("info")).unwrap_err(), "RUST_LOG is set, and goes over it");
    }
}
