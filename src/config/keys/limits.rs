//! The keys of the limits.

use super::super::key::{Applied, Key};
use super::super::kinds::{Kind, Limit, Size};
use super::super::raw::{Section, Setting};
use super::super::units::GIB;

sections! { LIMIT_SECTIONS, LIMIT_KEYS:
    /// What one user may do, and all users together. Without users an address is a user.
    ["limits"] RawLimits limits {
        /// How many prompts a user may submit in a minute, refused ones included. So many may come
        /// at once, and each comes back in its part of a minute.
        user_prompts_per_minute: Limit { max: 1_000_000 } = "0", Live;
        /// The same for all users together.
        all_prompts_per_minute: Limit { max: 1_000_000 } = "0", Live;
        /// How many prompts of a user may be pending: waiting or running at the servers.
        user_pending_prompts: Limit { max: 1_000_000 } = "0", Live;
        /// How many prompts may be pending in all.
        all_pending_prompts: Limit { max: 1_000_000 } = "0", Live;
        /// For how many seconds the prompts of a user may run in a day, which is 24 hours from the
        /// first one on. A prompt is not stopped; no other is taken then.
        user_gpu_seconds_per_day: Limit { max: 1_000_000_000 } = "0", Live;
        /// For how many seconds all prompts together may run in a day.
        all_gpu_seconds_per_day: Limit { max: 1_000_000_000 } = "0", Live;
        /// How many bytes a user may upload in a day, which is 24 hours from the first upload on:
        /// images, masks, and what is sent to node packs. With 0 there is no limit.
        user_upload_bytes_per_day: Size { min: 0, max: 1024 * 1024 * GIB } = "0B", Live;
        /// How many bytes may be uploaded by all together in a day. With 0 there is no limit.
        all_upload_bytes_per_day: Size { min: 0, max: 1024 * 1024 * GIB } = "0B", Live;
        /// How many sockets a user may have open: of the page, of scripts, of node packs.
        user_sockets: Limit { max: 1_000_000 } = "0", Live;
        /// How many connections may be open from an address, sockets included. One too many is
        /// closed at once. A trusted proxy is not counted; of IPv6 the network of 64 bits.
        address_connections: Limit { max: 1_000_000 } = "0", Live;
        /// How many sockets may be open from an address, whoever is there. A trusted proxy is not
        /// counted, but the addresses that it says; of IPv6 the network of 64 bits.
        address_sockets: Limit { max: 1_000_000 } = "0", Live;
        /// How many requests may come from an address in a minute, whoever sends them. So many may
        /// come at once, and each comes back in its part of a minute.
        address_requests_per_minute: Limit { max: 1_000_000 } = "0", Live;
        /// How many clients that are not known may come from an address in a minute.
        address_new_clients_per_minute: Limit { max: 1_000_000 } = "0", Live;
        /// How many sockets may be open in all.
        all_sockets: Limit { max: 1_000_000 } = "0", Live;
    }
}
