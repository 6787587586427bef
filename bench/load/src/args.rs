//! `VERB --name value …`, as `bench/run` writes it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

pub struct Args {
    pub verb: String,
    values: HashMap<String, String>,
}

pub fn wrong(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let verb = words.next().ok_or_else(|| wrong("a verb is needed".to_owned()))?;
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| wrong(format!("`{word}`?")))?;
            let value = words.next().ok_or_else(|| wrong(format!("--{name} needs a value")))?;
            values.insert(name.to_owned(), value);
        }
        Ok(Self { verb, values })
    }

    /// A number, or what it is when it is not given.
    pub fn number<T: FromStr>(&self, name: &str, otherwise: T) -> io::Result<T> {
        match self.values.get(name) {
            Some(text) => text.parse().map_err(|_| wrong(format!("--{name} {text}: no number"))),
            None => Ok(otherwise),
        }
    }

    /// A word, if it is given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn target(&self) -> io::Result<SocketAddr> {
        let text = self.text("target").ok_or_else(|| wrong("--target?".to_owned()))?;
        text.parse().map_err(|_| wrong(format!("--target {text}: no address")))
    }

    /// The processes whose CPU and memory count; none for the backends themselves.
    pub fn pids(&self) -> Vec<u32> {
        let text = self.values.get("pids").map_or("", String::as_str);
        text.split(',').filter_map(|pid| pid.parse().ok()).collect()
    }

    /// How long the work goes on before it is measured.
    pub fn warm(&self) -> io::Result<Duration> {
        Ok(Duration::from_secs_f64(self.number("warm", 0.5)?))
    }

    /// How long it is measured.
    pub fn seconds(&self) -> io::Result<Duration> {
        Ok(Duration::from_secs_f64(self.number("seconds", 3.0)?))
    }
}
