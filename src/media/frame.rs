//! One raw picture inside the house, and the pool that recycles its memory.

use super::image::{Chroma, Plane, Planes, deinterleave};
use crate::geometry::Size;
use std::sync::Arc;
use std::time::Duration;

/// The matrix that leads from Y′CbCr to R′G′B′.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: the default of V4L2 webcams and of unmarked H.264 of VGA size.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
}

/// How samples are coded: matrix, and whether 0–255 is used whole (`full`, as in JFIF) or luma is 16–235.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colour {
    pub matrix: Matrix,
    pub full_range: bool,
}

/// A picture in memory of its own: I420 (planar 4:2:0, 8 bits), rows without padding, both sides even and not zero.
#[derive(Clone, Debug)]
pub struct Frame {
    size: Size,
    data: Vec<u8>,
    pub colour: Colour,
    /// When it was captured or received, on the kiosk's monotonic clock.
    pub captured: Duration,
}

impl Frame {
    /// A black picture (limited range). Sides are rounded down to even numbers, at least 2.
    pub fn new(size: Size) -> Self {
        let mut frame = Self {
            size: Size::new(0, 0),
            data: Vec::new(),
            colour: Colour::default(),
            captured: Duration::ZERO,
        };
        frame.resize(size);
        frame.data.fill(128);
        frame.planes_mut()[0].fill(16);
        frame
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Changes the size (rounded as in [`Frame::new`]); the content is undefined afterwards.
    pub fn resize(&mut self, size: Size) {
        self.size = Size::new((size.width & !1).max(2), (size.height & !1).max(2));
        self.data.resize(self.luma() + 2 * self.chroma(), 0);
    }

    /// Y (`width` × `height`), then U and V (`width/2` × `height/2` each).
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, rest) = self.data.split_at(self.luma());
        let (u, v) = rest.split_at(self.chroma());
        [y, u, v]
    }

    /// As [`Frame::planes`].
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (luma, chroma) = (self.luma(), self.chroma());
        let (y, rest) = self.data.split_at_mut(luma);
        let (u, v) = rest.split_at_mut(chroma);
        [y, u, v]
    }

    /// Takes over the size and the samples of another picture.
    pub fn copy(&mut self, from: &Planes<'_>) {
        self.resize(from.size());
        let width = self.size.width as usize;
        let [y, u, v] = self.planes_mut();
        let rows = |plane: Plane<'_>, to: &mut [u8]| {
            for (row, to) in to.chunks_exact_mut(plane.width()).enumerate() {
                to.copy_from_slice(plane.row(row));
            }
        };
        rows(from.luma(), y);
        match from.chroma() {
            Chroma::Planar([from_u, from_v]) => {
                rows(from_u, u);
                rows(from_v, v);
            }
            Chroma::Interleaved(both) => {
                let to = u.chunks_exact_mut(width / 2).zip(v.chunks_exact_mut(width / 2));
                for (row, (u, v)) in to.enumerate() {
                    deinterleave(both.row(row), u, v);
                }
            }
        }
    }

    fn luma(&self) -> usize {
        self.size.width as usize * self.size.height as usize
    }

    fn chroma(&self) -> usize {
        self.luma() / 4
    }
}

/// Frames that come back when nobody holds them any more.
#[derive(Debug, Default)]
pub struct FramePool {
    frames: Vec<Arc<Frame>>,
}

impl FramePool {
    /// More frames than this are never kept: encoder, screen and mailbox hold one each, two are in the making.
    const MOST: usize = 8;

    /// Lets `fill` write a frame of `size` and returns it for sharing; `fill`'s error is passed on.
    pub fn produce<E>(
        &mut self,
        size: Size,
        fill: impl FnOnce(&mut Frame) -> Result<(), E>,
    ) -> Result<Arc<Frame>, E> {
        let index = match self.frames.iter_mut().position(|frame| Arc::get_mut(frame).is_some()) {
            Some(index) => index,
            None => {
                if self.frames.len() == Self::MOST {
                    self.frames.remove(0);
                }
                self.frames.push(Arc::new(Frame::new(size)));
                self.frames.len() - 1
            }
        };
        let shared = &mut self.frames[index];
        let frame = Arc::get_mut(shared).expect("nobody else holds a frame that was just found free");
        frame.resize(size);
        fill(frame)?;
        Ok(shared.clone())
    }
}
