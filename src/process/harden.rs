//! Keeps a process's memory to itself.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Switches core dumps off and makes the process non-dumpable (`PR_SET_DUMPABLE`, prctl(2)), so neither a crash nor
/// another process of the same uid gets at its memory, its environment or its files in `/proc/<pid>/root`.
///
/// Never fatal: a container runtime may forbid it, which is logged.
pub fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps stay possible");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this uid may read this one's memory");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;
    use crate::process::testing;

    #[test]
    #[ignore = "run by p5_a_hardened_process_leaves_no_core"]
    fn in_a_process_of_its_own() {
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable, "or the test shows nothing");
        harden();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }

    #[test]
    fn p5_a_hardened_process_leaves_no_core() {
        testing::passes_alone("process::harden::tests::in_a_process_of_its_own");
    }
}
