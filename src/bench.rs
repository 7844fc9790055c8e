//! The product's own measure: a whole kiosk on a screen in memory receives streams over loopback and says what it
//! costs. Who sends, and the broker, are processes of their own, so that all that is counted is the receiver's.

mod bare;
pub mod budget;
mod cost;
mod senders;
mod shared;
mod sight;
mod sweep;
mod table;

use crate::demo::room::{Real, SimKiosk, configuration, retained};
use crate::geometry::{Fit, Size};
use crate::link::mqtt::{self, MqttEvent};
use crate::machine::Simulation;
use crate::media::canvas::PixelLayout;
use crate::room::document::Layout;
use crate::room::layout;
use crate::room::message::Subscription;
use crate::soak::BrokerProcess;
use anyhow::{Context, bail, ensure};
use cost::Cost;
pub use cost::this_thread;
pub use senders::{Arguments, serve};
use serde_json::{Value, json};
use sight::Sight;
use std::collections::BTreeMap;
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
    /// Measures so many tiles one after the other, the own camera's the first of them, fits lines through CPU and
    /// memory, and writes the board's budget.
    #[arg(long, value_name = "FIRST..LAST", value_parser = span, conflicts_with = "tiles")]
    pub sweep: Option<RangeInclusive<u8>>,
    /// Writes the budget of a sweep to this file instead of where the daemon looks.
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub budget: Option<PathBuf>,
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
        Some((first @ 1..=16, last @ 1..=16)) if first < last => Ok(first..=last),
        _ => Err("want FIRST..LAST between 1 and 16, as 1..16".into()),
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
            Some(counts) => sweep::run(&options, counts.clone()).await,
            None => {
                let outcome = if options.idle { idle(&options).await? } else { measure(&options).await? };
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

async fn measure(options: &Options) -> anyhow::Result<Outcome> {
    let broker = BrokerProcess::start(0).await?;
    let camera = (options.size, options.rate);
    let mut config = configuration(RECEIVER, broker.port, options.screen, camera, &Real::default());
    // Often enough for the shortest measurement; the last is kept.
    config.room.stats_interval = Duration::from_secs(2);
    let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
    simulation.front.set_grain(options.grain);
    let (mut stats, publish) = listen(broker.port, "stats");
    let kiosk = SimKiosk::start(config, simulation);
    let senders = senders::start(broker.port, options.tiles, options).await?;

    let members: Vec<String> =
        std::iter::once(RECEIVER.to_owned()).chain((0..options.tiles).map(senders::name)).collect();
    let areas = layout::arrange(Layout::Grid, options.screen, members.len());
    let sight = Sight::new(options.size, options.rate, members.iter().zip(areas), Fit::Cover);
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
    tokio::time::sleep(WARM).await;

    sight.forget();
    while stats.try_recv().is_ok() {}
    let before = Cost::now()?;
    pass(options.seconds).await;
    let spent = Cost::now()?.since(&before);
    let stats = std::iter::from_fn(|| stats.try_recv().ok());
    let outcome = Outcome::new(options, options.tiles, spent, sight.take(), stats);

    kiosk.stop.send_replace(true);
    let _ = kiosk.task.await;
    drop(senders);
    broker.kill().await;
    Ok(outcome)
}

/// The daemon alone, in a process of its own, on simulated devices and without a room.
async fn idle(options: &Options) -> anyhow::Result<Outcome> {
    let broker = BrokerProcess::start(0).await?;
    let (mut states, _publish) = listen(broker.port, "state");
    let file = std::env::temp_dir().join(format!("parlor-bench-{}.toml", std::process::id()));
    std::fs::write(&file, kiosk_file(broker.port, options.screen))
        .with_context(|| format!("write {}", file.display()))?;
    let mut daemon = Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(&file)
        .kill_on_drop(true)
        .spawn()
        .context("start the daemon")?;
    let online = async {
        while let Some(state) = states.recv().await {
            if state["state"] == "online" {
                return Ok(());
            }
        }
        bail!("the connection to the bench's own broker has ended")
    };
    tokio::time::timeout(LIMIT, online).await.context("wait for the daemon")??;
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    tokio::time::sleep(WARM).await;

    let process = daemon.id().context("the daemon has ended")?;
    let before = Cost::of(process)?;
    pass(options.seconds).await;
    let spent = Cost::of(process)?.since(&before);

    daemon.kill().await.context("end the daemon")?;
    broker.kill().await;
    Ok(Outcome::new(options, 0, spent, BTreeMap::new(), std::iter::empty()))
}

fn kiosk_file(broker_port: u16, screen: Size) -> String {
    let Size { width, height } = screen;
    format!(
        "id = \"{RECEIVER}\"\n\
         broker = {{ address = \"127.0.0.1:{broker_port}\" }}\n\
         camera = {{ front = {{ device = \"sim\" }} }}\n\
         screen = {{ device = \"sim\", width = {width}, height = {height} }}\n\
         sound = {{ microphone = \"sim\", speaker = \"sim\" }}\n\
         link = {{ bind = [\"127.0.0.1:0\"] }}\n"
    )
}

/// Lets so many seconds pass, and says so.
async fn pass(seconds: u64) {
    for second in 1..=seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        eprint!("\r{second:4} of {seconds} s");
    }
    eprintln!();
}

fn member_of_room(id: &str) -> Value {
    json!({ "openid": id, "name": id, "object-fit": "cover" })
}

/// A connection of the bench's own: what the receiver says on this topic of its own, and where documents are published.
fn listen(port: u16, topic: &str) -> (mpsc::Receiver<Value>, mpsc::Sender<crate::room::Publication>) {
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
            topic: format!("{RECEIVER}/{topic}"),
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
    use clap::{Args as _, FromArgMatches as _};

    impl Default for Options {
        fn default() -> Self {
            let command = Options::augment_args(clap::Command::new("bench"));
            Options::from_arg_matches(&command.get_matches_from(["bench"]))
                .expect("every option has a default")
        }
    }

    #[test]
    fn a_sweep_goes_from_fewer_to_more() {
        assert_eq!(span("1..16"), Ok(1..=16));
        for wrong in ["", "3", "4..4", "5..2", "0..3", "1..17", "a..b"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
