//! What the bare decoder takes of a stream like those that are sent: the least that a tile costs.

use super::Options;
use super::cost::this_thread;
use crate::config::Link;
use crate::device::Camera as _;
use crate::media::codec::{Codecs, Software};
use crate::media::frame::Frame;
use crate::sim::camera::{Cable, Camera};
use anyhow::Context;
use openh264::decoder::Decoder;
use std::hint::black_box;

const PICTURES: u32 = 90;
const ROUNDS: usize = 5;

/// CPU seconds for a second of video, at full speed: the median of some rounds. Takes as long as the pictures do.
///
/// # Errors
/// The codec refuses, or the kernel does not count.
pub fn decoding(options: &Options) -> anyhow::Result<f64> {
    let cable = Cable::default();
    cable.set_grain(options.grain);
    let mut camera = Camera::open("bare", options.size, options.rate, 0, cable)?;
    let bitrate_bps = 1000 * Link::default().bitrate_kbps;
    let mut encoder = Software.encoder(options.size, options.rate as f32, bitrate_bps)?;
    let (mut frame, mut packets) = (Frame::new(options.size), Vec::new());
    for _ in 0..PICTURES {
        camera.capture(&mut frame)?;
        packets.extend(encoder.encode(&frame, 0, false)?);
    }
    let mut rounds = [0.0; ROUNDS];
    for spent in &mut rounds {
        let mut decoder = Decoder::new().context("open the decoder")?;
        let begin = this_thread()?;
        for packet in &packets {
            black_box(decoder.decode(&packet.data).context("decode")?);
        }
        *spent = (this_thread()? - begin) / f64::from(PICTURES) * f64::from(options.rate);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}
