//! PostgreSQL in a temporary folder, for the tests of the store.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mooring::config::StoreUrl;
use mooring::tasks::Tasks;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::soon;

const USER: &str = "mooring";
const PASSWORD: &str = "s3cret";

/// A server of its own, which ends with this value.
pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    pub(crate) port: u16,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
}

/// One empty database.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) name: String,
}

/// The server that tests share while any of them runs.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The folder with the programs; `None` if there is no PostgreSQL.
fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MOORING_POSTGRES") {
        return Some(named.into());
    }
    let has =
        |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = versions.map(|it| it.path().join("bin")).filter(has).collect();
    all.sort();
    all.pop().or_else(|| {
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).find(has)
    })
}

/// An empty database of the shared server. `None` if there is no PostgreSQL, which fails in CI.
pub(crate) async fn database() -> Option<Database> {
    let cluster = {
        let mut shared = SHARED.lock().unwrap();
        match shared.upgrade() {
            Some(cluster) => cluster,
            None => {
                let cluster = Arc::new(Cluster::start(&[])?);
                *shared = Arc::downgrade(&cluster);
                cluster
            }
        }
    };
    Some(cluster.database().await)
}

impl Cluster {
    /// A server with these settings besides.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "there is no PostgreSQL");
            eprintln!("SKIPPED: there is no PostgreSQL");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("mooring-pg").tempdir().unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (server, databases) = (Mutex::default(), AtomicU32::new(0));
        let cluster = Self { folder, programs, port, server, databases };
        if let Some((user, group)) = cluster.other_user() {
            for path in [cluster.folder.path(), &cluster.folder.path().join("password")] {
                std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let password = format!("--pwfile={}", cluster.folder.path().join("password").display());
        let made = cluster
            .program("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
            .args(["--username", USER, &password, "--pgdata"])
            .arg(cluster.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let own = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             fsync = off\nshared_buffers = 16MB\nmax_connections = 60\n{}\n",
            settings.join("\n")
        );
        let path = cluster.data().join("postgresql.conf");
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &own).unwrap();
        cluster.run();
        Some(cluster)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// PostgreSQL refuses to run as root.
    pub(crate) fn other_user(&self) -> Option<(u32, u32)> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let line = line.expect("its package makes the user `postgres`");
        let field = |at: usize| line.split(':').nth(at).unwrap().parse().unwrap();
        Some((field(2), field(3)))
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env_clear().current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.other_user() {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts the server, if it does not run.
    pub(crate) fn run(&self) {
        let mut server = self.server.lock().unwrap();
        if server.is_none() {
            let child = self.program("postgres").arg("-D").arg(self.data()).spawn().unwrap();
            *server = Some(child);
        }
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn crash(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            let id = server.id().to_string();
            // `SIGQUIT` is what its "immediate shutdown" is: none of its processes stays.
            Command::new("kill").args(["-QUIT", &id]).status().unwrap();
            server.wait().unwrap();
        }
    }

    /// A connection to a database, as soon as the server takes one.
    pub(crate) async fn connect(&self, name: &str) -> Client {
        let connected = async {
            loop {
                if let Some(client) = self.try_connect(name).await {
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("PostgreSQL runs", connected).await
    }

    async fn try_connect(&self, name: &str) -> Option<Client> {
        #[expect(clippy::disallowed_methods, reason = "it is no connection of ours")]
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let login: tokio_postgres::Config = self.url(name).parse().unwrap();
        let (client, connection) = login.connect_raw(stream, NoTls).await.ok()?;
        Tasks::default().spawn(async move { drop(connection.await) });
        Some(client)
    }

    fn url(&self, name: &str) -> String {
        let port = self.port;
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{name}?sslmode=disable")
    }

    pub(crate) async fn database(self: &Arc<Self>) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("mooring{number}");
        let all = self.connect("postgres").await;
        all.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Database { cluster: Arc::clone(self), name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

impl Database {
    pub(crate) fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    pub(crate) fn parsed(&self) -> StoreUrl {
        StoreUrl::parse(&self.url()).unwrap()
    }

    /// The setting that makes a gateway use it.
    pub(crate) fn setting(&self) -> String {
        format!("replicas.store={}", self.url())
    }

    pub(crate) async fn run(&self, statements: &str) {
        self.cluster.connect(&self.name).await.batch_execute(statements).await.unwrap();
    }

    /// The first column of the first row.
    pub(crate) async fn ask(&self, question: &str) -> String {
        let client = self.cluster.connect(&self.name).await;
        let told = client.simple_query(question).await.unwrap();
        let row = told.iter().find_map(|it| {
            let SimpleQueryMessage::Row(row) = it else { return None };
            row.get(0).map(ToOwned::to_owned)
        });
        row.unwrap_or_default()
    }
}
