//! The demo: simulated backends and the gateway in one process, and a page that shows them.
//!
//! The simulated backends serve the page as their frontend, through the gateway, as they would the
//! stock page. The page controls the backends under `/-/demo/`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::config::{self, Config, Problems, Sources};
use crate::front::error::GatewayError;
use crate::front::{Annex, Answer, json as json_answer};
use crate::net::{Boxed, Network, now};
use crate::report;
use crate::session::Sessions;
use crate::sim::{Options, Sim};

/// The names of the simulated backends.
const NAMES: [&str; 3] = ["ada", "bob", "cyd"];

/// The simulated backends, and what the page may do to them.
#[derive(Debug)]
pub(crate) struct Demo {
    backends: Vec<Sim>,
}

/// Why the demo could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("a simulated backend could not listen: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Config(#[from] Problems),
}

impl Demo {
    /// Starts the simulated backends; with `frontend`, they serve the official page's files.
    /// Returns the demo and the configuration of a gateway in front of it, with these flags.
    ///
    /// # Errors
    /// No port is free, or the flags are not in order.
    pub(crate) async fn start(
        network: &Arc<dyn Network>,
        frontend: Option<PathBuf>,
        mut flags: Vec<(String, String)>,
    ) -> Result<(Self, Config), DemoError> {
        let mut backends = Vec::new();
        for name in NAMES {
            let options = Options { frontend: frontend.clone(), ..Options::named(name) };
            backends.push(Sim::start(Arc::clone(network), options).await?);
        }
        flags
            .extend(backends.iter().map(|sim| (format!("backends.{}.url", sim.name()), sim.url())));
        let config = config::load(&Sources { flags, ..Sources::default() })?;
        Ok((Self { backends }, config))
    }

    /// Answers a path below `/-/demo/`.
    async fn answer(&self, sessions: &Sessions, method: &Method, path: &str) -> Answer {
        let rest = path.strip_prefix("/-/demo/").ok_or(GatewayError::NotFound)?;
        match (method, rest.split_once('/')) {
            (&Method::GET, None) if rest == "backends" => Ok(Self::list(sessions)),
            (&Method::POST, Some((name, "crash"))) => {
                self.named(name)?.crash().await;
                Ok(json_answer(json!({ "name": name, "running": false }).to_string()))
            }
            (&Method::POST, Some((name, "restart"))) => {
                let sim = self.named(name)?;
                let is_running = sim.restart().await.is_ok();
                Ok(json_answer(json!({ "name": name, "running": is_running }).to_string()))
            }
            (_, Some((_, "crash" | "restart"))) => Err(GatewayError::BadMethod { allowed: "POST" }),
            (_, _) => Err(GatewayError::NotFound),
        }
    }

    fn list(sessions: &Sessions) -> http::Response<crate::body::ResponseBody> {
        let backends = report::backends(sessions, now());
        json_answer(serde_json::to_vec(&backends).unwrap_or_default())
    }

    fn named(&self, name: &str) -> Result<&Sim, GatewayError> {
        self.backends.iter().find(|sim| sim.name() == name).ok_or(GatewayError::NotFound)
    }
}

impl Annex for Demo {
    fn answer<'a>(
        &'a self,
        sessions: &'a Sessions,
        method: &'a Method,
        path: &'a str,
    ) -> Boxed<'a, Answer> {
        Box::pin(self.answer(sessions, method, path))
    }
}
