//! One encoder for all senders. Their cameras show the same pictures, so each is coded once, however many send it: what
//! sends must not take the machine away from what is measured.

use crate::geometry::Size;
use crate::media::Packet;
use crate::media::codec::{Codecs, Decode, Encode, Software};
use crate::media::frame::Frame;
use crate::media::h264::{DecodeError, EncodeError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Encoders that share what they code with all others of their size.
#[derive(Default)]
pub struct SharedEncoder {
    streams: Mutex<HashMap<Size, SharedStream>>,
}

type SharedStream = Arc<Mutex<Stream>>;

/// The pictures of one size.
struct Stream {
    encoder: Box<dyn Encode>,
    /// The last ones, the newest last: who is late finds them here. Full: the oldest goes.
    coded: heapless::Deque<Coded, 16>,
    /// Pictures that were coded and not skipped.
    count: u64,
    keyframe_wanted: bool,
}

struct Coded {
    picture: u64,
    /// Its place in the stream; `None`: skipped.
    packet: Option<(u64, Packet)>,
}

/// What one sender has of a stream.
struct Share {
    stream: SharedStream,
    /// The place of its last packet. What does not follow on it cannot be decoded.
    last: Option<u64>,
    rate: Option<(u32, f32)>,
}

impl Codecs for SharedEncoder {
    fn encoder_name(&self) -> Option<&str> {
        Some(Software::NAME)
    }

    fn decoder_name(&self) -> Option<&str> {
        None
    }

    fn encoder(&self, size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Box<dyn Encode>, EncodeError> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match streams.entry(size) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let encoder = Software.encoder(size, rate_hz, bitrate_bps)?;
                let coded = heapless::Deque::new();
                let stream = Stream { encoder, coded, count: 0, keyframe_wanted: false };
                entry.insert(Arc::new(Mutex::new(stream))).clone()
            }
        };
        Ok(Box::new(Share { stream, last: None, rate: None }))
    }

    fn decoder(&self) -> Result<Box<dyn Decode>, DecodeError> {
        Software.decoder()
    }
}

impl Encode for Share {
    fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError> {
        let stream = &mut *self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.keyframe_wanted |= keyframe;
        let coded = stream.coded(frame, self.rate)?;
        let Some((place, packet)) = coded else { return Ok(None) };
        if packet.keyframe || self.last.is_some_and(|last| last + 1 == place) {
            self.last = Some(place);
            return Ok(Some(Packet { time: time_90khz, ..packet }));
        }
        (self.last, stream.keyframe_wanted) = (None, true);
        Ok(None)
    }

    fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
        self.rate = Some((bitrate_bps, rate_hz));
    }
}

impl Stream {
    /// What this picture is coded as: by whoever had it first.
    fn coded(
        &mut self,
        frame: &Frame,
        rate: Option<(u32, f32)>,
    ) -> Result<Option<(u64, Packet)>, EncodeError> {
        let picture = fingerprint(frame);
        if let Some(coded) = self.coded.iter().find(|coded| coded.picture == picture) {
            return Ok(coded.packet.clone());
        }
        if let Some((bitrate_bps, rate_hz)) = rate {
            self.encoder.set_rate(bitrate_bps, rate_hz);
        }
        let packet = self.encoder.encode(frame, 0, std::mem::take(&mut self.keyframe_wanted))?;
        let packet = packet.map(|packet| {
            self.count += 1;
            (self.count, packet)
        });
        if self.coded.is_full() {
            self.coded.pop_front();
        }
        // There is room.
        let _ = self.coded.push_back(Coded { picture, packet: packet.clone() });
        Ok(packet)
    }
}

/// Tells the pictures of simulated cameras from each other: their number crosses the middle row.
fn fingerprint(frame: &Frame) -> u64 {
    let (size, [luma, ..]) = (frame.size(), frame.planes());
    let row = luma.chunks_exact(size.width as usize).nth(size.height as usize / 2);
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::FramePool;
    use std::time::Duration;

    const SIZE: Size = Size::new(160, 120);

    fn picture(luma: u8) -> Frame {
        let mut frame = Frame::new(SIZE);
        frame.planes_mut()[0].fill(luma);
        frame
    }

    #[test]
    fn a_picture_is_coded_once_and_who_missed_one_goes_on_with_a_keyframe() {
        let shared = SharedEncoder::default();
        let mut senders = [0, 1].map(|_| shared.encoder(SIZE, 30.0, 500_000).expect("an encoder"));
        let mut send =
            |sender: usize, luma: u8, time: u32| senders[sender].encode(&picture(luma), time, false);
        let mut send = |sender, luma, time| send(sender, luma, time).expect("coded");

        let first = send(0, 100, 7).expect("a picture");
        let other = send(1, 100, 9).expect("a picture");
        assert!(first.keyframe);
        assert_eq!((first.data, first.time, other.time), (other.data.clone(), 7, 9));
        assert!(!send(0, 110, 8).expect("a picture").keyframe);
        assert!(!send(0, 120, 9).expect("a picture").keyframe);
        // It did not have the one before.
        assert_eq!(send(1, 120, 10), None);
        let next = send(1, 130, 11).expect("a picture");
        assert!(next.keyframe);
        assert!(send(0, 130, 10).expect("a picture").keyframe);

        let mut decoder = Software.decoder().expect("a decoder");
        for (packet, luma) in [(other, 100u8), (next, 130)] {
            let seen = decoder.decode(&packet, &mut FramePool::default(), Duration::ZERO);
            let seen = seen.expect("decoded").expect("a picture");
            assert!(seen.view().luma().row(60).iter().all(|sample| sample.abs_diff(luma) < 4));
        }
    }
}
