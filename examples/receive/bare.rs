//! What a receiver cannot save: decoding its streams with the bare decoder, and memory.

use anyhow::Context as _;
use openh264::decoder::Decoder;
use parlor::bench::this_thread;
use parlor::geometry::Size;
use parlor::media::Packet;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: usize = 5;

/// Where a stream's pictures go.
pub type Sink = Box<dyn FnMut(Packet) -> bool + Send>;

/// The pictures of one stream from a keyframe on, once it is started.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Option<Vec<Packet>>>>);

impl Tape {
    pub fn start(&self) {
        *self.0.lock().expect("nobody panics with it") = Some(Vec::new());
    }

    fn take(&self) -> Vec<Packet> {
        self.0.lock().expect("nobody panics with it").take().unwrap_or_default()
    }

    /// Passes pictures on to `sink` and keeps them.
    pub fn record(&self, mut sink: Sink) -> Sink {
        let tape = self.clone();
        Box::new(move |packet| {
            if let Some(packets) = &mut *tape.0.lock().expect("nobody panics with it")
                && (packet.keyframe || !packets.is_empty())
            {
                packets.push(packet.clone());
            }
            sink(packet)
        })
    }
}

/// In CPU seconds for a second of video: the bare decoder of these streams, at full speed (median of rounds) and at their
/// own pace, for a processor that has slept or done something else meanwhile is slower; and to read each byte of their
/// pictures and of one more, all of size `picture`, once, and write each of a 32-bit `screen` once.
///
/// # Errors
/// If no keyframe has come since a tape was started, or a picture does not decode.
pub fn measure(tapes: &[Tape], picture: Size, screen: Size, rate_hz: u32) -> anyhow::Result<[f64; 3]> {
    let tapes: Vec<Vec<Packet>> = tapes.iter().map(Tape::take).collect();
    let pictures = vec![1u8; (tapes.len() + 1) * picture.area() as usize * 3 / 2];
    let mut screen = vec![0u8; screen.area() as usize * 4];
    let mut rounds = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        rounds[0].push(decode(&tapes, rate_hz, Duration::ZERO)?);
        let begin = this_thread()?;
        for _ in 0..rate_hz {
            let byte = black_box(&pictures).iter().fold(0, |sum, byte| sum ^ byte);
            black_box(&mut screen).fill(byte);
        }
        rounds[1].push(this_thread()? - begin);
    }
    let [decoding, limit] = rounds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let pause = Duration::from_secs(1) / (rate_hz * tapes.len().max(1) as u32);
    Ok([decoding, decode(&tapes, rate_hz, pause)?, limit])
}

/// A picture of each stream in turn, `pause` before each.
fn decode(tapes: &[Vec<Packet>], rate_hz: u32, pause: Duration) -> anyhow::Result<f64> {
    let mut streams = Vec::new();
    for tape in tapes {
        let mut decoder = Decoder::new()?;
        let (keyframe, rest) = tape.split_first().context("no keyframe has come")?;
        decoder.decode(&keyframe.data)?;
        streams.push((decoder, rest));
    }
    let (begin, mut decoded) = (this_thread()?, 0);
    while streams.iter().any(|(_, rest)| !rest.is_empty()) {
        for (decoder, rest) in &mut streams {
            std::thread::sleep(pause);
            if let Some(packet) = rest.split_off_first() {
                black_box(decoder.decode(&packet.data)?);
                decoded += 1;
            }
        }
    }
    Ok((this_thread()? - begin) / f64::from(decoded.max(1)) * f64::from(rate_hz) * tapes.len() as f64)
}
