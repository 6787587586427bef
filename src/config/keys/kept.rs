//! The keys of what is kept from others, and what is kept on the disk: the state and the logs.

use super::super::choices::{Counts, Format, FormatOfAccess, NamelessMay, OnError, Unopened};
use super::super::jwt::PlainText;
use super::super::key::{Applied, Key};
use super::super::kinds::{FilePath, Kind, Size, Span};
use super::super::log_to::LogTarget;
use super::super::raw::{Section, Setting};
use super::super::replicas::StoreAt;
use super::super::secret::SecretFile;
use super::super::units::{GIB, S};
use super::super::values::LogLevel;

sections! { KEPT_SECTIONS, KEPT_KEYS:
    /// What clients see of one another.
    ["isolation"] RawIsolation isolation {
        /// Which prompts `queue_remaining` counts: the client's own, or all of its backend.
        status: Counts = "own", Live;
        /// What a caller without a name may do. `by_id`: act on the prompts whose ids it sends.
        /// `none`: nothing. `all`: everything, also with the prompts of others. `auto` means
        /// `by_id` for requests from this machine while `server.listen` is on loopback, and `none`
        /// for all others and for requests that a proxy passes on. So nobody gains rights by
        /// leaving out the name.
        nameless: NamelessMay = "auto", Live;
    }
    /// What survives a restart.
    ["state"] RawState state {
        /// The folder that keeps bindings and prompts over a restart; with `none` they are not
        /// kept. If it is empty, it is the unit's `StateDirectory` under systemd, and otherwise
        /// `mooring/PORT` in the user's state folder.
        dir: FilePath = "", Restart;
        /// What happens while the journal cannot be written: `serve` continues, `refuse` refuses
        /// prompts. The same applies to saving user data while its copies cannot be marked. `auto`
        /// means `refuse` with a `replicas.store`, and `serve` without.
        on_error: OnError = "auto", Live;
        /// Disk space in that folder for copies of settings and saved workflows, which are used
        /// while the home is away. With 0 there are none, and also if `server.stale_cache` is 0.
        copies: Size { min: 0, max: 64 * GIB } = "64MiB", Live;
        /// A file with 32 bytes in base64, a line for each key. They seal the bodies of prompts
        /// that wait (`queue.depth`) in the journal: the first key seals, and all of them open. If
        /// it is empty, the bodies are written as they are.
        seal_key_file: SecretFile = "", Restart;
        /// What a start does if bodies are in the journal that none of these keys opens: `refuse`
        /// does not start, `lose` forgets these bodies and tells their clients that the prompts
        /// are lost.
        on_unopened: Unopened = "refuse", Restart;
    }
    /// A database that keeps the state, so that Mooring needs no disk of its own.
    ["replicas"] RawReplicas replicas {
        /// The PostgreSQL database that keeps what `state.dir` would keep. If it is empty, the
        /// state is kept in that folder. One Mooring at a time uses it.
        store: StoreAt = "", Restart;
        /// A file that contains that URL, so that its password is not in the configuration.
        store_file: SecretFile = "", ByValue;
        /// The name under which this Mooring is known in the database. If it is empty, the name of
        /// the host is used.
        name: PlainText = "", Restart;
        /// The name of the fleet. A database that keeps the state of another one is refused.
        fleet: PlainText = "mooring", Restart;
        /// For how long a Mooring has the database, unless it renews that. If it was killed on
        /// another machine, the next one waits as long.
        lease: Span { min: 3 * S, max: 60 * S } = "10s", Restart;
    }
    /// The log, on standard error.
    ["log"] RawLog log {
        /// `text` writes lines for people, `json` one JSON object per line.
        format: Format = "text", Restart;
        /// What is logged. `RUST_LOG` overrides it.
        level: LogLevel = "info", Live;
        /// Where the audit log goes (who changed what): `off`, `stdout`, or a file with a slash.
        audit: LogTarget = "off", Restart;
        /// Where the access log goes (one line for each request): `off`, `stdout`, or a file with
        /// a slash.
        access: LogTarget = "off", Restart;
        /// `json` writes one JSON object per line, `combined` the format of Apache and nginx.
        access_format: FormatOfAccess = "json", Restart;
    }
}
