//! The first frames between a new link and its backend.

use std::time::Duration;

use tokio::time::timeout;

use crate::comfy::event::{self, Event};
use crate::ws::{Channel, Frame};

/// The first message of every link (ComfyUI 0.3.45): it makes previews name their prompt.
const FEATURE_FLAGS: &str = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;

/// How long the answer to our features may take.
const FEATURES_WITHIN: Duration = Duration::from_secs(1);

/// Sends our features and waits for two messages. The first message proves that the backend has
/// registered the socket. Its features prove that it has read ours: a prompt that is sent before
/// would have previews without its id. Returns the frames that came in between, to be relayed.
///
/// # Errors
/// The connection broke first.
pub async fn negotiate(channel: &mut Channel) -> Result<Vec<Frame>, String> {
    let flags = Frame::text(FEATURE_FLAGS);
    channel.send(flags).await.map_err(|error| error.to_string())?;
    let mut holdback = vec![next_frame(channel).await?];
    let features = async {
        while let Ok(frame) = next_frame(channel).await {
            let is_answer = matches!(event::read(&frame.payload), Event::FeatureFlags);
            holdback.push(frame);
            if is_answer {
                break;
            }
        }
    };
    // A fork that never answers is accepted as it is.
    let _ = timeout(FEATURES_WITHIN, features).await;
    Ok(holdback)
}

async fn next_frame(channel: &mut Channel) -> Result<Frame, String> {
    match channel.next().await {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("closed during the negotiation".to_owned()),
    }
}
