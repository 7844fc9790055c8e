//! CONTROL PLANE: every event goes into the [`Room`], every command it answers with is carried out here.
//!
//! ```text
//!  mqtt ─┐                                  ┌─► mqtt
//!  peers ├─► events ─► Room ─► commands ────┼─► peers: open, answer, close
//!  threads ┘    ▲                           ├─► camera thread: which node
//!               └── next_timeout()          ├─► sound: open, muted, closed
//!                                           └─► Stage: what the screen shows
//! ```
//! Nothing here waits for a device or a peer: those have threads and tasks of their own and answer by events.

mod devices;
pub mod health;
mod peers;
mod stats;

use crate::clock::Clock;
use crate::config::{self, Config, IceServer};
use crate::link::mqtt::{self, MqttEvent};
use crate::link::peer::{self, Clocks};
use crate::link::relay::{Relays, Server};
use crate::link::tls::Tls;
use crate::media::echo::Switches;
use crate::media::selftest::{self, Found};
use crate::media::snapshot;
use crate::media::text::Fonts;
use crate::pipeline::sound::Sound;
use crate::pipeline::{self, CodecChoice, Decoders, Fanout, Glasswork, Inbox, Stage};
use crate::room::fault::{Cause, Code, Fault, Part};
use crate::room::message::{self, Request};
use crate::room::{self, Command, Event, Publication, Room};
use crate::supervise::{Stop, Verdict, keep};
use anyhow::Context;
use bytes::Bytes;
pub use devices::Devices;
use devices::Seats;
use health::Health;
use peers::{Flows, Peers};
use serde_json::json;
use stats::Stats;
pub use stats::resident_kib;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Why the kiosk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// `cmd/restart`: whoever started it is to start it again.
    Restart,
}

/// Events that wait for the room. Full: threads and tasks wait, each with its own bounded queue behind it.
const EVENTS: usize = 256;
/// Messages on their way to the broker task, which keeps its own queue. Full: the message is dropped with a warning.
const PUBLICATIONS: usize = 256;
/// The largest picture in a reply.
const LARGEST_SNAPSHOT: usize = 192 * 1024;
/// How long a chirp may take to come back, devices that must be opened first included.
const SELFTEST: Duration = Duration::from_secs(4);
/// How long a thread may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs one kiosk until `stop` resolves or a restart is asked for. Threads, connections and cameras are gone afterwards.
///
/// # Errors
/// Only what makes a start impossible: a thread that cannot be made, a font or certificate that cannot be read.
pub async fn run(config: Config, devices: Devices, stop: impl Future<Output = ()>) -> anyhow::Result<End> {
    let mut kiosk = Kiosk::start(config, devices)?;
    let end = kiosk.turn(stop).await;
    kiosk.end().await;
    Ok(end)
}

/// Reads the certificates that the configuration names.
///
/// # Errors
/// What cannot be read or used, for people.
pub fn check(config: &Config) -> anyhow::Result<()> {
    tls(config)?;
    servers(config)?;
    Ok(())
}

fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let tls = config.broker.tls.as_ref();
    tls.map(|tls| Tls::load(tls.ca_file.as_deref(), tls.identity.as_ref())).transpose()
}

fn servers(config: &Config) -> anyhow::Result<Vec<Server>> {
    let server = |server: &IceServer| {
        Server::new(&server.url, &server.username, &server.credential, server.ca_file.as_deref())
            .context("link.ice_servers")
    };
    config.link.ice_servers.iter().map(server).collect()
}

struct Kiosk {
    config: Config,
    devices: Devices,
    clock: Clock,
    room: Room,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    broker: Broker,
    /// Holds the ways to the relays open.
    _relays: Relays,
    stage: Arc<Stage>,
    inbox: Arc<Inbox>,
    fanout: Arc<Fanout>,
    peers: Peers,
    stats: Stats,
    health: Health,
    sound: Arc<Sound>,
    seats: Seats,
    selftests: JoinSet<(Request, Option<Found>)>,
    /// Threads that live as long as the kiosk.
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

/// The connection to the broker.
struct Broker {
    settings: mqtt::Settings,
    publish: mpsc::Sender<Publication>,
    heard: mpsc::Receiver<MqttEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl Broker {
    /// Connects after `wait`.
    fn connect(settings: mqtt::Settings, wait: Duration) -> Self {
        let (publish, publications) = mpsc::channel(PUBLICATIONS);
        let (tell, heard) = mpsc::channel(EVENTS);
        let task = tokio::spawn(mqtt::run_after(wait, settings.clone(), publications, tell));
        Self { settings, publish, heard, task }
    }

    fn publish(&self, publication: Publication) {
        if let Err(error) = self.publish.try_send(publication) {
            tracing::warn!(%error, "the broker task is behind: a message is lost");
        }
    }
}

impl Kiosk {
    fn start(config: Config, devices: Devices) -> anyhow::Result<Self> {
        let clock = Clock::start();
        tracing::info!(id = %config.id, broker = config.broker.host, version = env!("CARGO_PKG_VERSION"), "kiosk");
        let settings = room::Settings {
            id: config.id.clone(),
            boot: format!("{:016x}", rand::random::<u64>()),
            version: env!("CARGO_PKG_VERSION"),
            screen: config.screen.rotation.size(config.screen.size()),
            cameras: config.cameras.keys().copied().collect(),
            wants_flip: config.screen.flip,
            mirror: config.room.mirror,
            may_look: config.authorize.camera,
            may_listen: config.authorize.microphone,
            has_microphone: config.sound.microphone != config::NONE,
            absent_grace: config.room.absent_grace,
            stats_interval: config.room.stats_interval,
            capacity: config.room.capacity.clone(),
        };
        let (tell, events) = mpsc::channel(EVENTS);
        let broker = Broker::connect(
            mqtt::Settings {
                host: config.broker.host.clone(),
                port: config.broker.port,
                tls: tls(&config)?,
                id: config.id.to_string(),
                password: config.broker.password.clone(),
                prefix: config.prefix.clone(),
                will: room::will(&settings),
                subscriptions: message::subscriptions(&config.id).into(),
            },
            Duration::ZERO,
        );

        let (stage, inbox) = (Arc::new(Stage::default()), Arc::new(Inbox::default()));
        let fanout = Arc::new(Fanout::new(config.link.bitrate_kbps * 1000));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (decoders, jobs) = Decoders::new(cores.min(4), clock);
        let relays = Relays::open(&servers(&config)?, {
            let tell = tell.clone();
            move |event| send(&tell, event)
        })?;
        let peer_settings = peer::Settings {
            bind: config.link.bind.clone(),
            ice_servers: relays.servers(),
            relay_only: config.link.relay_only,
            runtime: devices.network.clone(),
        };
        let clocks = Clocks::default();
        clocks.video.set(clock.instant(Duration::ZERO), 0);
        let sound_clock = clocks.sound.clone();
        let sound = Arc::new(Sound::new(
            clock,
            Switches {
                echo_cancellation: config.sound.echo_cancellation,
                noise_suppression: config.sound.noise_suppression,
                gain_control: config.sound.gain_control,
            },
            Box::new(move |at, time| sound_clock.set(at, time)),
        ));
        let stop = Stop::default();
        stop.on_tell(decoders.wake());
        stop.on_tell(inbox.wake());
        stop.on_tell(stage.wake());
        let work = decoders.work().into_iter().chain([stage.work()]).collect();
        let flows =
            Flows { stage: stage.clone(), fanout: fanout.clone(), decoders, sound: sound.clone(), clocks };
        let mut kiosk = Self {
            room: Room::new(settings),
            peers: Peers::new(peer_settings, flows, tell.clone()),
            stats: Stats::new(clock),
            health: Health::new(devices.board.clone(), work),
            config,
            devices,
            clock,
            events,
            tell,
            broker,
            _relays: relays,
            stage,
            inbox,
            fanout,
            sound,
            seats: Seats::default(),
            selftests: JoinSet::new(),
            stop,
            threads: Vec::new(),
        };
        if let Some(directory) = std::env::var_os("RUNTIME_DIRECTORY") {
            health::last_life(Path::new(&directory)).into_iter().for_each(|event| send(&kiosk.tell, event));
        }
        if let Some(reason) = kiosk.config.problem.clone() {
            let cause = Some(Cause { op: reason, errno: None, target: None });
            let fault = Fault { part: Part::System, code: Code::ConfigInvalid, cause, retry_in: None };
            send(&kiosk.tell, Event::Raised(fault));
        }
        kiosk.start_screen()?;
        kiosk.start_codecs(jobs)?;
        Ok(kiosk)
    }

    fn start_screen(&mut self) -> anyhow::Result<()> {
        let fonts = match &self.config.screen.font {
            Some(path) => {
                let read = || -> anyhow::Result<Fonts> { Ok(Fonts::new(self.devices.board.file(path)?)?) };
                read().with_context(|| format!("read font {}", path.display()))?
            }
            None => Fonts::built_in(),
        };
        let mut glasswork = Glasswork { fonts, rotation: self.config.screen.rotation, clock: self.clock };
        let (open, stage, stop, tell) =
            (self.devices.screen.clone(), self.stage.clone(), self.stop.clone(), self.tell.clone());
        let told = self.stop.clone();
        self.threads.push(keep("screen", Part::Screen, stop, say(self.tell.clone()), move |works| {
            let mut screen = open().map_err(pipeline::screen_failure)?;
            let tell = |event| send(&tell, event);
            pipeline::show(screen.as_mut(), &stage, &mut glasswork, &tell, works, &told)
        })?);
        Ok(())
    }

    fn start_codecs(&mut self, jobs: Vec<pipeline::Jobs>) -> anyhow::Result<()> {
        let tell = self.tell.clone();
        let codecs = CodecChoice::new(self.devices.codecs.clone(), move |event| send(&tell, event));
        for (index, jobs) in jobs.into_iter().enumerate() {
            let (stop, told) = (self.stop.clone(), self.stop.clone());
            let (name, clock) = (format!("decode-{index}"), self.clock);
            let jobs = jobs.with(codecs.clone());
            self.threads.push(keep(&name, Part::System, stop, say(self.tell.clone()), move |_| {
                pipeline::decode(&jobs, clock, &told)
            })?);
        }
        let (inbox, fanout) = (self.inbox.clone(), self.fanout.clone());
        let rate_hz = self.config.cameras.values().map(|camera| camera.rate_hz).max().unwrap_or(30) as f32;
        let bitrate_bps = self.config.link.bitrate_kbps * 1000;
        let (stop, told) = (self.stop.clone(), self.stop.clone());
        self.threads.push(keep("encode", Part::System, stop, say(self.tell.clone()), move |works| {
            pipeline::encode(&inbox, &fanout, &codecs, (rate_hz, bitrate_bps), works, &told)
        })?);
        Ok(())
    }

    async fn turn(&mut self, stop: impl Future<Output = ()>) -> End {
        let mut stop = std::pin::pin!(stop);
        let mut watchdog = Watchdog::start(self.clock);
        loop {
            let due = self.room.next_timeout().map(|at| self.clock.instant(at));
            let upkeep = watchdog.due().min(self.clock.instant(self.health.due()));
            let due = due.map_or(upkeep, |due| due.min(upkeep));
            let event = tokio::select! {
                () = &mut stop => return End::Stopped,
                Some(event) = self.events.recv() => Some(event),
                Some(event) = self.broker.heard.recv() => self.heard(event),
                Some(Ok((request, found))) = self.selftests.join_next() => {
                    self.answer_selftest(&request, found);
                    None
                }
                () = tokio::time::sleep_until(due.into()) => None,
            };
            let now = self.clock.now();
            let mut commands = match event {
                Some(event) => self.room.handle(event, now),
                None => Vec::new(),
            };
            for event in self.health.look(now.mono) {
                commands.extend(self.room.handle(event, now));
            }
            if self.room.next_timeout().is_some_and(|at| at <= now.mono) {
                commands.extend(self.room.handle_timeout(now));
            }
            for command in commands {
                if self.carry_out(command) {
                    return End::Restart;
                }
            }
            watchdog.pet(self.stage.turns());
            watchdog.say(|| self.room.summary());
        }
    }

    /// What the broker's side says, as the room hears it.
    fn heard(&self, event: MqttEvent) -> Option<Event> {
        let fault = |code, cause| {
            Event::Raised(Fault { part: Part::Broker, code, cause: Some(cause), retry_in: None })
        };
        match event {
            MqttEvent::Up => Some(Event::BrokerUp),
            MqttEvent::Down { code, cause } => {
                send(&self.tell, fault(code, cause));
                Some(Event::BrokerDown)
            }
            MqttEvent::Denied { topic } => {
                let cause = Cause { op: "access control".into(), errno: None, target: Some(topic) };
                Some(fault(Code::BrokerDenied, cause))
            }
            MqttEvent::Message(incoming) => message::parse(&self.config.id, &incoming),
        }
    }

    /// Carries one command out. True if the process is to end.
    fn carry_out(&mut self, command: Command) -> bool {
        match command {
            Command::Publish(publication) => self.broker.publish(publication),
            Command::Camera(position) => self.use_camera(position),
            Command::Sound(sound) => self.use_sound(sound),
            Command::Show(picture) => {
                self.peers.show(&picture);
                self.stage.set(*picture);
            }
            Command::Open { member, session, role } => self.peers.open(member, session, role),
            Command::RemoteAnswer { member, session, sdp } => self.peers.answer(&member, &session, sdp),
            Command::RemoteCandidate { member, session, candidate } => {
                self.peers.candidate(&member, &session, candidate);
            }
            Command::Close { member } => self.peers.close(&member),
            Command::Snapshot { request, width } => self.snapshot(request, width),
            Command::Stats { request } => {
                let stats = self.stats.take(&self.stage, &self.sound, &self.fanout);
                match request {
                    Some(request) => self.reply(&request, stats),
                    None => self.broker.publish(stats::publication(&self.config.id, stats)),
                }
            }
            Command::Selftest { request } => self.selftest(request),
            Command::Restart => return true,
            // What was connected says goodbye by itself when its queue is gone.
            Command::Disconnect { retry_in } => {
                self.broker = Broker::connect(self.broker.settings.clone(), retry_in);
            }
        }
        false
    }

    fn reply(&self, request: &Request, payload: Bytes) {
        if let Some(publication) = message::reply(request, payload) {
            self.broker.publish(publication);
        }
    }

    fn snapshot(&self, request: Request, width: u32) {
        let (canvas, publish) = (self.stage.snapshot(), self.broker.publish.clone());
        tokio::spawn(async move {
            // Who asks too often gets no answer; so does who asks a kiosk without a screen.
            let Ok(Ok(canvas)) = tokio::time::timeout(FAREWELL, canvas).await else { return };
            let file =
                tokio::task::spawn_blocking(move || snapshot::fitting(&canvas, width, LARGEST_SNAPSHOT))
                    .await;
            if let Ok(Ok(file)) = file
                && let Some(reply) = message::reply(&request, file.into())
            {
                let _ = publish.send(reply).await;
            }
        });
    }

    fn selftest(&mut self, request: Request) {
        let (sound, patience) = (self.sound.clone(), SELFTEST);
        self.selftests.spawn(async move {
            // Who asks while another test runs hears nothing, and so does a kiosk without one of the devices.
            let heard = tokio::time::timeout(patience, sound.selftest()).await;
            let found = match heard {
                Ok(Ok(heard)) => {
                    tokio::task::spawn_blocking(move || selftest::find(&heard)).await.ok().flatten()
                }
                _ => None,
            };
            (request, found)
        });
    }

    fn answer_selftest(&self, request: &Request, found: Option<Found>) {
        let fault = [Part::Microphone, Part::Speaker].iter().find_map(|part| self.room.fault(part));
        let rounded = |value: f32| f64::from((value * 10.0).round()) / 10.0;
        let answer = match (found, fault) {
            (Some(found), _) => json!({
                "ok": true,
                "loudness_db": rounded(found.loudness_db),
                "delay_ms": found.delay.as_millis() as u64,
                "echo_return_db": rounded(found.echo_return_db),
            }),
            (None, Some(code)) => json!({ "ok": false, "code": code, "reason": code.hint() }),
            (None, None) => json!({
                "ok": false,
                "code": null,
                "reason": "The chirp did not come back. Are speaker and microphone turned up?",
            }),
        };
        self.reply(request, answer.to_string().into());
    }

    /// Says goodbye, closes what is open, and waits for it, each within its time.
    async fn end(mut self) {
        let now = self.clock.now();
        for command in self.room.goodbye(now) {
            self.carry_out(command);
        }
        drop(self.broker.publish);
        self.stop.tell();
        self.threads.append(&mut std::mem::take(&mut self.seats).end());
        // Threads that wait to tell something are let go.
        drop(self.tell);
        self.events.close();
        self.peers.close_all().await;
        let threads = std::mem::take(&mut self.threads);
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        if tokio::time::timeout(FAREWELL, joined).await.is_err() {
            tracing::warn!("a thread does not end");
        }
        if tokio::time::timeout(FAREWELL + FAREWELL / 2, self.broker.task).await.is_err() {
            tracing::warn!("the broker does not take the goodbye");
        }
    }
}

/// The supervisor's voice in the room's ear.
fn say(tell: mpsc::Sender<Event>) -> impl Fn(Verdict) + Send + 'static {
    move |verdict| {
        let event = match verdict {
            Verdict::Raised(fault) => Event::Raised(fault),
            Verdict::Healed(part) => Event::Healed(part),
        };
        send(&tell, event);
    }
}

/// From a thread: waits while the queue is full. From a task (where waiting would be wrong), or when the kiosk ends:
/// what does not fit is dropped with a warning.
fn send(tell: &mpsc::Sender<Event>, event: Event) {
    let in_task = tokio::runtime::Handle::try_current().is_ok();
    let sent = if in_task { tell.try_send(event).is_ok() } else { tell.blocking_send(event).is_ok() };
    if !sent && !tell.is_closed() {
        tracing::warn!("the room is behind: an event is lost");
    }
}

/// Tells systemd that the process lives: only while this loop and the screen loop turn. The screen's threads turn
/// without a screen too, in the supervisor's waits, so a stage that never turned does not count.
struct Watchdog {
    clock: Clock,
    period: Option<Duration>,
    next: Duration,
    turns: u64,
    turned: Duration,
    /// What systemd was told last; `None` without systemd.
    told: Option<String>,
}

impl Watchdog {
    /// A screen loop that stands this long hangs.
    const HANGS: Duration = Duration::from_secs(10);
    /// Without systemd this loop still turns now and then.
    const IDLE: Duration = Duration::from_secs(5);

    fn start(clock: Clock) -> Self {
        let period = sd_notify::watchdog_enabled().map(|timeout| timeout / 3);
        // Not started by systemd: nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let told = std::env::var_os("NOTIFY_SOCKET").map(|_| String::new());
        Self { clock, period, next: Duration::ZERO, turns: 0, turned: Duration::ZERO, told }
    }

    /// Tells systemd, if there is one, how things are whenever that has changed: `systemctl status` shows it.
    fn say(&mut self, status: impl FnOnce() -> String) {
        let Some(told) = &mut self.told else { return };
        let status = status();
        if *told != status {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&status)]);
            *told = status;
        }
    }

    fn due(&self) -> std::time::Instant {
        self.clock.instant(self.next)
    }

    fn pet(&mut self, turns: u64) {
        let now = self.clock.mono();
        if turns != self.turns || turns == 0 {
            (self.turns, self.turned) = (turns, now);
        }
        if now < self.next {
            return;
        }
        self.next = now + self.period.unwrap_or(Self::IDLE);
        if self.period.is_some() && now - self.turned < Self::HANGS {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}
