//! A raw picture wherever its samples lie: in a frame's own memory, or in a device's that is lent. They are only looked at.

use super::frame::{Colour, Frame};
use crate::geometry::Size;
use std::fmt;
use std::time::Duration;

/// A raw picture to look at: 4:2:0, 8 bits, both sides even and not zero. Its samples do not change while it is held.
///
/// Whoever needs planes without gaps takes a [`Frame`], which is one.
pub trait Image: fmt::Debug + Send + Sync {
    /// The samples, where they lie.
    fn view(&self) -> Planes<'_>;

    fn colour(&self) -> Colour;

    /// When it was captured or received, on the kiosk's monotonic clock.
    fn captured(&self) -> Duration;

    fn size(&self) -> Size {
        self.view().size()
    }
}

/// The samples of a picture: luma, and chroma of half its width and height.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    luma: Plane<'a>,
    chroma: Chroma<'a>,
}

/// How U and V lie.
#[derive(Clone, Copy, Debug)]
pub enum Chroma<'a> {
    /// In a plane each (I420).
    Planar([Plane<'a>; 2]),
    /// By turns, in one plane whose rows have as many bytes as those of luma (NV12).
    Interleaved(Plane<'a>),
}

impl<'a> Planes<'a> {
    /// `None`: a side is odd or zero, or chroma is not half of it.
    pub fn new(luma: Plane<'a>, chroma: Chroma<'a>) -> Option<Self> {
        let (Size { width, height }, half) =
            (luma.size, Size::new(luma.size.width / 2, luma.size.height / 2));
        let fits = match chroma {
            Chroma::Planar([u, v]) => u.size == half && v.size == half,
            Chroma::Interleaved(both) => both.size == Size::new(width, half.height),
        };
        let even = width.is_multiple_of(2) && height.is_multiple_of(2) && !luma.size.is_empty();
        (even && fits).then_some(Self { luma, chroma })
    }

    pub fn size(&self) -> Size {
        self.luma.size
    }

    pub fn luma(&self) -> Plane<'a> {
        self.luma
    }

    pub fn chroma(&self) -> Chroma<'a> {
        self.chroma
    }
}

/// Rows of bytes, `stride` bytes from one to the next.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    /// Bytes of a row, and rows.
    size: Size,
}

impl<'a> Plane<'a> {
    /// From the first byte of `bytes` on; behind the last row nothing needs to follow. `None`: there are fewer, or rows lie
    /// over each other.
    pub fn new(bytes: &'a [u8], stride: usize, size: Size) -> Option<Self> {
        let (width, rows) = (size.width as usize, size.height as usize);
        let needed = rows.checked_sub(1)?.checked_mul(stride)?.checked_add(width)?;
        (width <= stride && needed <= bytes.len()).then_some(Self { bytes, stride, size })
    }

    /// Bytes of a row.
    pub fn width(&self) -> usize {
        self.size.width as usize
    }

    pub fn rows(&self) -> usize {
        self.size.height as usize
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.from(row)[..self.width()]
    }

    /// All from the beginning of a row on, what lies between rows included.
    ///
    /// # Panics
    /// As [`Plane::row`].
    pub fn from(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.stride..]
    }
}

impl Image for Frame {
    fn view(&self) -> Planes<'_> {
        let (size, [y, u, v]) = (Frame::size(self), self.planes());
        let half = Size::new(size.width / 2, size.height / 2);
        let plane = |samples, size: Size| Plane::new(samples, size.width as usize, size);
        let chroma = || Some(Chroma::Planar([plane(u, half)?, plane(v, half)?]));
        let planes = plane(y, size).zip(chroma()).and_then(|(luma, chroma)| Planes::new(luma, chroma));
        planes.expect("a frame's planes are whole and even")
    }

    fn colour(&self) -> Colour {
        self.colour
    }

    fn captured(&self) -> Duration {
        self.captured
    }

    fn size(&self) -> Size {
        Frame::size(self)
    }
}

/// Takes rows of interleaved chroma apart; what is left over of the longer ones is left alone.
///
/// Bytes are taken out of whole little-endian words: so the compiler sees that a register's worth can be done at once.
pub fn deinterleave(pairs: &[u8], u: &mut [u8], v: &mut [u8]) {
    for ((u, v), pair) in u.iter_mut().zip(v).zip(pairs.as_chunks::<2>().0) {
        let pair = u16::from_le_bytes(*pair);
        (*u, *v) = (pair as u8, (pair >> 8) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_that_do_not_fit_their_memory_or_each_other_are_none() {
        let bytes = [0; 100];
        let plane = |stride, width, height| Plane::new(&bytes, stride, Size::new(width, height));
        let whole = |width, height| plane(20, width, height).expect("it fits");

        assert!(plane(10, 10, 10).is_some() && plane(12, 4, 9).is_some());
        assert!(plane(10, 11, 2).is_none() && plane(12, 5, 9).is_none() && plane(10, 10, 11).is_none());
        assert!(plane(usize::MAX, 2, 3).is_none() && plane(10, 10, 0).is_none());
        let planar = Chroma::Planar([whole(2, 1); 2]);
        assert!(Planes::new(whole(4, 2), planar).is_some());
        assert!(Planes::new(whole(4, 2), Chroma::Interleaved(whole(4, 1))).is_some());
        assert!(Planes::new(whole(4, 2), Chroma::Interleaved(whole(2, 1))).is_none());
        assert!(Planes::new(whole(6, 2), planar).is_none());
        assert!(Planes::new(whole(5, 2), planar).is_none() && Planes::new(whole(4, 3), planar).is_none());
    }

    #[test]
    fn a_frame_takes_over_what_is_looked_at() {
        let bytes: Vec<u8> = (0..60).collect();
        let plane = |from: usize, width, height| Plane::new(&bytes[from..], 7, Size::new(width, height));
        let luma = plane(1, 4, 4).expect("it fits");
        let planar = Chroma::Planar([plane(30, 2, 2), plane(32, 2, 2)].map(|plane| plane.expect("it fits")));
        let interleaved = Chroma::Interleaved(plane(30, 4, 2).expect("it fits"));

        for (chroma, u, v) in
            [(planar, [30, 31, 37, 38], [32, 33, 39, 40]), (interleaved, [30, 32, 37, 39], [31, 33, 38, 40])]
        {
            let mut frame = Frame::new(Size::new(20, 2));
            frame.copy(&Planes::new(luma, chroma).expect("it fits"));

            let y = [1, 2, 3, 4, 8, 9, 10, 11, 15, 16, 17, 18, 22, 23, 24, 25];
            assert_eq!((frame.size(), frame.planes()), (Size::new(4, 4), [&y[..], &u, &v]));
            assert_eq!(frame.view().luma().row(1), [8, 9, 10, 11]);
        }
    }
}
