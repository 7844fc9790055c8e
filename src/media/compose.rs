//! Pictures onto the canvas: scaled, turned and converted to the screen's own pixels in one pass.
//!
//! Sampling is bilinear with half-pixel centres, as CSS and GPUs sample, clamped at the picture's edges. Chroma
//! is sited in the centre of its four luma samples (JPEG and MPEG-1 siting; MPEG-2's left siting differs by a
//! quarter of a luma pixel). For each row of the screen one line of the picture (a column, if it lies on its
//! side) is blended from two, unless it lies on one, then sampled along a table of positions and converted at once.

use super::canvas::{PixelLayout, Rgb, Surface};
use super::glazing::Glazing;
use super::image::{Chroma, Image, Plane, Planes, deinterleave};
use super::kernel::{Coefficients, FULL, Kernel, Lines, Pixels, TRANSPOSED, Tap, Taps};
use super::overlay::Overlay;
use crate::geometry::{Fit, ONE_PIXEL, Orientation, Placement, Rect, Rotation, place};
use std::ops::Range;
use std::sync::Arc;

/// How chroma is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// Once for two rows and two columns.
    Fast,
    /// For each pixel.
    #[default]
    High,
}

/// A picture and how it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shot<'a> {
    pub image: &'a dyn Image,
    /// Of the picture once it is turned.
    pub fit: Fit,
    pub orientation: Orientation,
    /// Of the bars that the picture leaves.
    pub background: Rgb,
    /// With half its light: no longer fresh.
    pub veiled: bool,
}

impl<'a> Shot<'a> {
    /// As it is stored, filling its area.
    pub fn of(image: &'a dyn Image) -> Self {
        let (fit, orientation) = (Fit::default(), Orientation::default());
        Self { image, fit, orientation, background: Rgb::BLACK, veiled: false }
    }
}

/// Draws pictures; keeps its tables between pictures, so that nothing is allocated for each.
#[derive(Debug)]
pub struct Compositor {
    kernel: Kernel,
    quality: Quality,
    /// The last ones used, the newest first. Full: the oldest goes.
    plans: heapless::Vec<Arc<Plan>, { Compositor::PLANS }>,
    /// A line for each plane, two for luma, blended from two of the picture; the last one is of interleaved chroma.
    blended: [Vec<u8>; 5],
    readings: [Reading; 3],
    /// A row of pixels before it is packed into an unusual layout.
    row: Vec<u8>,
    /// Rows that something is laid over before they are stored.
    beside: Vec<u8>,
}

/// How a target lies over the luma and the chroma of a picture.
#[derive(Debug)]
struct Plan {
    made_for: (Axis, Axis, Quality),
    /// The pixels of a row.
    along: [Taps; 2],
    /// Each row of luma; of chroma each row, or each two ([`Quality::Fast`]).
    across: [Vec<Tap>; 2],
}

impl Default for Compositor {
    fn default() -> Self {
        Self::new(Kernel::best(), Quality::default())
    }
}

impl Compositor {
    /// A layout has two or three widths of tiles, each with pictures of a few sizes.
    const PLANS: usize = 16;

    pub fn new(kernel: Kernel, quality: Quality) -> Self {
        Self {
            kernel,
            quality,
            plans: heapless::Vec::new(),
            blended: Default::default(),
            readings: Default::default(),
            row: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// Draws a picture into the logical rectangle `area`, with `over` on top; what lies beyond the surface is not drawn.
    /// Each byte is written once, in order, and never read.
    pub fn draw(&mut self, surface: &mut Surface<'_>, area: Rect, shot: &Shot<'_>, over: &[&Overlay]) {
        let &Shot { image, orientation, background, .. } = shot;
        let physical = surface.physical(area);
        let mut glazing = Glazing::new(surface, over, shot.veiled, std::mem::take(&mut self.beside));
        let placement = place(orientation.rotation.size(image.size()), area, shot.fit);
        let job = placement.and_then(|placement| self.job(surface, image, orientation, placement));
        let target = job.as_ref().map_or(Rect { height: 0, ..physical }, |job| job.target);

        let bars = Bars::new(surface.layout(), physical, target, background);
        let mut rows = (physical.y..).zip(surface.rows(physical)).peekable();
        while let Some((y, row)) = rows.next() {
            let at = (physical.x, y);
            let line = y.checked_sub(target.y).filter(|_| y < target.bottom());
            let Some((job, line)) = job.as_ref().zip(line) else {
                glazing.rows(at, [row], |[row], _| bars.across(row));
                continue;
            };
            let pairs = self.quality == Quality::Fast && y + 1 < target.bottom();
            match rows.next_if(|_| pairs) {
                Some((_, next)) => glazing.rows(at, [row, next], |rows, ahead| {
                    self.rows(job, line, rows.map(|row| bars.beside(row)), ahead);
                }),
                None => glazing.rows(at, [row], |rows, ahead| {
                    self.rows(job, line, rows.map(|row| bars.beside(row)), ahead);
                }),
            }
        }
        self.beside = glazing.beside;
    }

    /// How a picture comes to its place; `None` if nothing of it lies on the surface.
    fn job<'a>(
        &mut self,
        surface: &Surface<'_>,
        image: &'a dyn Image,
        orientation: Orientation,
        placement: Placement,
    ) -> Option<Job<'a>> {
        let Placement { source: cut, target } = placement;
        let visible = target.intersection(Rect::of(surface.logical_size()));
        if visible.is_empty() {
            return None;
        }
        // Where each logical column and row of the target lies in the turned picture, then in the stored one.
        let planes = image.view();
        let picture = orientation.rotation.size(planes.size());
        let axis = |samples, first, length, pixels, shown| Axis {
            samples,
            first,
            length,
            pixels,
            shown,
            flipped: false,
            back: false,
        };
        let columns = axis(picture.width, cut.x, cut.width, target.width, visible.width);
        let rows = axis(picture.height, cut.y, cut.height, target.height, visible.height);
        let (columns_flipped, rows_flipped) = match orientation.rotation {
            Rotation::None => (orientation.mirror, false),
            // A column of the turned picture is a row of the stored one, counted from below.
            Rotation::Quarter => (true, orientation.mirror),
            Rotation::Half => (!orientation.mirror, true),
            Rotation::ThreeQuarters => (false, !orientation.mirror),
        };
        let columns = Axis { flipped: columns_flipped, ..columns };
        let rows = Axis { flipped: rows_flipped, ..rows };
        // The same on the glass: what runs along a physical row, what from row to row, and which way.
        let (along, across) = match surface.rotation() {
            Rotation::None => (columns, rows),
            Rotation::Quarter => (Axis { back: true, ..rows }, columns),
            Rotation::Half => (Axis { back: true, ..columns }, Axis { back: true, ..rows }),
            Rotation::ThreeQuarters => (rows, Axis { back: true, ..columns }),
        };
        let turns = orientation.rotation.then(surface.rotation());
        self.readings.iter_mut().for_each(Reading::begin);
        Some(Job {
            kernel: self.kernel,
            planes,
            target: surface.physical(visible),
            sideways: matches!(turns, Rotation::Quarter | Rotation::ThreeQuarters),
            forward: across.flipped == across.back,
            ahead: if across.length.div_ceil(ONE_PIXEL) > across.pixels { AHEAD } else { 0 },
            plan: self.plan(along, across),
            coefficients: Coefficients::of(image.colour()),
            layout: surface.layout(),
        })
    }

    fn plan(&mut self, along: Axis, across: Axis) -> Arc<Plan> {
        let made_for = (along, across, self.quality);
        let known = self.plans.iter().position(|plan| plan.made_for == made_for);
        let plan = match known {
            Some(index) => self.plans.remove(index),
            None => {
                if self.plans.is_full() {
                    self.plans.pop();
                }
                let (columns, rows) = match self.quality {
                    Quality::Fast => (along.shared(), across.pairs()),
                    Quality::High => (along.singles(2).collect(), across.singles(2).collect()),
                };
                let luma = Taps::new(along.singles(1).collect(), along.samples as usize);
                let chroma = luma.like(columns, (along.samples / 2) as usize);
                let (along, across) = ([luma, chroma], [across.singles(1).collect(), rows]);
                Arc::new(Plan { made_for, along, across })
            }
        };
        // There is room: one was taken out.
        let _ = self.plans.insert(0, plan.clone());
        plan
    }

    /// Draws physical rows of the target, from `first` on. What is stored after them lies `ahead` bytes further each.
    fn rows<const ROWS: usize>(&mut self, job: &Job<'_>, first: u32, out: [&mut [u8]; ROWS], ahead: usize) {
        let Self {
            blended: [first_luma, second_luma, u, v, both],
            readings: [y_reading, u_reading, v_reading],
            row,
            quality,
            ..
        } = self;
        let Plan { along: [luma, chroma], across: [luma_rows, chroma_rows], .. } = &*job.plan;
        let mut blended = [first_luma, second_luma].into_iter();
        let y = std::array::from_fn(|row| {
            let out = blended.next().expect("rows are two at most");
            job.line(job.planes.luma(), luma.range(), luma_rows[first as usize + row], y_reading, out)
        });
        let between = chroma_rows[first as usize / if *quality == Quality::Fast { 2 } else { 1 }];
        let range = chroma.range();
        let (u, v) = match job.planes.chroma() {
            Chroma::Planar([u_plane, v_plane]) => (
                job.line(u_plane, range.clone(), between, u_reading, u),
                job.line(v_plane, range, between, v_reading, v),
            ),
            Chroma::Interleaved(plane) if job.sideways => {
                job.column(plane, (0, 2), range.clone(), between, u_reading, u);
                job.column(plane, (1, 2), range, between, u_reading, v);
                (&u[..], &v[..])
            }
            Chroma::Interleaved(plane) => {
                let both = job.line(plane, 2 * range.start..2 * range.end, between, u_reading, both);
                u.resize(range.len(), 0);
                v.resize(range.len(), 0);
                deinterleave(both, u, v);
                (&u[..], &v[..])
            }
        };
        let lines = Lines { y, u, v };
        match Pixels::of(job.layout) {
            Some(pixels) => {
                job.kernel.write((luma, chroma), job.coefficients, pixels, lines, out, ahead);
            }
            None => {
                let wide = 4 * luma.count();
                row.resize(ROWS * wide, 0);
                let mut rows = row.chunks_exact_mut(wide);
                let rows: [&mut [u8]; ROWS] = std::array::from_fn(|_| rows.next().expect("as many as rows"));
                job.kernel.write((luma, chroma), job.coefficients, Pixels::Xrgb8888, lines, rows, 0);
                for (row, out) in row.chunks_exact(wide).zip(out) {
                    pack(row, job.layout, out);
                }
            }
        }
    }
}

/// What is left beside a picture.
struct Bars {
    layout: PixelLayout,
    colour: Rgb,
    /// Bytes of a row on either side.
    left: usize,
    right: usize,
}

impl Bars {
    fn new(layout: PixelLayout, area: Rect, target: Rect, colour: Rgb) -> Self {
        let bytes = |pixels: u32| pixels as usize * layout.bytes_per_pixel;
        Self { layout, colour, left: bytes(target.x - area.x), right: bytes(area.right() - target.right()) }
    }

    fn across(&self, row: &mut [u8]) {
        self.layout.fill(row, self.colour);
    }

    /// Draws both ends of a row; the picture's part is left.
    fn beside<'a>(&self, row: &'a mut [u8]) -> &'a mut [u8] {
        let (left, rest) = row.split_at_mut(self.left);
        let (picture, right) = rest.split_at_mut(rest.len() - self.right);
        self.across(left);
        self.across(right);
        picture
    }
}

/// How far ahead lines are asked for, if they are.
const AHEAD: usize = 6;

/// What all rows of one picture have in common.
struct Job<'a> {
    kernel: Kernel,
    planes: Planes<'a>,
    /// What is drawn of the surface, physical.
    target: Rect,
    /// Whether the picture's columns lie along the rows of the screen.
    sideways: bool,
    /// Whether rows further down are lines further down, or columns further right.
    forward: bool,
    /// How many lines of the picture before they are needed they are asked for: none where one comes after the other, for
    /// these the processor brings by itself.
    ahead: usize,
    plan: Arc<Plan>,
    coefficients: Coefficients,
    layout: PixelLayout,
}

/// How far a plane has been read.
#[derive(Debug, Default)]
struct Reading {
    /// How many lines were asked for, counted as they are needed.
    asked: usize,
    /// Of a picture on its side the columns around the present one, as lines: of interleaved samples U and V by turns.
    columns: Range<usize>,
    samples: Vec<u8>,
}

impl Job<'_> {
    /// The line at `tap`, `range` of it: that of the picture itself, or blended into `out`.
    fn line<'b>(
        &self,
        plane: Plane<'b>,
        range: Range<usize>,
        tap: Tap,
        reading: &mut Reading,
        out: &'b mut Vec<u8>,
    ) -> &'b [u8] {
        if self.sideways {
            self.column(plane, (0, 1), range, tap, reading, out);
            return out;
        }
        let (index, next) = around(tap);
        let line = |row: usize| &plane.row(row)[range.clone()];
        let in_order = |index: usize| if self.forward { index } else { plane.rows() - 1 - index };
        let needed = in_order(index);
        reading.asked = reading.asked.max(needed);
        while reading.asked < (needed + self.ahead).min(plane.rows()) {
            self.kernel.fetch(line(in_order(reading.asked)));
            reading.asked += 1;
        }
        match tap.weight {
            0 => line(index),
            FULL => line(next),
            weight => {
                out.resize(range.len(), 0);
                self.kernel.blend(line(index), line(next), weight, out);
                out
            }
        }
    }

    /// The column at `tap`, `range` of it, into `out`: of the `part`th of `parts` samples that lie side by side.
    fn column(
        &self,
        plane: Plane<'_>,
        (part, parts): (usize, usize),
        range: Range<usize>,
        tap: Tap,
        reading: &mut Reading,
        out: &mut Vec<u8>,
    ) {
        let (index, next) = around(tap);
        if !(reading.columns.contains(&index) && reading.columns.contains(&next)) {
            let columns = plane.width() / parts;
            let (most, fewest) = (Reading::COLUMNS / parts, (TRANSPOSED / parts).min(columns));
            let block = match self.forward {
                true => index.min(columns - fewest)..(index + most).min(columns),
                false => (index + 2).saturating_sub(most)..(index + 2).clamp(fewest, columns),
            };
            reading.turn(self.kernel, plane, parts, range.clone(), block);
        }
        let line = |column: usize| {
            let line = (column - reading.columns.start) * parts + part;
            &reading.samples[line * range.len()..][..range.len()]
        };
        out.resize(range.len(), 0);
        self.kernel.blend(line(index), line(next), tap.weight, out);
    }
}

/// The lines, or columns, that a tap lies on or between.
fn around(tap: Tap) -> (usize, usize) {
    let index = tap.index as usize;
    (index, index + usize::from(tap.weight > 0))
}

impl Reading {
    /// Samples of a row that are turned at once: two cache lines.
    const COLUMNS: usize = 128;

    fn begin(&mut self) {
        (self.asked, self.columns) = (0, 0..0);
    }

    fn turn(
        &mut self,
        kernel: Kernel,
        plane: Plane<'_>,
        parts: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let (first, lines) = (columns.start * parts, columns.len() * parts);
        self.samples.resize(lines * rows.len(), 0);
        kernel.transpose(plane.from(rows.start), plane.stride(), first, lines, &mut self.samples);
        self.columns = columns;
    }
}

/// One direction of the target: `pixels` pixels, the first `shown` of them on the canvas, lie over `length` from `first`
/// on (in 1/65536 pixel) of the picture's `samples`, counted from its far end if `flipped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    samples: u32,
    first: u32,
    length: u32,
    pixels: u32,
    shown: u32,
    flipped: bool,
    /// On the screen the last one shown comes first.
    back: bool,
}

impl Axis {
    /// Where the place `halves` of half a pixel after the first one's edge is sampled in `samples / shrink` samples.
    fn tap(&self, halves: u64, shrink: u32) -> Tap {
        let centre = halves * u64::from(self.length) / u64::from(2 * self.pixels);
        let centre = i64::from(self.first) + centre as i64;
        let whole = i64::from(self.samples) * i64::from(ONE_PIXEL);
        let centre = if self.flipped { whole - centre } else { centre };
        let last = i64::from(self.samples / shrink - 1) * i64::from(ONE_PIXEL);
        let position = (centre / i64::from(shrink) - i64::from(ONE_PIXEL) / 2).clamp(0, last) as u32;
        // To the nearest of 128.
        let weight = (position % ONE_PIXEL + (1 << 8)) >> 9;
        Tap { index: position / ONE_PIXEL, weight: weight as u8 }
    }

    /// The pixels shown, in the order of the screen.
    fn order(&self) -> impl Iterator<Item = u64> {
        let (back, shown) = (self.back, u64::from(self.shown));
        (0..shown).map(move |pixel| if back { shown - 1 - pixel } else { pixel })
    }

    /// Where the centre of each pixel is sampled.
    fn singles(&self, shrink: u32) -> impl Iterator<Item = Tap> {
        self.order().map(move |pixel| self.tap(2 * pixel + 1, shrink))
    }

    /// Where the middle of each two is sampled in chroma, or the centre of what is left over.
    fn pairs(&self) -> Vec<Tap> {
        let order: Vec<u64> = self.order().collect();
        order.chunks(2).map(|two| self.tap(two[0] + two[two.len() - 1] + 1, 2)).collect()
    }

    /// The same for each pixel.
    fn shared(&self) -> Vec<Tap> {
        self.pairs().into_iter().flat_map(|tap| [tap; 2]).take(self.shown as usize).collect()
    }
}

/// Pixels of XRGB8888 in another layout.
fn pack(row: &[u8], layout: PixelLayout, out: &mut [u8]) {
    let (pixels, _) = row.as_chunks::<4>();
    for (&[blue, green, red, _], out) in pixels.iter().zip(out.chunks_exact_mut(layout.bytes_per_pixel)) {
        let pixel = layout.pack(Rgb::new(red, green, blue)).to_le_bytes();
        out.copy_from_slice(&pixel[..layout.bytes_per_pixel]);
    }
}

#[cfg(test)]
mod tests;
