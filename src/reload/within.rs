//! Waits for a disk, but not for ever.

use std::time::Duration;

use tokio::time::timeout;

use super::NotReloaded;

/// How long reading a configuration may take. A disk that hangs must not block all later reloads.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Reads from a disk, on a thread that may block.
pub(super) async fn within<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotReloaded> {
    match timeout(READ_WITHIN, tokio::task::spawn_blocking(read)).await {
        Ok(Ok(read)) => Ok(read),
        // The reading panicked, or the runtime is ending.
        Ok(Err(error)) => Err(NotReloaded::Bad(vec![format!("it could not be read: {error}")])),
        Err(_elapsed) => {
            let secs = READ_WITHIN.as_secs();
            Err(NotReloaded::Bad(vec![format!("it could not be read within {secs} s")]))
        }
    }
}
