//! What several tell, each of itself, for one who adds it up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is told now. Clones share it.
#[derive(Debug)]
pub struct Board<T>(Arc<Mutex<Posted<T>>>);

/// Where one tells; what it told is forgotten with it.
#[derive(Debug)]
pub struct BoardPlace<T> {
    board: Board<T>,
    number: u64,
}

#[derive(Debug)]
struct Posted<T> {
    next: u64,
    by_place: BTreeMap<u64, T>,
}

// === impl Board ===

impl<T> Board<T> {
    /// A place for one more.
    #[must_use]
    pub fn place(&self) -> BoardPlace<T> {
        let mut posted = self.posted();
        posted.next += 1;
        BoardPlace { board: self.clone(), number: posted.next }
    }

    /// What somebody makes of all that is told now.
    pub fn read<R>(&self, read: impl FnOnce(&mut dyn Iterator<Item = &T>) -> R) -> R {
        read(&mut self.posted().by_place.values())
    }

    fn posted(&self) -> MutexGuard<'_, Posted<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Board<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Board<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Posted { next: 0, by_place: BTreeMap::new() })))
    }
}

// === impl BoardPlace ===

impl<T> BoardPlace<T> {
    /// Tells this instead of what it told before.
    pub fn tell(&self, news: T) {
        self.board.posted().by_place.insert(self.number, news);
    }
}

impl<T> Drop for BoardPlace<T> {
    fn drop(&mut self) {
        self.board.posted().by_place.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_takes_along_what_it_told() {
        let board = Board::default();
        let sum = || board.read(|told| told.sum::<i32>());
        let (one, two) = (board.place(), board.place());
        assert_eq!(sum(), 0);
        one.tell(1);
        two.tell(20);
        one.tell(3);
        assert_eq!(sum(), 23);
        drop(one);
        assert_eq!(sum(), 20);
        assert_eq!(board.posted().by_place.len(), 1, "it is forgotten");
    }
}
