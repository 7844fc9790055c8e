//! What a process has cost so far, thread by thread, as the kernel counts it.

use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Since the process began, or between two such moments.
pub struct Cost {
    at: Instant,
    /// By number of the thread.
    threads: BTreeMap<u32, Thread>,
    /// Proportional set size in MiB: pages shared with others are divided by them.
    pub pss_mib: f64,
    /// Seconds since the other moment.
    pub seconds: f64,
}

/// One thread.
#[derive(Clone, Debug, Default)]
struct Thread {
    name: String,
    /// On a core, in seconds.
    cpu: f64,
    /// How often it went to sleep of itself: it has woken up as often.
    sleeps: u64,
}

/// CPU seconds and wake-ups, each a second.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Share {
    pub cpu: f64,
    pub wakeups: f64,
}

impl Cost {
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now() -> anyhow::Result<Self> {
        Self::at(Path::new("/proc/self"))
    }

    /// Of the process with this number.
    ///
    /// # Errors
    /// It has ended, or `/proc` cannot be read.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        Self::at(&PathBuf::from(format!("/proc/{process}")))
    }

    fn at(process: &Path) -> anyhow::Result<Self> {
        let mut threads = BTreeMap::new();
        let tasks = process.join("task");
        for entry in std::fs::read_dir(&tasks).with_context(|| format!("list {}", tasks.display()))? {
            let entry = entry.with_context(|| format!("list {}", tasks.display()))?;
            let number = entry.file_name().to_string_lossy().parse().unwrap_or_default();
            // A thread that has ended meanwhile.
            if let Some(thread) = thread(&entry.path()) {
                threads.insert(number, thread);
            }
        }
        let rollup = process.join("smaps_rollup");
        let text = std::fs::read_to_string(&rollup).with_context(|| format!("read {}", rollup.display()))?;
        let pss_kib = field(&text, "Pss:").with_context(|| format!("no Pss in {}", rollup.display()))?;
        Ok(Self { at: Instant::now(), threads, pss_mib: pss_kib as f64 / 1024.0, seconds: 0.0 })
    }

    /// What was spent from `before` to this moment. Threads that began and ended in between are not seen.
    pub fn since(mut self, before: &Self) -> Self {
        for (number, thread) in &mut self.threads {
            let Some(before) = before.threads.get(number) else { continue };
            thread.cpu -= before.cpu;
            thread.sleeps = thread.sleeps.saturating_sub(before.sleeps);
        }
        self.seconds = (self.at - before.at).as_secs_f64();
        self
    }

    /// By name of the thread, what each kind spends a second.
    pub fn by_name(&self) -> BTreeMap<String, Share> {
        let mut shares = BTreeMap::<String, Share>::new();
        for thread in self.threads.values() {
            let share = shares.entry(thread.name.clone()).or_default();
            share.cpu += thread.cpu / self.seconds;
            share.wakeups += thread.sleeps as f64 / self.seconds;
        }
        shares
    }
}

/// CPU seconds that the calling thread has worked.
///
/// # Errors
/// `/proc` cannot be read.
pub fn this_thread() -> anyhow::Result<f64> {
    // A thread that has given way is told to the nanosecond.
    std::thread::yield_now();
    cpu(Path::new("/proc/thread-self")).context("read /proc/thread-self/schedstat")
}

fn thread(folder: &Path) -> Option<Thread> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let sleeps = field(&read("status")?, "voluntary_ctxt_switches:")?;
    Some(Thread { name: read("comm")?.trim().to_owned(), cpu: cpu(folder)?, sleeps })
}

/// Time on a core in nanoseconds is the first number (kernel: scheduler/sched-stats).
fn cpu(folder: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_works_and_how_often_it_sleeps_is_counted_under_its_name() {
        let (say, heard) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let work = move || {
            gone.recv().expect("told to go");
            let mut sum = 0_u64;
            for number in 0..50_000_000_u64 {
                sum = std::hint::black_box(sum ^ number);
            }
            say.send(sum).expect("heard");
            ended.recv().expect("told to end");
        };
        let worker = std::thread::Builder::new().name("cost-worker".into()).spawn(work).expect("a thread");

        let before = Cost::now().expect("/proc");
        go.send(()).expect("waits");
        heard.recv().expect("worked");
        let spent = Cost::now().expect("/proc").since(&before);
        end.send(()).expect("waits");
        worker.join().expect("no panic");

        let share = spent.by_name()["cost-worker"];
        assert!(share.cpu * spent.seconds > 0.001, "{share:?} in {} s", spent.seconds);
        assert!(spent.pss_mib > 0.5);
    }
}
