//! Everything from the right place, nobody else's touched: random clients, uploads with colliding
//! names, prompts, releases and backends that come and go, against a model that knows the truth
//! (promises R2 to R6).
//!
//! Each file has a colour of its own, so that a wrong one is seen. What a seed does is a function
//! of the seed; a failure names it: `PLACES_SEED=7 cargo test --test it places`.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::pictures::{color, form, inverse, invert, png, post_form, view};
use crate::support::{Answer, Socket, World, fraction, slow, until};

const CLIENTS: [&str; 4] = ["ada", "bob", "cyd", "dan"];
const NAMES: [&str; 3] = ["photo.png", "x.png", "ComfyUI_00001_.png"];
const STEPS: usize = 40;

type Color = [u8; 3];

/// A file as clients name it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Name {
    kind: String,
    subfolder: String,
    filename: String,
}

impl Name {
    fn of(json: &Value, key: &str) -> Self {
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let subfolder = text("subfolder").trim_matches('/').to_owned();
        Self { kind: text("type"), subfolder, filename: text(key) }
    }

    /// As the page writes it into a graph.
    fn value(&self) -> String {
        let folder =
            if self.subfolder.is_empty() { String::new() } else { format!("{}/", self.subfolder) };
        let kind = if self.kind == "input" { String::new() } else { format!(" [{}]", self.kind) };
        format!("{folder}{}{kind}", self.filename)
    }

    fn json(&self) -> Value {
        json!({ "filename": self.filename, "subfolder": self.subfolder, "type": self.kind })
    }
}

/// What a name means.
#[derive(Clone, Debug)]
struct Truth {
    color: Color,
    /// Where its bytes are known to lie.
    on: BTreeSet<String>,
    /// Who was told of it under this name.
    told: BTreeSet<&'static str>,
}

/// The model, and what it is the model of.
struct Story {
    seed: u64,
    random: SmallRng,
    world: World,
    sockets: BTreeMap<&'static str, Socket>,
    names: BTreeMap<Name, Truth>,
    /// The prompts of each client that ended, and where.
    ended: Vec<(&'static str, String, String)>,
    /// Prompts whose backend has forgotten them.
    forgotten: BTreeSet<String>,
    down: BTreeSet<String>,
    colors: u32,
}

impl Story {
    async fn new(seed: u64) -> Self {
        let world = World::with(3, |config| {
            config.fleet.probe_interval = std::time::Duration::from_millis(100);
        })
        .await;
        let mut sockets = BTreeMap::new();
        for client in CLIENTS {
            sockets.insert(client, world.socket(client).await);
        }
        Self {
            seed,
            random: SmallRng::seed_from_u64(seed),
            world,
            sockets,
            names: BTreeMap::new(),
            ended: Vec::new(),
            forgotten: BTreeSet::new(),
            down: BTreeSet::new(),
            colors: 0,
        }
    }

    async fn play(mut self) {
        for step in 0..STEPS {
            // Shown if it fails.
            eprintln!("seed {} step {step}", self.seed);
            match self.random.random_range(0..100) {
                0..22 => self.upload().await,
                22..52 => self.prompt().await,
                52..66 => self.look().await,
                66..76 => self.release().await,
                76..80 => self.come_or_go().await,
                80..90 => self.verbs().await,
                _ => self.lists().await,
            }
        }
        self.everything_is_what_it_was().await;
    }

    fn client(&mut self) -> &'static str {
        CLIENTS[self.random.random_range(0..CLIENTS.len())]
    }

    /// A colour that no other file has, nor its inverse.
    fn new_color(&mut self) -> Color {
        self.colors += 1;
        let [_, _, high, low] = self.colors.to_be_bytes();
        [high, low, 7]
    }

    /// A name was given to somebody: it must mean this file, and nothing else before or after.
    fn given(&mut self, client: &'static str, name: &Name, (color, backend): (Color, &str)) {
        let truth = self.names.entry(name.clone()).or_insert_with(|| Truth {
            color,
            on: BTreeSet::new(),
            told: BTreeSet::new(),
        });
        assert_eq!(truth.color, color, "{name:?} changed its meaning");
        truth.on.insert(backend.to_owned());
        truth.told.insert(client);
    }

    fn is_up_somewhere(&self, truth: &Truth) -> bool {
        truth.on.iter().any(|backend| !self.down.contains(backend))
    }

    async fn upload(&mut self) {
        let (client, color) = (self.client(), self.new_color());
        let filename = NAMES[self.random.random_range(0..NAMES.len())];
        let kind = if self.random.random_bool(0.8) { "input" } else { "output" };
        let subfolder = if self.random.random_bool(0.3) { "set" } else { "" };
        let body = form(filename, &png(color), &[("type", kind), ("subfolder", subfolder)]);
        let answer = post_form(&self.world, "/upload/image", Some(client), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let name = Name::of(&answer.json(), "name");
        assert!(!self.names.contains_key(&name), "{name:?} was given for two uploads");
        self.given(client, &name, (color, answer.backend()));
    }

    fn some_name(&mut self) -> Option<(Name, Truth)> {
        let index = self.random.random_range(0..self.names.len().max(1));
        self.names.iter().nth(index).map(|(name, truth)| (name.clone(), truth.clone()))
    }

    /// A plain name in a graph is the asker's own file of it, if he was told of one and not of the
    /// plain one; and who was told of none means the one written last. So he cannot mean another's.
    fn is_clear_to(&self, client: &str, name: &Name) -> bool {
        let bare = |name: &Name| {
            let segments = name.subfolder.split('/').filter(|segment| !segment.starts_with('~'));
            (name.kind.clone(), segments.collect::<Vec<_>>().join("/"), name.filename.clone())
        };
        let is_same = |other: &&Name| bare(other) == bare(name);
        let is_plain = !name.subfolder.contains('~');
        let alike: Vec<&Name> = self.names.keys().filter(is_same).collect();
        let was_told = |name: &&Name| self.names[*name].told.contains(client);
        was_told(&name) || if is_plain { alike.len() == 1 } else { !alike.iter().any(was_told) }
    }

    async fn prompt(&mut self) {
        let client = self.client();
        let Some((name, truth)) = self.some_name() else { return };
        if !self.is_clear_to(client, &name) {
            return;
        }
        let prefix = ["ComfyUI", "set/ComfyUI"][self.random.random_range(0..2)];
        let mut graph = invert(&name.value());
        graph["3"]["inputs"]["filename_prefix"] = prefix.into();
        let answer = self.world.submit(client, &graph).await;
        if answer.status == 503 {
            let code = answer.header("mooring-error").to_owned();
            assert_eq!(code, "input_unavailable", "{}", answer.text());
            assert!(!self.is_up_somewhere(&truth), "{name:?} lies on {:?}", truth.on);
            return;
        }
        assert_eq!(answer.status, 200, "{name:?} of {truth:?}: {}", answer.text());
        let backend = answer.backend().to_owned();
        let prompt = answer.prompt_id();
        self.names.get_mut(&name).unwrap().on.insert(backend.clone());
        for image in self.images_of(client, &prompt).await {
            let made = Name::of(&image, "filename");
            self.given(client, &made, (inverse(truth.color), &backend));
            let seen = self.view(&made, None).await;
            assert_eq!(color(&seen.body), inverse(truth.color), "{made:?} of {name:?}");
        }
        self.ended.push((client, prompt, backend));
    }

    /// Reads a client's events to the end of its prompt.
    async fn images_of(&mut self, client: &'static str, prompt: &str) -> Vec<Value> {
        let socket = self.sockets.get_mut(client).unwrap();
        let mut images = Vec::new();
        loop {
            let event = socket.event().await;
            let data = &event["data"];
            if let Some(named) = data["prompt_id"].as_str() {
                let is_own = named == prompt
                    || self.ended.iter().any(|(owner, id, _)| *owner == client && id == named);
                assert!(is_own, "{client} is told of a stranger's prompt: {event}");
            }
            if data["prompt_id"] != *prompt {
                continue;
            }
            if event["type"] == "executed" {
                images.extend(data["output"]["images"].as_array().unwrap().iter().cloned());
            }
            if event["type"] == "executing" && data["node"].is_null() {
                return images;
            }
        }
    }

    async fn view(&self, name: &Name, client: Option<&str>) -> Answer {
        view(&self.world, &name.json(), client).await
    }

    async fn look(&mut self) {
        let Some((name, truth)) = self.some_name() else { return };
        let client = self.client();
        let says = self.random.random_bool(0.5);
        // Of an input he sees what his graphs would use.
        let is_clear = name.kind != "input" || self.is_clear_to(client, &name);
        let client = (says && is_clear).then_some(client);
        self.check_view(&name, &truth, client).await;
    }

    async fn check_view(&self, name: &Name, truth: &Truth, client: Option<&str>) {
        let seen = self.view(name, client).await;
        match seen.status {
            200 => assert_eq!(color(&seen.body), truth.color, "{name:?} for {client:?}"),
            503 => assert!(!self.is_up_somewhere(truth), "{name:?} lies on {:?}", truth.on),
            status => panic!("{status} for {name:?} on {:?}: {}", truth.on, seen.text()),
        }
    }

    async fn release(&mut self) {
        let client = self.client();
        let path = format!("/api/v1/clients/{client}/release");
        let released = self.world.admin_post(&path, "").await;
        assert!(matches!(released.status, 200 | 404), "{}", released.text());
    }

    /// A backend goes down, or one comes back; at least one is up.
    async fn come_or_go(&mut self) {
        if let Some(name) = self.down.pop_first() {
            self.world.sim(&name).restart().await.unwrap();
            let backend = self.world.gateway.shared.fleet.by_name(&name).unwrap().clone();
            until("the backend is back", || backend.is_up()).await;
            return;
        }
        let name = ["a", "b", "c"][self.random.random_range(0..3)];
        self.world.sim(name).crash().await;
        self.world.is_down(name).await;
        self.down.insert(name.to_owned());
        let lost = self.ended.iter().filter(|(_, _, backend)| backend == name);
        self.forgotten.extend(lost.map(|(_, prompt, _)| prompt.clone()));
    }

    /// Everything that one client can do to prompts leaves another's alone.
    async fn verbs(&mut self) {
        let (owner, stranger) = (self.client(), self.client());
        if owner == stranger {
            return;
        }
        let answer = self.world.submit(owner, &slow(600, 30.0)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (prompt, backend) = (answer.prompt_id(), answer.backend().to_owned());
        let sim = self.world.sim(&backend);
        until("it runs", || sim.ledger().executed.contains_key(&prompt)).await;
        self.is_listed_for_its_owner_only(&prompt, owner, stranger).await;
        let named = json!({ "delete": [prompt] }).to_string();
        let interrupt = json!({ "prompt_id": prompt }).to_string();
        let cancel = format!("/api/jobs/{prompt}/cancel");
        let cancels = json!({ "job_ids": [prompt] }).to_string();
        for (path, body) in [
            ("/interrupt", ""),
            ("/interrupt", interrupt.as_str()),
            ("/queue", r#"{"clear": true}"#),
            ("/queue", named.as_str()),
            ("/history", r#"{"clear": true}"#),
            ("/history", named.as_str()),
            (cancel.as_str(), ""),
            ("/api/jobs/cancel", cancels.as_str()),
            ("/free", r#"{"unload_models": true, "free_memory": true}"#),
        ] {
            let path = format!("{path}?clientId={stranger}");
            let done = self.world.post(&path, body).await;
            assert!(done.status < 500, "{path}: {}", done.text());
        }
        self.ended.retain(|(client, id, _)| {
            let is_cleared = *client == stranger;
            if is_cleared {
                self.forgotten.insert(id.clone());
            }
            true
        });
        assert_eq!(sim.queue_remaining(), 1, "{stranger} stopped {owner}'s prompt");
        let own = self.world.post(&format!("/interrupt?clientId={owner}"), "").await;
        assert_eq!(own.status, 200);
        self.ended.push((owner, prompt.clone(), backend));
        self.images_of(owner, &prompt).await;
    }

    /// What runs is in its owner's lists, in no stranger's, and nobody is shown its graph.
    async fn is_listed_for_its_owner_only(&self, prompt: &str, owner: &str, stranger: &str) {
        for path in ["/queue", "/api/jobs"] {
            for client in [owner, stranger] {
                let listed = self.world.get(&format!("{path}?clientId={client}")).await.text();
                let is_due = client == owner;
                assert_eq!(listed.contains(prompt), is_due, "{path} of {client}: {listed}");
            }
            let bare = self.world.get(path).await.text();
            let is_told = bare.contains("class_type") || bare.contains(&format!("\"{owner}\""));
            assert!(!is_told, "{path}: {bare}");
        }
        let job = self.world.get(&format!("/api/jobs/{prompt}?clientId={stranger}")).await;
        assert!(job.status < 500, "{}", job.text());
    }

    /// Lists have one's own and nobody else's.
    async fn lists(&mut self) {
        let client = self.client();
        for path in ["/queue", "/history", "/api/jobs"] {
            let answer = self.world.get(&format!("{path}?clientId={client}")).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let text = answer.text();
            for (owner, prompt, backend) in &self.ended {
                let is_in = text.contains(prompt.as_str());
                assert!(!is_in || *owner == client, "{path} of {client} has {owner}'s {prompt}");
                let is_known = !self.down.contains(backend) && !self.forgotten.contains(prompt);
                let is_due = *owner == client && is_known && path != "/queue";
                assert!(is_in || !is_due, "{path} of {client} lacks {prompt} on {backend}: {text}");
            }
        }
    }

    /// At the end all is up, and every name still means what it meant.
    async fn everything_is_what_it_was(mut self) {
        while !self.down.is_empty() {
            self.come_or_go().await;
        }
        for (name, truth) in self.names.clone() {
            self.check_view(&name, &truth, None).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_finds_his_own_and_touches_nobody_elses_for_every_seed() {
    if let Some(seed) = std::env::var_os("PLACES_SEED") {
        let seed = seed.to_str().and_then(|seed| seed.parse().ok()).expect("a number");
        return Story::new(seed).await.play().await;
    }
    let seeds = fraction("random stories of files and prompts", 500, 15);
    for seed in 0..seeds as u64 {
        Story::new(seed).await.play().await;
    }
}
