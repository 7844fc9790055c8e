//! The product's own measure: a whole kiosk on a screen in memory receives streams over loopback and says what it
//! costs. Who sends, and the broker, are processes of their own, so that all that is counted is the receiver's.

mod cost;
mod senders;
mod sight;
mod table;

use crate::demo::room::{Real, SimKiosk, configuration, retained};
use crate::geometry::{Fit, Size};
use crate::link::mqtt::{self, MqttEvent};
use crate::machine::Simulation;
use crate::media::canvas::PixelLayout;
use crate::regression::Line;
use crate::room::document::Layout;
use crate::room::layout;
use crate::room::message::Subscription;
use crate::soak::BrokerProcess;
use anyhow::{Context, ensure};
use cost::Cost;
pub use senders::{Arguments, serve};
use serde_json::{Value, json};
use sight::Sight;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use table::Outcome;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What is measured and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many streams are received; the own camera has a tile beside them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=15))]
    pub tiles: u8,
    /// Size of each picture that is sent, and of the own camera's.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "640x480", value_parser = size)]
    pub size: Size,
    /// Pictures a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub rate: u32,
    /// Size of the screen.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1920x1080", value_parser = size)]
    pub screen: Size,
    /// How long is measured, once every tile moves.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub seconds: u64,
    /// How much each pixel of the cameras is off by chance (0 to 64): how hard the pictures are to code.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub grain: u8,
    /// Measures a kiosk without a room instead: what it costs when nothing changes.
    #[arg(long, conflicts_with_all = ["tiles", "sweep"])]
    pub idle: bool,
    /// Measures so many streams one after the other, and fits lines through CPU and memory.
    #[arg(long, value_name = "FIRST..LAST", value_parser = span, conflicts_with = "tiles")]
    pub sweep: Option<RangeInclusive<u8>>,
    /// Writes what was measured to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn size(text: &str) -> Result<Size, String> {
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    match sides {
        Some((width @ 160..=4096, height @ 120..=4096)) => Ok(Size::new(width, height)),
        _ => Err("want WIDTHxHEIGHT from 160x120 to 4096x4096, as 640x480".into()),
    }
}

fn span(text: &str) -> Result<RangeInclusive<u8>, String> {
    let ends =
        text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match ends {
        Some((first @ 0..=15, last @ 0..=15)) if first < last => Ok(first..=last),
        _ => Err("want FIRST..LAST between 0 and 15, as 1..15".into()),
    }
}

const RECEIVER: &str = "bench";
const ROOM: &str = "bench";
/// Nothing here takes that long to begin.
const LIMIT: Duration = Duration::from_secs(60);
/// What begins is not measured: pools and jitter buffers fill.
const WARM: Duration = Duration::from_secs(4);

/// Runs until it has measured or `stop` resolves.
///
/// # Errors
/// No broker, no senders, or tiles that do not all move.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    let measured = async {
        match &options.sweep {
            Some(counts) => sweep(&options, counts.clone()).await,
            None => {
                let outcome = measure(&options).await?;
                println!("{outcome}");
                serde_json::to_value(outcome).context("write what was measured as JSON")
            }
        }
    };
    let measured = tokio::select! {
        measured = measured => measured?,
        () = stop => return Ok(ExitCode::FAILURE),
    };
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{measured:#}\n"))
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Each count in a process of its own: memory that was freed is not the next one's.
async fn sweep(options: &Options, counts: RangeInclusive<u8>) -> anyhow::Result<Value> {
    let mut points = Vec::new();
    for tiles in counts {
        let file = std::env::temp_dir().join(format!("parlor-bench-{}-{tiles}.json", std::process::id()));
        let child = Command::new(std::env::current_exe()?)
            .args(["bench", "--tiles", &tiles.to_string(), "--size", &options.size.to_string()])
            .args(["--rate", &options.rate.to_string(), "--screen", &options.screen.to_string()])
            .args(["--seconds", &options.seconds.to_string(), "--grain", &options.grain.to_string()])
            .arg("--json")
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .status();
        ensure!(child.await?.success(), "{tiles} streams could not be measured");
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        let point: Value = serde_json::from_slice(&text).context("read what was measured")?;
        eprintln!("{tiles} streams: {} CPU s/s, {} MiB", point["cpu"], point["pss_mib"]);
        points.push(point);
    }
    let lines = [("CPU s/s", "cpu"), ("PSS MiB", "pss_mib")].map(|(name, key)| {
        let numbers = |point: &Value| Some((point["streams"].as_f64()?, point[key].as_f64()?));
        (name, key, Line::through(&points.iter().filter_map(numbers).collect::<Vec<_>>()))
    });
    for (name, _, line) in &lines {
        match line {
            Some(line) => println!("{name} of n streams: {line}"),
            None => println!("{name}: too few points for a line"),
        }
    }
    let fits = lines.map(|(_, key, line)| json!({ "of": key, "line": line }));
    Ok(json!({ "points": points, "fits": fits }))
}

async fn measure(options: &Options) -> anyhow::Result<Outcome> {
    let tiles = if options.idle { 0 } else { options.tiles };
    let broker = BrokerProcess::start(0).await?;
    let camera = (options.size, options.rate);
    let mut config = configuration(RECEIVER, broker.port, options.screen, camera, &Real::default());
    if !options.idle {
        // Often enough for the shortest measurement; the last is kept.
        config.room.stats_interval = Duration::from_secs(2);
    }
    let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
    simulation.front.set_grain(options.grain);
    let (mut stats, publish) = listen(broker.port);
    let kiosk = SimKiosk::start(config, simulation);
    let senders = senders::start(broker.port, tiles, options).await?;

    let members: Vec<String> =
        std::iter::once(RECEIVER.to_owned()).chain((0..tiles).map(senders::name)).collect();
    let areas = layout::arrange(Layout::Grid, options.screen, members.len());
    let sight = Sight::new(options.size, options.rate, members.iter().zip(areas), Fit::Cover);
    if !options.idle {
        kiosk.simulation.glass.watch(sight.eye());
        for member in &members {
            // Senders see the receiver only: it is the one that is loaded.
            let listed: Vec<Value> = match member.as_str() {
                RECEIVER => members.iter().map(|id| member_of_room(id)).collect(),
                sender => [RECEIVER, sender].map(member_of_room).into(),
            };
            let document = json!({ "room": ROOM, "members": listed });
            let sent = publish.send(retained(&format!("{member}/desired"), document)).await;
            ensure!(sent.is_ok(), "the connection to the bench's own broker has ended");
        }
        let begun = Instant::now();
        while !sight.all_move() {
            ensure!(begun.elapsed() < LIMIT, "not every tile moves within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        eprintln!("every tile moves after {:.1} s", begun.elapsed().as_secs_f64());
    }
    tokio::time::sleep(WARM).await;

    sight.forget();
    while stats.try_recv().is_ok() {}
    let before = Cost::now()?;
    for second in 1..=options.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        eprint!("\r{second:4} of {} s", options.seconds);
    }
    eprintln!();
    let spent = Cost::now()?.since(&before);
    let outcome =
        Outcome::new(options, tiles, spent, sight.take(), std::iter::from_fn(|| stats.try_recv().ok()));

    kiosk.stop.send_replace(true);
    let _ = kiosk.task.await;
    drop(senders);
    broker.kill().await;
    Ok(outcome)
}

fn member_of_room(id: &str) -> Value {
    json!({ "openid": id, "name": id, "object-fit": "cover" })
}

/// A connection of the bench's own: what the receiver says of itself, and where documents are published.
fn listen(port: u16) -> (mpsc::Receiver<Value>, mpsc::Sender<crate::room::Publication>) {
    let (publish, publications) = mpsc::channel(64);
    let (told, mut events) = mpsc::channel(64);
    // One a second; what does not fit is lost.
    let (keep, stats) = mpsc::channel(4096);
    let settings = mqtt::Settings {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        id: "bench-controller".into(),
        password: None,
        prefix: "parlor/1".into(),
        will: retained("bench-controller/state", json!({ "state": "offline" })),
        subscriptions: vec![Subscription {
            topic: format!("{RECEIVER}/stats"),
            retain_handling_never: false,
        }],
    };
    tokio::spawn(mqtt::run(settings, publications, told));
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let MqttEvent::Message(message) = event
                && let Ok(document) = serde_json::from_slice(&message.payload)
            {
                let _ = keep.try_send(document);
            }
        }
    });
    (stats, publish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_from_fewer_to_more() {
        assert_eq!(span("1..15"), Ok(1..=15));
        for wrong in ["", "3", "4..4", "5..2", "1..16", "a..b"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
