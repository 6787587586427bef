//! The devices on which a server computes, as `GET /system_stats` lists them: its GPUs, or its
//! processor (ComfyUI 0.3.64, 0.8 and 0.33, `server.py`, `get_system_stats`).
//!
//! Anything that is missing or odd is unknown: a server is never judged by it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::raw::{self, Object};

/// A longer answer is not parsed. A real one has one or two kilobytes.
const BODY_MAX: usize = 1 << 20;

/// So many devices of a server are told.
const DEVICES_MAX: usize = 16;

/// The longest name of a device that is kept, in characters.
const NAME_MAX: usize = 80;

/// Numbers from here on are no sizes of a memory; up to here, an `f64` is exact.
const BYTES_MAX: f64 = 9_007_199_254_740_992.0;

/// One device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Device {
    /// `NVIDIA GeForce RTX 4090`, or `cpu`.
    pub name: String,
    /// The type as in `PyTorch`: `cuda`, `cpu`, `mps`, `xpu`, …
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its memory in bytes, that of the machine for a processor.
    pub vram_total: Option<u64>,
    pub vram_free: Option<u64>,
}

/// The devices in the answer of `GET /system_stats`; none if it lists none.
#[must_use]
pub fn read(stats: &[u8]) -> Vec<Device> {
    if BODY_MAX < stats.len() {
        return Vec::new();
    }
    let listed = Object::read(stats);
    let listed = listed.as_ref().and_then(|stats| stats.list("devices")).unwrap_or_default();
    listed.into_iter().filter_map(device).take(DEVICES_MAX).collect()
}

fn device(value: &RawValue) -> Option<Device> {
    let device = raw::object(value)?;
    let kind = device.text("type").map(|kind| shown(&kind)).filter(|kind| !kind.is_empty());
    let name = device.text("name").map(|name| shown(bare(&name))).unwrap_or_default();
    let name = if name.is_empty() { kind.clone()? } else { name };
    let vram_total = bytes(&device, "vram_total").filter(|total| 0 < *total);
    // More than there is would be no free memory of it.
    let fits = |free: &u64| vram_total.is_none_or(|total| *free <= total);
    let vram_free = bytes(&device, "vram_free").filter(fits);
    Some(Device { name, kind, vram_total, vram_free })
}

fn bytes(device: &Object<'_>, key: &str) -> Option<u64> {
    let number = device.number(key)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    (0.0..BYTES_MAX).contains(&number).then_some(number as u64)
}

/// A name without what ComfyUI puts around it: `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`
/// (`comfy/model_management.py`, `get_torch_device_name`).
fn bare(name: &str) -> &str {
    let name = name.trim();
    let is_number =
        |it: &str| it.split_once(':').is_some_and(|(_, index)| index.parse::<u8>().is_ok());
    let name = name.split_once(' ').filter(|(first, _)| is_number(first)).map_or(name, |it| it.1);
    let is_allocator = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric());
    let before = name.rsplit_once(" : ").filter(|(_, last)| is_allocator(last.trim()));
    before.map_or(name, |(name, _)| name).trim()
}

fn shown(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(device: &str) -> Vec<Device> {
        read(format!(r#"{{"system": {{}}, "devices": [{device}]}}"#).as_bytes())
    }

    #[test]
    fn recorded_servers_name_their_processor() {
        for recorded in
            [include_str!("../sim/fixed-0.8.json"), include_str!("../sim/fixed-0.33.json")]
        {
            let all: serde_json::Value = serde_json::from_str(recorded).unwrap();
            let [device] = &read(all["/system_stats"].to_string().as_bytes())[..] else {
                panic!("one device")
            };
            assert_eq!((&*device.name, device.kind.as_deref()), ("cpu", Some("cpu")));
            assert!(device.vram_free < device.vram_total && device.vram_free.is_some());
        }
    }

    #[test]
    fn a_gpu_is_called_by_its_own_name() {
        let named = |name: &str| {
            let device = of(&format!(r#"{{"name": "{name}", "type": "cuda", "index": 0}}"#));
            device[0].name.clone()
        };
        let rtx = "NVIDIA GeForce RTX 4090";
        assert_eq!(named("cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync"), rtx);
        assert_eq!(named("cuda:0 NVIDIA GeForce RTX 4090 : native"), rtx);
        assert_eq!(named("cuda:11 NVIDIA GeForce RTX 4090"), rtx);
        assert_eq!(named("AMD Radeon: a : b c"), "AMD Radeon: a : b c");
        assert_eq!((&*named("mps"), &*named("")), ("mps", "cuda"));
        assert_eq!(named("a\\u0000\\u001bb"), "ab");
        assert_eq!(named(&"x".repeat(1_000)).len(), NAME_MAX);
    }

    #[test]
    fn several_are_told_in_their_order_and_not_too_many() {
        let one = r#"{"name": "a", "vram_total": 10, "vram_free": 4}"#;
        let two = r#"{"name": "b", "vram_total": 20, "vram_free": 20}"#;
        let both = of(&format!("{one}, {two}"));
        let told = |it: &Device| (it.name.clone(), it.vram_total, it.vram_free);
        let expected = [("a".to_owned(), Some(10), Some(4)), ("b".to_owned(), Some(20), Some(20))];
        assert_eq!(both.iter().map(told).collect::<Vec<_>>(), expected);
        assert_eq!(of(&vec![one; 100].join(",")).len(), DEVICES_MAX);
    }

    #[test]
    fn what_is_odd_is_unknown() {
        for odd in ["null", "-1", "\"12\"", "1e300", "[]", "true"] {
            let found = of(&format!(r#"{{"name": "a", "vram_total": {odd}, "vram_free": {odd}}}"#));
            assert_eq!((found[0].vram_total, found[0].vram_free), (None, None), "{odd}");
        }
        let more = of(r#"{"name": "a", "vram_total": 5, "vram_free": 6}"#);
        assert_eq!((more[0].vram_total, more[0].vram_free), (Some(5), None));
        let none = of(r#"{"name": "a", "vram_total": 0, "vram_free": 0}"#);
        assert_eq!(none[0].vram_total, None);
        for junk in ["", "[]", "{}", r#"{"devices": {}}"#, r#"{"devices": [1, null, {}]}"#] {
            assert_eq!(read(junk.as_bytes()), [], "{junk}");
        }
        let long = format!(r#"{{"devices": [{{"name": "a"}}], "x": "{}"}}"#, "y".repeat(BODY_MAX));
        assert_eq!(read(long.as_bytes()), []);
    }
}
