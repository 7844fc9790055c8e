//! Pictures onto the canvas: scaled, turned and converted to the screen's own pixels in one pass.
//!
//! Sampling is bilinear with half-pixel centres, as CSS and GPUs sample, clamped at the picture's edges. Chroma
//! is sited in the centre of its four luma samples (JPEG and MPEG-1 siting; MPEG-2's left siting differs by a
//! quarter of a luma pixel). For each row of the screen one line of the picture (a column, if it lies on its
//! side) is blended from two, unless it lies on one, then sampled along a table of positions and converted at once.

use super::canvas::{Canvas, PixelLayout, Rgb};
use super::frame::Frame;
use super::kernel::{Coefficients, FULL, Kernel, Lines, Pixels, Store, Tap, Taps};
use crate::geometry::{Fit, ONE_PIXEL, Orientation, Rect, Rotation, Size, place};
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

/// Draws pictures; keeps its tables between pictures, so that nothing is allocated for each.
#[derive(Debug)]
pub struct Compositor {
    kernel: Kernel,
    quality: Quality,
    /// The last ones used, the newest first. Full: the oldest goes.
    plans: heapless::Vec<Arc<Plan>, { Compositor::PLANS }>,
    /// A line for each plane, two for luma, blended from two of the picture.
    blended: [Vec<u8>; 4],
    /// Of a picture on its side, the columns around the present one as lines.
    strips: [Strip; 3],
    /// A row of pixels before it is packed into an unusual layout.
    row: Vec<u8>,
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
            strips: Default::default(),
            row: Vec::new(),
        }
    }

    /// Draws `frame` into the logical rectangle `area` as `fit` says of the picture once it is turned by
    /// `orientation`; bars are `background`. What lies beyond the canvas is not drawn.
    pub fn draw(
        &mut self,
        canvas: &mut Canvas,
        area: Rect,
        frame: &Frame,
        fit: Fit,
        orientation: Orientation,
        background: Rgb,
    ) {
        let picture = orientation.rotation.size(frame.size());
        let Some(placement) = place(picture, area, fit) else {
            return fill(canvas, area, background);
        };
        let target = placement.target;
        for bar in bars(area, target) {
            fill(canvas, bar, background);
        }
        let Some(visible) = clip(target, canvas.logical_size()) else { return };

        // Where each logical column and row of the target lies in the turned picture, then in the stored one.
        let cut = placement.source;
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
        let (along, across) = match canvas.rotation() {
            Rotation::None => (columns, rows),
            Rotation::Quarter => (Axis { back: true, ..rows }, columns),
            Rotation::Half => (Axis { back: true, ..columns }, Axis { back: true, ..rows }),
            Rotation::ThreeQuarters => (rows, Axis { back: true, ..columns }),
        };
        let turns = orientation.rotation.then(canvas.rotation());
        let sideways = matches!(turns, Rotation::Quarter | Rotation::ThreeQuarters);
        self.strips.iter_mut().for_each(|strip| strip.columns = 0..0);

        let physical = canvas.physical(visible);
        let (layout, stride) = (canvas.layout(), canvas.stride());
        let bytes = physical.width as usize * layout.bytes_per_pixel;
        let start = physical.y as usize * stride + physical.x as usize * layout.bytes_per_pixel;
        let mut screen_rows = canvas.data_mut()[start..].chunks_mut(stride).map(|row| &mut row[..bytes]);
        let job = Job {
            kernel: self.kernel,
            frame,
            sideways,
            forward: across.flipped == across.back,
            pace: (across.length / ONE_PIXEL).div_ceil(across.pixels).clamp(1, AHEAD as u32) as usize,
            plan: self.plan(along, across),
            coefficients: Coefficients::of(frame.colour),
            layout,
        };
        let mut row = 0;
        while row < physical.height {
            let out = (screen_rows.next(), screen_rows.next().filter(|_| row + 1 < physical.height));
            match out {
                (Some(first), Some(second)) if self.quality == Quality::Fast => {
                    self.rows(&job, row, [first, second]);
                }
                (Some(first), Some(second)) => {
                    self.rows(&job, row, [first]);
                    self.rows(&job, row + 1, [second]);
                }
                (Some(first), None) => self.rows(&job, row, [first]),
                (None, _) => break,
            }
            row += 2;
        }
        self.kernel.finish();
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
                    Quality::Fast => (along.shared_taps(), across.pairs()),
                    Quality::High => (along.taps(2), across.singles(2).collect()),
                };
                let (along, across) = ([along.taps(1), columns], [across.singles(1).collect(), rows]);
                Arc::new(Plan { made_for, along, across })
            }
        };
        // There is room: one was taken out.
        let _ = self.plans.insert(0, plan.clone());
        plan
    }

    /// Draws physical rows of the target, from `first` on.
    fn rows<const ROWS: usize>(&mut self, job: &Job<'_>, first: u32, out: [&mut [u8]; ROWS]) {
        let Self {
            blended: [first_luma, second_luma, u, v],
            strips: [y_strip, u_strip, v_strip],
            row,
            quality,
            ..
        } = self;
        let Plan { along: [luma, chroma], across: [luma_rows, chroma_rows], .. } = &*job.plan;
        let [y_plane, u_plane, v_plane] = job.planes();
        let mut blended = [first_luma, second_luma].into_iter();
        let y = std::array::from_fn(|row| {
            let out = blended.next().expect("rows are two at most");
            job.line(y_plane, luma, luma_rows[first as usize + row], y_strip, out)
        });
        let between = chroma_rows[first as usize / if *quality == Quality::Fast { 2 } else { 1 }];
        let (u, v) =
            (job.line(u_plane, chroma, between, u_strip, u), job.line(v_plane, chroma, between, v_strip, v));
        let lines = Lines { y, u, v };
        match Pixels::of(job.layout) {
            Some(pixels) => {
                job.kernel.write((luma, chroma), job.coefficients, (pixels, Store::Streamed), lines, out);
            }
            None => {
                let wide = 4 * luma.count();
                row.resize(ROWS * wide, 0);
                let mut rows = row.chunks_exact_mut(wide);
                let rows: [&mut [u8]; ROWS] = std::array::from_fn(|_| rows.next().expect("as many as rows"));
                let pixels = (Pixels::Xrgb8888, Store::Cached);
                job.kernel.write((luma, chroma), job.coefficients, pixels, lines, rows);
                for (row, out) in row.chunks_exact(wide).zip(out) {
                    pack(row, job.layout, out);
                }
            }
        }
    }
}

/// How many rows of the picture before they are needed they are asked for.
const AHEAD: usize = 6;

/// What all rows of one picture have in common.
struct Job<'a> {
    kernel: Kernel,
    frame: &'a Frame,
    /// Whether the picture's columns lie along the rows of the screen.
    sideways: bool,
    /// Whether rows further down are lines further down, or columns further right.
    forward: bool,
    /// How many lines of the picture a row of the target goes on, rounded up.
    pace: usize,
    plan: Arc<Plan>,
    coefficients: Coefficients,
    layout: PixelLayout,
}

/// Samples in rows of `width`.
#[derive(Clone, Copy)]
struct Plane<'a> {
    samples: &'a [u8],
    width: usize,
}

/// Columns of a plane as lines.
#[derive(Debug, Default)]
struct Strip {
    /// The first column, and how many there are.
    columns: Range<usize>,
    samples: Vec<u8>,
}

impl<'a> Job<'a> {
    fn planes(&self) -> [Plane<'a>; 3] {
        let width = self.frame.size().width as usize;
        let [y, u, v] = self.frame.planes();
        [(y, width), (u, width / 2), (v, width / 2)].map(|(samples, width)| Plane { samples, width })
    }

    /// The line at `tap`, as far as `taps` reach: that of the picture itself, or blended into `out`.
    fn line<'b>(
        &self,
        plane: Plane<'b>,
        taps: &Taps,
        tap: Tap,
        strip: &mut Strip,
        out: &'b mut Vec<u8>,
    ) -> &'b [u8]
    where
        'a: 'b,
    {
        let (index, next, range) =
            (tap.index as usize, tap.index as usize + usize::from(tap.weight > 0), taps.range());
        out.resize(range.len(), 0);
        if self.sideways {
            if !(strip.columns.contains(&index) && strip.columns.contains(&next)) {
                let first = if self.forward { index } else { (index + 2).saturating_sub(Strip::COLUMNS) };
                let first = first.min(plane.width.saturating_sub(Strip::COLUMNS));
                strip.fill(self.kernel, plane, range.clone(), first);
            }
            let line =
                |column: usize| &strip.samples[(column - strip.columns.start) * range.len()..][..range.len()];
            self.kernel.blend(line(index), line(next), tap.weight, out);
            return out;
        }
        let line = |row: usize| &plane.samples[row * plane.width..][range.clone()];
        let rows = plane.samples.len() / plane.width;
        for later in AHEAD..AHEAD + self.pace {
            let later = if self.forward { index + later } else { index.wrapping_sub(later) };
            if later < rows {
                self.kernel.fetch(line(later));
            }
        }
        match tap.weight {
            0 => line(index),
            FULL => line(next),
            weight => {
                self.kernel.blend(line(index), line(next), weight, out);
                out
            }
        }
    }
}

impl Strip {
    /// A cache line.
    const COLUMNS: usize = 64;

    fn fill(&mut self, kernel: Kernel, plane: Plane<'_>, rows: Range<usize>, first: usize) {
        let columns = Self::COLUMNS.min(plane.width - first);
        self.columns = first..first + columns;
        self.samples.resize(columns * rows.len(), 0);
        let samples = &plane.samples[rows.start * plane.width..];
        kernel.transpose(samples, plane.width, first, columns, &mut self.samples);
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

    fn shared_taps(&self) -> Taps {
        let both = self.pairs().into_iter().flat_map(|tap| [tap; 2]);
        Taps::new(both.take(self.shown as usize).collect(), (self.samples / 2) as usize)
    }

    fn taps(&self, shrink: u32) -> Taps {
        Taps::new(self.singles(shrink).collect(), (self.samples / shrink) as usize)
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

/// What of `area` is left beside `target`: above, below, left, right.
fn bars(area: Rect, target: Rect) -> [Rect; 4] {
    [
        Rect { height: target.y - area.y, ..area },
        Rect::new(area.x, target.bottom(), area.width, area.bottom() - target.bottom()),
        Rect { x: area.x, width: target.x - area.x, ..target },
        Rect { x: target.right(), width: area.right() - target.right(), ..target },
    ]
}

/// What of `rect` lies on a surface of `size`.
fn clip(rect: Rect, size: Size) -> Option<Rect> {
    let clipped = Rect {
        width: rect.width.min(size.width.saturating_sub(rect.x)),
        height: rect.height.min(size.height.saturating_sub(rect.y)),
        ..rect
    };
    (!clipped.is_empty()).then_some(clipped)
}

/// Each row of the logical `rect`, as bytes of the canvas.
fn rows(canvas: &mut Canvas, rect: Rect) -> impl Iterator<Item = &mut [u8]> {
    let (stride, pixel) = (canvas.stride().max(1), canvas.layout().bytes_per_pixel);
    let physical =
        clip(rect, canvas.logical_size()).map_or(Rect::new(0, 0, 0, 0), |rect| canvas.physical(rect));
    let (from, to) = (physical.x as usize * pixel, physical.right() as usize * pixel);
    let rows = canvas.data_mut().chunks_exact_mut(stride);
    rows.skip(physical.y as usize).take(physical.height as usize).map(move |row| &mut row[from..to])
}

/// Fills a logical rectangle with one colour.
pub fn fill(canvas: &mut Canvas, rect: Rect, colour: Rgb) {
    let layout = canvas.layout();
    let pixel = layout.pack(colour).to_le_bytes();
    for row in rows(canvas, rect) {
        for out in row.chunks_exact_mut(layout.bytes_per_pixel) {
            out.copy_from_slice(&pixel[..layout.bytes_per_pixel]);
        }
    }
}

/// Halves the light of a logical rectangle: a picture that is no longer fresh.
pub fn veil(canvas: &mut Canvas, rect: Rect) {
    let layout = canvas.layout();
    // One shift halves all channels at once if the lowest bit of each does not fall into its neighbour.
    let keep = [layout.red, layout.green, layout.blue]
        .iter()
        .fold(0u32, |keep, channel| keep | ((1 << channel.length) - 1) >> 1 << channel.offset);
    for row in rows(canvas, rect) {
        for out in row.chunks_exact_mut(layout.bytes_per_pixel) {
            let mut pixel = [0; 4];
            pixel[..out.len()].copy_from_slice(out);
            let darker = (u32::from_le_bytes(pixel) >> 1 & keep).to_le_bytes();
            out.copy_from_slice(&darker[..out.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::Channel;
    use super::super::frame::{Colour, Matrix};
    use super::*;
    use proptest::prelude::*;

    const BACKGROUND: Rgb = Rgb::new(40, 80, 120);

    #[test]
    fn a_veil_halves_each_channel() {
        for layout in [PixelLayout::XRGB8888, PixelLayout::RGB565] {
            let mut canvas = Canvas::new(Size::new(4, 2), layout, Rotation::None);
            fill(&mut canvas, Rect::new(0, 0, 4, 2), Rgb::WHITE);

            veil(&mut canvas, Rect::new(1, 0, 2, 1));

            assert_eq!(pixel(&canvas, 0, 0), Rgb::WHITE);
            assert!(
                pixel(&canvas, 1, 0).red.abs_diff(127) < 8 && pixel(&canvas, 1, 0).blue.abs_diff(127) < 8
            );
            assert_eq!(pixel(&canvas, 1, 1), Rgb::WHITE);
        }
    }

    #[test]
    fn what_lies_beyond_the_canvas_is_not_drawn() {
        let mut canvas = Canvas::new(Size::new(20, 10), PixelLayout::RGB565, Rotation::Quarter);

        let frame = Frame::new(Size::new(8, 8));
        let area = Rect::new(5, 15, 100, 300);
        Compositor::default().draw(
            &mut canvas,
            area,
            &frame,
            Fit::Contain,
            Orientation::default(),
            Rgb::WHITE,
        );
        fill(&mut canvas, Rect::new(50, 50, 9, 9), Rgb::WHITE);

        assert_eq!(pixel(&canvas, 4, 15), Rgb::BLACK);
        assert_eq!(pixel(&canvas, 5, 15), Rgb::WHITE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn every_pixel_is_what_the_formula_says(
            (width, height) in (1..20u32, 1..20u32), (columns, lines) in (1..40u32, 1..40u32),
            (x, y) in (0..5u32, 0..5u32), seed: u32, contrast in prop_oneof![Just(6u8), Just(60), Just(255)],
            fit in prop_oneof![Just(Fit::Fill), Just(Fit::Contain), Just(Fit::Cover)],
            camera in 0..4u32, mirror: bool, screen in 0..4u32, layout in 0..3usize,
            matrix in prop_oneof![Just(Matrix::Bt601), Just(Matrix::Bt709)], full_range: bool,
        ) {
            let mut frame = Frame::new(Size::new(width * 2, height * 2));
            frame.colour = Colour { matrix, full_range };
            noise(&mut frame, seed, contrast);
            // Blended lines are wrong by half a step, and weights of 7 bits by 1/256 of the contrast along and across;
            // both in luma, and twice as strong in chroma.
            let tolerance = 2.0 + 8.0 * f64::from(contrast) / 255.0;
            let screen = Rotation::from_degrees(screen * 90).expect("a quarter");
            let orientation = Orientation { mirror, rotation: Rotation::from_degrees(camera * 90).expect("a quarter") };
            let bgrx = PixelLayout {
                red: Channel { offset: 8, length: 8 }, green: Channel { offset: 16, length: 8 },
                blue: Channel { offset: 24, length: 8 }, ..PixelLayout::XRGB8888
            };
            let layout = [PixelLayout::XRGB8888, PixelLayout::RGB565, bgrx][layout];
            let logical = Size::new(x + columns + 2, y + lines + 3);
            let mut canvas = Canvas::new(screen.size(logical), layout, screen);
            let area = Rect::new(x, y, columns, lines);

            Compositor::default().draw(&mut canvas, area, &frame, fit, orientation, BACKGROUND);

            let placement = place(orientation.rotation.size(frame.size()), area, fit).expect("placeable");
            for py in 0..logical.height {
                for px in 0..logical.width {
                    let seen = pixel(&canvas, px, py);
                    let here = Rect::new(px, py, 1, 1);
                    if !area.contains(here) {
                        prop_assert_eq!(seen, Rgb::BLACK);
                    } else if !placement.target.contains(here) {
                        prop_assert_eq!(seen, layout.unpack(layout.pack(BACKGROUND)));
                    } else {
                        let target = placement.target;
                        let at = |cut: u32, length: u32, index: u32, pixels: u32| {
                            (f64::from(cut) + (f64::from(index) + 0.5) * f64::from(length) / f64::from(pixels)) / f64::from(ONE_PIXEL)
                        };
                        let cut = placement.source;
                        let expected = reference(&frame, orientation,
                            at(cut.x, cut.width, px - target.x, target.width), at(cut.y, cut.height, py - target.y, target.height));
                        for (seen, expected, length) in [
                            (seen.red, expected[0], layout.red.length), (seen.green, expected[1], layout.green.length),
                            (seen.blue, expected[2], layout.blue.length),
                        ] {
                            let end = |off: f64| (expected + off).round().clamp(0.0, 255.0) as u8 >> (8 - length);
                            prop_assert!((end(-tolerance)..=end(tolerance)).contains(&(seen >> (8 - length))),
                                "{seen} for {expected} at {px},{py}");
                        }
                    }
                }
            }
        }
    }

    /// The formula in f64: R, G, B at a place of the turned picture.
    fn reference(frame: &Frame, orientation: Orientation, x: f64, y: f64) -> [f64; 3] {
        let (width, height) = (f64::from(frame.size().width), f64::from(frame.size().height));
        let (x, y) = match orientation.rotation {
            Rotation::None => (x, y),
            Rotation::Quarter => (y, height - x),
            Rotation::Half => (width - x, height - y),
            Rotation::ThreeQuarters => (width - y, x),
        };
        let x = if orientation.mirror { width - x } else { x };
        let sample = |plane: usize, shrink: f64| {
            let (columns, rows) = (width / shrink, height / shrink);
            let (x, y) =
                ((x / shrink - 0.5).clamp(0.0, columns - 1.0), (y / shrink - 0.5).clamp(0.0, rows - 1.0));
            let at = |x: f64, y: f64| {
                f64::from(
                    frame.planes()[plane][(y.min(rows - 1.0) * columns + x.min(columns - 1.0)) as usize],
                )
            };
            let (left, top, across, down) = (x.floor(), y.floor(), x.fract(), y.fract());
            (at(left, top) * (1.0 - across) + at(left + 1.0, top) * across) * (1.0 - down)
                + (at(left, top + 1.0) * (1.0 - across) + at(left + 1.0, top + 1.0) * across) * down
        };
        let (kr, kb) = match frame.colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let (y, chroma) = match frame.colour.full_range {
            true => (sample(0, 1.0), 1.0),
            false => ((sample(0, 1.0) - 16.0) * 255.0 / 219.0, 255.0 / 224.0),
        };
        let (u, v) = ((sample(1, 2.0) - 128.0) * chroma, (sample(2, 2.0) - 128.0) * chroma);
        let (red, blue) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
        [red, (y - kr * red - kb * blue) / (1.0 - kr - kb), blue]
    }

    fn noise(frame: &mut Frame, mut seed: u32, contrast: u8) {
        for sample in frame.planes_mut().into_iter().flatten() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample =
                (128 - i32::from(contrast / 2) + ((seed >> 24) * u32::from(contrast) / 255) as i32) as u8;
        }
    }

    fn pixel(canvas: &Canvas, x: u32, y: u32) -> Rgb {
        let (at, bytes) = (canvas.physical(Rect::new(x, y, 1, 1)), canvas.layout().bytes_per_pixel);
        let mut value = [0; 4];
        let start = at.y as usize * canvas.stride() + at.x as usize * bytes;
        value[..bytes].copy_from_slice(&canvas.data()[start..start + bytes]);
        canvas.layout().unpack(u32::from_le_bytes(value))
    }
}
