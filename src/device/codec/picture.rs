//! How a raw picture lies in a codec's buffer: to be looked at there, or written into it.

use super::queue::Content;
use crate::geometry::{Rect, Size};
use crate::media::frame::{Colour, Frame};
use crate::media::image::{Chroma, Image, Plane, Planes};
use std::time::Duration;

/// The raw formats a codec may have, cheapest first: planar as a frame is, or with interleaved chroma.
pub const RAW: [[u8; 4]; 2] = [*b"YU12", *b"NV12"];

/// The first of [`RAW`] that is offered.
pub fn cheapest(offered: &[[u8; 4]]) -> Option<[u8; 4]> {
    RAW.into_iter().find(|raw| offered.contains(raw))
}

/// A picture of 4:2:0 in one piece of memory: luma, then chroma in planes of half the stride (`YU12`) or interleaved in
/// rows of the same stride (`NV12`); kernel: "Planar YUV formats".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    interleaved: bool,
    /// Bytes from one row of luma to the next.
    stride: usize,
    /// Rows of luma, those below the picture included.
    rows: usize,
}

impl Layout {
    /// `None`: not one of [`RAW`], or rows that do not hold the width.
    pub fn new(fourcc: [u8; 4], coded: Size, stride: usize) -> Option<Self> {
        let wide_enough = stride >= coded.width as usize && !coded.is_empty();
        (RAW.contains(&fourcc) && wide_enough).then_some(Self {
            interleaved: &fourcc == b"NV12",
            stride,
            rows: coded.height as usize,
        })
    }

    /// Bytes of a whole picture.
    pub fn bytes(self) -> usize {
        self.plane(2).0 + self.plane(2).1 * self.rows.div_ceil(2)
    }

    /// Where Y, U and V begin, and the bytes from one row of each to the next.
    fn plane(self, plane: usize) -> (usize, usize) {
        let luma = self.stride * self.rows;
        match (plane, self.interleaved) {
            (0, _) => (0, self.stride),
            // U and V of one row lie in one row.
            (_, true) => (luma, self.stride),
            (plane, false) => {
                let stride = self.stride.div_ceil(2);
                (luma + (plane - 1) * stride * self.rows.div_ceil(2), stride)
            }
        }
    }

    /// The visible part of the picture in `buffer`, odd sides rounded down. `None`: the buffer is too short for it.
    pub fn view(self, buffer: &[u8], visible: Rect) -> Option<Planes<'_>> {
        let size = Size::new(visible.width & !1, visible.height & !1);
        let half = Size::new(size.width / 2, size.height / 2);
        let plane = |plane: usize, x: u32, y: u32, size: Size| {
            let (begin, stride) = self.plane(plane);
            Plane::new(buffer.get(begin + y as usize * stride + x as usize..)?, stride, size)
        };
        let (x, y) = (visible.x, visible.y);
        let chroma = match self.interleaved {
            true => Chroma::Interleaved(plane(1, x & !1, y / 2, Size::new(size.width, half.height))?),
            false => Chroma::Planar([plane(1, x / 2, y / 2, half)?, plane(2, x / 2, y / 2, half)?]),
        };
        Planes::new(plane(0, x, y, size)?, chroma)
    }

    /// Hands the rows of `frame` to `put`, each with the byte it begins at. `row` is memory to interleave in.
    pub fn write(self, frame: &Frame, row: &mut Vec<u8>, mut put: impl FnMut(usize, &[u8])) {
        let width = frame.size().width as usize;
        let mut rows = |plane: usize, samples: &[u8], length: usize| {
            let (begin, stride) = self.plane(plane);
            for (number, samples) in samples.chunks_exact(length).enumerate() {
                put(begin + number * stride, samples);
            }
        };
        let [luma, u, v] = frame.planes();
        rows(0, luma, width);
        if self.interleaved {
            row.clear();
            row.extend(u.iter().zip(v).flat_map(|(&u, &v)| [u, v]));
            rows(1, row, width);
        } else {
            rows(1, u, width / 2);
            rows(2, v, width / 2);
        }
    }
}

/// What is said of a picture in a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Picture {
    pub layout: Layout,
    pub visible: Rect,
    pub colour: Colour,
    pub captured: Duration,
}

impl Image for Content<Picture> {
    fn view(&self) -> Planes<'_> {
        let Picture { layout, visible, .. } = self.said;
        layout.view(self.bytes(), visible).expect("it was looked at before it was lent")
    }

    fn colour(&self) -> Colour {
        self.said.colour
    }

    fn captured(&self) -> Duration {
        self.said.captured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture in which every sample differs from its neighbours in all directions.
    fn frame(size: Size) -> Frame {
        let mut frame = Frame::new(size);
        for (plane, samples) in frame.planes_mut().into_iter().enumerate() {
            for (place, sample) in samples.iter_mut().enumerate() {
                *sample = (place * 7 + plane * 50) as u8;
            }
        }
        frame
    }

    fn buffer_of(layout: Layout, frame: &Frame) -> Vec<u8> {
        let mut buffer = vec![0xee; layout.bytes()];
        layout.write(frame, &mut Vec::new(), |at, row| buffer[at..at + row.len()].copy_from_slice(row));
        buffer
    }

    #[test]
    fn a_picture_comes_back_from_every_format_and_stride() {
        let size = Size::new(10, 6);
        for fourcc in RAW {
            for (stride, rows) in [(10, 6), (16, 8), (11, 7), (13, 6), (64, 16)] {
                let layout = Layout::new(fourcc, Size::new(10, rows), stride).expect("a layout");
                let sent = frame(size);

                let buffer = buffer_of(layout, &sent);
                let mut seen = Frame::new(Size::new(2, 2));
                seen.copy(&layout.view(&buffer, Rect::of(size)).expect("a whole picture"));

                assert_eq!(seen.size(), size);
                assert_eq!(seen.planes(), sent.planes(), "{fourcc:?}, stride {stride}, {rows} rows");
            }
        }
    }

    #[test]
    fn chroma_lies_where_the_format_says() {
        let sent = frame(Size::new(4, 2));
        let [luma, u, v] = sent.planes();
        let planar = Layout::new(*b"YU12", Size::new(4, 2), 6).expect("a layout");
        let interleaved = Layout::new(*b"NV12", Size::new(4, 2), 6).expect("a layout");

        let (planar, interleaved) = (buffer_of(planar, &sent), buffer_of(interleaved, &sent));

        assert_eq!((planar.len(), interleaved.len()), (18, 18));
        assert_eq!((&planar[..4], &planar[6..10]), (&luma[..4], &luma[4..]));
        assert_eq!((&planar[12..14], &planar[15..17]), (u, v));
        assert_eq!(interleaved[12..16], [u[0], v[0], u[1], v[1]]);
    }

    #[test]
    fn only_the_visible_part_is_seen_and_odd_sides_are_cut() {
        let coded = frame(Size::new(16, 8));
        for fourcc in RAW {
            let layout = Layout::new(fourcc, Size::new(16, 8), 16).expect("a layout");
            let mut seen = Frame::new(Size::new(2, 2));

            let buffer = buffer_of(layout, &coded);
            let visible = Rect { x: 4, y: 2, width: 7, height: 5 };
            seen.copy(&layout.view(&buffer, visible).expect("a whole picture"));

            assert_eq!(seen.size(), Size::new(6, 4));
            assert_eq!(seen.planes()[0][..6], coded.planes()[0][2 * 16 + 4..][..6]);
            assert_eq!(seen.planes()[1][..3], coded.planes()[1][8 + 2..][..3]);
            assert_eq!(seen.planes()[2][3..], coded.planes()[2][2 * 8 + 2..][..3]);
        }
    }

    #[test]
    fn a_buffer_that_is_too_short_is_refused() {
        for fourcc in RAW {
            let layout = Layout::new(fourcc, Size::new(16, 8), 16).expect("a layout");
            let whole = vec![0; layout.bytes()];

            for length in [0, 1, 16 * 8, layout.bytes() - 1] {
                assert!(layout.view(&whole[..length], Rect::of(Size::new(16, 8))).is_none(), "{length}");
            }
            assert!(layout.view(&whole, Rect { x: 8, y: 4, width: 16, height: 8 }).is_none());
        }
    }

    #[test]
    fn a_format_of_another_kind_has_no_layout() {
        assert_eq!(Layout::new(*b"YUYV", Size::new(16, 8), 32), None);
        assert_eq!(Layout::new(*b"NV12", Size::new(16, 8), 15), None);
        assert_eq!(Layout::new(*b"NV12", Size::new(0, 8), 16), None);
    }
}
