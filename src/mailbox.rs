//! The newest values between two threads, and the bell that wakes who waits for them.
//!
//! Pictures are hardly queued: a few may wait, so that a reader that was late once loses none and has caught up soon;
//! for a reader that stays behind the newest win.

use heapless::Deque;
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

/// Holds the newest values, `N` at most.
#[derive(Debug)]
pub struct Mailbox<T, const N: usize> {
    slots: Mutex<Deque<T, N>>,
    bell: Arc<Bell>,
}

impl<T, const N: usize> Mailbox<T, N> {
    /// A mailbox that rings `bell` at each arrival; several may share one bell.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { slots: Mutex::new(Deque::new()), bell }
    }

    /// Puts the newest value in. True if an unread one was displaced.
    pub fn put(&self, value: T) -> bool {
        let mut slots = lock(&self.slots);
        let displaced = if slots.is_full() { slots.pop_front() } else { None };
        // There is room now.
        let _ = slots.push_back(value);
        drop(slots);
        self.bell.ring();
        displaced.is_some()
    }

    /// Takes the oldest value out; rings again if there is another.
    pub fn take(&self) -> Option<T> {
        self.take_if(|_| true)
    }

    /// Takes the oldest value out if it is as `wanted`; rings again if there is another.
    pub fn take_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut slots = lock(&self.slots);
        let value = if slots.front().is_some_and(wanted) { slots.pop_front() } else { None };
        if !slots.is_empty() {
            self.bell.ring();
        }
        value
    }

    /// How many values that are as `wanted` wait.
    pub fn waiting(&self, wanted: impl Fn(&T) -> bool) -> usize {
        lock(&self.slots).iter().filter(|value| wanted(value)).count()
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
    fn two_values_wait_and_the_newest_win() {
        let mailbox = Mailbox::<_, 2>::new(Arc::new(Bell::default()));

        assert!(!mailbox.put(1));
        assert!(!mailbox.put(2));
        assert!(mailbox.put(3));
        assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(2), Some(3), None]);
    }

    #[test]
    fn it_rings_until_the_last_value_is_taken() {
        let bell = Arc::new(Bell::default());
        let mailbox = Mailbox::<_, 2>::new(bell.clone());
        mailbox.put(1);
        mailbox.put(2);
        bell.wait(Duration::ZERO);

        assert_eq!(mailbox.take_if(|value| *value > 1), None);
        assert!(bell.wait(Duration::ZERO));
        mailbox.take();
        assert!(bell.wait(Duration::ZERO));
        mailbox.take();
        assert!(!bell.wait(Duration::ZERO));
    }

    #[test]
    fn a_ring_before_the_wait_is_heard() {
        let bell = Arc::new(Bell::default());
        let mailbox = Mailbox::<_, 2>::new(bell.clone());
        mailbox.put(());

        assert!(bell.wait(Duration::ZERO));
        assert!(!bell.wait(Duration::ZERO));
    }
}
