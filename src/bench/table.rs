//! What was measured, for people and as JSON.

use super::Options;
use super::cost::{Cost, Share};
use super::sight::Tile;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// One measurement.
#[derive(Debug, Serialize)]
pub struct Outcome {
    version: &'static str,
    size: String,
    screen: String,
    rate_hz: u32,
    grain: u8,
    seconds: f64,
    /// Received; the own camera has a tile beside them.
    streams: u8,
    /// Of one core.
    cpu: f64,
    cpu_per_tile: Option<f64>,
    pss_mib: f64,
    wakeups: f64,
    threads: BTreeMap<String, Share>,
    tiles: BTreeMap<String, TileOutcome>,
    /// What the kiosk said of itself, the last second.
    stats: Option<Value>,
}

#[derive(Debug, Serialize)]
struct TileOutcome {
    fps: f64,
    /// From the camera to the glass, milliseconds.
    p50_ms: f64,
    p99_ms: f64,
}

impl Outcome {
    pub fn new(
        options: &Options,
        streams: u8,
        spent: Cost,
        tiles: BTreeMap<String, Tile>,
        stats: impl Iterator<Item = Value>,
    ) -> Self {
        let threads = spent.by_name();
        let sum = |of: fn(&Share) -> f64| threads.values().map(of).sum::<f64>();
        let cpu = sum(|share| share.cpu);
        let wakeups = sum(|share| share.wakeups);
        let tiles: BTreeMap<_, _> =
            tiles.into_iter().map(|(member, tile)| (member, seen(tile, spent.seconds))).collect();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            size: options.size.to_string(),
            screen: options.screen.to_string(),
            rate_hz: options.rate,
            grain: options.grain,
            seconds: spent.seconds,
            streams,
            cpu,
            cpu_per_tile: (!tiles.is_empty()).then(|| cpu / tiles.len() as f64),
            pss_mib: spent.pss_mib,
            wakeups,
            threads,
            tiles,
            stats: stats.last(),
        }
    }
}

fn seen(tile: Tile, seconds: f64) -> TileOutcome {
    let mut ages = tile.ages;
    ages.sort();
    let at = |part: f64| {
        let index = ((ages.len() as f64 * part) as usize).min(ages.len().saturating_sub(1));
        ages.get(index).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
    };
    TileOutcome { fps: tile.shown as f64 / seconds, p50_ms: at(0.5), p99_ms: at(0.99) }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "parlor {}: {} streams of {} at {} Hz on {}, {:.0} s",
            self.version, self.streams, self.size, self.rate_hz, self.screen, self.seconds
        )?;
        write!(f, "CPU {:.3} s/s", self.cpu)?;
        if let Some(each) = self.cpu_per_tile {
            write!(f, " ({each:.3} a tile)")?;
        }
        writeln!(f, ", PSS {:.1} MiB, {:.1} wake-ups a second", self.pss_mib, self.wakeups)?;
        writeln!(f, "\n| thread | CPU s/s | wake-ups/s |\n|---|---:|---:|")?;
        for (name, share) in &self.threads {
            writeln!(f, "| {name} | {:.4} | {:.1} |", share.cpu, share.wakeups)?;
        }
        if self.tiles.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n| tile | fps | camera to glass p50 | p99 |\n|---|---:|---:|---:|")?;
        for (member, tile) in &self.tiles {
            writeln!(f, "| {member} | {:.1} | {:.1} ms | {:.1} ms |", tile.fps, tile.p50_ms, tile.p99_ms)?;
        }
        self.stages(f)
    }
}

impl Outcome {
    /// As the kiosk says it of itself.
    fn stages(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tiles = self.stats.iter().filter_map(|stats| stats["tiles"].as_array()).flatten();
        writeln!(f, "\n| p50 / p99, ms | received to decoded | to composed | to the glass | total |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        for tile in tiles.filter(|tile| tile["stages_ms"].is_object()) {
            write!(f, "| {}", tile["openid"].as_str().unwrap_or_default())?;
            for stage in ["received_decoded", "decoded_composed", "composed_flipped", "total"] {
                let times = &tile["stages_ms"][stage];
                write!(f, " | {} / {}", times["p50"], times["p99"])?;
            }
            writeln!(f, " |")?;
        }
        Ok(())
    }
}
