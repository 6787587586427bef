//! What a prompt that waits in the gateway waits for, in fields and in words.

use std::time::Duration;

use serde::Serialize;

use crate::routing::ids::BackendId;
use crate::session::waiting::{InLine, Place, Serving};

/// Where a prompt stands that waits.
#[derive(Debug, Serialize)]
pub(crate) struct WaitsReport {
    /// 1 for the next that is handed over.
    pub place: usize,
    /// In about how long it starts; none if that is not known.
    pub start_ms: Option<u64>,
    pub waits_for: String,
}

/// What one backend is to a prompt that waits.
#[derive(Debug, Serialize)]
pub(crate) struct PlaceReport {
    pub backend: String,
    /// able: it is not known to need models; warm: its models are loaded there; cold: they have to
    /// be loaded; lacks: something is missing there; tried: it did not take it.
    pub is: &'static str,
    /// In about how long it has room; none if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_ms: Option<u64>,
    /// How long the models are expected to load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
    /// A node class or a value that is missing there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl WaitsReport {
    pub(super) fn of(it: &InLine, places: &[Place], name: impl Fn(BackendId) -> String) -> Self {
        Self {
            place: it.ahead.place,
            start_ms: it.ahead.start.map(millis),
            waits_for: why_it_waits(it, places, name),
        }
    }
}

impl PlaceReport {
    pub(super) fn of(it: Place, name: impl Fn(BackendId) -> String) -> Self {
        Self {
            backend: name(it.backend),
            is: it.is,
            room_ms: it.room.map(millis),
            load_ms: it.load.map(millis),
            missing: it.lacks,
        }
    }
}

/// So many backends are named of which a prompt waits for one.
const NAMED_MAX: usize = 8;

/// What a prompt waits for, in words.
#[must_use]
pub(crate) fn why_it_waits(
    it: &InLine,
    places: &[Place],
    name: impl Fn(BackendId) -> String,
) -> String {
    if it.rests {
        return "it could not be sent, and is tried again in a moment".to_owned();
    }
    if !places.iter().any(|it| it.serves == Serving::Up) {
        return "no backend is up".to_owned();
    }
    if let Some(it) = places.iter().find(|it| it.keeps) {
        let why = one_of(it, &name(it.backend));
        return format!("{why}; it is where its client's prompts are");
    }
    let mut places: Vec<&Place> = places.iter().collect();
    // Those that it can go to, the soonest first.
    places.sort_by_key(|it| {
        let may = it.serves == Serving::Up && matches!(it.is, "able" | "warm" | "cold");
        (!may, it.room.unwrap_or(Duration::MAX))
    });
    let named = places.iter().take(NAMED_MAX).map(|it| one_of(it, &name(it.backend)));
    let mut why = named.collect::<Vec<_>>().join("; ");
    if let Some(more) = places.len().checked_sub(NAMED_MAX).filter(|more| *more != 0) {
        why += &format!("; and {more} more");
    }
    why
}

fn one_of(it: &Place, name: &str) -> String {
    match (it.serves, it.is) {
        (Serving::Down, _) => return format!("{name} is away"),
        (Serving::Draining, _) => return format!("{name} takes no new work"),
        (Serving::Up, "lacks") => {
            return format!("{name} lacks {}", it.lacks.as_deref().unwrap_or("a part of it"));
        }
        (Serving::Up, "tried") => return format!("{name} did not take it"),
        (Serving::Up, _) => {}
    }
    let room = match it.room.map(whole_seconds) {
        Some(0) => "has room".to_owned(),
        Some(seconds) => format!("has room in {seconds} s"),
        None => "is full".to_owned(),
    };
    match it.load.map(whole_seconds).filter(|load| *load != 0) {
        Some(load) => format!("{name} {room}, would load models for {load} s"),
        None if it.is == "able" => format!("{name} {room}"),
        None => format!("{name} {room}, is warm"),
    }
}

fn whole_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ids::{ClientId, PromptId};
    use crate::session::waiting::Ahead;

    fn place(nth: u16, is: &'static str, room: Option<u64>) -> Place {
        let (backend, room) = (BackendId::nth(nth), room.map(Duration::from_secs));
        let load = (is == "cold").then_some(Duration::from_millis(20_500));
        let lacks = (is == "lacks").then(|| "FluxGuidance".to_owned());
        Place { backend, is, serves: Serving::Up, room, keeps: false, load, lacks }
    }

    fn why(rests: bool, places: &[Place]) -> String {
        let ahead = Ahead { place: 1, start: None };
        let (prompt, client) = (PromptId::parse("p").unwrap(), ClientId::parse("c").unwrap());
        let it = InLine { prompt, client, ahead, waited: Duration::ZERO, number: 0.0, rests };
        why_it_waits(&it, places, |id| format!("gpu-{}", id.slot()))
    }

    #[test]
    fn a_prompt_says_what_it_waits_for() {
        let places = [
            place(0, "lacks", Some(0)),
            place(1, "cold", Some(0)),
            place(2, "warm", Some(14)),
            Place { serves: Serving::Down, ..place(3, "warm", None) },
            place(4, "tried", Some(0)),
            place(5, "able", None),
        ];
        assert_eq!(
            why(false, &places),
            "gpu-1 has room, would load models for 21 s; gpu-2 has room in 14 s, is warm; gpu-5 is \
             full; gpu-0 lacks FluxGuidance; gpu-4 did not take it; gpu-3 is away"
        );
        let kept = Place { keeps: true, ..place(2, "warm", Some(14)) };
        assert_eq!(
            why(false, &[place(1, "warm", Some(0)), kept]),
            "gpu-2 has room in 14 s, is warm; it is where its client's prompts are"
        );
        let down = Place { serves: Serving::Down, ..place(0, "warm", None) };
        let drains = Place { serves: Serving::Draining, ..place(1, "warm", None) };
        assert_eq!(why(false, &[down, drains]), "no backend is up");
        assert_eq!(why(true, &[]), "it could not be sent, and is tried again in a moment");
        let many: Vec<Place> = (0..12).map(|nth| place(nth, "warm", Some(1))).collect();
        assert!(why(false, &many).ends_with("; and 4 more"), "{}", why(false, &many));
    }
}
