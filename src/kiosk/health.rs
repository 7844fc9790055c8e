//! Whether the board is too hot or short of memory, said before something breaks; and whether the program hung before.

use crate::device::board::{Board, Gauge};
use crate::room::Event;
use crate::room::fault::{Cause, Code, Fault, Part};
use std::path::Path;
use std::time::Duration;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(10);
/// Of the limit: from here it is high.
const HIGH: (u64, u64) = (9, 10);

/// Looks at the board now and then.
pub struct Health {
    board: Board,
    next: Duration,
    /// What was high when it was looked last.
    high: Vec<Code>,
}

impl Health {
    pub fn new(board: Board) -> Self {
        Self { board, next: Duration::ZERO, high: Vec::new() }
    }

    pub fn due(&self) -> Duration {
        self.next
    }

    /// What has become high or is so no more.
    pub fn look(&mut self, now: Duration) -> Vec<Event> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + PERIOD;
        // Heat is measured against where the kernel slows the board down; memory has a limit that ends the process.
        let heat = self.board.heat().filter(|heat| heat.now >= heat.limit);
        let memory = self.board.memory().filter(|memory| memory.now * HIGH.1 >= memory.limit * HIGH.0);
        let found = [(Code::Overheated, heat), (Code::MemoryHigh, memory)];
        let before = std::mem::take(&mut self.high);
        let mut events = Vec::new();
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

    #[test]
    fn heat_is_said_once_when_it_comes_and_when_it_goes() {
        let root = std::env::temp_dir().join(format!("parlor-health-{}", std::process::id()));
        let zone = root.join("sys/class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone).expect("a folder");
        let write = |name: &str, content: &str| std::fs::write(zone.join(name), content).expect("a file");
        for (name, content) in
            [("type", "cpu"), ("trip_point_0_type", "passive"), ("trip_point_0_temp", "80000")]
        {
            write(name, content);
        }
        let mut health = Health::new(Board::new(&root));
        let mut said = Vec::new();

        for (second, temperature) in [(0, "79000"), (10, "80000"), (15, "10"), (20, "90000"), (30, "70000")] {
            write("temp", temperature);
            let events = health.look(Duration::from_secs(second));
            said.extend(events.into_iter().map(|event| match event {
                Event::Raised(fault) => (second, fault.code, true),
                Event::Over(code) => (second, code, false),
                other => panic!("{other:?}"),
            }));
        }

        std::fs::remove_dir_all(&root).expect("it is ours");
        assert_eq!(said, [(10, Code::Overheated, true), (30, Code::Overheated, false)]);
    }
}
