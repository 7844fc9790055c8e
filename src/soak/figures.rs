//! What the process costs over time, and whether that grows.

use crate::kiosk::resident_kib;
use crate::machine::{allocated_kib, give_memory_back};
use crate::regression::Line;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const PERIOD: Duration = Duration::from_secs(1);
/// Samples kept; at this number every other one goes.
const SAMPLES: usize = 100_000;
/// A slope of memory below this (KiB an hour) is none; above the second it is one that must not be.
const NO_SLOPE_KIB: f64 = 1024.0;
const STEEP_KIB: f64 = 4096.0;
/// Of a slope, in standard errors: less is noise.
const NOISE: f64 = 3.0;
/// Neighbours that are more alike than this are taken for a trend, not for noise.
const MOST_ALIKE: f64 = 0.95;
/// Fewer samples at rest tell nothing.
const FEWEST: usize = 30;

/// The process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    pub rss_kib: u64,
    /// What of it is allocated: without what the allocator keeps, or cannot give back, for being in pieces.
    pub allocated_kib: Option<u64>,
    pub descriptors: usize,
    pub threads: usize,
    /// Whether all was healed and nothing went on, so that it can be compared with other such moments.
    pub rest: bool,
}

impl Sample {
    pub fn now(begun: Instant, rest: bool) -> Self {
        if rest {
            // What the allocator keeps for later is no growth.
            give_memory_back();
        }
        let entries = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
        Self {
            at: begun.elapsed(),
            rss_kib: resident_kib(),
            allocated_kib: allocated_kib(),
            // One is the folder's own.
            descriptors: entries("/proc/self/fd").saturating_sub(1),
            threads: entries("/proc/self/task"),
            rest,
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = self.rss_kib as f64 / 1024.0;
        write!(f, "RSS {mib:.1} MiB, ")?;
        if let Some(kib) = self.allocated_kib {
            write!(f, "{:.1} MiB allocated, ", kib as f64 / 1024.0)?;
        }
        write!(f, "{} descriptors, {} threads", self.descriptors, self.threads)
    }
}

/// Takes a sample every second.
pub struct Sampler {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    samples: Vec<Sample>,
    rest: bool,
}

impl Sampler {
    pub fn start(begun: Instant) -> Self {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let kept = shared.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(PERIOD);
            // One of `stride` is kept.
            let (mut stride, mut turn) = (1_u64, 0_u64);
            loop {
                tick.tick().await;
                turn += 1;
                let mut shared = lock(&kept);
                if turn.is_multiple_of(stride) || shared.rest {
                    let sample = Sample::now(begun, shared.rest);
                    shared.samples.push(sample);
                }
                if shared.samples.len() >= SAMPLES {
                    stride *= 2;
                    let mut keep = false;
                    shared.samples.retain(|_| {
                        keep = !keep;
                        keep
                    });
                }
            }
        });
        Self { shared, task }
    }

    /// Says whether the time of comparable moments begins or ends.
    pub fn set_rest(&self, rest: bool) {
        lock(&self.shared).rest = rest;
    }

    pub fn slopes(&self) -> Slopes {
        Slopes::of(&lock(&self.shared).samples)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How fast something grows, an hour, and the standard error of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    pub an_hour: f64,
    pub error: f64,
    /// Over the time looked at.
    pub growth: f64,
}

impl Slope {
    /// Least squares of points of seconds and values, in order. What `wanders` was high a moment ago and still is: of its
    /// points fewer count, by how alike neighbours are (of a first-order autoregression `n (1 - r) / (1 + r)` are
    /// independent). `None` of fewer than three moments.
    fn of(points: &[(f64, f64)], wanders: bool) -> Option<Self> {
        let Line { slope, residuals: rest, spread, .. } = Line::through(points)?;
        let n = points.len() as f64;
        let squares: f64 = rest.iter().map(|rest| rest.powi(2)).sum();
        let neighbours: f64 = rest.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let alike =
            if wanders && squares > 0.0 { (neighbours / squares).clamp(0.0, MOST_ALIKE) } else { 0.0 };
        let error = (squares / (n - 2.0) / spread * (1.0 + alike) / (1.0 - alike)).sqrt();
        let time = points.last()?.0 - points.first()?.0;
        Some(Self { an_hour: slope * 3600.0, error: error * 3600.0, growth: slope * time })
    }

    fn above_noise(&self) -> bool {
        self.an_hour > NOISE * self.error
    }
}

/// The slopes of what was at rest, without the first third, in which buffers and arenas fill.
#[derive(Clone, Copy, Debug)]
pub struct Slopes {
    samples: usize,
    rss_kib: Option<Slope>,
    allocated_kib: Option<Slope>,
    descriptors: Option<Slope>,
    threads: Option<Slope>,
}

impl Slopes {
    pub fn of(samples: &[Sample]) -> Self {
        let warm = samples.last().map_or(Duration::ZERO, |last| last.at / 3);
        let rest: Vec<&Sample> = samples.iter().filter(|sample| sample.rest && sample.at >= warm).collect();
        let slope = |wanders, value: fn(&Sample) -> Option<f64>| {
            let point = |sample: &&Sample| Some((sample.at.as_secs_f64(), value(sample)?));
            let points: Vec<_> = rest.iter().filter_map(point).collect();
            Slope::of(&points, wanders).filter(|_| points.len() >= FEWEST)
        };
        Self {
            samples: rest.len(),
            rss_kib: slope(true, |sample| Some(sample.rss_kib as f64)),
            allocated_kib: slope(true, |sample| Some(sample.allocated_kib? as f64)),
            descriptors: slope(false, |sample| Some(sample.descriptors as f64)),
            threads: slope(false, |sample| Some(sample.threads as f64)),
        }
    }

    /// Whether it was long enough to tell.
    pub fn tell(&self) -> bool {
        self.samples >= FEWEST
    }

    /// Whether nothing grows. Of too short a time: true.
    pub fn flat(&self) -> bool {
        // What the allocator keeps in pieces is the kernel's, not ours to give back: it levels out, and is shown beside.
        let memory = self.allocated_kib.or(self.rss_kib);
        let steep = memory.is_some_and(|slope| slope.above_noise() && slope.an_hour > STEEP_KIB);
        // Of what is counted, less than one more is nothing.
        let more =
            |slope: Option<Slope>| slope.is_some_and(|slope| slope.above_noise() && slope.growth >= 1.0);
        !steep && !more(self.descriptors) && !more(self.threads)
    }
}

impl std::fmt::Display for Slopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "slopes an hour over {} samples at rest, the first third of the time left out:",
            self.samples
        )?;
        let line = |name: &str, slope: Option<Slope>, scale: f64, none: f64| match slope {
            None => format!("{name:<14} too short a time to tell"),
            Some(slope) => {
                let noise = slope.an_hour.abs() <= NOISE * slope.error || slope.an_hour.abs() < none;
                let verdict = if noise { "within noise" } else { "above noise" };
                let (an_hour, error) = (slope.an_hour / scale, slope.error / scale);
                format!("{name:<14} {an_hour:+9.2} ± {error:.2}   {verdict}")
            }
        };
        writeln!(f, "{}", line("RSS, MiB", self.rss_kib, 1024.0, NO_SLOPE_KIB))?;
        writeln!(f, "{}", line("allocated, MiB", self.allocated_kib, 1024.0, NO_SLOPE_KIB))?;
        writeln!(f, "{}", line("descriptors", self.descriptors, 1.0, 0.0))?;
        write!(f, "{}", line("threads", self.threads, 1.0, 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slopes(rss_kib: impl Fn(u64) -> u64, threads: impl Fn(u64) -> usize) -> Slopes {
        let samples: Vec<Sample> = (0..1800)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                rss_kib: rss_kib(second),
                allocated_kib: Some(rss_kib(second)),
                descriptors: 50,
                threads: threads(second),
                rest: second % 10 < 2,
            })
            .collect();
        Slopes::of(&samples)
    }

    #[test]
    fn what_fills_up_first_and_then_only_wavers_is_flat() {
        let slopes = slopes(|second| 80_000 + 100 * second.min(500) + second * 37 % 11 * 200, |_| 40);

        assert!(slopes.flat(), "{slopes}");
        assert_eq!(slopes.to_string().matches("within noise").count(), 4, "{slopes}");
    }

    #[test]
    fn five_mebibytes_an_hour_are_a_leak_and_a_thread_a_quarter_of_an_hour_too() {
        assert!(!slopes(|second| 80_000 + second * 5 * 1024 / 3600 + second % 2, |_| 40).flat());
        assert!(!slopes(|_| 80_000, |second| 40 + second as usize / 900).flat());
    }

    #[test]
    fn of_a_short_time_nothing_is_said() {
        assert!(Slopes::of(&[]).flat());
        assert!(Slopes::of(&[]).to_string().contains("too short"));
    }
}
