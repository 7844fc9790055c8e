//! Two whole daemons that talk through real sound cards: what one hears the other plays, and what becomes of cards that
//! are unplugged or in use.
//!
//! ```text
//! test ─► hw:Loopback,0,0 ═ 1,0 ─► ward ─ Opus, DTLS ─► lobby ─► hw:Loopback,0,1 ═ 1,1 ─► test
//! ```

use crate::bed::{out, qmp};
use crate::house::{House, LIMIT, tile};
use crate::sound::{JUDGED, failure, is_there, is_tone, level_db, microphone, speaker, tone};
use parlor::device::sound::open_microphone;
use parlor::device::{Kind, Microphone, Speaker};
use parlor::media::sound::{BLOCK, SILENCE};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The cable to ward's microphone: the test's end and ward's.
const SAID: &str = "hw:Loopback,0,0";
const WARD_HEARS: &str = "hw:Loopback,1,0";
/// The cable from lobby's speaker: lobby's end and the test's.
const LOBBY_PLAYS: &str = "hw:Loopback,0,1";
const HEARD: &str = "hw:Loopback,1,1";
const SIMULATED: &str = "sim";
const NONE: &str = "none";

/// Quarter of full scale.
const AMPLITUDE: f32 = 0.25;
/// Parts of 100 ms that must be right one after the other.
const PARTS: usize = 5;
/// Quieter than this is silence.
const SILENT_DB: f32 = -60.0;

/// How soon a speaker that is back must play: five times the product's 3 s.
const PLAYS_AGAIN: Duration = Duration::from_secs(15);

/// Says a figure of a test that may well succeed: what `eprintln` says, is then kept.
macro_rules! figure {
    ($($format:tt)*) => {
        std::io::stderr()
            .write_all(format!("talk: {}\n", format_args!($($format)*)).as_bytes())
            .expect("somebody listens")
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_kiosk_hears_the_other_plays_until_it_is_muted() {
    let _voice = Tone::start();
    let mut ear = Ear::start();
    let mut house = House::start().await;
    house.talker("lobby", NONE, LOBBY_PLAYS);
    house.talker("ward", WARD_HEARS, NONE);
    house.room(false).await;

    let started = Instant::now();
    let heard = ear.wait(&mut house, "the tone", |part| is_tone(part, AMPLITUDE)).await;
    figure!("the tone is heard {:.1} s after the room was made", (heard - started).as_secs_f32());

    house.room(true).await;
    let started = Instant::now();
    let silent = |part: &[f32]| match level_db(part) {
        level if level < SILENT_DB => Ok(()),
        level => Err(format!("still {level} dB")),
    };
    let heard = ear.wait(&mut house, "silence", silent).await;
    figure!("500 ms of silence {:.1} s after it was muted", (heard - started).as_secs_f32());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unplugged_speaker_is_said_and_plays_again_while_the_call_goes_on() {
    let _voice = Tone::start();
    let mut house = House::start().await;
    house.until("the USB speaker is there", |_| is_there("Audio")).await;
    house.talker("lobby", SIMULATED, "plughw:CARD=Audio");
    house.talker("ward", WARD_HEARS, NONE);
    house.room(false).await;
    house.until("lobby plays", |_| is_played()).await;
    house.until("the tone is heard", usb_plays_the_tone()).await;
    house.both_hear("at first").await;
    house.until("both are well", |house| house.faults().is_empty()).await;
    house.said.clear();

    qmp("device_del", r#"{"id":"speaker"}"#);
    let fault = house.message("lobby/fault/speaker").await;
    assert_eq!(fault["code"], "SPEAKER_GONE", "{fault}");
    assert_eq!(fault["active"], true, "{fault}");
    house.until("the card is taken away", |_| !is_there("Audio")).await;
    // Retained: who comes later sees it too.
    assert_eq!(house.retained("lobby/fault/speaker").await["code"], "SPEAKER_GONE");
    house.both_hear("without the speaker").await;
    fs::remove_file(usb_played()).expect("nobody writes it any more");

    let plugged = Instant::now();
    qmp("device_add", r#"{"driver":"usb-audio","id":"speaker","audiodev":"air"}"#);
    house.until("the kernel has the card", |_| is_there("Audio")).await;
    let card = Instant::now();
    house.until("lobby plays", |_| is_played()).await;
    let played = Instant::now();
    house.until("the tone is heard again", usb_plays_the_tone()).await;
    let heard = Instant::now();
    house.until("the fault is over", |house| house.now("lobby/fault/speaker").is_null()).await;
    let healed = Instant::now();
    let after = |moment: Instant| moment.duration_since(plugged).as_secs_f32();
    figure!(
        "after device_add the card is there at {:.1} s, it runs at {:.1} s, the tone is heard at {:.1} s, healed (2 s of \
         health) at {:.1} s",
        after(card),
        after(played),
        after(heard),
        after(healed)
    );
    assert!(played - card <= PLAYS_AGAIN, "it plays {:?} after it was there", played - card);

    house.both_hear("with the speaker").await;
    let of_peers = house.said.iter().filter(|said| said.topic.contains("/fault/peer-"));
    let of_peers: Vec<_> = of_peers.map(|said| &said.payload).collect();
    assert!(of_peers.is_empty(), "the call went on: {of_peers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microphone_in_use_is_said_and_heard_once_it_is_free() {
    let held = microphone(WARD_HEARS);
    let mut house = House::start().await;
    house.talker("ward", WARD_HEARS, NONE);
    house.room(false).await;

    let fault = house.message("ward/fault/microphone").await;
    assert_eq!(fault["code"], "MICROPHONE_BUSY", "{fault}");
    drop(held);
    let freed = Instant::now();
    house.until("the fault is over", |house| house.now("ward/fault/microphone").is_null()).await;

    figure!("healed (2 s of health) {:.1} s after it was free", freed.elapsed().as_secs_f32());
    let info = house.now("ward/info");
    assert_eq!(info["microphone"]["name"], "hw:Loopback,1,0 (Loopback)", "{info}");
    let busy = failure(open_microphone(WARD_HEARS));
    assert_eq!(busy.kind, Kind::Busy, "it is ward's now");
}

/// Says the tone into ward's microphone, on a thread of its own so that it does not stutter.
struct Tone(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Tone {
    fn start() -> Self {
        let playing = Arc::new(AtomicBool::new(true));
        let (goes_on, mut speaker) = (playing.clone(), speaker(SAID));
        let thread = std::thread::spawn(move || {
            let block = tone(AMPLITUDE);
            while goes_on.load(Relaxed) {
                speaker.play(&block).expect("the speaker plays");
            }
            figure!("the test's own speaker underran {} times", speaker.underruns());
        });
        Self(playing, Some(thread))
    }
}

impl Drop for Tone {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
        let outcome = self.1.take().expect("it is joined once").join();
        if !std::thread::panicking() {
            outcome.expect("the tone was said");
        }
    }
}

/// Records at the far end of lobby's speaker, on a thread of its own; dropped, it ends with the next part.
struct Ear(tokio::sync::mpsc::Receiver<Part>);

/// 100 ms; `None` where something was lost.
type Part = Option<Vec<f32>>;

impl Ear {
    fn start() -> Self {
        let mut microphone = microphone(HEARD);
        // What waits longer than a second is of no use: the test does not listen then.
        let (sender, parts) = tokio::sync::mpsc::channel(10);
        std::thread::spawn(move || {
            let mut lost = microphone.overruns();
            while !sender.is_closed() {
                let mut part = Vec::with_capacity(JUDGED * BLOCK);
                for _ in 0..JUDGED {
                    let mut block = SILENCE;
                    microphone.capture(&mut block).expect("the microphone records");
                    part.extend(block);
                }
                let whole = std::mem::replace(&mut lost, microphone.overruns()) == lost;
                let _ = sender.try_send(whole.then_some(part));
            }
        });
        Self(parts)
    }

    /// Waits until 500 ms without a gap are as wanted; answers when that was.
    async fn wait(
        &mut self,
        house: &mut House,
        what: &str,
        wanted: impl Fn(&[f32]) -> Result<(), String>,
    ) -> Instant {
        // What was recorded before now is not judged.
        while self.0.try_recv().is_ok() {}
        let deadline = Instant::now() + LIMIT;
        let (mut right, mut complaint) = (0, String::new());
        while right < PARTS {
            assert!(Instant::now() < deadline, "{what}: {complaint}; {}", house.situation());
            let part = tokio::select! {
                part = self.0.recv() => part.expect("the microphone records"),
                () = house.hear() => continue,
            };
            match part.map(|part| wanted(&part)) {
                Some(Ok(())) => right += 1,
                Some(Err(wrong)) => (right, complaint) = (0, wrong),
                None => right = 0,
            }
        }
        Instant::now()
    }
}

impl House {
    /// Starts a kiosk with these sound cards and nothing else that is real.
    fn talker(&mut self, id: &'static str, microphone: &str, speaker: &str) {
        self.kiosk(
            id,
            &format!(
                "screen = {{ device = 'sim', width = 320, height = 240 }}\n\
                 camera.front = {{ device = 'sim' }}\n\
                 [sound]\nmicrophone = '{microphone}'\nspeaker = '{speaker}'\n\
                 echo_cancellation = false\nnoise_suppression = false\ngain_control = false\n"
            ),
        );
    }

    /// Puts all kiosks into one room without pictures.
    async fn room(&mut self, ward_is_muted: bool) {
        let members: Vec<_> = self.kiosks.iter().map(|(id, ..)| *id).collect();
        for id in members.clone() {
            let mute = json!({ "camera": true, "microphone": ward_is_muted && id == "ward" });
            let document = json!({ "rev": ward_is_muted, "room": "talk", "members": members, "mute": mute });
            self.controller.publish(&format!("{id}/desired"), true, &document.to_string()).await;
        }
    }

    /// Waits until each kiosk was sent more sound by the other, and neither has given the other's tile up.
    async fn both_hear(&mut self, what: &str) {
        for (hearer, speaker) in [("lobby", "ward"), ("ward", "lobby")] {
            // The first number that grows may be of the time before.
            for _ in 0..2 {
                let before = self.received(hearer, speaker);
                let more = |house: &Self| house.received(hearer, speaker) > before;
                self.until(&format!("{hearer} hears {speaker} {what}"), more).await;
            }
            let state = &tile(self.now(&format!("{hearer}/reported")), speaker)["state"];
            assert!(
                ["connecting", "live"].iter().any(|good| state == good),
                "{speaker}'s tile {what}: {state}"
            );
        }
    }

    /// The packets of this member's voice that `hearer` counts.
    fn received(&self, hearer: &str, speaker: &str) -> u64 {
        let stats = self.now(&format!("{hearer}/stats"));
        tile(stats, speaker)["sound"]["received"].as_u64().unwrap_or(0)
    }
}

/// Whether the USB speaker runs, as the kernel says.
fn is_played() -> bool {
    // There is no such file while there is no card.
    fs::read_to_string("/proc/asound/Audio/pcm0p/sub0/status")
        .is_ok_and(|status| status.contains("state: RUNNING"))
}

/// What the USB speaker played since it was plugged in, as QEMU writes it down: 48 kHz, 16 bits, two channels.
fn usb_played() -> PathBuf {
    out().join(".vm/speaker.wav")
}

/// Answers whether one more 100 ms of what the USB speaker played are the tone.
fn usb_plays_the_tone() -> impl FnMut(&House) -> bool {
    // After the header of a WAVE file.
    let mut position = 44;
    move |_| {
        let mut part = [0; 4 * JUDGED * BLOCK];
        let Ok(file) = File::open(usb_played()) else { return false };
        if file.read_exact_at(&mut part, position).is_err() {
            // It is not yet played.
            return false;
        }
        position += part.len() as u64;
        let left =
            part.chunks_exact(4).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0);
        is_tone(&left.collect::<Vec<_>>(), AMPLITUDE).is_ok()
    }
}
