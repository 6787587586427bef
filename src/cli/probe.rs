//! `mooring check --probe`: asks the backends whether they are up, and whether they are alike.

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::ask::{Question, Server, ask};
use super::fit::{self, Setup};
use super::inventory::{self, Inventory};
use super::table::Colours;
use super::{say, table};
use crate::comfy::version::Version;
use crate::config::url::Address;
use crate::config::{BackendConfig, BackendHeaders};
use crate::net::Network;

/// How many backends are asked at the same time.
const AT_ONCE: usize = 16;

/// What one backend answered.
#[derive(Debug)]
pub(super) struct Probe {
    name: String,
    url: String,
    answer: Result<Answered, String>,
}

#[derive(Debug)]
struct Answered {
    /// The version that it reports. Servers of 2024 and earlier report none.
    version: Option<String>,
    inventory: Result<Inventory, String>,
    setup: Setup,
}

impl Answered {
    /// Servers before 0.3.45 assign prompt ids themselves. One that reports no version is
    /// from 2024 or earlier.
    fn is_supported(&self) -> bool {
        self.version.as_deref().is_some_and(|text| Version::parse(text).takes_prompt_id())
    }
}

impl Probe {
    /// True if prompts can be sent there.
    pub(super) fn is_usable(&self) -> bool {
        self.answer
            .as_ref()
            .is_ok_and(|answered| answered.inventory.is_ok() && answered.is_supported())
    }

    fn row(&self) -> Vec<String> {
        let url = self.url.clone();
        let cells = match &self.answer {
            Err(what) => [say::plain(what), "-".into(), "-".into(), "-".into()],
            Ok(answered) => {
                let version = answered.version.as_deref().map_or("-".into(), say::plain);
                let reached = match &answered.inventory {
                    Err(what) => format!("yes, but {}", say::plain(what)),
                    Ok(_) if !answered.is_supported() => "yes, but older than 0.3.45".to_owned(),
                    Ok(_) => "yes".to_owned(),
                };
                let count = |of: fn(&Inventory) -> usize| {
                    answered.inventory.as_ref().map_or("-".into(), |it| of(it).to_string())
                };
                [reached, version, count(|it| it.nodes.len()), count(|it| it.models.len())]
            }
        };
        [vec![self.name.clone(), url], cells.to_vec()].concat()
    }
}

/// Asks every backend. The results are in the order of the backends.
pub(super) async fn all(network: &dyn Network, backends: &[BackendConfig]) -> Vec<Probe> {
    let asked = backends.iter().map(|backend| async move {
        let address = Address { host: backend.host.clone(), port: backend.port };
        let tls = backend.tls.as_ref().map(|tls| tls.client().cloned()).transpose();
        let answer = match tls {
            Ok(tls) => one(network, &Server { address, tls }, &backend.headers).await,
            Err(why) => Err(format!("no, {why}")),
        };
        Probe { name: backend.name.clone(), url: backend.url(), answer }
    });
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn one(
    network: &dyn Network,
    server: &Server,
    headers: &BackendHeaders,
) -> Result<Answered, String> {
    let stats = json(network, server, headers, "/system_stats").await?;
    let Some(system) = stats.get("system").and_then(Value::as_object) else {
        return Err("no, the server is not ComfyUI".to_owned());
    };
    let version = system.get("comfyui_version").and_then(Value::as_str).map(str::to_owned);
    let inventory = json(network, server, headers, "/object_info").await.and_then(|object_info| {
        Inventory::read(&object_info).ok_or_else(|| "`/object_info` is not an object".to_owned())
    });
    // Old servers lack some of these. What is missing is not compared.
    let (features, users, folders) = tokio::join!(
        json(network, server, headers, "/features"),
        json(network, server, headers, "/users"),
        json(network, server, headers, "/internal/folder_paths"),
    );
    let [features, users, folders] = [features.ok(), users.ok(), folders.ok()];
    let setup = Setup::read(
        &server.address.host,
        &stats,
        features.as_ref(),
        users.as_ref(),
        folders.as_ref(),
    );
    Ok(Answered { version, inventory, setup })
}

async fn json(
    network: &dyn Network,
    server: &Server,
    headers: &BackendHeaders,
    path: &str,
) -> Result<Value, String> {
    let headers = headers.as_map().clone();
    let question = Question { headers, ..Question::get(server, path) };
    let answer = ask(network, question).await.map_err(|error| format!("no, {error}"))?;
    if !answer.status.is_success() {
        return Err(format!("`{path}` answers {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|_not_json| format!("`{path}` is not JSON"))
}

/// A table of all backends, followed by what some of them lack.
pub(super) fn report(probes: &[Probe]) -> Vec<String> {
    let head = ["BACKEND", "URL", "REACHED", "VERSION", "NODES", "MODELS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(probes.iter().map(Probe::row));
    let mut lines = Vec::new();
    table::push_rows(&rows, "", Colours::Off, &mut lines);

    let inventories: Vec<(&str, &Inventory)> = probes
        .iter()
        .filter_map(|probe| {
            let inventory = probe.answer.as_ref().ok()?.inventory.as_ref().ok()?;
            Some((probe.name.as_str(), inventory))
        })
        .collect();
    let differences = inventory::differences(&inventories);
    if differences.is_empty() && 1 < inventories.len() {
        lines.push("no differences in nodes and models".to_owned());
    }
    lines.extend(differences.iter().map(|line| say::plain(line)));
    let setups: Vec<(&str, &Setup)> = probes
        .iter()
        .filter_map(|probe| Some((probe.name.as_str(), &probe.answer.as_ref().ok()?.setup)))
        .collect();
    lines.extend(fit::warnings(&setups).iter().map(|line| say::plain(line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &str, answer: Result<Answered, String>) -> Probe {
        Probe { name: name.into(), url: format!("http://{name}:8188"), answer }
    }

    fn answered(version: &str, nodes: &[&str]) -> Result<Answered, String> {
        let nodes = nodes.iter().map(|it| (*it).to_owned()).collect();
        let inventory = Ok(Inventory { nodes, ..Inventory::default() });
        Ok(Answered { version: Some(version.into()), inventory, setup: Setup::default() })
    }

    #[test]
    fn a_report_says_who_was_reached_and_how_they_differ() {
        let probes = [
            probe("a", answered("0.3.45", &["KSampler", "Extra"])),
            probe("b", answered("0.3.44", &["KSampler"])),
            probe("c", Err("no, cannot connect: Connection refused".into())),
            probe(
                "d",
                Ok(Answered {
                    version: None,
                    inventory: Err("`/object_info` is not JSON".into()),
                    setup: Setup::default(),
                }),
            ),
        ];
        assert_eq!(
            report(&probes).join("\n"),
            "\
BACKEND  URL            REACHED                                 VERSION  NODES  MODELS
a        http://a:8188  yes                                     0.3.45   2      0
b        http://b:8188  yes, but older than 0.3.45              0.3.44   1      0
c        http://c:8188  no, cannot connect: Connection refused  -        -      -
d        http://d:8188  yes, but `/object_info` is not JSON     -        -      -
missing on b: 1 node: Extra"
        );
        let usable: Vec<bool> = probes.iter().map(Probe::is_usable).collect();
        assert_eq!(usable, [true, false, false, false]);
    }
}
