//! A broker and a room of whole kiosks on simulated devices in one process: the newcomer's first look, and the proof
//! that pictures move on every tile.

mod figures;
mod mouth;
mod page;
pub mod room;
pub mod tally;

use crate::device;
use crate::geometry::Size;
use crate::link::mqtt::{self, MqttEvent};
use crate::machine::Simulation;
use crate::media::canvas::PixelLayout;
use crate::media::snapshot::Picture;
use crate::room::Publication;
use crate::room::message::Subscription;
use crate::sim::broker::{self, Broker};
use crate::sim::speech::Speech;
use anyhow::{Context, ensure};
use bytes::Bytes;
use room::{Real, SimKiosk, configuration, place, retained};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tally::{Count, Tally};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How the demo is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Ends after this many seconds (at least 8), with failure unless every tile of every kiosk moved to the last.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Writes the first kiosk's screen to this PNG file when the time is over.
    #[arg(long, value_name = "FILE", requires = "seconds")]
    pub snapshot: Option<PathBuf>,
    /// Measures how fast the room follows its documents, prints it, and ends.
    #[arg(long, conflicts_with = "seconds")]
    pub figures: bool,
    /// Size of each kiosk's screen.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1280x720", value_parser = size)]
    pub screen: Size,
    /// A tile that shows fewer new pictures a second, over the last 5 s, does not move.
    #[arg(long, value_name = "FPS", default_value_t = 20.0)]
    pub enough_fps: f64,
    /// Ends this kiosk halfway: to see that the check can fail.
    #[arg(long, value_name = "OPENID", requires = "seconds")]
    pub stop_kiosk: Option<String>,
    /// Port of the page, or the next free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Port of the broker, or the next free one.
    #[arg(long, default_value_t = 1883)]
    pub broker_port: u16,
}

fn size(text: &str) -> Result<Size, String> {
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    match sides {
        Some((width @ 320..=4096, height @ 240..=4096)) => Ok(Size::new(width, height)),
        _ => Err("want WIDTHxHEIGHT from 320x240 to 4096x4096, as 1280x720".into()),
    }
}

/// Who takes part: openid, and the name on the tile.
const MEMBERS: [(&str, &str); 4] =
    [("lobby", "Lobby"), ("ward-3", "Ward 3"), ("dr-wang", "王医生"), ("parcel-7", "Parcel station 7")];
const ROOM: &str = "demo";
const CAMERA: Size = Size::new(640, 480);
const RATE_HZ: u32 = 30;
/// How long one guest talks before the next does.
const TURN: Duration = Duration::from_secs(4);
/// Over how long tiles are looked at in the end.
const LAST: Duration = Duration::from_secs(5);

/// Runs the demo until `stop` resolves or its seconds are over.
///
/// # Errors
/// No broker, no page, no room; a snapshot file that cannot be written.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    if let Some(seconds) = options.seconds {
        ensure!(seconds >= 8, "--seconds {seconds}: the room needs 3 s to form and is watched for 5 s");
        let known =
            options.stop_kiosk.as_deref().is_none_or(|stop| MEMBERS.iter().any(|(id, _)| *id == stop));
        ensure!(known, "--stop-kiosk: the kiosks are {}", MEMBERS.map(|(id, _)| id).join(", "));
    }
    // The numbers that are looked for stand in simulated pictures only.
    let unattended = options.figures || options.seconds.is_some();
    let cameras = if unattended { Vec::new() } else { real_cameras() };
    let sound = !unattended && device::sound::any_card();
    let demo = Demo::start(&options, Real { cameras, sound }).await?;
    if options.figures {
        println!("{}", figures::measure(&demo).await?);
        demo.end().await;
        return Ok(ExitCode::SUCCESS);
    }
    let page = page::serve(options.port, demo.glasses()).await?;
    demo.introduce(&page);
    let end = async {
        match options.seconds {
            Some(seconds) => demo.count_down(seconds, options.stop_kiosk.as_deref()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop => {
            demo.end().await;
            return Ok(ExitCode::SUCCESS);
        }
        () = end => {}
    }
    let report = demo.report();
    println!("{report}");
    if let Some(file) = &options.snapshot {
        let png = demo.kiosks[0].simulation.glass.look(|canvas| Picture::of(canvas, u32::MAX).png())?;
        std::fs::write(file, png).with_context(|| format!("write {}", file.display()))?;
        println!("the screen of {} is in {}", MEMBERS[0].0, file.display());
    }
    demo.end().await;
    Ok(if report.moved() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The running room.
pub struct Demo {
    broker: Broker,
    kiosks: Vec<SimKiosk>,
    publish: mpsc::Sender<Publication>,
    control: JoinHandle<()>,
    tally: Tally,
    enough_fps: f64,
}

impl Demo {
    /// Starts the broker and the kiosks, and puts them into a room. The first kiosk has the real devices; what is
    /// missing is simulated.
    ///
    /// # Errors
    /// No port for the broker, or a kiosk that cannot start.
    async fn start(options: &Options, real: Real) -> anyhow::Result<Self> {
        let &Options { screen, broker_port, enough_fps, .. } = options;
        let broker = tokio::task::spawn_blocking(move || broker::start(free_port(broker_port))).await??;
        let mut kiosks = Vec::new();
        let mut real = real;
        for (turn, (id, _)) in (0..).zip(MEMBERS) {
            let config = configuration(id, broker.port, screen, (CAMERA, RATE_HZ), &real);
            let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
            let kiosk = SimKiosk::start(config, simulation);
            talk(&kiosk, turn);
            kiosks.push(kiosk);
            real = Real::default();
        }
        let tally = Tally::new(CAMERA);
        for kiosk in &kiosks {
            tally.watch(&kiosk.id, &kiosk.simulation.glass);
        }
        let (publish, publications) = mpsc::channel(64);
        let (told, events) = mpsc::channel(64);
        let settings = mqtt::Settings {
            host: "127.0.0.1".into(),
            port: broker.port,
            tls: None,
            id: "demo-controller".into(),
            password: None,
            prefix: "parlor/1".into(),
            will: retained("demo-controller/state", json!({ "state": "offline" })),
            subscriptions: vec![Subscription { topic: "+/reported".into(), retain_handling_never: false }],
        };
        tokio::spawn(mqtt::run(settings, publications, told));
        let control = tokio::spawn(follow(events, tally.clone()));
        let demo = Self { broker, kiosks, publish, control, tally, enough_fps };
        demo.make_room(&MEMBERS).await?;
        Ok(demo)
    }

    /// Writes each kiosk's document: a room of these members; the others leave.
    async fn make_room(&self, members: &[(&str, &str)]) -> anyhow::Result<()> {
        let listed: Vec<Value> = members
            .iter()
            .map(|(id, name)| json!({ "openid": id, "name": name, "object-fit": "cover" }))
            .collect();
        for (id, _) in MEMBERS {
            let mut publication =
                retained(&format!("{id}/desired"), json!({ "room": ROOM, "members": listed }));
            if !members.iter().any(|(member, _)| *member == id) {
                publication.payload = Bytes::new();
            }
            let sent = self.publish.send(publication).await;
            ensure!(sent.is_ok(), "the connection to the demo's own broker has ended");
        }
        Ok(())
    }

    /// Pictures of these members shown and missing so far, over the kiosks of the same.
    fn count(&self, members: &[(&str, &str)]) -> Count {
        let listed = |id: &str| members.iter().any(|(member, _)| *member == id);
        let counts = self.tally.counts();
        let counted = counts.iter().filter(|((kiosk, member), _)| listed(kiosk) && listed(member));
        counted.fold(Count::default(), |sum, (_, count)| Count {
            shown: sum.shown + count.shown,
            missing: sum.missing + count.missing,
        })
    }

    fn glasses(&self) -> Vec<(String, crate::sim::screen::Glass)> {
        self.kiosks.iter().map(|kiosk| (kiosk.id.to_string(), kiosk.simulation.glass.clone())).collect()
    }

    /// Waits, with a line of progress every second; ends the kiosk `stop` halfway.
    async fn count_down(&self, seconds: u64, stop: Option<&str>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.tick().await;
        for passed in 1..=seconds {
            tick.tick().await;
            if passed == seconds / 2 {
                for kiosk in self.kiosks.iter().filter(|kiosk| Some(kiosk.id.as_str()) == stop) {
                    kiosk.stop.send_replace(true);
                }
            }
            let report = self.report();
            eprintln!(
                "{passed:3} of {seconds} s: {} of {} tiles move, slowest {:.0} fps",
                report.moving(),
                report.tiles.len(),
                report.slowest()
            );
        }
    }

    /// What has been seen of every tile in the last five seconds.
    pub fn report(&self) -> Report {
        let expected = self
            .kiosks
            .iter()
            .flat_map(|kiosk| MEMBERS.map(|(member, _)| (kiosk.id.to_string(), member.to_owned())));
        let tiles = expected.map(|key| (key.clone(), self.tally.fps(&key, LAST)));
        Report { tiles: tiles.collect(), enough_fps: self.enough_fps }
    }

    fn introduce(&self, page: &str) {
        let program = std::env::args().next().unwrap_or_else(|| "parlor".into());
        let broker = match self.broker.port {
            1883 => String::new(),
            port => format!(" --broker 127.0.0.1:{port}"),
        };
        println!(
            "\nA room of {} kiosks. Their screens: {page}\n\nTry, in another shell:\n\
             \x20 {program} ctl{broker} show\n\
             \x20 {program} ctl{broker} camera lobby back\n\
             \x20 {program} ctl{broker} fit lobby contain\n\
             \x20 {program} ctl{broker} fit lobby fill dr-wang\n\
             \x20 {program} ctl{broker} remove {ROOM} ward-3\n\
             \x20 {program} ctl{broker} add {ROOM} 'ward-3=Ward 3'\n\
             \x20 {program} ctl{broker} mute lobby camera\n\
             \x20 {program} ctl{broker} snapshot lobby lobby.png\n\
             \x20 {program} ctl{broker} identify lobby\n\
             \x20 {program} ctl{broker} watch\n\
             Ctrl-C ends it.\n",
            self.kiosks.len(),
        );
    }

    /// Ends every kiosk and waits for its goodbye.
    pub async fn end(self) {
        for kiosk in &self.kiosks {
            kiosk.stop.send_replace(true);
        }
        for kiosk in self.kiosks {
            match kiosk.task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(id = %kiosk.id, "{error:#}"),
                Err(error) => tracing::warn!(id = %kiosk.id, %error, "the kiosk died"),
            }
        }
        self.control.abort();
    }
}

/// Lets a kiosk's guest talk when it is its turn. Real microphones do not hear it.
fn talk(kiosk: &SimKiosk, turn: u32) {
    let (begun, mut speech) = (Instant::now(), Speech::new(110.0 + 35.0 * turn as f32));
    kiosk.simulation.air.speak(move |block, at| {
        let turns = at.saturating_duration_since(begun).as_millis() / TURN.as_millis();
        if turns % MEMBERS.len() as u128 == u128::from(turn) {
            speech.talk(block);
        }
    });
}

/// What was seen of each tile, by kiosk and member: new pictures a second.
#[derive(Clone, Debug)]
pub struct Report {
    pub tiles: BTreeMap<(String, String), f64>,
    /// What is asked for of each.
    pub enough_fps: f64,
}

impl Report {
    pub fn slowest(&self) -> f64 {
        self.tiles.values().copied().fold(f64::INFINITY, f64::min)
    }

    /// Whether there was enough of every tile.
    pub fn moved(&self) -> bool {
        self.moving() == self.tiles.len()
    }

    fn moving(&self) -> usize {
        self.tiles.values().filter(|fps| **fps >= self.enough_fps).count()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "\nnew pictures a second on each tile, over the last {} s:", LAST.as_secs())?;
        write!(f, "{:>12}", "kiosk")?;
        for (member, _) in MEMBERS {
            write!(f, "{member:>12}")?;
        }
        for (kiosk, _) in MEMBERS {
            write!(f, "\n{kiosk:>12}")?;
            for (member, _) in MEMBERS {
                let fps = self.tiles.get(&(kiosk.to_owned(), member.to_owned())).copied().unwrap_or(0.0);
                write!(f, "{fps:>12.1}")?;
            }
        }
        let verdict = if self.moved() { "every tile moves" } else { "NOT every tile moves" };
        write!(f, "\n{verdict} (at least {} a second are asked for)", self.enough_fps)
    }
}

/// The cameras this machine has.
fn real_cameras() -> Vec<String> {
    let found = device::camera::list().into_iter();
    found.map(|camera| camera.path.to_string_lossy().into_owned()).take(2).collect()
}

/// Hears what the kiosks report and tells the tally where the tiles are.
async fn follow(mut events: mpsc::Receiver<MqttEvent>, tally: Tally) {
    while let Some(event) = events.recv().await {
        let MqttEvent::Message(message) = event else { continue };
        let Some((kiosk, _)) = message.topic.split_once('/') else { continue };
        let Ok(reported) = serde_json::from_slice::<Value>(&message.payload) else { continue };
        for (member, area, fit) in reported["tiles"].as_array().into_iter().flatten().filter_map(place) {
            tally.place((kiosk.to_owned(), member), (area, fit));
        }
    }
}

/// `port`, or the next one that nobody listens on.
fn free_port(port: u16) -> u16 {
    (port..port.saturating_add(100))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or(0)
}
