//! What is a user's is not there for another, whatever he names, on both ways of answering. The
//! table of routes has a row for every endpoint: it does not compile without.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use mooring::comfy::assets::AssetRequest;
use mooring::comfy::endpoint::{Endpoint, classify};
use mooring::config::OnOff;
use mooring::routing::user_folder::UserFolder;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::keys::keys;
use crate::pictures::{RED, color, form, png};
use crate::restart::Mortal;
use crate::support::{Answer, Socket, World, network, quick, send, send_bytes, slow, soon, until};

const ADA: &str = "key-of-ada";
const BOB: &str = "key-of-bob";

/// Both users' clients call themselves so, as scripts of the same author do.
pub(crate) const TAB: &str = "tab";

/// What ada uploads, and nobody else.
const LOADED: &str = "loaded-by-ada-alone.png";

/// An id that nobody has, in the form that ComfyUI's cancelling asks for.
const NO_SUCH: &str = "00000000-0000-4000-8000-000000000000";

/// The hash of a content that nobody has.
fn no_such_hash() -> String {
    format!("blake3:{}", "0a".repeat(32))
}

/// Stands in the graphs of ada's prompts and in no other.
const SECRET: &str = "a secret of ada";

/// Somebody with his key.
#[derive(Clone, Copy)]
pub(crate) struct User {
    front: SocketAddr,
    key: &'static str,
}

impl User {
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        let headers = [("x-api-key", self.key), ("content-type", "application/json")];
        send(self.front, method, path, &headers, body).await
    }

    pub(crate) async fn upload(&self, path: &str, body: Bytes) -> Answer {
        let kind = ("content-type", "multipart/form-data; boundary=xyz");
        let headers = [("x-api-key", self.key), ("comfy-client-id", TAB), kind];
        send_bytes(self.front, Method::POST, path, &headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, &body.to_string()).await
    }

    pub(crate) async fn submit(&self, client: &str, graph: &Value) -> String {
        let body = json!({ "prompt": graph, "client_id": client });
        self.post("/prompt", &body).await.prompt_id()
    }

    pub(crate) async fn socket(&self, client: &str) -> Socket {
        let path = format!("/ws?clientId={client}&token={}", self.key);
        Socket::open(self.front, &path).await
    }
}

pub(crate) fn both(front: SocketAddr) -> (User, User) {
    (User { front, key: ADA }, User { front, key: BOB })
}

/// A graph of ada's.
fn secret(mut graph: Value) -> Value {
    graph["3"]["_meta"] = json!({ "title": SECRET });
    if let Some(prefix) = graph["3"]["inputs"].get_mut("filename_prefix") {
        *prefix = "of-ada-alone".into();
    }
    graph
}

/// What ada has in the fleet: a prompt that has ended, one that runs and one that waits.
struct Things {
    ended: String,
    running: String,
    waiting: String,
    socket: Socket,
    /// The file that the first has made.
    made: String,
    /// What the servers keep of her files (`--enable-assets`), as they list it.
    assets: Vec<Value>,
}

/// The assets of all servers, as they list them to whoever asks.
async fn assets_of(world: &World) -> Vec<Value> {
    let mut all = Vec::new();
    for sim in &world.sims {
        let list = send(sim.addr(), Method::GET, "/api/assets?limit=500", &[], "").await.json();
        all.extend(list["assets"].as_array().unwrap().iter().cloned());
    }
    all.retain(|asset| !asset["tags"].as_array().unwrap().contains(&json!("models")));
    all
}

impl Things {
    async fn of(ada: &User) -> Self {
        let mut socket = ada.socket(TAB).await;
        let ended = ada.submit(TAB, &secret(quick(1))).await;
        socket.until_end(&ended).await;
        let entry = ada.get(&format!("/history/{ended}")).await.json();
        let made = &entry[&ended]["outputs"]["3"]["images"][0]["filename"];
        let made = made.as_str().unwrap_or_else(|| panic!("{entry}")).to_owned();
        assert_eq!(ada.upload("/upload/image", form(LOADED, &png(RED), &[])).await.status, 200);
        let running = ada.submit(TAB, &secret(slow(500, 120.0))).await;
        socket.until("progress").await;
        let waiting = ada.submit(TAB, &secret(quick(2))).await;
        Self { ended, running, waiting, socket, made, assets: Vec::new() }
    }

    /// The same, with the assets that are hers.
    async fn and_assets(mut self, world: &World) -> Self {
        self.assets = assets_of(world).await;
        let of = |tag: &str| {
            let has = |asset: &&Value| asset["tags"].as_array().unwrap().contains(&json!(tag));
            self.assets.iter().filter(has).count()
        };
        assert!(0 < of("input") && 0 < of("output"), "{:?}", self.assets);
        self
    }

    /// True while every asset is as it was.
    async fn are_listed_as_before(&self, world: &World) -> bool {
        let listed = assets_of(world).await;
        self.assets.iter().all(|asset| listed.contains(asset))
    }

    fn ids(&self) -> [&str; 3] {
        [&self.ended, &self.running, &self.waiting]
    }

    /// What somebody else must not be told.
    fn secrets(&self) -> Vec<&str> {
        let mut secrets = vec![&*self.ended, &self.running, &self.waiting, SECRET, LOADED];
        secrets.push(&self.made);
        let of_assets = self.assets.iter().flat_map(|asset| [&asset["id"], &asset["hash"]]);
        secrets.extend(of_assets.filter_map(Value::as_str));
        secrets
    }

    /// A part of one of her assets; another one for each id.
    fn of_asset(&self, part: &str, id: &str) -> Option<&str> {
        let at = self.ids().iter().position(|it| *it == id)?;
        let having: Vec<&str> =
            self.assets.iter().filter_map(|asset| asset[part].as_str()).collect();
        having.get(at % having.len().max(1)).copied()
    }

    /// The text with the names of these things in it, or with such that nobody has.
    fn named(&self, text: &str, id: &str) -> String {
        let folder = UserFolder::of("ada");
        let of_her = id != NO_SUCH;
        let or = |hers: &str, nobodys: &str| (if of_her { hers } else { nobodys }).to_owned();
        let asset = self.of_asset("id", id).unwrap_or(NO_SUCH);
        let hash = self.of_asset("hash", id).map_or_else(no_such_hash, str::to_owned);
        text.replace("{id}", id)
            .replace("{asset}", asset)
            .replace("{hash}", &hash)
            .replace("{made}", &or(&self.made, "none_00001_.png"))
            .replace("{loaded}", &or(LOADED, "none.png"))
            .replace("{folder}", &or(folder.as_str(), "mooring-of-0123456789ab"))
    }

    /// True while nobody has changed anything of it.
    async fn are_untouched(&self, ada: &User) -> bool {
        let queue = ada.get("/queue").await.json();
        let history = ada.get("/history").await.json();
        let here = |list: &Value, id: &str| {
            list.as_array().is_some_and(|list| list.iter().any(|item| item[1] == id))
        };
        here(&queue["queue_running"], &self.running)
            && here(&queue["queue_pending"], &self.waiting)
            && history.get(&self.ended).is_some()
            && ada.get(&format!("/view?filename={}", self.made)).await.status == 200
            && color(&ada.get(&format!("/view?filename={LOADED}&type=input")).await.body) == RED
    }
}

pub(crate) async fn world(passthrough: OnOff) -> World {
    let mut sims = Vec::new();
    for name in ["a", "b"] {
        let options = Options { assets: true, ..Options::named(name) };
        sims.push(Sim::start(network(), options).await.unwrap());
    }
    let world = World::over(sims, |config| {
        config.auth = keys();
        config.server.passthrough = passthrough;
    })
    .await;
    world.all_up().await;
    world
}

/// A request of a row. `{id}` in it is the id of a prompt.
type Asked = (Method, &'static str, &'static str);

/// What a row says.
enum Row {
    /// For another user: as if there were nothing.
    Nothing(Vec<Asked>),
    /// Tells nothing of anybody's prompts: why.
    General(&'static str, Vec<Asked>),
    /// Not separated by user yet, as docs/security.md says.
    NotYet(&'static str),
}

fn get(path: &'static str) -> Asked {
    (Method::GET, path, "")
}

fn post(path: &'static str, body: &'static str) -> Asked {
    (Method::POST, path, body)
}

/// One row for each endpoint. An endpoint without one does not compile.
macro_rules! rows {
    ($($endpoint:pat => $row:expr;)*) => {
        /// Each row by the name of its endpoint.
        fn rows() -> Vec<(&'static str, Row)> {
            vec![$((stringify!($endpoint), $row)),*]
        }

        fn name_of(endpoint: &Endpoint) -> &'static str {
            match endpoint {
                $($endpoint => stringify!($endpoint)),*
            }
        }
    };
}

rows! {
    // The socket itself is in `a_socket_of_the_same_name_…`.
    Endpoint::Socket => Row::Nothing(vec![get("/ws?clientId=tab"), get("/api/ws")]);
    // What is submitted is in `an_id_that_another_has_taken_…`.
    Endpoint::Submit => Row::Nothing(vec![
        post("/prompt", r#"{"prompt": {}, "client_id": "tab", "prompt_id": "new"}"#),
    ]);
    Endpoint::Features => Row::General("what servers can do", vec![get("/features")]);
    Endpoint::QueueLength => Row::Nothing(vec![
        get("/prompt"), get("/prompt?clientId=tab"), get("/api/prompt"),
    ]);
    Endpoint::Queue => Row::Nothing(vec![
        get("/queue"), get("/queue?clientId=tab"), get("/api/queue?clientId=other"),
    ]);
    Endpoint::EditQueue => Row::Nothing(vec![
        post("/queue", r#"{"delete": ["{id}"]}"#),
        post("/queue?clientId=tab", r#"{"delete": ["{id}"], "clear": true}"#),
        post("/queue", r#"{"clear": true}"#),
    ]);
    Endpoint::Interrupt => Row::Nothing(vec![
        post("/interrupt", ""),
        post("/interrupt", r#"{"prompt_id": "{id}"}"#),
        post("/interrupt?clientId=tab", r#"{"prompt_id": "{id}"}"#),
        post("/interrupt?clientId=tab", ""),
        post("/api/interrupt", "{}"),
    ]);
    Endpoint::HistoryList => Row::Nothing(vec![
        get("/history"), get("/history?clientId=tab"), get("/api/history?max_items=1"),
    ]);
    Endpoint::HistoryOf(_) => Row::Nothing(vec![
        get("/history/{id}"), get("/history/{id}?clientId=tab"),
        (Method::HEAD, "/history/{id}", ""),
    ]);
    Endpoint::EditHistory => Row::Nothing(vec![
        post("/history", r#"{"delete": ["{id}"]}"#),
        post("/history?clientId=tab", r#"{"delete": ["{id}"], "clear": true}"#),
        post("/history", r#"{"clear": true}"#),
    ]);
    Endpoint::JobList => Row::Nothing(vec![
        get("/api/jobs"), get("/api/jobs?clientId=tab"), get("/api/jobs?status=completed&limit=9"),
    ]);
    Endpoint::Job(_) => Row::Nothing(vec![
        get("/api/jobs/{id}"), get("/api/jobs/{id}?clientId=tab"),
    ]);
    Endpoint::CancelJob(_) => Row::Nothing(vec![
        post("/api/jobs/{id}/cancel", "{}"), post("/api/jobs/{id}/cancel?clientId=tab", ""),
    ]);
    Endpoint::CancelJobs => Row::Nothing(vec![
        post("/api/jobs/cancel", r#"{"job_ids": ["{id}"]}"#),
        post("/api/jobs/cancel?clientId=tab", r#"{"job_ids": ["{id}"]}"#),
    ]);
    // Forms are in `own_files`.
    Endpoint::Upload => Row::Nothing(vec![
        post("/upload/image", "{}"), post("/upload/image?clientId=tab", "{}"),
    ]);
    Endpoint::UploadMask => Row::Nothing(vec![post("/api/upload/mask", "{}")]);
    Endpoint::View => Row::Nothing(vec![
        get("/view?filename={made}&type=output&subfolder="), get("/view?filename={made}"),
        get("/api/view?filename={made}&clientId=tab&subfolder=."),
        get("/view?filename={made}&subfolder=./x/.."), get("/view?filename=x/../{made}"),
        get("/view?filename={made}%20[output]&type=input"),
        get("/view?filename={made}&type=output&subfolder=~nobody"),
        get("/view?filename={made}&type=output&subfolder=~a"),
        get("/view?filename={made}&type=output&subfolder=~b"),
        (Method::HEAD, "/view?filename={made}", ""),
        get("/view?filename={hash}"), get("/api/view?filename={hash}&type=input&clientId=tab"),
        (Method::HEAD, "/view?filename={hash}&type=output", ""),
        get("/view?filename={loaded}&type=input"), get("/view?filename={loaded}&clientId=tab"),
        get("/view?filename={loaded}&type=input&subfolder={folder}"),
        get("/view?filename={loaded}&type=input&subfolder={folder}/"),
        get("/view?filename={loaded}&type=input&subfolder=x/../{folder}"),
        get("/view?filename={folder}/{loaded}&type=input&subfolder={folder}"),
        get("/viewvideo?filename={loaded}&type=input&subfolder={folder}"),
    ]);
    Endpoint::SubscribeLogs => Row::General(
        "the operator's, unless `server.allow_logs`: then everybody's of a backend",
        vec![(Method::PATCH, "/internal/logs/subscribe", r#"{"clientId":"tab","enabled":true}"#)],
    );
    Endpoint::Free => Row::General("the operator's", vec![post("/free", "{}")]);
    Endpoint::Page => Row::General("the page", vec![get("/")]);
    Endpoint::Asset => Row::General("files of the page", vec![get("/assets/x-BcDeFgHi.js")]);
    Endpoint::UserData => Row::NotYet("settings and workflows");
    Endpoint::Guarded => Row::General("the operator's", vec![get("/manager/reboot")]);
    Endpoint::ManagerList => Row::General("lists", vec![get("/manager/version")]);
    Endpoint::ServerLog => Row::General("the operator's", vec![get("/internal/logs")]);
    Endpoint::Start(_) => Row::General(
        "facts about a server",
        vec![get("/system_stats"), get("/extensions")],
    );
    Endpoint::Own(_) => Row::Nothing(vec![
        get("/-/whoami?clientId=tab"), get("/-/validate?clientId=tab"), get("/-/ready"),
        get("/-/explain?prompt={id}"), get("/-/explain?clientId=tab&prompt={id}"),
        post("/-/reset?clientId=tab&force=true", ""), post("/-/reset?force=true", ""),
    ]);
    Endpoint::NodeInfo => Row::Nothing(vec![get("/object_info"), get("/api/object_info")]);
    Endpoint::NodeInfoOf => Row::Nothing(vec![
        get("/object_info/LoadImage"), get("/object_info/VHS_LoadImages?clientId=tab"),
    ]);
    Endpoint::FileList(_) => Row::Nothing(vec![
        get("/internal/files/input"), get("/internal/files/output?clientId=tab"),
        get("/internal/files/temp"),
    ]);
    Endpoint::ModelList => Row::General("models", vec![get("/models/checkpoints")]);
    Endpoint::Subgraph => Row::General("of node packs", vec![get("/global_subgraphs/x")]);
    Endpoint::Assets(
        AssetRequest::List | AssetRequest::Tags | AssetRequest::Refine | AssetRequest::Item(_)
        | AssetRequest::Content(_) | AssetRequest::Change(_) | AssetRequest::Delete(_)
        | AssetRequest::EditTags(_) | AssetRequest::Hash(_) | AssetRequest::FromHash
        | AssetRequest::Upload | AssetRequest::ScanStatus | AssetRequest::Scan(_)
    ) => Row::Nothing(vec![
        get("/api/assets"), get("/api/assets?limit=500&sort=name&order=asc&clientId=tab"),
        get("/api/assets?name_contains={made}"), get("/api/assets?include_tags=input,uploaded"),
        (Method::HEAD, "/api/assets", ""), get("/%61pi/%61ssets"),
        get("/api/tags"), get("/api/tags?prefix=in&include_zero=true"),
        get("/api/assets/tags/refine"), get("/api/assets/tags/refine?name_contains={loaded}"),
        get("/api/assets/{asset}"), get("/api/assets/{asset}?clientId=tab"),
        get("/api/%61ssets/{asset}"), (Method::HEAD, "/api/assets/{asset}", ""),
        get("/api/assets/{asset}/content"), get("/api/assets/{asset}/content?disposition=inline"),
        (Method::HEAD, "/api/assets/{asset}/content?clientId=tab", ""),
        (Method::PUT, "/api/assets/{asset}", r#"{"name": "x", "user_metadata": {"by": "bob"}}"#),
        post("/api/assets/{asset}/tags", r#"{"tags": ["taken"]}"#),
        (Method::DELETE, "/api/assets/{asset}/tags", r#"{"tags": ["input", "uploaded"]}"#),
        (Method::DELETE, "/api/assets/{asset}", ""),
        (Method::HEAD, "/api/assets/hash/{hash}", ""),
        post("/api/assets/from-hash", r#"{"hash": "{hash}", "name": "x", "tags": ["input"]}"#),
        // Forms are in `own_assets`.
        post("/api/assets", ""), get("/api/assets/seed/status"), post("/api/assets/seed", "{}"),
        post("/api/assets/seed/cancel", ""), post("/api/assets/prune?clientId=tab", ""),
    ]);
    Endpoint::Unserved => Row::Nothing(vec![
        (Method::DELETE, "/api/jobs/{id}", ""), (Method::PUT, "/history", r#"{"clear": true}"#),
        (Method::DELETE, "/api/history/{id}", ""), get("/api/jobs/{id}/more"), get("/interrupt"),
        (Method::PATCH, "/queue", r#"{"delete": ["{id}"]}"#), get("/prompt/{id}"),
        get("/api/assets/{asset}/more"), (Method::PATCH, "/api/assets/{asset}", "{}"),
        get("/api/tags/{id}"), get("/api/assets/"), post("/api/api/assets/{asset}/tags", "{}"),
    ]);
    Endpoint::Other => Row::General(
        "of node packs",
        vec![
            get("/some/pack?prompt={id}"),
            get("/some/pack?filename={made}&type=output"),
            get("/some/pack?filename={loaded}&type=input&subfolder={folder}"),
        ],
    );
}

/// The answer to a request, with the id that it named taken out: as it is for an unknown one.
fn shown(answer: &Answer, id: &str) -> (u16, String) {
    (answer.status, answer.text().replace(id, "{id}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_another_user_nothing_is_there_and_nothing_happens_on_any_route() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(passthrough).await;
        let (ada, bob) = both(world.front);
        let things = Things::of(&ada).await.and_assets(&world).await;
        let mut asked = 0;
        for (endpoint, row) in rows() {
            let (requests, general) = match row {
                Row::Nothing(requests) => (requests, None),
                Row::General(why, requests) => (requests, Some(why)),
                Row::NotYet(what) => {
                    eprintln!("{endpoint}: {what} are not separated by user");
                    continue;
                }
            };
            assert!(!requests.is_empty(), "{endpoint} has no request");
            for (method, path, body) in requests {
                let bare = things.named(path.split('?').next().unwrap(), things.ids()[0]);
                let classified = name_of(&classify(&method, &bare));
                assert!(classified == endpoint || general.is_some(), "{path} is {classified}");
                for id in things.ids() {
                    let (at, with) = (things.named(path, id), things.named(body, id));
                    let answer = bob.ask(method.clone(), &at, &with).await;
                    let what = format!("{method} {at} {with} {general:?}: {}", answer.text());
                    let told = shown(&answer, id);
                    for secret in things.secrets() {
                        assert!(!told.1.contains(secret), "{what}");
                    }
                    asked += 1;
                    if general.is_some() {
                        break;
                    }
                    // As of an id that nobody has.
                    let at = things.named(path, NO_SUCH);
                    let with = things.named(body, NO_SUCH);
                    let unknown = bob.ask(method.clone(), &at, &with).await;
                    // What a client asks about itself has times in it.
                    let has_id = path.contains('{') || body.contains("{id}");
                    if has_id && !path.starts_with("/-/") {
                        assert_eq!(told, shown(&unknown, NO_SUCH), "{what}");
                    }
                }
                assert!(things.are_untouched(&ada).await, "{method} {path} {body}");
                assert!(things.are_listed_as_before(&world).await, "{method} {path} {body}");
            }
        }
        for id in things.ids() {
            let path = format!("/-/explain?clientId=tab&prompt={id}");
            assert_eq!(bob.get(&path).await.json()["prompt"], Value::Null);
            assert_eq!(ada.get(&path).await.json()["prompt"]["client_id"], TAB);
        }
        assert!(100 < asked, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_the_same_name_gets_its_own_events_and_replays_and_no_others() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    let mut things = Things::of(&ada).await;
    let mut socket = bob.socket(TAB).await;
    let first = socket.event().await;
    assert_eq!((&first["type"], &first["data"]["sid"]), (&json!("status"), &json!(TAB)));
    assert_eq!(first["data"]["status"]["exec_info"]["queue_remaining"], 0);
    socket.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    let own = bob.submit(TAB, &quick(7)).await;
    let mut seen = String::new();
    soon("bob's end", async {
        loop {
            let event = socket.event().await;
            seen += &event.to_string();
            let data = &event["data"];
            if event["type"] == "executing"
                && data["node"].is_null()
                && data["prompt_id"] == own.as_str()
            {
                return;
            }
        }
    })
    .await;
    for secret in things.secrets() {
        assert!(!seen.contains(secret), "{seen}");
    }
    // Ada's goes on, and says nothing of bob's.
    let event = things.socket.until("progress").await;
    assert_eq!(event["data"]["prompt_id"], things.running.as_str());
    // Who comes again is told what he missed, and is called as he calls himself.
    drop(things.socket);
    let mut again = ada.socket(TAB).await;
    assert_eq!(again.event().await["data"]["sid"], TAB);
    let start = again.until("execution_start").await;
    assert!(start["data"]["prompt_id"] != own.as_str(), "{start}");
    // Backends tell the two clients apart.
    let sids: BTreeSet<String> = world.sims.iter().flat_map(|sim| sim.sids()).collect();
    let of = |user: &str| sids.iter().any(|sid| sid.contains(user) && sid.ends_with(TAB));
    assert!(of("ada") && of("bob") && !sids.contains(TAB), "{sids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_no_client_has_all_of_his_own_and_is_told_the_name_of_the_one_he_names() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    let mut his = bob.socket(TAB).await;
    let done = bob.submit(TAB, &quick(7)).await;
    his.until_end(&done).await;
    let things = Things::of(&ada).await;
    let other = ada.submit("other", &slow(500, 120.0)).await;
    let own = bob.submit(TAB, &slow(500, 120.0)).await;
    let ids = |list: &Value| -> BTreeSet<String> {
        let lists = ["queue_running", "queue_pending"].map(|it| list[it].as_array().unwrap());
        lists.into_iter().flatten().map(|it| it[1].as_str().unwrap().to_owned()).collect()
    };
    let of_ada = [&things.running, &things.waiting, &other].map(Clone::clone);
    assert_eq!(ids(&ada.get("/queue").await.json()), BTreeSet::from(of_ada));
    assert_eq!(ids(&bob.get("/queue").await.json()), BTreeSet::from([own.clone()]));
    let counted = |answer: &Answer| answer.json()["exec_info"]["queue_remaining"].clone();
    assert_eq!(counted(&ada.get("/prompt").await), 3);
    assert_eq!(counted(&bob.get("/prompt").await), 1);

    // Who names his client is told its id, as he calls it; who does not is told none.
    let named = ada.get("/queue?clientId=tab").await.json();
    let running = named["queue_running"].as_array().unwrap().iter();
    let told: Vec<&Value> = running.map(|it| &it[3]["client_id"]).collect();
    assert!(told.len() == 2 && told.contains(&&json!(TAB)) && told.contains(&&Value::Null));
    let entry = ada.get(&format!("/history/{}?clientId=tab", things.ended)).await.json();
    assert_eq!(entry[&things.ended]["prompt"][3]["client_id"], TAB);
    for path in ["/queue", "/history", "/api/jobs", "/queue?clientId=tab", "/history?clientId=tab"]
    {
        let told = ada.get(path).await.text();
        assert!(!told.contains("\\u0001") && !told.contains("\"ada"), "{path}: {told}");
    }
    let who = ada.get("/-/whoami?clientId=tab").await.json();
    assert_eq!((&who["client_id"], &who["client"]["client_id"]), (&json!(TAB), &json!(TAB)));

    // Bare verbs end all of his, whether it runs or waits, and nothing of hers.
    assert_eq!(bob.post("/queue", &json!({ "clear": true })).await.status, 200);
    assert_eq!(bob.post("/interrupt", &json!({})).await.status, 200);
    until("bob has nothing left", || {
        let of_bob = |id: &str| id == "bob";
        let clients = world.gateway.sessions.clients.all();
        let mut of_bob = clients.iter().filter(|it| it.id.user().is_some_and(of_bob));
        of_bob.all(|client| client.pending().is_empty())
    })
    .await;
    assert!(things.are_untouched(&ada).await);
    assert_eq!(ada.post("/queue", &json!({ "clear": true })).await.status, 200);
    assert_eq!(ada.post("/interrupt", &json!({})).await.status, 200);
    until("ada has nothing left", || {
        world.gateway.sessions.clients.all().iter().all(|client| client.pending().is_empty())
    })
    .await;
    assert_eq!(ada.post("/history", &json!({ "clear": true })).await.status, 200);
    assert_eq!(ada.get("/history").await.json(), json!({}));
    assert!(bob.get("/history").await.json()[&done].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_another_has_taken_is_refused() {
    let world = world(OnOff::Off).await;
    let (ada, bob) = both(world.front);
    let things = Things::of(&ada).await;
    for id in things.ids() {
        let body = json!({ "prompt": quick(1), "client_id": TAB, "prompt_id": id });
        let answer = bob.post("/prompt", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(!answer.text().contains(SECRET));
    }
    assert!(things.are_untouched(&ada).await);
}

/// The ledger forgets, and a restart without a journal forgets everything; servers do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_a_server_still_has_is_refused() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    let [ended, runs, waits, hers, his] =
        [1, 2, 3, 4, 5].map(|it: u128| uuid::Uuid::from_u128(it).to_string());
    for (id, graph) in [(&ended, quick(1)), (&runs, slow(500, 120.0)), (&waits, quick(2))] {
        let body = json!({ "prompt": graph, "prompt_id": id, "client_id": "older" }).to_string();
        let kind = [("content-type", "application/json")];
        let sim = world.sims[0].addr();
        assert_eq!(send(sim, Method::POST, "/prompt", &kind, &body).await.status, 200, "{id}");
    }
    until("the first has ended", || world.sims[0].ledger().executed.contains_key(&ended)).await;
    for (user, own) in [(&ada, &hers), (&bob, &his)] {
        for id in [&ended, &runs, &waits] {
            let body = json!({ "prompt": quick(3), "client_id": TAB, "prompt_id": id });
            assert_eq!(user.post("/prompt", &body).await.status, 400, "{id}");
        }
        let free = json!({ "prompt": quick(3), "client_id": TAB, "prompt_id": own });
        assert_eq!(user.post("/prompt", &free).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_connection_two_users_go_each_to_his_own_client() {
    let world = world(OnOff::On).await;
    let (ada, bob) = both(world.front);
    // Each is bound by its first prompt, which is never done: they are on different backends.
    let (one, two) = (
        ada.post("/prompt", &json!({ "prompt": slow(500, 120.0), "client_id": TAB })).await,
        bob.post("/prompt", &json!({ "prompt": slow(500, 120.0), "client_id": TAB })).await,
    );
    assert_ne!(one.backend(), two.backend());
    let (first, second) = (one.backend(), two.backend());
    let asked = |key: &str, more: &str| {
        format!(
            "GET /some/pack HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {key}\r\n\
                 Comfy-Client-Id: {TAB}\r\n{more}\r\n"
        )
    };
    let all = [asked(ADA, ""), asked(BOB, ""), asked(ADA, "Connection: close\r\n")].concat();
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut read = String::new();
    soon("all answers", stream.read_to_string(&mut read)).await.unwrap();
    let read = read.to_ascii_lowercase();
    let backends: Vec<&str> = read
        .match_indices("mooring-backend: ")
        .map(|(at, name)| read[at + name.len()..].lines().next().unwrap())
        .collect();
    assert_eq!(backends, [first, second, first], "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_takes_nothing_from_its_owner_and_gives_nobody_what_was_nobodys() {
    let mut mortal = Mortal::new(2).await;
    // Before users were asked for: nobody's, though ada has a client of that name.
    let body = json!({ "prompt": slow(500, 120.0), "client_id": TAB }).to_string();
    let headers = [("content-type", "application/json")];
    let nobodys = send(mortal.front(), Method::POST, "/prompt", &headers, &body).await.prompt_id();
    mortal.crash().await;
    mortal.start_with(|config| config.auth = keys()).await;
    let (ada, _) = both(mortal.front());
    let fleet = &mortal.gateway().shared.fleet;
    until("backends are up", || fleet.iter().all(|backend| backend.is_up())).await;
    assert_eq!(ada.get("/queue").await.json()["queue_running"], json!([]));
    let things = Things::of(&ada).await;
    mortal.crash().await;
    mortal.start_with(|config| config.auth = keys()).await;

    let (ada, bob) = both(mortal.front());
    soon("backends are up", async {
        while !things.are_untouched(&ada).await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for path in ["/queue", "/history", "/api/jobs", "/queue?clientId=tab"] {
        let told = bob.get(path).await.text();
        assert!(things.secrets().iter().all(|secret| !told.contains(secret)), "{path}: {told}");
        let told = ada.get(path).await.text();
        assert!(!told.contains(&nobodys), "{path}: {told}");
    }
    for (user, id) in [(&bob, &things.ended), (&bob, &things.running), (&ada, &nobodys)] {
        assert_eq!(user.get(&format!("/history/{id}")).await.json(), json!({}));
        let cancel = format!("/api/jobs/{id}/cancel");
        assert_eq!(user.post(&cancel, &json!({})).await.json(), json!({ "cancelled": false }));
    }
    assert!(things.are_untouched(&ada).await);
}
