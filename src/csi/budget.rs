//! Bytes that volumes, and the answers that their feeds keep, may take, all of a namespace and of the node together: tmpfs
//! pages are charged to the driver, and one tenant must not end it for all. Answers on their way have a share of their own:
//! what is set aside for volumes must not keep those that run from being refreshed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::CsiLimits;
use crate::provider::ArrivalRoom;

/// What the driver itself needs for a volume, beside its file system: its plan above all.
const VOLUME_BYTES: u64 = 64 << 10;
/// What it needs for a feed, beside the answers: connections above all.
const FEED_BYTES: u64 = 256 << 10;

/// What answers on their way may take, of which no namespace has more than half of what the others leave: however many ask
/// for large ones, small ones find room. The largest answer of one store takes some 20 MiB for a moment: 3 MiB of text, in
/// a buffer that grew, and a hundred thousand values made of it.
const ARRIVING: u64 = 48 << 20;

/// What is set aside, by namespace.
#[derive(Debug, Default)]
struct SetAside(Mutex<BTreeMap<String, u64>>);

/// What is set aside for volumes and for what their feeds keep; and for what is on its way.
#[derive(Debug, Default)]
pub(super) struct VolumeBudget {
    kept: SetAside,
    arriving: SetAside,
}

/// Bytes set aside for a volume, until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    limits: Arc<VolumeBudget>,
    namespace: String,
    bytes: u64,
}

/// A namespace's share of what answers on their way may take.
#[derive(Debug)]
pub(super) struct ArrivalShare {
    limits: Arc<VolumeBudget>,
    namespace: String,
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

// === impl SetAside ===

impl SetAside {
    /// If `judge` lets it, which is told what the namespace and what all have taken.
    fn take<E>(&self, namespace: &str, bytes: u64, judge: impl FnOnce(u64, u64) -> Result<(), E>) -> Result<(), E> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = taken.get(namespace).copied().unwrap_or_default();
        judge(of_namespace, taken.values().sum())?;
        taken.insert(namespace.to_owned(), of_namespace + bytes);
        Ok(())
    }

    fn give_back(&self, namespace: &str, bytes: u64) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = taken.get_mut(namespace) {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                taken.remove(namespace);
            }
        }
    }

    fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

// === impl VolumeBudget ===

impl VolumeBudget {
    /// Sets aside what a volume takes whose file system has at most so many bytes.
    ///
    /// # Errors
    /// [`OverLimit`] says of which limit there is too little left.
    pub(super) fn reserve_volume(
        self: &Arc<Self>,
        namespace: &str,
        bytes: u64,
        limits: &CsiLimits,
    ) -> Result<Reservation, OverLimit> {
        self.reserve(namespace, bytes.saturating_add(VOLUME_BYTES), limits)
    }

    /// Sets aside what a feed takes whose answers have at most so many bytes.
    ///
    /// # Errors
    /// As [`VolumeBudget::reserve_volume`].
    pub(super) fn reserve_feed(
        self: &Arc<Self>,
        namespace: &str,
        bytes: u64,
        limits: &CsiLimits,
    ) -> Result<Reservation, OverLimit> {
        self.reserve(namespace, bytes.saturating_add(FEED_BYTES), limits)
    }

    fn reserve(self: &Arc<Self>, namespace: &str, bytes: u64, limits: &CsiLimits) -> Result<Reservation, OverLimit> {
        let CsiLimits { bytes_per_namespace, bytes_per_node } = *limits;
        self.kept.take(namespace, bytes, |of_namespace, of_node| {
            for (whose, field, taken, most) in [
                ("its namespace on this node", "bytesPerNamespace", of_namespace, bytes_per_namespace),
                ("the node", "bytesPerNode", of_node, bytes_per_node),
            ] {
                let left = most.saturating_sub(taken);
                if bytes > left {
                    return Err(OverLimit { asked: bytes, whose, left, most, field });
                }
            }
            Ok(())
        })?;
        Ok(Reservation { limits: Arc::clone(self), namespace: namespace.to_owned(), bytes })
    }

    /// What answers on their way to this namespace's feeds may take.
    pub(super) fn arrivals(self: &Arc<Self>, namespace: &str) -> Arc<dyn ArrivalRoom> {
        Arc::new(ArrivalShare { limits: Arc::clone(self), namespace: namespace.to_owned() })
    }

    /// Bytes that are set aside now, without those of answers on their way.
    pub(super) fn taken(&self) -> u64 {
        self.kept.total()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limits.kept.give_back(&self.namespace, self.bytes);
    }
}

// === impl ArrivalShare ===

impl ArrivalRoom for ArrivalShare {
    fn take(&self, bytes: u64) -> Result<(), String> {
        self.limits.arriving.take(&self.namespace, bytes, |of_namespace, of_node| {
            let most = ARRIVING.saturating_sub(of_node - of_namespace) / 2;
            if of_namespace + bytes <= most {
                return Ok(());
            }
            Err(format!(
                "answers with more than there is room for at the time: all that is on its way to its namespace on this node \
                 may take {most} bytes of memory"
            ))
        })
    }

    fn give_back(&self, bytes: u64) {
        self.limits.arriving.give_back(&self.namespace, bytes);
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
        assert!(limits.kept.0.lock().unwrap().is_empty(), "a namespace that is gone is forgotten");
    }

    #[test]
    fn what_is_on_its_way_has_a_share_of_its_own_and_ends_with_its_operation() {
        let limits = Arc::new(VolumeBudget::default());
        let none_left = CsiLimits { bytes_per_namespace: 1, bytes_per_node: 1 };
        let _full = limits.reserve("a", 1, &none_left).unwrap();
        // Each has half of what those before it have left.
        let mut left = ARRIVING;
        let mut shares = Vec::new();
        for number in 0..20 {
            let share = limits.arrivals(&format!("namespace-{number}"));
            let most = left / 2;
            assert!(share.take(most + 1).unwrap_err().contains(&format!("{most} bytes")));
            share.take(most).unwrap();
            assert!(share.take(1).is_err());
            left -= most;
            shares.push((share, most));
        }
        assert!((1..100).contains(&left), "{left}");
        for (share, taken) in &shares {
            share.give_back(*taken);
        }
        shares[0].0.take(ARRIVING / 2).unwrap();
        shares[0].0.give_back(ARRIVING / 2);
        assert!(limits.arriving.0.lock().unwrap().is_empty());
        assert_eq!(limits.taken(), 1, "volumes count apart");
    }
}
