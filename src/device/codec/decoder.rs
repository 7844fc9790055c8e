//! The stateful decoder: a packet in, the newest picture out, in the driver's own buffer as long as there are enough.
//!
//! ```text
//!            packet ─► OUTPUT queue ─► codec ─► CAPTURE queue ─► picture, lent ─► nobody holds it: CAPTURE queue
//!  source change:  take what is left up to LAST ─► CAPTURE set up anew, in the new size ─► on
//! ```

use super::super::ioctl::finding;
use super::super::{Error, Kind};
use super::node::{Direction, Format, Node};
use super::picture::{Layout, Picture, cheapest};
use super::queue::{Done, Queue, Taken};
use super::{Found, H264, PATIENCE};
use crate::geometry::{Rect, Size};
use crate::media::Packet;
use crate::media::codec::Decode;
use crate::media::frame::{Colour, FramePool};
use crate::media::h264::{DecodeError, inspect, too_large};
use crate::media::image::Image;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use v4l::v4l_sys as sys;

/// A V4L2 decoder of one stream. Dropping it closes its file; pictures that are lent stay what they are.
pub struct V4l2Decoder {
    // In this order: the queues before their node.
    capture: Option<Capture>,
    output: Queue,
    node: Arc<Node>,
    h264: bool,
    /// The format of pictures that is asked for.
    raw: [u8; 4],
    /// Of the stream's parameters, if they say.
    colour: Option<Colour>,
    needs_keyframe: bool,
    /// Of the last packet given to the codec; counts.
    stamp: u64,
    /// How many packets behind the codec's pictures are, as far as is known.
    lag: u64,
    /// When the packets inside arrived. As many as may lag; of more the oldest are forgotten.
    arrivals: VecDeque<(u64, Duration)>,
}

/// The side that pictures come from, set up for the stream's size.
struct Capture {
    queue: Queue<Picture>,
    layout: Layout,
    visible: Rect,
    colour: Colour,
    /// Buffers that the driver is not to be without: with fewer it could stall.
    needed: usize,
    /// Whether pictures are lent where they lie.
    lends: bool,
}

/// What went wrong inside, before it is known whether the codec is to be given up.
enum Trouble {
    Device(Error),
    Damaged,
    TooLarge(Size),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

impl From<Trouble> for DecodeError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Device(error) => Self::Device(error.into()),
            Trouble::Damaged => Self::Damaged,
            Trouble::TooLarge(size) => Self::TooLarge(size),
        }
    }
}

impl V4l2Decoder {
    /// Room for one packet: a keyframe of 1920x1088 has less at any bit rate that is sent here.
    const LARGEST_PACKET: usize = 1 << 20;
    /// How long after a packet was consumed its picture may come, until the codec is taken to be one more behind.
    const GRACE: Duration = Duration::from_millis(200);
    /// A codec that is further behind is hung.
    const MOST_LAG: u64 = 8;
    /// Pictures that are lent at a time: one is on the screen, and three wait for their sound a tenth of a second, at 30
    /// a second. What is more is copied.
    const MOST_LENT: u32 = 4;

    /// Opens the node for a stream that begins with a keyframe.
    ///
    /// # Errors
    /// As for any device.
    pub fn open(found: &Found) -> Result<Self, Error> {
        let node = Arc::new(Node::open(&found.path)?);
        node.subscribe_to_changes()?;
        let coded = Size::new(1920, 1088);
        let bytes = Self::LARGEST_PACKET;
        node.set_format(
            Direction::Output,
            &Format { bytes, ..Format::new(found.coded, coded, Colour::default()) },
        )?;
        let h264 = found.coded == H264;
        // Pictures as soon as they are decoded: the streams here have none that are shown out of order.
        for (id, value) in [
            (sys::V4L2_CID_MPEG_VIDEO_DEC_DISPLAY_DELAY_ENABLE, 1),
            (sys::V4L2_CID_MPEG_VIDEO_DEC_DISPLAY_DELAY, 0),
        ] {
            if h264 && let Err(source) = node.set_control(id, value) {
                tracing::debug!(codec = node.name(), %source, "codec may delay pictures");
            }
        }
        let mut output = Queue::new(&node, Direction::Output, 4)?;
        output.start()?;
        Ok(Self {
            capture: None,
            output,
            node,
            h264,
            raw: found.raw,
            colour: None,
            needs_keyframe: true,
            stamp: 0,
            lag: 0,
            arrivals: VecDeque::new(),
        })
    }

    /// The drain sequence: the pictures that are still inside. What follows begins with a keyframe.
    ///
    /// # Errors
    /// See [`Decode::decode`].
    pub fn drain(&mut self, into: &mut FramePool) -> Result<Vec<Arc<dyn Image>>, DecodeError> {
        self.needs_keyframe = true;
        Ok(self.drained(into)?)
    }

    fn drained(&mut self, into: &mut FramePool) -> Result<Vec<Arc<dyn Image>>, Trouble> {
        let limit = Instant::now() + PATIENCE;
        let mut pictures = Vec::new();
        if self.capture.is_none() {
            return Ok(pictures);
        }
        self.node.stop_decoder()?;
        while let Some(capture) = &mut self.capture {
            match capture.queue.take()? {
                Taken::Buffer(done) => {
                    if !done.is_empty() && !done.damaged {
                        pictures.push(self.picture(&done, into)?);
                    }
                    let Some(capture) = &mut self.capture else { break };
                    match done.last {
                        true => break,
                        false => capture.queue.offer_all()?,
                    }
                }
                Taken::Ended => break,
                Taken::Nothing => self.wait(libc::POLLIN, limit)?,
            }
        }
        if let Some(capture) = &mut self.capture {
            capture.queue.stop()?;
            capture.queue.offer_all()?;
            capture.queue.start()?;
        }
        Ok(pictures)
    }

    /// Gives a packet to the codec.
    fn send(&mut self, packet: &Packet, captured: Duration) -> Result<(), Error> {
        let limit = Instant::now() + PATIENCE;
        let (index, length) = loop {
            self.reclaim()?;
            if let Some(free) = self.output.free() {
                break free;
            }
            self.wait(libc::POLLOUT, limit)?;
        };
        if packet.data.len() > length {
            return Err(finding(Kind::Format, "VIDIOC_QBUF", self.node.name()));
        }
        self.output.write(index, 0, &packet.data);
        self.stamp += 1;
        self.arrivals.push_back((self.stamp, captured));
        if self.arrivals.len() > 2 * Self::MOST_LAG as usize {
            self.arrivals.pop_front();
        }
        self.output.offer(index, packet.data.len(), self.stamp)
    }

    /// Takes back what was consumed.
    fn reclaim(&mut self) -> Result<(), Error> {
        while matches!(self.output.take()?, Taken::Buffer(_)) {}
        Ok(())
    }

    /// Waits for the picture of the last packet, or of one that is as far behind as this codec is.
    fn gather(&mut self, into: &mut FramePool) -> Result<Option<Arc<dyn Image>>, Trouble> {
        let start = Instant::now();
        let mut newest = None;
        let mut consumed_at = None;
        loop {
            let mut changed = self.node.has_changed()?;
            if changed && self.capture.is_none() {
                self.set_up()?;
                changed = false;
            }
            if let Some(stamp) = self.take_pictures(changed, into, &mut newest)?
                && stamp + self.lag >= self.stamp
            {
                // Less than was feared, perhaps.
                self.lag = self.stamp.saturating_sub(stamp);
                return Ok(newest);
            }
            // Until pictures can come, consumed buffers stay where they are: with both queues empty poll complains.
            let begun = self.capture.is_some();
            if begun {
                self.reclaim()?;
            }
            let now = Instant::now();
            if !self.output.is_queued() {
                if now > *consumed_at.get_or_insert(now) + Self::GRACE {
                    self.lag += 1;
                    return match self.lag > Self::MOST_LAG {
                        true => Err(finding(Kind::Stalled, "VIDIOC_DQBUF", self.node.name()).into()),
                        false => Ok(newest),
                    };
                }
            } else if now > start + PATIENCE {
                return Err(finding(Kind::Stalled, "poll", self.node.name()).into());
            }
            let (events, limit) = match consumed_at {
                Some(consumed) => (libc::POLLIN | libc::POLLPRI, consumed + Self::GRACE),
                None if !begun => (libc::POLLPRI, start + PATIENCE),
                None => (libc::POLLIN | libc::POLLPRI | libc::POLLOUT, start + PATIENCE),
            };
            self.node.wait(events, limit)?;
        }
    }

    /// Takes all pictures that are ready, the newest into `newest`; answers its stamp. After a change in the stream the
    /// last picture of the old kind is waited for.
    fn take_pictures(
        &mut self,
        mut changing: bool,
        into: &mut FramePool,
        newest: &mut Option<Arc<dyn Image>>,
    ) -> Result<Option<u64>, Trouble> {
        let limit = Instant::now() + PATIENCE;
        let mut stamp = None;
        while let Some(capture) = &mut self.capture {
            let ended = match capture.queue.take()? {
                Taken::Buffer(done) => {
                    if done.damaged && !done.last {
                        capture.queue.offer_all()?;
                        return Err(Trouble::Damaged);
                    }
                    if !done.is_empty() && !done.damaged {
                        *newest = Some(self.picture(&done, into)?);
                        stamp = Some(done.stamp);
                    }
                    if !done.last
                        && let Some(capture) = &mut self.capture
                    {
                        capture.queue.offer_all()?;
                    }
                    done.last
                }
                Taken::Ended => true,
                Taken::Nothing if changing => {
                    self.wait(libc::POLLIN, limit)?;
                    false
                }
                Taken::Nothing => break,
            };
            if ended {
                // The event may come after the buffer that it is about.
                self.node.has_changed()?;
                self.set_up()?;
                changing = false;
            }
        }
        Ok(stamp)
    }

    /// Sets the side that pictures come from up for the stream's size, anew if need be.
    fn set_up(&mut self) -> Result<(), Trouble> {
        // Its buffers go before others are asked for.
        self.capture = None;
        let node = &self.node;
        let current = node.format(Direction::Capture)?;
        // The stream may narrow down what there was to begin with.
        let offered = node.formats(Direction::Capture);
        let raw = Some(self.raw).filter(|raw| offered.contains(raw)).or_else(|| cheapest(&offered));
        let raw = raw.ok_or_else(|| finding(Kind::Format, "VIDIOC_ENUM_FMT", node.name()))?;
        let format = match current.fourcc == raw {
            true => current,
            false => node.set_format(Direction::Capture, &Format::new(raw, current.coded, current.colour))?,
        };
        let layout = Layout::new(raw, format.coded, format.stride)
            .ok_or_else(|| finding(Kind::Format, "VIDIOC_G_FMT", node.name()))?;
        let whole = Rect::of(format.coded);
        let visible = node.visible().unwrap_or(whole);
        if visible.is_empty() || visible.right() > whole.right() || visible.bottom() > whole.bottom() {
            return Err(finding(Kind::Format, "VIDIOC_G_SELECTION", node.name()).into());
        }
        if too_large(Size::new(visible.width, visible.height)) {
            return Err(Trouble::TooLarge(Size::new(visible.width, visible.height)));
        }
        // Those it keeps for itself, and two that are on their way.
        let kept = node.control(sys::V4L2_CID_MIN_BUFFERS_FOR_CAPTURE).unwrap_or(2).clamp(1, 24) as u32;
        let needed = kept + 2;
        let mut queue = Queue::new(node, Direction::Capture, needed + Self::MOST_LENT)?;
        // The compositor reads a sample up to four times, a copy reads it once: where memory is not cached, that is faster.
        let lends = queue.can_lend() && queue.is_cached();
        queue.offer_all()?;
        queue.start()?;
        tracing::debug!(codec = node.name(), coded = %format.coded, ?visible, ?raw, lends, "codec decodes");
        let (colour, needed) = (format.colour, needed as usize);
        self.capture = Some(Capture { queue, layout, visible, colour, needed, lends });
        Ok(())
    }

    /// The picture in a buffer: lent, or copied where the driver would be left with too few of them.
    fn picture(&mut self, done: &Done, into: &mut FramePool) -> Result<Arc<dyn Image>, Trouble> {
        let Some(capture) = &mut self.capture else { return Err(Trouble::Damaged) };
        let arrived = self.arrivals.iter().find(|(stamp, _)| *stamp == done.stamp);
        let captured = arrived.map_or(Duration::ZERO, |(_, captured)| *captured);
        let (layout, visible) = (capture.layout, capture.visible);
        let colour = self.colour.unwrap_or(capture.colour);
        if layout.view(capture.queue.content(done), visible).is_none() {
            return Err(Trouble::Damaged);
        }
        if capture.lends
            && capture.queue.at_hand() > capture.needed
            && let Some(lent) = capture.queue.lend(done, Picture { layout, visible, colour, captured })
        {
            return Ok(lent);
        }
        let planes = layout.view(capture.queue.content(done), visible).ok_or(Trouble::Damaged)?;
        let copied = into.produce(planes.size(), |frame| {
            frame.copy(&planes);
            (frame.colour, frame.captured) = (colour, captured);
            Ok::<_, Trouble>(())
        });
        Ok(copied?)
    }

    fn wait(&self, events: libc::c_short, limit: Instant) -> Result<(), Error> {
        if Instant::now() > limit {
            return Err(finding(Kind::Stalled, "poll", self.node.name()));
        }
        self.node.wait(events, limit)
    }
}

impl Decode for V4l2Decoder {
    fn lose(&mut self) {
        self.needs_keyframe = true;
    }

    fn decode(
        &mut self,
        packet: &Packet,
        into: &mut FramePool,
        captured: Duration,
    ) -> Result<Option<Arc<dyn Image>>, DecodeError> {
        let mut begins = packet.keyframe;
        if self.h264 {
            // What the software decoder refuses is refused here in the same words.
            match inspect(&packet.data) {
                Ok(Some(parameters)) => self.colour = Some(parameters.colour),
                Ok(None) => begins = false,
                Err(error) => {
                    self.needs_keyframe = true;
                    return Err(error);
                }
            }
        }
        if self.needs_keyframe && !begins {
            return Err(DecodeError::NeedsKeyframe);
        }
        if begins {
            self.lag = 0;
        }
        self.needs_keyframe = true;
        if let Some(capture) = &mut self.capture {
            capture.queue.offer_all().map_err(Trouble::from)?;
        }
        self.send(packet, captured).map_err(Trouble::from)?;
        let frame = self.gather(into)?;
        self.needs_keyframe = false;
        Ok(frame)
    }
}
