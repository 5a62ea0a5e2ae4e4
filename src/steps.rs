//! What one decision may cost, counted in steps: the look at one thing, such as a container, a mount, a reference or a
//! rule, and at every 64 bytes of its text.
//!
//! A budget belongs to the thread that works within it, as the async runtime's own does: a decision is made in one go on
//! one thread, and the many readers that spend are far from where it was set. Outside of a budget (agents, tools) steps
//! cost nothing.

use std::cell::Cell;

/// Most steps of one review. Ours take some hundreds for a usual pod; the most that Kubernetes would store, with the
/// longest annotations and a thousand rules of the operator, stays below.
pub const REVIEW: u64 = 1_000_000;

/// Text of this many bytes is looked at in one step.
const BYTES: usize = 64;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// The budget is spent: what is asked for is too much, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the pod asks for more than one review may take: write fewer containers, mounts, references or names, or take \
     directories instead of many files"
)]
pub struct OverBudget;

/// Works within a budget; tells how many steps it took. They are taken from a budget around it, too.
pub fn within<T>(budget: u64, work: impl FnOnce() -> T) -> (T, u64) {
    /// Gives back what is left, also if the work panics.
    struct Around {
        left: u64,
        budget: u64,
    }
    impl Around {
        fn taken(&self) -> u64 {
            self.budget.saturating_sub(LEFT.get())
        }
    }
    impl Drop for Around {
        fn drop(&mut self) {
            LEFT.set(self.left.saturating_sub(self.taken()));
        }
    }
    let left = LEFT.get();
    let around = Around { left, budget: budget.min(left) };
    LEFT.set(around.budget);
    let outcome = work();
    let taken = around.taken();
    (outcome, taken)
}

/// Takes steps.
///
/// # Errors
/// [`OverBudget`] if there are no more.
pub fn take(steps: usize) -> Result<(), OverBudget> {
    spend(steps);
    check()
}

/// Whether there are steps left, after some that could not fail.
///
/// # Errors
/// [`OverBudget`] if there are none.
pub fn check() -> Result<(), OverBudget> {
    if LEFT.get() == 0 { Err(OverBudget) } else { Ok(()) }
}

/// Takes what looking at a text costs.
///
/// # Errors
/// [`OverBudget`] if there are no more steps.
pub fn look(text: &str) -> Result<(), OverBudget> {
    take(1 + text.len() / BYTES)
}

/// Takes steps where nothing can fail: whatever takes some next will.
pub fn spend(steps: usize) {
    LEFT.set(LEFT.get().saturating_sub(steps as u64));
}

impl From<OverBudget> for String {
    fn from(spent: OverBudget) -> Self {
        spent.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_budget_ends_and_is_given_back() {
        assert_eq!(within(10, || (take(9), take(1), take(1))), ((Ok(()), Err(OverBudget), Err(OverBudget)), 10));
        assert_eq!(take(1_000_000), Ok(()), "there is none here");
        let (inner, outer) = within(100, || {
            let (_, inner) = within(30, || take(20));
            assert!(catch_unwind(|| within(30, || take(5).map(|()| panic!("a fault")))).is_err());
            let (spent, least) = within(1000, || take(80));
            (inner, spent, least)
        });
        assert_eq!((inner, outer), ((20, Err(OverBudget), 75), 100), "an inner budget is part of the outer one");
        assert_eq!(within(10, || look(&"x".repeat(128))), (Ok(()), 3));
    }
}
