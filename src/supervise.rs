//! Keeps a session alive: the one place where an error, or a panic, becomes a fault.
//!
//! ```text
//!          ┌──────────── back-off 0.25 → 2 s ◄───────────┐
//!          ▼                                             │ raised
//!   session opens ──► works: healed ──► Err or panic ────┘
//!          └──► Ok: told to stop ──► thread ends
//! ```

use crate::room::fault::{Cause, Code, Fault, Part};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Tells a thread to end, and wakes it if it waits.
#[derive(Clone, Default)]
pub struct Stop {
    told: Arc<(Mutex<bool>, Condvar)>,
    /// What wakes those who wait for something else. As many as there are such threads.
    wakers: Arc<Mutex<Vec<Waker>>>,
}

type Waker = Box<dyn Fn() + Send>;

impl Stop {
    pub fn tell(&self) {
        *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.1.notify_all();
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|wake| wake());
    }

    /// Has `wake` called when told: for a thread that waits for something else. Called now if told already.
    pub fn on_tell(&self, wake: impl Fn() + Send + 'static) {
        // Locked first: who tells meanwhile finds it there.
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_told() {
            wake();
        }
        wakers.push(Box::new(wake));
    }

    pub fn is_told(&self) -> bool {
        *self.told.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits `duration`, or until told. True if told.
    pub fn wait(&self, duration: Duration) -> bool {
        let told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.1.wait_timeout_while(told, duration, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub cause: Cause,
}

/// What the supervisor has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Raised(Fault),
    Healed(Part),
}

const SHORTEST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Runs `session` on a thread named `name` until it ends with `Ok` or `stop` is told; opens it anew after a failure.
/// The session calls the function it is given once it truly works.
pub fn keep(
    name: &str,
    part: Part,
    stop: Stop,
    say: impl Fn(Verdict) + Send + 'static,
    mut session: impl FnMut(&dyn Fn()) -> Result<(), Failure> + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut wait = SHORTEST_WAIT;
        while !stop.is_told() {
            let healthy = std::cell::Cell::new(false);
            let works = || {
                if !healthy.replace(true) {
                    say(Verdict::Healed(part.clone()));
                }
            };
            let failure = match catch_unwind(AssertUnwindSafe(|| session(&works))) {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(panic) => internal(panic.as_ref()),
            };
            wait = if healthy.get() { SHORTEST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            tracing::warn!(?part, code = ?failure.code, op = failure.cause.op, ?wait, "session ended");
            say(Verdict::Raised(Fault {
                part: part.clone(),
                code: failure.code,
                cause: Some(failure.cause),
                retry_in: Some(wait),
            }));
            stop.wait(wait);
        }
    })
}

/// A panic in a session, as a failure of ours.
fn internal(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into());
    tracing::error!(text, "a session panicked");
    Failure { code: Code::Internal, cause: Cause { op: "panic".into(), errno: Some(text), target: None } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn failure(code: Code) -> Failure {
        Failure { code, cause: Cause::default() }
    }

    #[test]
    fn who_waits_for_something_else_is_woken_when_told_and_at_once_if_told_before() {
        let (stop, (wake, woken)) = (Stop::default(), mpsc::channel());
        let late = wake.clone();
        stop.on_tell(move || wake.send("early").expect("heard"));
        assert!(woken.try_recv().is_err());

        stop.tell();
        assert_eq!(woken.try_recv(), Ok("early"));
        stop.on_tell(move || late.send("late").expect("heard"));
        assert_eq!(woken.try_recv(), Ok("late"));
    }

    #[test]
    fn a_session_that_fails_or_panics_is_reported_and_opened_anew() {
        let (say, said) = mpsc::channel();
        let mut lives = 0;
        let thread = keep(
            "test",
            Part::Screen,
            Stop::default(),
            move |verdict| say.send(verdict).expect("heard"),
            move |works| {
                lives += 1;
                match lives {
                    1 => Err(failure(Code::ScreenOpen)),
                    2 => panic!("as a driver might"),
                    _ => {
                        works();
                        works();
                        Ok(())
                    }
                }
            },
        );
        thread.expect("a thread").join().expect("the supervisor survives");

        let codes: Vec<_> = said
            .iter()
            .map(|verdict| match verdict {
                Verdict::Raised(fault) => Some(fault.code),
                Verdict::Healed(_) => None,
            })
            .collect();
        assert_eq!(codes, [Some(Code::ScreenOpen), Some(Code::Internal), None]);
    }

    #[test]
    fn a_told_session_is_not_opened_again() {
        let stop = Stop::default();
        let told = stop.clone();
        let thread = keep(
            "test",
            Part::Screen,
            stop,
            |_| (),
            move |_| {
                told.tell();
                Err(failure(Code::ScreenOpen))
            },
        );

        thread.expect("a thread").join().expect("ends");
    }
}
