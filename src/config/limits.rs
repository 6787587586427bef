//! What one user may do, and all together: `[limits]`.

use std::num::{NonZeroU32, NonZeroU64};

use super::keys::RawLimits;
use super::problems::Notes;

/// `[limits]`: what one user may do, and all together. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LimitsConfig {
    pub user_prompts_per_minute: Option<NonZeroU32>,
    pub all_prompts_per_minute: Option<NonZeroU32>,
    pub user_pending_prompts: Option<NonZeroU32>,
    pub all_pending_prompts: Option<NonZeroU32>,
    pub user_gpu_seconds_per_day: Option<NonZeroU32>,
    pub all_gpu_seconds_per_day: Option<NonZeroU32>,
    pub user_upload_bytes_per_day: Option<NonZeroU64>,
    pub all_upload_bytes_per_day: Option<NonZeroU64>,
    pub user_sockets: Option<NonZeroU32>,
    pub address_connections: Option<NonZeroU32>,
    pub address_sockets: Option<NonZeroU32>,
    pub address_requests_per_minute: Option<NonZeroU32>,
    pub address_new_clients_per_minute: Option<NonZeroU32>,
    pub all_sockets: Option<NonZeroU32>,
}

impl LimitsConfig {
    /// Whether pending prompts are limited at all.
    #[must_use]
    pub fn limits_pending_prompts(&self) -> bool {
        self.user_pending_prompts.is_some() || self.all_pending_prompts.is_some()
    }

    /// Whether the time for which prompts run is limited at all.
    #[must_use]
    pub fn limits_gpu_seconds(&self) -> bool {
        self.user_gpu_seconds_per_day.is_some() || self.all_gpu_seconds_per_day.is_some()
    }
}

pub(super) fn check(raw: RawLimits, notes: &mut Notes) -> LimitsConfig {
    let RawLimits {
        user_prompts_per_minute,
        all_prompts_per_minute,
        user_pending_prompts,
        all_pending_prompts,
        user_gpu_seconds_per_day,
        all_gpu_seconds_per_day,
        user_upload_bytes_per_day,
        all_upload_bytes_per_day,
        user_sockets,
        address_connections,
        address_sockets,
        address_requests_per_minute,
        address_new_clients_per_minute,
        all_sockets,
    } = raw;
    LimitsConfig {
        user_prompts_per_minute: user_prompts_per_minute.check(notes),
        all_prompts_per_minute: all_prompts_per_minute.check(notes),
        user_pending_prompts: user_pending_prompts.check(notes),
        all_pending_prompts: all_pending_prompts.check(notes),
        user_gpu_seconds_per_day: user_gpu_seconds_per_day.check(notes),
        all_gpu_seconds_per_day: all_gpu_seconds_per_day.check(notes),
        user_upload_bytes_per_day: NonZeroU64::new(user_upload_bytes_per_day.check(notes)),
        all_upload_bytes_per_day: NonZeroU64::new(all_upload_bytes_per_day.check(notes)),
        user_sockets: user_sockets.check(notes),
        address_connections: address_connections.check(notes),
        address_sockets: address_sockets.check(notes),
        address_requests_per_minute: address_requests_per_minute.check(notes),
        address_new_clients_per_minute: address_new_clients_per_minute.check(notes),
        all_sockets: all_sockets.check(notes),
    }
}
