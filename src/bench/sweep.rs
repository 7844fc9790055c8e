//! One measurement after the other, each with a tile more: lines through what they cost, and the board's budget.

use super::{Options, bare, budget};
use crate::regression::Line;
use crate::room::capacity::{Capacity, Share};
use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::Path;
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// A tile keeps its rate if it shows this part of it.
const KEPT: f64 = 0.9;

/// All that was measured.
#[derive(Debug, Serialize)]
struct Swept {
    /// As [`super::Outcome`] each.
    points: Vec<Value>,
    /// `base + slope * n` over the numbers of tiles that kept their rate, for who starves costs less; null of fewer than
    /// three of them.
    cpu: Option<Line>,
    pss_mib: Option<Line>,
    /// What the bare decoder takes of one stream, CPU seconds a second.
    decoding: f64,
    capacity: Option<Capacity>,
}

/// Each count in a process of its own: memory that was freed is not the next one's. A count that cannot be measured
/// ends the sweep: the machine is too slow for it.
///
/// # Errors
/// Not even the first could be measured, or its file could not be read.
pub async fn run(options: &Options, counts: RangeInclusive<u8>) -> anyhow::Result<Value> {
    let mut points = Vec::new();
    println!(
        "| tiles | CPU s/s | PSS MiB | wake-ups/s | slowest tile, fps | camera to glass p50 / p99, ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for tiles in counts {
        eprintln!("{tiles} tiles");
        let Some(point) = point(options, tiles).await? else {
            eprintln!("{tiles} tiles could not be measured: the sweep ends");
            break;
        };
        let number = |key: &str| point[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "| {tiles} | {:.3} | {:.1} | {:.0} | {:.1} | {:.1} / {:.1} |",
            number("cpu"),
            number("pss_mib"),
            number("wakeups"),
            slowest(&point),
            worst(&point, "p50_ms"),
            worst(&point, "p99_ms"),
        );
        points.push(point);
    }
    ensure!(!points.is_empty(), "nothing could be measured");
    let kept = &points[..kept(options, &points)];
    let line = |key: &str| {
        let numbers = |point: &Value| Some((tiles(point)? as f64, point[key].as_f64()?));
        Line::through(&kept.iter().filter_map(numbers).collect::<Vec<_>>())
    };
    let (cpu, pss_mib) = (line("cpu"), line("pss_mib"));
    let capacity = cpu.as_ref().zip(pss_mib.as_ref()).and_then(|lines| capacity(options, &points, lines));
    for (name, line) in [("CPU s/s", &cpu), ("PSS MiB", &pss_mib)] {
        match line {
            Some(line) => println!("\n{name} of n tiles that kept their rate: {line}"),
            None => println!("\n{name}: too few points for a line"),
        }
    }
    eprintln!("the bare decoder");
    let of = options.clone();
    let decoding = spawn_blocking(move || bare::decoding(&of)).await.context("decode")??;
    if let Some(line) = &cpu {
        let times = line.slope / decoding;
        println!("\na tile more is {times:.2} times its bare decoder, which takes {decoding:.4} CPU s/s");
    }
    match &capacity {
        Some(capacity) => keep(capacity, options.budget.as_deref()),
        None => println!("\ntoo few points for a budget"),
    }
    serde_json::to_value(Swept { points, cpu, pss_mib, decoding, capacity })
        .context("write what was measured as JSON")
}

async fn point(options: &Options, tiles: u8) -> anyhow::Result<Option<Value>> {
    let file = std::env::temp_dir().join(format!("parlor-bench-{}-{tiles}.json", std::process::id()));
    let child = Command::new(std::env::current_exe()?)
        .args(["bench", "--tiles", &(tiles - 1).to_string(), "--size", &options.size.to_string()])
        .args(["--rate", &options.rate.to_string(), "--screen", &options.screen.to_string()])
        .args(["--seconds", &options.seconds.to_string(), "--grain", &options.grain.to_string()])
        .arg("--json")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .status();
    if !child.await.context("start the measurement's process")?.success() {
        return Ok(None);
    }
    let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    serde_json::from_slice(&text).context("read what was measured").map(Some)
}

/// How many tiles were measured: each stream's and the own camera's.
fn tiles(point: &Value) -> Option<u8> {
    u8::try_from(point["streams"].as_u64()? + 1).ok()
}

/// Pictures a second of the tile that had fewest.
fn slowest(point: &Value) -> f64 {
    numbers(point, "fps").fold(f64::INFINITY, f64::min)
}

fn worst(point: &Value, key: &str) -> f64 {
    numbers(point, key).fold(0.0, f64::max)
}

fn numbers<'a>(point: &'a Value, key: &'a str) -> impl Iterator<Item = f64> + 'a {
    point["tiles"].as_object().into_iter().flatten().filter_map(move |(_, tile)| tile[key].as_f64())
}

/// How many points, from the first on, kept their rate.
fn kept(options: &Options, points: &[Value]) -> usize {
    let enough = KEPT * f64::from(options.rate);
    points.iter().take_while(|point| slowest(point) >= enough).count()
}

/// The most tiles that kept their rate, as all fewer ones did.
fn capacity(options: &Options, points: &[Value], (cpu, pss_mib): (&Line, &Line)) -> Option<Capacity> {
    let share = |line: &Line| Share { base: rounded(line.base), tile: rounded(line.slope) };
    Some(Capacity {
        version: env!("CARGO_PKG_VERSION").try_into().ok()?,
        size: [options.size.width, options.size.height],
        rate_hz: options.rate,
        screen: [options.screen.width, options.screen.height],
        tiles: points[..kept(options, points)].last().and_then(tiles).unwrap_or(0),
        tried: points.last().and_then(tiles)?,
        cpu: share(cpu),
        pss_mib: share(pss_mib),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Writes the budget where it was asked for, or where the daemon looks if that is there.
fn keep(capacity: &Capacity, asked: Option<&Path>) {
    println!("\n{} of {} tiles kept their rate", capacity.tiles, capacity.tried);
    let path = asked.unwrap_or(Path::new(budget::FILE));
    match budget::write(path, capacity) {
        Ok(()) => println!("budget written to {}: the daemon reads it when it starts", path.display()),
        Err(error) => eprintln!("the budget is not kept: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_budget_is_the_most_tiles_that_kept_their_rate_as_all_fewer_did() {
        let options = Options { rate: 30, ..Options::default() };
        let point = |streams: u8, fps: f64| json!({ "streams": streams, "tiles": { "bench": { "fps": 30.0 }, "bench-0": { "fps": fps } } });
        let line = Line::through(&[(1.0, 0.25), (2.0, 0.5), (3.0, 0.75)]).expect("a line");
        let points = [point(0, 30.0), point(1, 29.0), point(2, 26.9), point(3, 30.0)];

        let found = capacity(&options, &points, (&line, &line)).expect("a budget");

        assert_eq!((found.tiles, found.tried, found.cpu), (2, 4, Share { base: 0.0, tile: 0.25 }));
        assert_eq!(capacity(&options, &points[2..], (&line, &line)).expect("a budget").tiles, 0);
    }
}
