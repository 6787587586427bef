//! Answers that never change, as recorded from 0.33.0, and from 0.8.0 for older versions.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Shared;

static OF_0_33: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixed-0.33.json")).unwrap_or_default());
static OF_0_8: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixed-0.8.json")).unwrap_or_default());

impl Shared {
    /// The answer for a path.
    pub(super) fn fixed(&self, path: &str) -> Value {
        if self.release.is_of_2026() { OF_0_33[path].clone() } else { OF_0_8[path].clone() }
    }

    /// `/features`, which sockets are sent as well.
    pub(super) fn features(&self) -> Value {
        let mut features = self.fixed("/features");
        if self.release.is_of_2026() {
            features["assets"] = json!(self.options.assets);
        }
        if let Some(features) = features.as_object_mut().filter(|_| !self.release.notes_times()) {
            features.shift_remove("extension");
        }
        features
    }

    /// The settings of a new user. With the official page they suppress the tour of a first visit.
    pub(super) fn first_settings(&self) -> Value {
        let mut settings = self.fixed("/settings");
        if self.options.frontend.is_some() {
            settings["Comfy.TutorialCompleted"] = json!(true);
        }
        settings
    }

    pub(super) fn system_stats(&self) -> Value {
        let mut stats = self.fixed("/system_stats");
        stats["system"]["comfyui_version"] = json!(self.options.version);
        let devices = self.faults().devices.clone();
        if !devices.is_null() {
            stats["devices"] = *devices;
        }
        stats
    }
}
