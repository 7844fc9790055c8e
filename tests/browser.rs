//! A real browser as a member of the room: runs the tests of `tests/browser` against this build, and talks to it over
//! one connection.

#![allow(clippy::unwrap_used)]

#[path = "peers/side.rs"]
mod side;

use parlor::link::peer::Kind;
use parlor::media::sound::{BLOCK, Level, RATE_HZ, SLOT, SoundPacket};
use parlor::room::{PeerEvent, Role};
use serde_json::{Value, json};
use side::{Camera, Side};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::{interval, timeout};

/// What the tests need; `board/packages` names the Debian packages.
const TOOLS: [&str; 4] = ["node", "npm", "chromium", "mosquitto"];
/// One test at a time: they share a folder, and a busy machine.
static ALONE: Mutex<()> = Mutex::new(());
/// Longer than a connection and a few reports take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_browser_and_the_kiosk_see_each_other() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = folder();

    run(Command::new("npm").arg("test").current_dir(&folder).env("PARLOR", env!("CARGO_BIN_EXE_parlor")));
}

#[test]
fn a_browser_that_answers_and_we_hear_each_other() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    talk("z-browser");
}

#[test]
fn a_browser_that_offers_and_we_hear_each_other() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    talk("a-browser");
}

/// Sends a tone and a picture to a browser, and receives the like from it, until each has heard the other's tone and
/// both know the other's times and losses.
#[tokio::main(flavor = "current_thread")]
async fn talk(browser: &str) {
    const OURS: f64 = 1_000.0;
    const THEIRS: f64 = 600.0;
    let mut browser = Browser::open(browser, "m-kiosk", THEIRS).await;
    let mut side = browser.connect().await;
    let (mut camera, mut tone) = (Camera::new(1), Tone::new(OURS));
    let mut decoder = opus::Decoder::new(RATE_HZ, opus::Channels::Mono).unwrap();
    // RTP times count from here.
    let start = Instant::now();
    side.clocks.video.set(start, 0);
    side.clocks.sound.set(start, 0);

    let mut seen = Seen::default();
    let mut pace = interval(Duration::from_millis(20));
    let done = timeout(LIMIT, async {
        let mut count = 0_u32;
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    side.peer.send_sound(&tone.slot(start.elapsed()));
                    if count.is_multiple_of(5) {
                        let unit = if side.wants_keyframe() { camera.keyframe() } else { camera.shoot() };
                        let time = (start.elapsed().as_micros() * 9 / 100) as u32;
                        side.peer.send(&Arc::new(parlor::media::Packet { time, ..(*unit).clone() }));
                    }
                    count += 1;
                    if count.is_multiple_of(25) {
                        browser.say(json!({ "kind": "ask" })).await;
                    }
                    while side.units.try_recv().is_ok() {
                        seen.pictures += 1;
                    }
                    seen.losses.extend(side.told_losses());
                    seen.times.extend(side.told_times().into_iter().map(|time| time.kind));
                }
                Some(sound) = side.sounds.recv() => {
                    let mut samples = [0.0; 6 * SLOT];
                    let length = decoder.decode_float(&sound.data, &mut samples, false).unwrap();
                    seen.hear(&samples[..length], sound.level);
                }
                message = browser.message() => {
                    if message["kind"] == "received" {
                        seen.browser = message;
                    }
                }
            }
            if seen.is_enough(OURS, THEIRS) {
                return;
            }
        }
    });
    let done = done.await.is_ok();
    println!("{seen:?}");
    assert!(done, "{seen:?}");
    assert_eq!(seen.browser["sound"]["codec"], "audio/opus");
}

/// What a conversation has shown so far.
#[derive(Debug, Default)]
struct Seen {
    pictures: usize,
    /// Of the latest packets, in Hz, by their zero crossings.
    frequency: f64,
    level: Option<Level>,
    losses: Vec<u8>,
    times: Vec<Kind>,
    /// What the browser said last.
    browser: Value,
}

impl Seen {
    fn hear(&mut self, samples: &[f32], level: Option<Level>) {
        let rises = samples.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
        let now = rises as f64 * f64::from(RATE_HZ) / samples.len() as f64;
        self.frequency += (now - self.frequency) / 25.0;
        self.level = level;
    }

    fn is_enough(&self, ours: f64, theirs: f64) -> bool {
        let near = |frequency: f64, wanted: f64| (frequency - wanted).abs() < wanted / 20.0;
        let heard = self.browser["sound"]["frequency"].as_f64().unwrap_or_default();
        let frames = self.browser["frames"].as_u64().unwrap_or_default();
        // When it plays what, by our clock: it knows that from our reports only.
        let playout = self.browser["sound"]["playout"].as_array();
        near(self.frequency, theirs)
            && near(heard, ours)
            && frames > 10
            && playout.is_some_and(|times| times.len() == 2 && times.iter().all(Value::is_number))
            && self.pictures > 10
            // Half of full scale is a sine 9 dB below it.
            && self.level.is_some_and(|level| (5..=15).contains(&level.below_full_db))
            && !self.losses.is_empty()
            && [Kind::Video, Kind::Sound].iter().all(|kind| self.times.contains(kind))
    }
}

/// A sine in Opus.
struct Tone {
    encoder: opus::Encoder,
    step: f64,
    phase: f64,
    sequence: u16,
    time: u32,
}

impl Tone {
    fn new(frequency: f64) -> Self {
        let encoder = opus::Encoder::new(RATE_HZ, opus::Channels::Mono, opus::Application::Voip).unwrap();
        let step = frequency * std::f64::consts::TAU / f64::from(RATE_HZ);
        Self { encoder, step, phase: 0.0, sequence: 0, time: 0 }
    }

    /// The next 20 ms; the first one is of the time `now`.
    fn slot(&mut self, now: Duration) -> Arc<SoundPacket> {
        match self.sequence {
            0 => self.time = (now.as_micros() * 48 / 1_000) as u32,
            _ => self.time += SLOT as u32,
        }
        self.sequence += 1;
        let samples: Vec<f32> = (0..2 * BLOCK)
            .map(|_| {
                self.phase += self.step;
                0.3 * self.phase.sin() as f32
            })
            .collect();
        Arc::new(SoundPacket {
            data: self.encoder.encode_vec_float(&samples, 1_000).unwrap().into(),
            sequence: self.sequence,
            time: self.time,
            level: Some(Level::of(&samples, true)),
        })
    }
}

/// A browser at the other end of a connection.
struct Browser {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    seq: u32,
    offers: bool,
}

impl Browser {
    async fn open(id: &str, other: &str, tone: f64) -> Self {
        let mut process = tokio::process::Command::new("node")
            .args(["link.js", id, other, &tone.to_string()])
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, input, output, seq: 0, offers: id < other }
    }

    async fn say(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn message(&mut self) -> Value {
        let line = timeout(LIMIT, self.output.next_line()).await.expect("the browser says something");
        serde_json::from_str(&line.unwrap().expect("the browser lives")).unwrap()
    }

    async fn signal(&mut self, session: &Value, kind: &str, content: (&str, Value)) {
        self.seq += 1;
        let mut message = json!({ "session": session, "seq": self.seq, "kind": kind });
        message[content.0] = content.1;
        self.say(message).await;
    }

    /// A side that is connected to it.
    async fn connect(&mut self) -> Side {
        let (mut side, session) = if self.offers {
            let offer = loop {
                let message = self.message().await;
                if message["kind"] == "offer" {
                    break message;
                }
            };
            (Side::new(Role::Answer(offer["sdp"].as_str().unwrap().into())), offer["session"].clone())
        } else {
            (Side::new(Role::Offer), json!("0123456789abcdef0123456789abcdef"))
        };
        loop {
            tokio::select! {
                event = side.state() => match event {
                    PeerEvent::Offer(sdp) => self.signal(&session, "offer", ("sdp", sdp.into())).await,
                    PeerEvent::Answer(sdp) => self.signal(&session, "answer", ("sdp", sdp.into())).await,
                    PeerEvent::Candidate(json) => {
                        let candidate = serde_json::from_str(&json).unwrap();
                        self.signal(&session, "candidate", ("candidate", candidate)).await;
                    }
                    PeerEvent::Connected => return side,
                    PeerEvent::Interrupted(reason) | PeerEvent::Failed(reason) => panic!("{reason}"),
                },
                message = self.message() => {
                    if message["session"] == session {
                        match message["kind"].as_str().unwrap() {
                            "answer" => side.peer.answer(message["sdp"].as_str().unwrap().into()),
                            "candidate" => side.peer.candidate(message["candidate"].to_string()),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}

/// The folder of the browser's tests, with what they need.
fn folder() -> PathBuf {
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    assert!(missing.is_empty(), "not installed: {missing:?}; `board/install-packages test` does it");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    static INSTALLED: Once = Once::new();
    INSTALLED
        .call_once(|| run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder)));
    folder
}

/// In the path, or where daemons lie.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(tool).is_file())
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
}
