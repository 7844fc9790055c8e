//! Sound through real ALSA cards: a cable from a speaker to a microphone, a USB speaker that is unplugged.

use crate::bed::{PATIENCE, qmp};
use parlor::device::sound::{AlsaMicrophone, AlsaSpeaker, any_card, open_microphone, open_speaker};
use parlor::device::{Error, Kind, Microphone, Speaker};
use parlor::media::sound::{BLOCK, Block, RATE_HZ, SILENCE};
use std::f32::consts::TAU;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The two ends of the cable (snd-aloop). Both must agree on rate, format and channels.
const PLAYED: &str = "hw:Loopback,0,0";
const RECORDED: &str = "hw:Loopback,1,0";
/// QEMU's USB speaker: 48 kHz, two channels, nothing else.
const USB: &str = "hw:CARD=Audio";
/// How soon it must be known that a device is gone, and how soon it must work again.
const GONE: Duration = Duration::from_secs(5);
const BACK: Duration = Duration::from_secs(15);

const TONE_HZ: f32 = 1000.0;
const AMPLITUDE: f32 = 0.5;
/// Blocks in which a tone is judged: 100 ms.
pub const JUDGED: usize = 10;

#[test]
fn a_tone_that_is_played_is_recorded_with_its_pitch_and_level() {
    let mut speaker = speaker(PLAYED);
    let mut microphone = microphone(RECORDED);

    assert!(any_card());
    assert_eq!(speaker.mode().name, "hw:Loopback,0,0 (Loopback)");
    assert_eq!(microphone.mode().name, "hw:Loopback,1,0 (Loopback)");
    assert_eq!([speaker.mode().channels, microphone.mode().channels], [1, 1]);
    assert_eq!([speaker.mode().buffer, microphone.mode().buffer], [1920, 9600]);
    while_a_tone_plays(&mut speaker, || await_tone(&mut microphone));
}

#[test]
fn the_speaker_says_how_much_waits_before_a_sample() {
    let mut speaker = speaker(PLAYED);
    assert_eq!(speaker.delay(), Duration::ZERO);

    // One block more would make it run.
    for queued in [10, 20] {
        speaker.play(&SILENCE).expect("there is room");
        assert_eq!(speaker.delay(), Duration::from_millis(queued));
    }
}

#[test]
fn the_microphone_says_how_much_was_recorded_since_a_block() {
    let mut microphone = microphone(RECORDED);

    // A test that comes too late finds it overrun, without a delay, and tries again.
    until("the delay grows with time", || {
        microphone.capture(&mut [0.0; BLOCK]).expect("a block");
        let (taken, before) = (Instant::now(), microphone.delay());
        std::thread::sleep(Duration::from_millis(60));
        let grown = microphone.delay().saturating_sub(before);
        // The cable's clock ticks every 4 ms.
        grown >= Duration::from_millis(50) && grown <= taken.elapsed() + Duration::from_millis(10)
    });
}

#[test]
fn a_card_in_use_is_busy_until_it_is_dropped() {
    let held = (speaker(PLAYED), microphone(RECORDED));

    assert_eq!(failure(open_speaker(PLAYED)).kind, Kind::Busy);
    assert_eq!(failure(open_microphone(RECORDED)).kind, Kind::Busy);
    drop(held);
    speaker(PLAYED);
    microphone(RECORDED);
}

#[test]
fn a_card_that_lacks_what_the_house_speaks_has_no_format_unless_it_is_converted() {
    // 44.1 kHz at the other end binds this one to it.
    let other = alsa::pcm::PCM::new(PLAYED, alsa::Direction::Playback, true).expect("the cable is free");
    let parameters = alsa::pcm::HwParams::any(&other).expect("it has some");
    parameters.set_rate(44_100, alsa::ValueOr::Nearest).expect("any rate");
    other.hw_params(&parameters).expect("they are its own");
    drop(parameters);

    assert_eq!(failure(open_microphone(RECORDED)).kind, Kind::Format);
    microphone("plughw:Loopback,1,0").capture(&mut [0.0; BLOCK]).expect("a block");
}

#[test]
fn a_microphone_that_delivers_nothing_stalls() {
    // Its clock is that of a card which does not play.
    until("the USB speaker is there", || is_there("Audio"));
    beat("Audio.0.0");
    let mut microphone = microphone(RECORDED);

    let answer = microphone.capture(&mut [0.0; BLOCK]);

    drop(microphone);
    beat("");
    assert_eq!(failure(answer).kind, Kind::Stalled);
}

#[test]
fn an_underrun_is_counted_and_sound_goes_on() {
    let mut speaker = speaker(PLAYED);
    let mut microphone = microphone(RECORDED);
    while_a_tone_plays(&mut speaker, || await_tone(&mut microphone));
    let before = speaker.underruns();

    // Nothing is left: an empty buffer stops the card.
    until("the buffer runs empty", || speaker.delay() == Duration::ZERO);

    while_a_tone_plays(&mut speaker, || await_tone(&mut microphone));
    assert!(speaker.underruns() > before);
}

#[test]
fn an_overrun_is_counted_and_sound_goes_on() {
    let mut speaker = speaker(PLAYED);
    let mut microphone = microphone(RECORDED);
    while_a_tone_plays(&mut speaker, || {
        await_tone(&mut microphone);
        let before = microphone.overruns();

        // Longer than the buffer is: what comes then has no place.
        until("the buffer overruns", || {
            std::thread::sleep(Duration::from_millis(250));
            microphone.capture(&mut [0.0; BLOCK]).expect("the microphone records");
            microphone.overruns() > before
        });

        await_tone(&mut microphone);
    });
}

#[test]
fn an_unplugged_speaker_is_gone_and_plays_again_when_it_is_back() {
    // The kernel looks at the bus in its own time.
    let mut speaker = await_open(|| open_speaker(USB), PATIENCE);
    assert_eq!(speaker.mode().name, "hw:CARD=Audio (QEMU USB Audio)");
    assert_eq!(speaker.mode().channels, 2);
    play_a_while(&mut speaker);

    qmp("device_del", r#"{"id":"speaker"}"#);

    let error = end_of(|| speaker.play(&SILENCE));
    assert_eq!(error.kind, Kind::Gone, "{error}");
    drop(speaker);
    until("the card is taken away", || !is_there("Audio"));
    assert_eq!(failure(open_speaker(USB)).kind, Kind::NotFound);

    qmp("device_add", r#"{"driver":"usb-audio","id":"speaker","audiodev":"air"}"#);
    play_a_while(&mut await_open(|| open_speaker(USB), BACK));
}

#[test]
fn an_unplugged_microphone_is_gone_and_records_again_when_it_is_back() {
    let mut microphone = microphone(RECORDED);
    microphone.capture(&mut [0.0; BLOCK]).expect("a block");

    // The driver lets go only when nobody holds the card any more.
    let unplugged = std::thread::spawn(|| cable("unbind"));

    let error = end_of(|| microphone.capture(&mut [0.0; BLOCK]));
    assert_eq!(error.kind, Kind::Gone, "{error}");
    drop(microphone);
    unplugged.join().expect("the driver let go");
    assert_eq!(failure(open_microphone(RECORDED)).kind, Kind::NotFound);

    cable("bind");
    let mut microphone = await_open(|| open_microphone(RECORDED), BACK);
    microphone.capture(&mut [0.0; BLOCK]).expect("a block");
}

pub fn speaker(device: &str) -> AlsaSpeaker {
    open_speaker(device).expect(device)
}

pub fn microphone(device: &str) -> AlsaMicrophone {
    open_microphone(device).expect(device)
}

pub fn failure<T>(answer: Result<T, Error>) -> Error {
    answer.err().expect("it fails")
}

/// Plays a tone on its own thread as long as `test` runs, and a failure of it as well.
fn while_a_tone_plays(speaker: &mut AlsaSpeaker, test: impl FnOnce()) {
    let playing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = tone(AMPLITUDE);
            while playing.load(Ordering::Relaxed) {
                speaker.play(&block).expect("the speaker plays");
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        playing.store(false, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Records until 100 ms are the tone. What was recorded around an underrun is not.
fn await_tone(microphone: &mut AlsaMicrophone) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut heard = Vec::with_capacity(JUDGED * BLOCK);
        for _ in 0..JUDGED {
            let mut block = SILENCE;
            microphone.capture(&mut block).expect("the microphone records");
            heard.extend(block);
        }
        let Err(complaint) = is_tone(&heard, AMPLITUDE) else { return };
        assert!(Instant::now() < deadline, "{complaint}");
    }
}

/// A block of the tone, which has ten whole periods of it.
pub fn tone(amplitude: f32) -> Block {
    std::array::from_fn(|index| amplitude * (TAU * TONE_HZ * index as f32 / RATE_HZ as f32).sin())
}

/// Whether this is the tone: within 5 Hz and 1 dB.
pub fn is_tone(samples: &[f32], amplitude: f32) -> Result<(), String> {
    let (pitch, level) = (pitch_hz(samples), level_db(samples));
    let wanted = 20.0 * (amplitude / 2f32.sqrt()).log10();
    if (pitch - TONE_HZ).abs() <= 5.0 && (level - wanted).abs() <= 1.0 {
        return Ok(());
    }
    Err(format!("heard {pitch} Hz at {level} dB and not {TONE_HZ} at {wanted}"))
}

/// The pitch, from the first to the last time the samples rise through zero; 0 if they never do.
fn pitch_hz(samples: &[f32]) -> f32 {
    let rises: Vec<f32> = samples
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0.0 && pair[1] >= 0.0)
        .map(|(index, pair)| index as f32 + pair[0] / (pair[0] - pair[1]))
        .collect();
    match rises[..] {
        [first, .., last] => (rises.len() - 1) as f32 * RATE_HZ as f32 / (last - first),
        _ => 0.0,
    }
}

/// Root mean square against full scale.
pub fn level_db(samples: &[f32]) -> f32 {
    let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32;
    10.0 * power.max(1e-12).log10()
}

/// Plays more than the card's buffer holds, so that it truly runs.
fn play_a_while(speaker: &mut AlsaSpeaker) {
    for _ in 0..2 * speaker.mode().buffer as usize / BLOCK {
        speaker.play(&SILENCE).expect("the speaker plays");
    }
}

/// The error with which a device ends.
fn end_of(mut step: impl FnMut() -> Result<(), Error>) -> Error {
    let deadline = Instant::now() + GONE;
    loop {
        if let Err(error) = step() {
            return error;
        }
        assert!(Instant::now() < deadline, "the device goes on");
    }
}

/// Opens a device that may not be there yet.
fn await_open<T>(open: impl Fn() -> Result<T, Error>, patience: Duration) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match open() {
            Ok(device) => return device,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: it does not");
        std::thread::yield_now();
    }
}

/// Whether the kernel has the card of this id.
pub fn is_there(id: &str) -> bool {
    fs::read_to_string("/proc/asound/cards").expect("the kernel has sound").contains(&format!("[{id} "))
}

/// Gives the cable another card's clock (as `Audio.0.0`: card, device, subdevice), or its own.
fn beat(source: &str) {
    fs::write("/proc/asound/Loopback/timer_source", format!("{source}\n")).expect("the cable has a clock");
}

/// Takes the cable out of its driver, or puts it in.
fn cable(operation: &str) {
    let control = format!("/sys/bus/platform/drivers/snd_aloop/{operation}");
    fs::write(control, "snd_aloop.0").expect("the driver obeys");
}
