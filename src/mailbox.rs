//! The newest value between two threads, and the bell that wakes who waits for it.
//!
//! Pictures are never queued: a reader that is late gets the newest one and the older are gone.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Wakes one waiting thread; rings before the wait are not lost, several count as one.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    condition: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *lock(&self.rung) = true;
        self.condition.notify_one();
    }

    /// Waits for a ring, `timeout` at most. True if it rang.
    pub fn wait(&self, timeout: Duration) -> bool {
        let rung = lock(&self.rung);
        let (mut rung, _) = self
            .condition
            .wait_timeout_while(rung, timeout, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// Holds one value: the newest.
#[derive(Debug)]
pub struct Mailbox<T> {
    slot: Mutex<Option<T>>,
    bell: Arc<Bell>,
}

impl<T> Mailbox<T> {
    /// A mailbox that rings `bell` at each arrival; several may share one bell.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { slot: Mutex::new(None), bell }
    }

    /// Puts the newest value in. True if an unread one was displaced.
    pub fn put(&self, value: T) -> bool {
        let displaced = lock(&self.slot).replace(value).is_some();
        self.bell.ring();
        displaced
    }

    pub fn take(&self) -> Option<T> {
        lock(&self.slot).take()
    }
}

/// A poisoned lock is taken over: each value here is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_wins() {
        let mailbox = Mailbox::new(Arc::new(Bell::default()));

        assert!(!mailbox.put(1));
        assert!(mailbox.put(2));
        assert_eq!(mailbox.take(), Some(2));
        assert_eq!(mailbox.take(), None);
    }

    #[test]
    fn a_ring_before_the_wait_is_heard() {
        let bell = Arc::new(Bell::default());
        let mailbox = Mailbox::new(bell.clone());
        mailbox.put(());

        assert!(bell.wait(Duration::ZERO));
        assert!(!bell.wait(Duration::ZERO));
    }
}
