//! Where a test can end the process: at each thing that outlives it. Nothing is run from then on.

use std::cell::RefCell;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;

#[derive(Default)]
struct Steps {
    /// How many are made before the process ends.
    left: Option<usize>,
    is_dead: bool,
    last: &'static str,
}

thread_local! {
    static STEPS: RefCell<Steps> = RefCell::default();
}

/// A process begins; it ends after so many steps.
pub(in crate::csi) fn begin(left: Option<usize>) {
    STEPS.set(Steps { left, ..Steps::default() });
}

/// Whether the process has ended.
pub(in crate::csi) fn is_dead() -> bool {
    STEPS.with_borrow(|steps| steps.is_dead)
}

/// The last step: the one that was not made, if the process has ended.
pub(in crate::csi) fn last() -> &'static str {
    STEPS.with_borrow(|steps| steps.last)
}

/// One step.
pub(in crate::csi) fn step(name: &'static str) {
    if ends(name) {
        resume_unwind(Box::new("killed"));
    }
}

/// One step within a volume; a process that ends there leaves half a generation.
pub(in crate::csi) fn step_in(target: &Path) {
    if ends("write") {
        let writing = target.join("..writing_tmp");
        // Before the mount there is no directory.
        if target.exists() && fs::create_dir(&writing).is_ok() {
            fs::write(writing.join("db"), "half").unwrap();
        }
        resume_unwind(Box::new("killed"));
    }
}

fn ends(name: &'static str) -> bool {
    STEPS.with_borrow_mut(|steps| {
        if !steps.is_dead {
            steps.last = name;
            steps.is_dead = steps.left == Some(0);
            steps.left = steps.left.map(|left| left.saturating_sub(1));
        }
        steps.is_dead
    })
}
