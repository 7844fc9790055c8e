//! Rows on their way to the screen: straight, or past what is laid over them.

use super::canvas::{Canvas, PixelLayout, Rgb, Surface};
use super::overlay::Overlay;
use crate::geometry::Rect;

/// What lies over what is drawn.
#[derive(Debug)]
pub struct Glazing<'a> {
    layout: PixelLayout,
    /// Of the surface, in bytes.
    stride: usize,
    over: &'a [&'a Overlay],
    veiled: bool,
    /// Rows that something is laid over before they are stored.
    pub(super) beside: Vec<u8>,
}

impl<'a> Glazing<'a> {
    /// `over` from below to above; `veiled` halves the light of what they lie on. `beside` is room to work in.
    pub(super) fn new(surface: &Surface<'_>, over: &'a [&'a Overlay], veiled: bool, beside: Vec<u8>) -> Self {
        Self { layout: surface.layout(), stride: surface.stride(), over, veiled, beside }
    }

    /// Lets `paint` draw the rows that begin at the physical position `at`: where they are, if nothing lies over them,
    /// else beside, so that what is seen is written once. It is told how many bytes further (wrapping) lies what is
    /// stored after them: the next rows, or these themselves.
    pub(super) fn rows<const ROWS: usize>(
        &mut self,
        at: (u32, u32),
        out: [&mut [u8]; ROWS],
        paint: impl FnOnce([&mut [u8]; ROWS], usize),
    ) {
        let length = out.first().map_or(0, |row| row.len());
        let (left, top) = at;
        let rect = Rect::new(left, top, (length / self.layout.bytes_per_pixel) as u32, ROWS as u32);
        if length == 0 || !self.veiled && !self.over.iter().any(|overlay| overlay.touches(rect)) {
            return paint(out, ROWS * self.stride);
        }
        // As far apart as on the screen.
        self.beside.resize((ROWS - 1) * self.stride + length, 0);
        let ahead = out[0].as_ptr().addr().wrapping_sub(self.beside.as_ptr().addr());
        let mut rows = self.beside.chunks_mut(self.stride);
        paint(std::array::from_fn(|_| &mut rows.next().expect("as many as rows")[..length]), ahead);
        for ((y, row), out) in (top..).zip(self.beside.chunks_mut(self.stride)).zip(out) {
            let row = &mut row[..length];
            if self.veiled {
                self.layout.veil(row);
            }
            self.over.iter().for_each(|overlay| overlay.lay(y, left, self.layout, row));
            out.copy_from_slice(row);
        }
    }
}

/// Fills a logical rectangle with one colour, with `over` on top.
pub fn fill(surface: &mut Surface<'_>, area: Rect, colour: Rgb, over: &[&Overlay]) {
    let layout = surface.layout();
    let mut glazing = Glazing::new(surface, over, false, Vec::new());
    let physical = surface.physical(area);
    for (y, row) in (physical.y..).zip(surface.rows(physical)) {
        glazing.rows((physical.x, y), [row], |[row], _| layout.fill(row, colour));
    }
}

/// Brings the logical `part` of a canvas, which lies at the logical `area`, to the surface, with `over` on top.
///
/// # Panics
/// If canvas and surface do not have the same layout and rotation, or the area not the canvas's size.
pub fn copy(surface: &mut Surface<'_>, area: Rect, canvas: &Canvas, part: Rect, over: &[&Overlay]) {
    let layout = surface.layout();
    assert_eq!(
        (canvas.layout(), canvas.rotation(), canvas.logical_size()),
        (layout, surface.rotation(), area.size())
    );
    let (whole, physical) = (surface.physical(area), surface.physical(part.intersection(area)));
    let mut glazing = Glazing::new(surface, over, false, Vec::new());
    let left = (physical.x - whole.x) as usize * layout.bytes_per_pixel;
    let rows = canvas.data().chunks_exact(canvas.stride().max(1)).skip((physical.y - whole.y) as usize);
    for ((y, out), row) in (physical.y..).zip(surface.rows(physical)).zip(rows) {
        let row = &row[left..][..out.len()];
        glazing.rows((physical.x, y), [out], |[out], _| out.copy_from_slice(row));
    }
}
