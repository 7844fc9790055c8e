//! The stateful encoder: one picture in, its packet out, before the next is taken.
//!
//! ```text
//!  frame ──copy──► OUTPUT queue ─► codec ─► CAPTURE queue ──copy──► packet
//!  another size or colour:  everything is opened anew
//!  a keyframe, where the driver cannot be asked for one:  drain (STOP … LAST), restart CAPTURE
//! ```

use super::super::ioctl::{error, finding};
use super::super::{Error, Kind};
use super::controls::{bitrate, controls, set};
use super::node::{Direction, Format, Node};
use super::picture::Layout;
use super::queue::{Done, Queue, Taken};
use super::{Found, H264, PATIENCE};
use crate::geometry::{Rect, Size};
use crate::media::Packet;
use crate::media::codec::Encode;
use crate::media::frame::{Colour, Frame};
use crate::media::h264::{EncodeError, too_large};
use crate::media::packetize::nal_units;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Instant;
use v4l::v4l_sys as sys;

/// A V4L2 encoder. Dropping it closes its file.
pub struct V4l2Encoder {
    found: Found,
    rate_hz: f32,
    bitrate_bps: u32,
    /// `None` after a failure: opened anew, beginning with a keyframe.
    session: Option<Session>,
}

impl V4l2Encoder {
    /// Opens the node and sets it up for pictures of this size.
    ///
    /// # Errors
    /// [`Kind::Format`]: it cannot code such pictures as they must be. Else as for any device.
    pub fn open(found: &Found, size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Self, Error> {
        let mut encoder = Self { found: found.clone(), rate_hz, bitrate_bps, session: None };
        encoder.session = Some(encoder.begin((size, Colour::default()))?);
        Ok(encoder)
    }

    fn begin(&self, made_for: (Size, Colour)) -> Result<Session, Error> {
        Session::open(&self.found, made_for, self.rate_hz, self.bitrate_bps)
    }

    fn code(&mut self, frame: &Frame, time: u32, keyframe: bool) -> Result<Packet, Error> {
        let wanted = (frame.size(), frame.colour);
        // Closed before it is opened: some devices have one user at a time.
        let session = match self.session.take().filter(|session| session.made_for == wanted) {
            Some(session) => session,
            None => self.begin(wanted)?,
        };
        let session = self.session.insert(session);
        let coded = session.code(frame, time, keyframe);
        if coded.is_err() {
            self.session = None;
        }
        coded
    }
}

impl Encode for V4l2Encoder {
    fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError> {
        if too_large(frame.size()) {
            return Err(EncodeError::TooLarge(frame.size()));
        }
        let coded = self.code(frame, time_90khz, keyframe);
        coded.map(Some).map_err(|error| EncodeError::Device(error.into()))
    }

    fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
        if (bitrate_bps, rate_hz) == (self.bitrate_bps, self.rate_hz) {
            return;
        }
        (self.bitrate_bps, self.rate_hz) = (bitrate_bps, rate_hz);
        let Some(session) = &self.session else { return };
        session.node.set_rate(rate_hz);
        if let Err(error) = set(&session.node, &bitrate(self.found.coded, bitrate_bps)) {
            tracing::debug!(%error, "the codec keeps its bit rate");
        }
    }
}

/// A node that is set up and streams.
struct Session {
    made_for: (Size, Colour),
    // In this order: the queues before their node.
    output: Queue,
    capture: Queue,
    node: Arc<Node>,
    h264: bool,
    layout: Layout,
    /// Whether a keyframe can be asked for.
    can_force: bool,
    /// Nothing was coded since the start.
    fresh: bool,
    /// Of the last picture given to the codec; counts.
    stamp: u64,
    /// SPS and PPS, once seen, in Annex B form.
    parameter_sets: Bytes,
    row: Vec<u8>,
}

impl Session {
    fn open(found: &Found, made_for: (Size, Colour), rate_hz: f32, bitrate_bps: u32) -> Result<Self, Error> {
        let (size, colour) = made_for;
        let node = Arc::new(Node::open(&found.path)?);
        // The coded side first: it decides what the other side offers.
        node.set_format(Direction::Capture, &Format::new(found.coded, size, colour))?;
        let format = node.set_format(Direction::Output, &Format::new(found.raw, size, colour))?;
        let layout = Layout::new(found.raw, format.coded, format.stride)
            .filter(|layout| layout.bytes() <= format.bytes)
            .filter(|_| format.coded.width >= size.width && format.coded.height >= size.height)
            .ok_or_else(|| finding(Kind::Format, "VIDIOC_S_FMT", node.name()))?;
        // Where nothing is said of it, all that is coded is seen.
        if node.crop(size).unwrap_or(Rect::of(format.coded)) != Rect::of(size) {
            return Err(finding(Kind::Format, "VIDIOC_S_SELECTION", node.name()));
        }
        node.set_rate(rate_hz);
        for control in controls(found.coded, size, rate_hz).iter().chain([&bitrate(found.coded, bitrate_bps)])
        {
            set(&node, control)?;
        }
        let mut output = Queue::new(&node, Direction::Output, 2)?;
        let mut capture = Queue::new(&node, Direction::Capture, 3)?;
        capture.offer_all()?;
        output.start()?;
        capture.start()?;
        Ok(Self {
            made_for,
            output,
            capture,
            h264: found.coded == H264,
            layout,
            can_force: node.has_control(sys::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME),
            fresh: true,
            stamp: 0,
            parameter_sets: Bytes::new(),
            row: Vec::new(),
            node,
        })
    }

    fn code(&mut self, frame: &Frame, time: u32, keyframe: bool) -> Result<Packet, Error> {
        let limit = Instant::now() + PATIENCE;
        if keyframe && !self.fresh {
            self.force_keyframe(limit)?;
        }
        let index = self.free(limit)?;
        let (output, row) = (&mut self.output, &mut self.row);
        self.layout.write(frame, row, |at, samples| output.write(index, at, samples));
        self.stamp += 1;
        self.output.offer(index, self.layout.bytes(), self.stamp)?;
        loop {
            let done = self.taken(limit)?;
            // What was coded earlier and given up, and the empty buffer at the end of a drain.
            let ours = done.stamp == self.stamp && !done.is_empty();
            let coded = ours.then(|| self.packet(&done, time)).flatten();
            let damaged = ours && done.damaged;
            self.capture.offer(done.index, 0, 0)?;
            if damaged {
                return Err(finding(Kind::BadFrame, "VIDIOC_DQBUF", self.node.name()));
            }
            if let Some(packet) = coded {
                self.fresh = false;
                return Ok(packet);
            }
        }
    }

    /// What a buffer holds; `None` if that is no picture but what decoders must know first.
    fn packet(&mut self, done: &Done, time: u32) -> Option<Packet> {
        let content = self.capture.content(done);
        let (data, keyframe) = match self.h264 {
            // Not every driver marks its keyframes.
            true => with_parameter_sets(content, &mut self.parameter_sets)?,
            false => (Bytes::copy_from_slice(content), done.keyframe || self.fresh),
        };
        Some(Packet { data, keyframe, time })
    }

    /// Lets the next picture be one at which decoding can begin.
    fn force_keyframe(&mut self, limit: Instant) -> Result<(), Error> {
        const FORCE: u32 = sys::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME;
        if self.can_force {
            let forced = self.node.set_control(FORCE, 1);
            return forced
                .map_err(|source| error("V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME", self.node.name(), &source));
        }
        self.drain(limit)
    }

    /// The drain and reset sequences: what was given is coded, and the next picture begins a stream of its own.
    fn drain(&mut self, limit: Instant) -> Result<(), Error> {
        self.node.stop_encoder()?;
        while let Some(done) = self.next(limit)? {
            if done.last {
                break;
            }
            self.capture.offer(done.index, 0, 0)?;
        }
        self.capture.stop()?;
        self.capture.offer_all()?;
        self.capture.start()?;
        self.fresh = true;
        Ok(())
    }

    /// A buffer for the next picture.
    fn free(&mut self, limit: Instant) -> Result<u32, Error> {
        loop {
            while matches!(self.output.take()?, Taken::Buffer(_)) {}
            if let Some((index, length)) = self.output.free() {
                return match length >= self.layout.bytes() {
                    true => Ok(index),
                    false => Err(finding(Kind::Format, "VIDIOC_QUERYBUF", self.node.name())),
                };
            }
            self.wait(libc::POLLOUT, limit)?;
        }
    }

    fn taken(&mut self, limit: Instant) -> Result<Done, Error> {
        let ended = || finding(Kind::Gone, "VIDIOC_DQBUF", self.node.name());
        let ended = ended();
        self.next(limit)?.ok_or(ended)
    }

    /// The next coded buffer; `None` after the last.
    fn next(&mut self, limit: Instant) -> Result<Option<Done>, Error> {
        loop {
            match self.capture.take()? {
                Taken::Buffer(done) => return Ok(Some(done)),
                Taken::Ended => return Ok(None),
                Taken::Nothing => self.wait(libc::POLLIN, limit)?,
            }
        }
    }

    fn wait(&self, events: libc::c_short, limit: Instant) -> Result<(), Error> {
        if Instant::now() > limit {
            return Err(finding(Kind::Stalled, "poll", self.node.name()));
        }
        self.node.wait(events, limit)
    }
}

/// An access unit as others need it, and whether it is an IDR picture: that begins with its parameter sets, which some
/// drivers give only once and by themselves; `sets` remembers them. `None`: there is no picture in it.
fn with_parameter_sets(stream: &[u8], sets: &mut Bytes) -> Option<(Bytes, bool)> {
    let kind = |unit: &[u8]| unit[0] & 0x1f;
    let own = nal_units(stream).filter(|unit| matches!(kind(unit), 7 | 8)).collect::<Vec<_>>();
    if !own.is_empty() {
        let mut annex_b = BytesMut::new();
        for unit in &own {
            annex_b.put_slice(&[0, 0, 0, 1]);
            annex_b.put_slice(unit);
        }
        *sets = annex_b.freeze();
    }
    let idr = nal_units(stream).any(|unit| kind(unit) == 5);
    let mut whole = BytesMut::with_capacity(stream.len() + sets.len());
    if idr && own.is_empty() {
        whole.put_slice(sets);
    }
    whole.put_slice(stream);
    let picture = nal_units(stream).any(|unit| matches!(kind(unit), 1..=5));
    picture.then(|| (whole.freeze(), idr))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f];
    const PPS: &[u8] = &[0, 0, 0, 1, 0x68, 0xce];
    const IDR: &[u8] = &[0, 0, 0, 1, 0x65, 0x88];
    const INTER: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a];

    #[test]
    fn each_keyframe_begins_with_parameter_sets_however_the_driver_gives_them() {
        let mut sets = Bytes::new();

        let alone = with_parameter_sets(&[SPS, PPS].concat(), &mut sets);
        let first = with_parameter_sets(IDR, &mut sets);
        let inter = with_parameter_sets(INTER, &mut sets);
        let joined = with_parameter_sets(&[SPS, PPS, IDR].concat(), &mut sets);

        let whole = Bytes::from([SPS, PPS, IDR].concat());
        assert_eq!(alone, None);
        assert_eq!(first, Some((whole.clone(), true)));
        assert_eq!(inter, Some((Bytes::from(INTER), false)));
        assert_eq!(joined, Some((whole, true)));
    }
}
