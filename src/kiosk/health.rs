//! Whether the board is too hot, short of memory or too busy, said before something breaks; and whether the program
//! hung before.

use crate::device::{Board, Gauge};
use crate::pipeline::Work;
use crate::room::Event;
use crate::room::fault::{Cause, Code, Fault, Part};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(10);
/// Of the limit: from here it is high.
const HIGH: (u64, u64) = (9, 10);

/// How often the threads are looked at while they work.
const SECOND: Duration = Duration::from_secs(1);
/// Who works less of the time has no pictures: nothing is late.
const ASLEEP: f32 = 0.001;

/// Looks at the board now and then.
pub struct Health {
    board: Arc<dyn Board>,
    /// Threads that must not be late, and what each had worked when they were looked at last.
    threads: Vec<(Arc<Work>, Duration)>,
    looked: Duration,
    /// Whether none of them worked when it was looked last.
    asleep: bool,
    next: Duration,
    /// What was high when it was looked last.
    high: Vec<Code>,
}

impl Health {
    pub fn new(board: Arc<dyn Board>, threads: Vec<Arc<Work>>) -> Self {
        let threads = threads.into_iter().map(|thread| (thread, Duration::ZERO)).collect();
        Self { board, threads, looked: Duration::ZERO, asleep: false, next: Duration::ZERO, high: Vec::new() }
    }

    /// Nobody is woken for threads that sleep; what makes them work is an event, and after each it is looked.
    pub fn due(&self) -> Duration {
        if self.asleep { self.next } else { self.next.min(self.looked + SECOND) }
    }

    /// What has become high or is so no more, and how busy the threads are.
    pub fn look(&mut self, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        if now >= self.looked + SECOND {
            let passed = std::mem::replace(&mut self.looked, now).abs_diff(now);
            let busy = self.threads.iter_mut().map(|(thread, before)| {
                let worked = thread.total() - std::mem::replace(before, thread.total());
                worked.as_secs_f32() / passed.as_secs_f32()
            });
            let busy = busy.fold(0.0, f32::max);
            self.asleep = busy < ASLEEP;
            events.push(Event::Busy(busy));
        }
        if now < self.next {
            return events;
        }
        self.next = now + PERIOD;
        // Heat is measured against where the kernel slows the board down; memory has a limit that ends the process.
        let heat = self.board.heat().filter(|heat| heat.now >= heat.limit);
        let memory = self.board.memory().filter(|memory| memory.now * HIGH.1 >= memory.limit * HIGH.0);
        let found = [(Code::Overheated, heat), (Code::MemoryHigh, memory)];
        let before = std::mem::take(&mut self.high);
        for (code, gauge) in found {
            match gauge {
                Some(gauge) => {
                    self.high.push(code);
                    if !before.contains(&code) {
                        events.push(Event::Raised(fault(code, &gauge)));
                    }
                }
                None if before.contains(&code) => events.push(Event::Over(code)),
                None => {}
            }
        }
        events
    }
}

/// A file in the unit's runtime directory (systemd.exec(5)), written where a hang was ended and read by the next life.
const MARK: &str = "hung";

/// Leaves word if systemd says (`$SERVICE_RESULT`, systemd.exec(5)) that its watchdog ended the service.
///
/// # Errors
/// The file cannot be written.
pub fn leave_word(service_result: &str, runtime_directory: &Path) -> std::io::Result<()> {
    if service_result == "watchdog" {
        std::fs::write(runtime_directory.join(MARK), "")?;
    }
    Ok(())
}

/// What there is to say of the last life, once.
pub fn last_life(runtime_directory: &Path) -> Vec<Event> {
    if std::fs::remove_file(runtime_directory.join(MARK)).is_err() {
        return Vec::new();
    }
    let (part, code) = (Part::System, Code::WatchdogRestart);
    vec![Event::Raised(Fault { part, code, cause: None, retry_in: None }), Event::Over(code)]
}

fn fault(code: Code, gauge: &Gauge) -> Fault {
    let Gauge { now, limit, name } = gauge;
    let cause = Cause { op: format!("{now} of {limit}"), errno: None, target: Some(name.clone()) };
    Fault { part: Part::System, code, cause: Some(cause), retry_in: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn a_hang_is_said_by_the_next_life_and_by_no_other() {
        let directory = std::env::temp_dir().join(format!("parlor-hang-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a folder");
        let said = || last_life(&directory).len();

        leave_word("success", &directory).expect("nothing to write");
        assert_eq!(said(), 0);
        leave_word("watchdog", &directory).expect("written");
        assert_eq!([said(), said()], [2, 0]);

        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    /// A board of this temperature that becomes hot at 80 °C.
    struct Hot(AtomicU64);

    impl Board for Hot {
        fn heat(&self) -> Option<Gauge> {
            Some(Gauge { now: self.0.load(Relaxed), limit: 80_000, name: "cpu".into() })
        }

        fn memory(&self) -> Option<Gauge> {
            None
        }

        fn file(&self, path: &Path) -> std::io::Result<bytes::Bytes> {
            Ok(std::fs::read(path)?.into())
        }
    }

    #[test]
    fn threads_are_looked_at_each_second_while_they_work_and_seldom_while_they_sleep() {
        let (board, thread) = (Arc::new(Hot(AtomicU64::new(0))), Arc::new(Work::default()));
        let mut health = Health::new(board, vec![thread.clone()]);
        let at = Duration::from_secs;

        thread.add(Duration::from_millis(20));
        health.look(at(1));
        assert_eq!(health.due(), at(2));
        health.look(at(2));
        assert_eq!(health.due(), at(11));

        thread.add(Duration::from_millis(20));
        assert!(matches!(health.look(at(4))[..], [Event::Busy(busy)] if (0.009..0.011).contains(&busy)));
        assert_eq!(health.due(), at(5));
    }

    #[test]
    fn heat_is_said_once_when_it_comes_and_when_it_goes() {
        let board = Arc::new(Hot(AtomicU64::new(0)));
        let mut health = Health::new(board.clone(), Vec::new());
        let mut said = Vec::new();

        for (second, temperature) in [(0, 79_000), (10, 80_000), (15, 10), (20, 90_000), (30, 70_000)] {
            board.0.store(temperature, Relaxed);
            said.extend(health.look(Duration::from_secs(second)).into_iter().filter_map(
                |event| match event {
                    Event::Raised(fault) => Some((second, fault.code, true)),
                    Event::Over(code) => Some((second, code, false)),
                    _ => None,
                },
            ));
        }

        assert_eq!(said, [(10, Code::Overheated, true), (30, Code::Overheated, false)]);
    }
}
