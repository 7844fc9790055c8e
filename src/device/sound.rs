//! ALSA: a microphone and a speaker by PCM name, 48 kHz, 16 bits, in blocks of 10 ms.
//!
//! ```text
//! microphone: card ─► buffer, 200 ms ─► capture, one block  (full: overrun, what it held is lost, counted)
//! speaker:    play, one block ─► buffer, 40 ms ─► card      (empty: underrun, silence until it is filled again, counted)
//! ```
//! Whatever period the card agreed to, the buffer takes and gives any number of samples: blocks need none of our own.

use super::ioctl::{error, finding};
use super::{Error, Kind, Microphone, SoundMode, Speaker};
use crate::media::sound::{BLOCK, Block, RATE_HZ};
use alsa::pcm::{Access, Format, Frames, HwParams, IO, PCM};
use alsa::{Card, Direction, Output, ValueOr};
use std::ffi::CString;
use std::time::{Duration, Instant};
use tracing::debug;

/// Samples a channel of one period, if the card has it: it says once a block that there is room or sound.
const PERIOD: Frames = BLOCK as Frames;
/// The speaker's buffer is heard as delay. Of 4 periods one is playing, so its thread may be 30 ms late.
const PLAYED: Frames = 4 * PERIOD;
/// The microphone's buffer delays nothing, as each block is taken when it is there; its thread may be 190 ms late.
const RECORDED: Frames = 20 * PERIOD;
/// How long a card may take for one block before it is given up, recoveries included.
const PATIENCE: Duration = Duration::from_secs(1);
/// Full scale of 16 bits.
const FULL: f32 = 32768.0;

/// Whether this machine has any sound card.
pub fn any_card() -> bool {
    // Without the file the kernel has no sound at all.
    std::fs::read_to_string("/proc/asound/cards").is_ok_and(|cards| lists_card(&cards))
}

/// Opens the microphone of this PCM, as `arecord -L` lists them: `default`, `plughw:CARD=Device`, `hw:Loopback,1,0`. A
/// `plughw` converts what its card lacks; a `hw` must have 48 kHz, 16 bits and one or two channels itself. It records
/// from the first `capture` on.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Busy`], [`Kind::NotAuthorized`], [`Kind::Format`] (not 48 kHz, 16 bits, 1 or 2 channels),
/// [`Kind::NoBandwidth`] (the bus cannot carry it as well), [`Kind::Gone`]: try again later.
pub fn open_microphone(device: &str) -> Result<AlsaMicrophone, Error> {
    // The first block asked for starts it.
    Stream::open(device, Direction::Capture, RECORDED, |_, _| 1).map(AlsaMicrophone)
}

/// Opens the speaker of this PCM, as [`open_microphone`] does; it plays once its buffer is full but for one period.
///
/// # Errors
/// As [`open_microphone`].
pub fn open_speaker(device: &str) -> Result<AlsaSpeaker, Error> {
    // Not later: with less than a period of room nobody is told that there is room.
    Stream::open(device, Direction::Playback, PLAYED, |buffer, period| (buffer - period).max(1))
        .map(AlsaSpeaker)
}

/// An open ALSA microphone. Dropping it closes the card.
pub struct AlsaMicrophone(Stream);

impl Microphone for AlsaMicrophone {
    fn mode(&self) -> &SoundMode {
        &self.0.mode
    }

    fn capture(&mut self, block: &mut Block) -> Result<(), Error> {
        self.0.transfer("snd_pcm_readi", |io, samples| io.readi(samples))?;
        mix(&self.0.samples, block);
        Ok(())
    }

    fn delay(&self) -> Duration {
        self.0.delay()
    }

    fn overruns(&self) -> u64 {
        self.0.xruns
    }
}

/// An open ALSA speaker. Dropping it closes the card; what it has not played is lost.
pub struct AlsaSpeaker(Stream);

impl Speaker for AlsaSpeaker {
    fn mode(&self) -> &SoundMode {
        &self.0.mode
    }

    fn ready(&mut self) -> Result<(), Error> {
        self.0.room()
    }

    fn play(&mut self, block: &Block) -> Result<(), Error> {
        spread(block, &mut self.0.samples);
        self.0.transfer("snd_pcm_writei", |io, samples| io.writei(samples))
    }

    fn delay(&self) -> Duration {
        self.0.delay()
    }

    fn underruns(&self) -> u64 {
        self.0.xruns
    }
}

/// What both are: a PCM that never blocks by itself, and one block as the card has it.
struct Stream {
    pcm: PCM,
    mode: SoundMode,
    /// One block, channels interleaved.
    samples: Vec<i16>,
    xruns: u64,
}

impl Stream {
    /// `start` says from the sizes of buffer and period how many samples make it run.
    fn open(
        device: &str,
        direction: Direction,
        buffer: Frames,
        start: fn(Frames, Frames) -> Frames,
    ) -> Result<Self, Error> {
        let words = catch_words();
        let opened = Self::configure(device, direction, buffer, start);
        if let (Err(error), Some(words)) = (&opened, words) {
            debug!(%error, alsa = %words.borrow(), "no sound card");
        }
        opened
    }

    fn configure(
        device: &str,
        direction: Direction,
        buffer: Frames,
        start: fn(Frames, Frames) -> Frames,
    ) -> Result<Self, Error> {
        let name = CString::new(device).map_err(|_| finding(Kind::NotFound, "snd_pcm_open", device))?;
        let pcm = PCM::open(&name, direction, true).map_err(|source| on_open(device, source))?;
        let [channels, period, buffer] =
            negotiate(&pcm, buffer, start).map_err(|source| answer(source.func(), device, source))?;
        let card = pcm.info().ok().map(|info| info.get_card()).filter(|&card| card >= 0);
        let card = card.and_then(|card| Card::new(card).get_name().ok());
        let mode = SoundMode {
            name: card.map_or_else(|| device.to_owned(), |card| format!("{device} ({card})")),
            channels,
            period,
            buffer,
        };
        debug!(?mode, ?direction, "sound card is open");
        Ok(Self { pcm, samples: vec![0; BLOCK * channels as usize], mode, xruns: 0 })
    }

    /// Moves one block with `step`, which moves as many samples as it can.
    fn transfer(
        &mut self,
        operation: &'static str,
        step: fn(&IO<'_, i16>, &mut [i16]) -> alsa::Result<usize>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut moved = 0;
        while moved < self.samples.len() {
            // Asked before the step: who was not scheduled for that long gets one more try.
            let left = deadline.saturating_duration_since(Instant::now());
            let rest = &mut self.samples[moved..];
            let failed = match self.pcm.io_i16().and_then(|io| step(&io, rest)) {
                Ok(frames) if frames > 0 => {
                    moved += frames * self.mode.channels as usize;
                    continue;
                }
                Err(source) if source.errno() != libc::EAGAIN => Some((operation, source)),
                _ => {
                    self.pcm.wait(Some(left.as_millis() as u32)).err().map(|source| ("snd_pcm_wait", source))
                }
            };
            if let Some((operation, source)) = failed {
                self.recover(operation, source)?;
            }
            if left.is_zero() {
                return Err(finding(Kind::Stalled, operation, &self.mode.name));
            }
        }
        Ok(())
    }

    /// Waits until one block can be moved.
    fn room(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = match self.pcm.avail_update() {
                Ok(frames) if frames >= BLOCK as Frames => return Ok(()),
                Ok(_) => self.pcm.wait(Some(left.as_millis() as u32)).map(|_| ()),
                Err(source) => Err(source),
            };
            if let Err(source) = waited {
                self.recover("snd_pcm_wait", source)?;
            }
            if left.is_zero() {
                return Err(finding(Kind::Stalled, "snd_pcm_wait", &self.mode.name));
            }
        }
    }

    /// Makes the PCM ready again after an overrun, an underrun or a suspended machine: it starts as after opening.
    fn recover(&mut self, operation: &'static str, source: alsa::Error) -> Result<(), Error> {
        if !matches!(source.errno(), libc::EPIPE | libc::ESTRPIPE) {
            return Err(on_stream(operation, &self.mode.name, source));
        }
        self.xruns += 1;
        debug!(target = self.mode.name, xruns = self.xruns, "sound card overran or underran");
        // Empties the buffer of what the library said.
        catch_words();
        self.pcm.prepare().map_err(|source| on_stream("snd_pcm_prepare", &self.mode.name, source))
    }

    /// How long the sound in the buffer lasts; nothing of a card that does not run.
    fn delay(&self) -> Duration {
        let frames = self.pcm.delay().unwrap_or(0).max(0);
        Duration::from_secs_f64(frames as f64 / f64::from(RATE_HZ))
    }
}

/// Settles channels and the sizes of period and buffer.
fn negotiate(
    pcm: &PCM,
    buffer: Frames,
    start: fn(Frames, Frames) -> Frames,
) -> Result<[u32; 3], alsa::Error> {
    let hardware = HwParams::any(pcm)?;
    hardware.set_access(Access::RWInterleaved)?;
    hardware.set_format(Format::s16())?;
    hardware.set_rate(RATE_HZ, ValueOr::Nearest)?;
    hardware.set_channels(1).or_else(|_| hardware.set_channels(2))?;
    hardware.set_period_size_near(PERIOD, ValueOr::Nearest)?;
    hardware.set_buffer_size_near(buffer)?;
    pcm.hw_params(&hardware)?;
    let (channels, period, buffer) =
        (hardware.get_channels()?, hardware.get_period_size()?, hardware.get_buffer_size()?);
    let software = pcm.sw_params_current()?;
    software.set_avail_min(period)?;
    software.set_start_threshold(start(buffer, period))?;
    pcm.sw_params(&software)?;
    Ok([channels, period as u32, buffer as u32])
}

/// Has what the library would print on stderr kept for this thread instead, from now on.
fn catch_words() -> Option<std::rc::Rc<std::cell::RefCell<Output>>> {
    Output::local_error_handler().ok()
}

/// What the library answered to `operation`, in our words.
fn answer(operation: &'static str, target: &str, source: alsa::Error) -> Error {
    error(operation, target, &std::io::Error::from_raw_os_error(source.errno()))
}

/// While it is opened: a card or a name that does not exist has several numbers.
fn on_open(target: &str, source: alsa::Error) -> Error {
    match answer("snd_pcm_open", target, source) {
        error if matches!(error.errno, Some(libc::ENODEV | libc::EINVAL)) => {
            Error { kind: Kind::NotFound, ..error }
        }
        error => error,
    }
}

/// While it runs: it was found and its format settled, so whatever it says, it is lost.
fn on_stream(operation: &'static str, target: &str, source: alsa::Error) -> Error {
    match answer(operation, target, source) {
        error if matches!(error.kind, Kind::NotFound | Kind::Format) => Error { kind: Kind::Gone, ..error },
        error => error,
    }
}

/// One channel out of `samples`: their mean.
fn mix(samples: &[i16], block: &mut Block) {
    let channels = samples.len() / BLOCK;
    for (sample, frame) in block.iter_mut().zip(samples.chunks_exact(channels)) {
        let sum: f32 = frame.iter().copied().map(f32::from).sum();
        *sample = sum / (channels as f32 * FULL);
    }
}

/// The same on all channels of `samples`; what is louder than full scale is cut off.
fn spread(block: &Block, samples: &mut [i16]) {
    let channels = samples.len() / BLOCK;
    for (sample, frame) in block.iter().zip(samples.chunks_exact_mut(channels)) {
        frame.fill((sample * FULL).round() as i16);
    }
}

/// Whether a text of `/proc/asound/cards` has a card in it: a number, an id in brackets, names.
fn lists_card(cards: &str) -> bool {
    cards.lines().any(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure<T>(answer: Result<T, Error>) -> Error {
        answer.err().expect("it fails")
    }

    #[test]
    fn a_pcm_that_is_not_there_is_not_found() {
        for device in
            ["no such pcm", "", "hw:NoSuchCard", "plughw:CARD=NoSuchCard", "hw:31", "hw:a,b,c", "hw\0"]
        {
            assert_eq!(failure(open_microphone(device)).kind, Kind::NotFound, "{device:?}");
            assert_eq!(failure(open_speaker(device)).kind, Kind::NotFound, "{device:?}");
        }
    }

    #[test]
    fn a_pcm_without_a_card_records_silence() {
        let mut microphone = open_microphone("null").expect("the library brings it along");
        let mut block = [1.0; BLOCK];

        microphone.capture(&mut block).expect("a block");

        assert_eq!(block, [0.0; BLOCK]);
        assert_eq!((microphone.mode().name.as_str(), microphone.mode().channels), ("null", 1));
        assert_eq!((microphone.mode().period, microphone.mode().buffer), (480, 9600));
        assert_eq!(microphone.overruns(), 0);
    }

    #[test]
    fn what_is_played_reaches_the_card_sample_by_sample() {
        let file = std::env::temp_dir().join(format!("parlor-sound-{}.raw", std::process::id()));
        let device = format!("file:'{}',raw", file.display());
        let mut speaker = open_speaker(&device).expect("the library brings it along");
        let blocks = [0.25, -1.0, 1.5].map(|sample| [sample; BLOCK]);

        for block in &blocks {
            speaker.ready().expect("there is room");
            speaker.play(block).expect("there is room");
        }

        assert_eq!((speaker.mode().channels, speaker.mode().buffer), (1, 1920));
        drop(speaker);
        let bytes = std::fs::read(&file).expect("the library wrote it");
        std::fs::remove_file(&file).expect("it is ours");
        let played: Vec<i16> =
            bytes.chunks_exact(2).map(|pair| i16::from_ne_bytes([pair[0], pair[1]])).collect();
        let wanted = [8192, -32768, 32767].map(|sample| [sample; BLOCK]).concat();
        assert_eq!(played, wanted);
    }

    #[test]
    fn each_number_has_one_meaning() {
        let kind = |errno, word: fn(alsa::Error) -> Error| word(alsa::Error::new("snd_pcm_open", errno)).kind;
        let opening = |errno| kind(errno, |source| on_open("card", source));
        let setting = |errno| kind(errno, |source| answer("snd_pcm_hw_params", "card", source));
        let running = |errno| kind(errno, |source| on_stream("snd_pcm_writei", "card", source));

        for errno in [libc::ENOENT, libc::ENXIO, libc::ENODEV, libc::EINVAL] {
            assert_eq!(opening(errno), Kind::NotFound, "{errno}");
        }
        assert_eq!(opening(libc::EBUSY), Kind::Busy);
        assert_eq!([libc::EACCES, libc::EPERM].map(opening), [Kind::NotAuthorized; 2]);
        assert_eq!(setting(libc::EINVAL), Kind::Format);
        assert_eq!(setting(libc::ENOSPC), Kind::NoBandwidth);
        for errno in [libc::ENODEV, libc::EBADFD, libc::EIO, libc::ESHUTDOWN, libc::EINVAL, libc::ENOTTY] {
            assert_eq!(running(errno), Kind::Gone, "{errno}");
        }
    }

    #[test]
    fn several_channels_are_mixed_into_one_and_one_is_spread_over_several() {
        let mut block = [0.0; BLOCK];
        let mut samples = [16384, -8192].repeat(BLOCK);
        mix(&samples, &mut block);
        assert_eq!(block, [0.125; BLOCK]);

        spread(&block, &mut samples);
        assert_eq!(samples, [4096; 2 * BLOCK]);
    }

    #[test]
    fn a_machine_has_a_card_when_the_kernel_numbers_one() {
        assert!(lists_card(
            " 0 [Device         ]: USB-Audio - USB Audio Device\n      at usb-1.2, full speed\n"
        ));
        assert!(!lists_card("--- no soundcards ---\n"));
        assert!(!lists_card(""));
    }
}
