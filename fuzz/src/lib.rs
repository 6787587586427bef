//! What must hold of everything that comes from the network or from the disk, whatever it is.
//!
//! Each target is a plain function of some bytes that panics where a property does not hold. The
//! same functions run under libFuzzer (`fuzz/targets`, `fuzz/run`) and, over the committed corpora
//! and mutations of them, in the integration tests (`tests/it/corpora.rs`).
//!
//! - [`request_heads`]: what is passed on of a request, and what is not
//! - [`answer_heads`]: how a backend's answer reads for the client, and where its body ends
//! - [`chunks`]: where a chunked body ends
//! - [`frames`]: WebSocket frames
//! - [`events`]: what ComfyUI says over its socket, texts and binary frames
//! - [`submissions`]: bodies of `POST /prompt`
//! - [`multipart`]: bodies of uploads
//! - [`answers`]: bodies of backends' answers, as the gateway rewrites them
//! - [`records`]: records of the journal, and what a start makes of them

pub mod answer_heads;
pub mod answers;
pub mod chunks;
pub mod events;
pub mod frames;
mod head;
mod json;
pub mod multipart;
pub mod records;
pub mod request_heads;
pub mod submissions;

/// What a target does with an input.
pub type Check = fn(&[u8]);

/// The targets, by the names of their folders in `fuzz/corpus`.
pub const TARGETS: [(&str, Check); 9] = [
    ("answer_heads", answer_heads::check),
    ("answers", answers::check),
    ("chunks", chunks::check),
    ("events", events::check),
    ("frames", frames::check),
    ("multipart", multipart::check),
    ("records", records::check),
    ("request_heads", request_heads::check),
    ("submissions", submissions::check),
];

/// Places to cut an input of so many bytes: all of them if it is short, else as many as are cheap,
/// among them those at both ends.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    const ALL: usize = 256;
    let step = len.div_ceil(ALL).max(1);
    let near = 0..len.min(16);
    let end = len.saturating_sub(16)..len;
    (0..len).step_by(step).chain(near).chain(end)
}
