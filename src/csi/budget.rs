//! Bytes that volumes, and the answers that their feeds keep, may take, all of a namespace and of the node together: tmpfs
//! pages are charged to the driver, and one tenant must not end it for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::CsiLimits;

/// What is set aside, by namespace.
#[derive(Debug, Default)]
pub(super) struct VolumeBudget(Mutex<BTreeMap<String, u64>>);

/// Bytes set aside for a volume, until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    limits: Arc<VolumeBudget>,
    namespace: String,
    bytes: u64,
}

/// Too much is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the volume may need {asked} bytes, and {whose} has {left} left of {most}: lower size-limit, or have the operator \
     raise config.csi.{field}"
)]
pub(super) struct OverLimit {
    asked: u64,
    whose: &'static str,
    left: u64,
    most: u64,
    field: &'static str,
}

// === impl VolumeBudget ===

impl VolumeBudget {
    /// Sets `bytes` aside.
    ///
    /// # Errors
    /// [`OverLimit`] says of which limit there is too little left.
    pub(super) fn reserve(
        self: &Arc<Self>,
        namespace: &str,
        bytes: u64,
        limits: &CsiLimits,
    ) -> Result<Reservation, OverLimit> {
        let CsiLimits { bytes_per_namespace, bytes_per_node } = *limits;
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = taken.get(namespace).copied().unwrap_or_default();
        let of_node = taken.values().sum();
        for (whose, field, taken, most) in [
            ("its namespace on this node", "bytesPerNamespace", of_namespace, bytes_per_namespace),
            ("the node", "bytesPerNode", of_node, bytes_per_node),
        ] {
            let left = most.saturating_sub(taken);
            if bytes > left {
                return Err(OverLimit { asked: bytes, whose, left, most, field });
            }
        }
        taken.insert(namespace.to_owned(), of_namespace + bytes);
        Ok(Reservation { limits: Arc::clone(self), namespace: namespace.to_owned(), bytes })
    }

    /// Bytes that are set aside now.
    pub(super) fn taken(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = self.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = taken.get_mut(&self.namespace) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                taken.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_and_no_node_has_more_than_its_share() {
        let limits = Arc::new(VolumeBudget::default());
        let most = CsiLimits { bytes_per_namespace: 10, bytes_per_node: 15 };
        let reserve = |namespace: &str, bytes| limits.reserve(namespace, bytes, &most);
        let first = reserve("a", 10).unwrap();
        let over = reserve("a", 1).unwrap_err().to_string();
        assert!(
            over.contains("namespace") && over.contains("0 left of 10") && over.contains("bytesPerNamespace"),
            "{over}"
        );
        let second = reserve("b", 5).unwrap();
        let over = reserve("b", 1).unwrap_err().to_string();
        assert!(over.contains("the node has 0 left of 15") && over.contains("bytesPerNode"), "{over}");
        assert_eq!(limits.taken(), 15);
        drop(first);
        assert_eq!(limits.taken(), 5);
        drop((reserve("a", 10).unwrap(), second));
        assert_eq!(limits.taken(), 0);
        assert!(limits.0.lock().unwrap().is_empty(), "a namespace that is gone is forgotten");
    }
}
