//! Scans of the asset database, which are reported to every socket: one for each `/object_info`,
//! and another when work has ended (`app/assets/seeder.py`; only with `--enable-assets`).

use serde_json::json;

use super::Shared;
use super::state::FileKind;

impl Shared {
    /// A whole scan: first for new files, then for their content.
    pub(super) fn seed(&self) {
        if !self.has_assets() {
            return;
        }
        let roots = ["models", "input", "output"];
        let total = {
            let server = self.server();
            [FileKind::Input, FileKind::Output].map(|kind| server.files.names(kind).len())
        };
        let total: usize = total.iter().sum();
        let started = json!({ "roots": roots, "total": total, "phase": "fast" });
        self.say("assets.seed.started", &started, None);
        let fast = json!({ "roots": roots, "created": 0, "skipped": total, "total": total });
        self.say("assets.seed.fast_complete", &fast, None);
        self.enrich(&roots, "full", total);
    }

    /// The scan after work: only the outputs.
    pub(super) fn seed_outputs(&self) {
        if self.has_assets() {
            self.enrich(&["output"], "enrich", 0);
        }
    }

    fn has_assets(&self) -> bool {
        self.options.assets && self.release.is_of_2026()
    }

    fn enrich(&self, roots: &[&str], phase: &str, total: usize) {
        let started = json!({ "roots": roots, "phase": "enrich" });
        self.say("assets.seed.started", &started, None);
        let complete = json!({ "roots": roots, "enriched": 0 });
        self.say("assets.seed.enrich_complete", &complete, None);
        let all = json!({
            "phase": phase, "total": total, "created": 0, "enriched": 0, "skipped": total,
            "elapsed": 0.001,
        });
        self.say("assets.seed.completed", &all, None);
    }
}
