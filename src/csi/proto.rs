//! Generated from the protocols in `proto/`: see `tests/integration/proto.rs`.

use std::fmt;

/// The Container Storage Interface.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
pub(super) mod csi {
    include!("proto/csi.v1.rs");
}

/// kubelet's plugin registration.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
pub(super) mod registration {
    include!("proto/pluginregistration.rs");
}

/// A request carries tokens, and is never shown whole (CVE-2023-2878).
impl fmt::Debug for csi::NodePublishVolumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePublishVolumeRequest").field("volume_id", &self.volume_id).finish_non_exhaustive()
    }
}
