//! Sound: from the microphone to every member, and from every member to the speaker.
//!
//! ```text
//!  microphone ─► listen ─ echo out ─► Opus, once ─► every peer
//!                          ▲ what is played
//!  peer ─► its Voice (jitter buffer) ─► play ─ mix ─► speaker
//! ```
//! Each device has a thread of its own and its own clock, so one may fail alone; voices follow the speaker's clock.

use super::lock;
use crate::clock::Clock;
use crate::device::{self, Kind, Microphone, Speaker};
use crate::media::echo::{self, Switches};
use crate::media::jitter::{Jitter, Pulled, Stats};
use crate::media::lip_sync::LipSync;
use crate::media::mix::Mixer;
use crate::media::opus::{Decoder, Encoder};
use crate::media::selftest;
use crate::media::sound::{BLOCK, Block, Level, RATE_HZ, SILENCE, SLOT, SoundPacket};
use crate::media::speaking::Speaking;
use crate::room::fault::{Cause, Code, Fault, Part};
use crate::room::message::MemberId;
use crate::room::{Event, SoundInfo, SoundUse, Use};
use crate::supervise::{Failure, Stop};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two reports that a device lost sound.
const XRUN_PAUSE: Duration = Duration::from_secs(10);

/// One member's voice on its way to the speaker.
pub struct Voice {
    jitter: Mutex<Jitter>,
    speaking: Mutex<Speaking>,
    /// Shared with the member's picture.
    lip_sync: Arc<Mutex<LipSync>>,
    clock: Clock,
}

impl Voice {
    /// Takes a packet as it comes. True if it is to be said that the member speaks.
    pub fn put(&self, packet: SoundPacket) -> bool {
        let now = self.clock.mono();
        let speaks = packet.level.is_some_and(|level| lock(&self.speaking).hear(level, now));
        lock(&self.jitter).put(packet, now);
        speaks
    }

    /// The next 10 ms for a speaker that plays them after `delay`; false if there is nothing to be heard.
    fn pull(&self, delay: Duration, block: &mut Block) -> bool {
        let now = self.clock.mono();
        let mut jitter = lock(&self.jitter);
        let playing = jitter.playing();
        let heard = jitter.pull(now, block) != Pulled::Silence;
        if let Some(time) = playing.filter(|_| heard) {
            lock(&self.lip_sync).played(time, now + delay);
        }
        heard
    }

    pub fn stats(&self) -> (Stats, Duration) {
        let jitter = lock(&self.jitter);
        (jitter.stats(), jitter.delay())
    }
}

/// Is told which RTP time belongs to the sample that is recorded at an instant.
pub type TellTime = Box<dyn Fn(Instant, u32) + Send + Sync>;

/// Where one connection takes coded sound; it never waits.
pub type SoundOutlet = Box<dyn Fn(&Arc<SoundPacket>) + Send + Sync>;

/// Everything the two sound threads and the connections share.
pub struct Sound {
    clock: Clock,
    echo: Mutex<echo::Voice>,
    voices: Mutex<BTreeMap<MemberId, Arc<Voice>>>,
    outlets: Mutex<BTreeMap<MemberId, (SoundOutlet, Loss)>>,
    selftest: Mutex<Option<Selftest>>,
    tell_time: TellTime,
    /// Of the packet sent last: goes on when the microphone is opened anew.
    sequence: AtomicU16,
    /// What a sample waits in the speaker, in microseconds.
    speaker_delay_us: AtomicU64,
    /// Whether sound goes through. Looked at every 10 ms.
    microphone: AtomicBool,
    speaker: AtomicBool,
}

/// A test that runs.
struct Selftest {
    chirp: Vec<f32>,
    /// Whether the microphone is there: the chirp waits for it.
    listening: bool,
    /// Samples of the chirp that were played.
    played: usize,
    heard: Vec<f32>,
    answer: oneshot::Sender<Vec<f32>>,
}

impl Selftest {
    /// The next block of the chirp in place of what would be played; silence after it.
    fn play(&mut self, block: &mut Block) {
        *block = SILENCE;
        if !self.listening {
            return;
        }
        let rest = self.chirp.get(self.played..).unwrap_or_default();
        block.iter_mut().zip(rest).for_each(|(sample, chirp)| *sample = *chirp);
        self.played += BLOCK;
    }

    /// Keeps what was heard since the chirp began; true if that is all.
    fn hear(&mut self, block: &Block) -> bool {
        self.listening = true;
        if self.played > 0 {
            self.heard.extend(block);
        }
        self.heard.len() >= selftest::RECORDED
    }
}

/// Packets in a hundred that a member says it lost.
type Loss = u8;

impl Sound {
    pub fn new(clock: Clock, switches: Switches, tell_time: TellTime) -> Self {
        Self {
            clock,
            echo: Mutex::new(echo::Voice::new(switches)),
            voices: Mutex::default(),
            outlets: Mutex::default(),
            selftest: Mutex::default(),
            tell_time,
            sequence: AtomicU16::new(0),
            speaker_delay_us: AtomicU64::new(0),
            microphone: AtomicBool::new(false),
            speaker: AtomicBool::new(false),
        }
    }

    /// Mutes and unmutes, within 10 ms.
    pub fn set(&self, sound: SoundUse) {
        self.microphone.store(sound.microphone == Use::Open, Relaxed);
        self.speaker.store(sound.speaker == Use::Open, Relaxed);
    }

    /// A new voice of this member, in place of the one there was.
    ///
    /// # Errors
    /// No memory for a decoder.
    pub fn voice(&self, member: &MemberId, lip_sync: Arc<Mutex<LipSync>>) -> anyhow::Result<Arc<Voice>> {
        let voice = Arc::new(Voice {
            jitter: Mutex::new(Jitter::new(Decoder::new()?)),
            speaking: Mutex::default(),
            lip_sync,
            clock: self.clock,
        });
        lock(&self.voices).insert(member.clone(), voice.clone());
        Ok(voice)
    }

    pub fn forget(&self, member: &MemberId) {
        lock(&self.voices).remove(member);
        self.remove(member);
    }

    /// All voices there are.
    pub fn voices(&self) -> Vec<(MemberId, Arc<Voice>)> {
        lock(&self.voices).iter().map(|(member, voice)| (member.clone(), voice.clone())).collect()
    }

    /// Sends what the microphone hears to this member too.
    pub fn add(&self, member: MemberId, outlet: SoundOutlet) {
        lock(&self.outlets).insert(member, (outlet, 0));
    }

    pub fn remove(&self, member: &MemberId) {
        lock(&self.outlets).remove(member);
    }

    /// What part of our sound this member says it lost, in percent.
    pub fn lost(&self, member: &MemberId, percent: u8) {
        if let Some((_, loss)) = lock(&self.outlets).get_mut(member) {
            *loss = percent;
        }
    }

    /// Plays a chirp, and answers with what the microphone hears from its first sample on; refused (sender dropped)
    /// while another test runs. Both devices are to be open.
    pub fn selftest(&self) -> oneshot::Receiver<Vec<f32>> {
        let (answer, heard) = oneshot::channel();
        let mut running = lock(&self.selftest);
        if running.as_ref().is_none_or(|test| test.answer.is_closed()) {
            let heard = Vec::with_capacity(selftest::RECORDED);
            *running =
                Some(Selftest { chirp: selftest::chirp(), listening: false, played: 0, heard, answer });
        }
        heard
    }

    fn send(&self, packet: &Arc<SoundPacket>) {
        lock(&self.outlets).values().for_each(|(outlet, _)| outlet(packet));
    }

    /// The worst of what the members say.
    fn loss(&self) -> Loss {
        lock(&self.outlets).values().map(|(_, loss)| *loss).max().unwrap_or(0)
    }
}

/// Sends what the microphone hears to every member until told to stop.
///
/// # Errors
/// The microphone's failure.
pub fn listen(
    microphone: &mut dyn Microphone,
    (sound, own): (&Sound, &MemberId),
    tell: &dyn Fn(Event),
    works: &dyn Fn(),
    stop: &Stop,
) -> Result<(), Failure> {
    tell(opened(Part::Microphone, microphone.mode()));
    let mut encoder = Encoder::new().map_err(internal)?;
    let (mut slot, mut filled, mut block) = ([0.0; SLOT], 0, SILENCE);
    let (mut speaking, mut expected_loss) = (Speaking::default(), 0);
    let mut lost = Lost::new(Part::Microphone);
    // In RTP's clock the sample that comes next: the microphone's samples, counted from when it was opened.
    let mut time = rtp_time(sound.clock.mono());
    while !stop.is_told() {
        microphone.capture(&mut block).map_err(|error| failure(Part::Microphone, error))?;
        works();
        let now = sound.clock.mono();
        if lost.more(microphone.overruns(), now, tell) {
            time = rtp_time(now);
        }
        let mut test = lock(&sound.selftest);
        if let Some(done) = test.take_if(|test| test.hear(&block)) {
            // Who does not wait any more gets nothing.
            let _ = done.answer.send(done.heard);
        }
        drop(test);
        let delay = microphone.delay();
        let voice = {
            let in_speaker = Duration::from_micros(sound.speaker_delay_us.load(Relaxed));
            let mut echo = lock(&sound.echo);
            echo.capture(&mut block, in_speaker + delay);
            echo.voice()
        };
        time = time.wrapping_add(BLOCK as u32);
        (sound.tell_time)(sound.clock.instant(now.saturating_sub(delay)), time);
        if !sound.microphone.load(Relaxed) {
            // Not even half a slot of what was said before goes out later.
            filled = 0;
            continue;
        }
        slot[filled..filled + BLOCK].copy_from_slice(&block);
        filled = (filled + BLOCK) % SLOT;
        if filled != 0 {
            continue;
        }
        let level = Level::of(&slot, voice);
        if speaking.hear(level, now) {
            tell(Event::Speaks { member: own.clone() });
        }
        if std::mem::replace(&mut expected_loss, sound.loss()) != expected_loss {
            encoder.set_expected_loss(expected_loss).map_err(internal)?;
        }
        if let Some(data) = encoder.encode(&slot).map_err(internal)? {
            let sequence = sound.sequence.fetch_add(1, Relaxed);
            let time = time.wrapping_sub(SLOT as u32);
            sound.send(&Arc::new(SoundPacket { data, sequence, time, level: Some(level) }));
        }
    }
    Ok(())
}

/// Plays what every member says until told to stop.
///
/// # Errors
/// The speaker's failure.
pub fn play(
    speaker: &mut dyn Speaker,
    sound: &Sound,
    tell: &dyn Fn(Event),
    works: &dyn Fn(),
    stop: &Stop,
) -> Result<(), Failure> {
    tell(opened(Part::Speaker, speaker.mode()));
    let mut mixer = Mixer::new();
    let (mut block, mut mixed) = (SILENCE, SILENCE);
    let mut lost = Lost::new(Part::Speaker);
    while !stop.is_told() {
        speaker.ready().map_err(|error| failure(Part::Speaker, error))?;
        let delay = speaker.delay();
        sound.speaker_delay_us.store(delay.as_micros() as u64, Relaxed);
        for voice in lock(&sound.voices).values() {
            if voice.pull(delay, &mut block) {
                mixer.add(&block);
            }
        }
        mixer.take(&mut mixed);
        if !sound.speaker.load(Relaxed) {
            mixed = SILENCE;
        }
        if let Some(test) = &mut *lock(&sound.selftest) {
            test.play(&mut mixed);
        }
        lock(&sound.echo).render(&mixed);
        speaker.play(&mixed).map_err(|error| failure(Part::Speaker, error))?;
        works();
        lost.more(speaker.underruns(), sound.clock.mono(), tell);
    }
    Ok(())
}

/// Sound that a device lost: counted by the device, said now and then.
struct Lost {
    part: Part,
    count: u64,
    said: Option<Duration>,
}

impl Lost {
    fn new(part: Part) -> Self {
        Self { part, count: 0, said: None }
    }

    /// Whether more was lost. Says so, and that it goes on.
    fn more(&mut self, count: u64, now: Duration, tell: &dyn Fn(Event)) -> bool {
        if count == self.count {
            return false;
        }
        self.count = count;
        if self.said.is_none_or(|said| now.saturating_sub(said) >= XRUN_PAUSE) {
            self.said = Some(now);
            let cause = Cause { op: format!("{count} times since it was opened"), errno: None, target: None };
            let (part, code) = (self.part.clone(), Code::SoundXrun);
            tell(Event::Raised(Fault { part: part.clone(), code, cause: Some(cause), retry_in: None }));
            tell(Event::Healed(part));
        }
        true
    }
}

/// A sound device's failure in the words of faults.
pub fn failure(part: Part, error: device::Error) -> Failure {
    let code = match (&part, error.kind) {
        (Part::Speaker, _) => Code::SpeakerGone,
        (_, Kind::Busy) => Code::MicrophoneBusy,
        _ => Code::MicrophoneGone,
    };
    Failure { code, cause: super::cause(error) }
}

fn opened(part: Part, mode: &device::SoundMode) -> Event {
    let device::SoundMode { name, channels, period, buffer } = mode.clone();
    tracing::info!(%part, name, channels, period, buffer, "sound open");
    Event::SoundOpened { info: SoundInfo { part, name, channels, period, buffer } }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    let cause = Cause { op: "Opus".into(), errno: Some(error.to_string()), target: None };
    Failure { code: Code::Internal, cause }
}

/// A moment of the kiosk's clock in the 48 kHz clock of RFC 7587; wraps.
fn rtp_time(at: Duration) -> u32 {
    (at.as_nanos() * u128::from(RATE_HZ) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::SoundMode;
    use std::cell::RefCell;

    /// A microphone that loses sound at each block, and is unplugged after a second.
    struct Stutter {
        mode: SoundMode,
        blocks: u64,
    }

    impl Microphone for Stutter {
        fn mode(&self) -> &SoundMode {
            &self.mode
        }

        fn capture(&mut self, _: &mut Block) -> Result<(), device::Error> {
            self.blocks += 1;
            match self.blocks {
                ..=100 => Ok(()),
                _ => Err(device::Error {
                    kind: Kind::Gone,
                    operation: "snd_pcm_readi",
                    errno: None,
                    target: "stutter".into(),
                }),
            }
        }

        fn delay(&self) -> Duration {
            Duration::ZERO
        }

        fn overruns(&self) -> u64 {
            self.blocks
        }
    }

    #[test]
    fn lost_sound_is_said_once_in_ten_seconds_and_a_microphone_that_is_gone_ends_the_session() {
        let mode = SoundMode { name: "stutter".into(), channels: 1, period: 480, buffer: 960 };
        let sound = Sound::new(Clock::start(), Switches::OFF, Box::new(|_, _| {}));
        let own = MemberId::parse("lobby").expect("an id");
        let told = RefCell::new(Vec::new());
        let tell = |event| told.borrow_mut().push(event);

        let end = listen(&mut Stutter { mode, blocks: 0 }, (&sound, &own), &tell, &|| (), &Stop::default());

        assert_eq!(end.map_err(|failure| failure.code), Err(Code::MicrophoneGone));
        let told = told.into_inner();
        assert!(matches!(&told[0], Event::SoundOpened { info } if info.name == "stutter"));
        assert!(
            matches!(&told[1..], [Event::Raised(fault), Event::Healed(Part::Microphone)]
                if fault.code == Code::SoundXrun && fault.part == Part::Microphone),
            "{told:?}"
        );
    }

    #[test]
    fn each_failure_of_a_sound_device_has_a_code() {
        let code = |part, kind| {
            failure(part, device::Error { kind, operation: "open", errno: None, target: "x".into() }).code
        };

        assert_eq!(code(Part::Microphone, Kind::Busy), Code::MicrophoneBusy);
        assert_eq!(code(Part::Microphone, Kind::Gone), Code::MicrophoneGone);
        assert_eq!(code(Part::Speaker, Kind::Busy), Code::SpeakerGone);
    }
}
