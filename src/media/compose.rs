//! Pictures onto the canvas: scaled, turned and converted to the screen's own pixels in one pass.
//!
//! Sampling is bilinear with half-pixel centres, as CSS and GPUs sample, clamped at the picture's edges. Chroma
//! is sited in the centre of its four luma samples (JPEG and MPEG-1 siting; MPEG-2's left siting differs by a
//! quarter of a luma pixel). For each row of the screen one line of the picture (a column, if it lies on its
//! side) is blended from two, then sampled along a table of positions, then converted.

use super::canvas::{Canvas, PixelLayout, Rgb};
use super::frame::{Colour, Frame, Matrix};
use crate::geometry::{Fit, ONE_PIXEL, Orientation, Rect, Rotation, Size, place};

/// One sample between two neighbours: `index`, and the weight of the next one in 1/16384.
#[derive(Clone, Copy, Debug)]
struct Tap {
    index: u32,
    weight: i32,
}

/// The taps of a row: where each is, and the weights of its two samples.
#[derive(Debug, Default)]
struct Taps {
    indices: Vec<u32>,
    weights: Vec<[i16; 2]>,
}

const TAP_BITS: u32 = 14;
const TAP_ONE: i32 = 1 << TAP_BITS;
/// Bits after the point of a sample of a blended line: 8.7, so that it fits in an `i16`.
const LINE_BITS: u32 = 7;

/// Draws pictures; keeps its tables between pictures, so that nothing is allocated for each.
#[derive(Debug, Default)]
pub struct Compositor {
    /// For each pixel of a physical row, where it is sampled in the luma and the chroma line.
    luma_taps: Taps,
    chroma_taps: Taps,
    /// The blended lines of the picture, one sample longer than the picture.
    lines: [Vec<i16>; 3],
    /// One row of the screen in Y′CbCr, 8.7 bits.
    row: [Vec<i16>; 3],
    /// The two samples each pixel of a row lies between.
    pairs: Vec<[i16; 2]>,
}

impl Compositor {
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
        let columns = Axis {
            first: cut.x,
            length: cut.width,
            pixels: target.width,
            shown: visible.width,
            flipped: false,
        };
        let rows = Axis {
            first: cut.y,
            length: cut.height,
            pixels: target.height,
            shown: visible.height,
            flipped: false,
        };
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
        let (along, along_back, across, across_back) = match canvas.rotation() {
            Rotation::None => (columns, false, rows, false),
            Rotation::Quarter => (rows, true, columns, false),
            Rotation::Half => (columns, true, rows, true),
            Rotation::ThreeQuarters => (rows, false, columns, true),
        };
        let turns = orientation.rotation.then(canvas.rotation());
        let sideways = matches!(turns, Rotation::Quarter | Rotation::ThreeQuarters);
        let Size { width, height } = frame.size();
        let (line, lines) = if sideways { (height, width) } else { (width, height) };

        along.taps(line, 1, along_back, &mut self.luma_taps);
        along.taps(line, 2, along_back, &mut self.chroma_taps);
        let physical = canvas.physical(visible);
        let (layout, stride) = (canvas.layout(), canvas.stride());
        let bytes = physical.width as usize * layout.bytes_per_pixel;
        let start = physical.y as usize * stride + physical.x as usize * layout.bytes_per_pixel;
        for row in &mut self.row {
            row.resize(physical.width as usize, 0);
        }
        self.pairs.resize(physical.width as usize, [0; 2]);
        let coefficients = Coefficients::of(frame.colour);
        let planes = frame.planes();
        let screen_rows = canvas.data_mut()[start..].chunks_mut(stride);
        for (index, pixels) in (0..physical.height).zip(screen_rows) {
            let index = if across_back { physical.height - 1 - index } else { index };
            for (plane, (data, line_out)) in planes.iter().zip(&mut self.lines).enumerate() {
                let shrink = if plane == 0 { 1 } else { 2 };
                let tap = across.tap(index, lines, shrink);
                let grid = Grid { data, stride: (width / shrink) as usize, length: (line / shrink) as usize };
                grid.blend(tap, (lines / shrink) as usize, sideways, line_out);
            }
            let [y, u, v] = &mut self.row;
            sample(&self.lines[0], &self.luma_taps, &mut self.pairs, y);
            sample(&self.lines[1], &self.chroma_taps, &mut self.pairs, u);
            sample(&self.lines[2], &self.chroma_taps, &mut self.pairs, v);
            coefficients.write(layout, [y, u, v], &mut pixels[..bytes]);
        }
    }
}

/// One direction of the target: `pixels` pixels, the first `shown` of them on the canvas, lie over `length`
/// from `first` on of the picture (in 1/65536 pixel), counted from its far end if `flipped`.
#[derive(Clone, Copy)]
struct Axis {
    first: u32,
    length: u32,
    pixels: u32,
    shown: u32,
    flipped: bool,
}

impl Axis {
    /// Where pixel `index` is sampled in `samples / shrink` samples.
    fn tap(&self, index: u32, samples: u32, shrink: u32) -> Tap {
        let centre = u64::from(2 * index + 1) * u64::from(self.length) / u64::from(2 * self.pixels);
        let centre = i64::from(self.first) + centre as i64;
        let whole = i64::from(samples) * i64::from(ONE_PIXEL);
        let centre = if self.flipped { whole - centre } else { centre };
        let last = i64::from(samples / shrink - 1) * i64::from(ONE_PIXEL);
        let position = (centre / i64::from(shrink) - i64::from(ONE_PIXEL) / 2).clamp(0, last) as u32;
        Tap { index: position / ONE_PIXEL, weight: ((position % ONE_PIXEL) >> (16 - TAP_BITS)) as i32 }
    }

    fn taps(&self, samples: u32, shrink: u32, backwards: bool, taps: &mut Taps) {
        taps.indices.clear();
        taps.weights.clear();
        for index in 0..self.shown {
            let index = if backwards { self.shown - 1 - index } else { index };
            let tap = self.tap(index, samples, shrink);
            taps.indices.push(tap.index);
            taps.weights.push([(TAP_ONE - tap.weight) as i16, tap.weight as i16]);
        }
    }
}

/// A plane of samples, read in lines of `length`: rows, or columns if sideways.
struct Grid<'a> {
    data: &'a [u8],
    stride: usize,
    length: usize,
}

impl Grid<'_> {
    /// The line between two of `count` lines, its last sample repeated.
    fn blend(&self, tap: Tap, count: usize, sideways: bool, out: &mut Vec<i16>) {
        out.resize(self.length + 1, 0);
        let (first, second) = (tap.index as usize, (tap.index as usize + 1).min(count - 1));
        let (near, far) = ((TAP_ONE - tap.weight) as i16, tap.weight as i16);
        let mix = |a: u8, b: u8| {
            let sum = product(a.into(), near).wrapping_add(product(b.into(), far));
            (sum.wrapping_add(1 << (TAP_BITS - LINE_BITS - 1)) >> (TAP_BITS - LINE_BITS)) as i16
        };
        if sideways {
            for (out, row) in out.iter_mut().zip(self.data.chunks_exact(self.stride)) {
                *out = mix(row[first], row[second]);
            }
        } else {
            let line = |index: usize| &self.data[index * self.stride..][..self.length];
            for ((out, &a), &b) in out.iter_mut().zip(line(first)).zip(line(second)) {
                *out = mix(a, b);
            }
        }
        out[self.length] = out[self.length - 1];
    }
}

/// A product of 16 bits by 16. Here and in the loops that use it nothing overflows (samples have 15 bits, weights
/// and coefficients 15 with sign), and `wrapping` keeps the checks of debug builds from breaking up vectors.
#[inline(always)]
fn product(a: i16, b: i16) -> i32 {
    i32::from(a).wrapping_mul(i32::from(b))
}

/// Samples a line along `taps`. Pairs are gathered first, so that the arithmetic runs over plain rows.
fn sample(line: &[i16], taps: &Taps, pairs: &mut [[i16; 2]], out: &mut [i16]) {
    for (pair, &index) in pairs.iter_mut().zip(&taps.indices) {
        // A plain store: `copy_from_slice` checks for overlap in debug builds.
        *pair = *line[index as usize..].first_chunk().expect("a line is one sample longer than its taps");
    }
    for ((out, pair), weights) in out.iter_mut().zip(pairs).zip(&taps.weights) {
        let sum = product(pair[0], weights[0]).wrapping_add(product(pair[1], weights[1]));
        *out = (sum.wrapping_add(TAP_ONE / 2) >> TAP_BITS) as i16;
    }
}

/// Y′CbCr to R′G′B′ in 1/8192, from samples with 7 bits after the point: for limited range
/// `R = 255/219 (Y-16) + 2 (1-Kr) 255/224 (V-128)` and so on, with Kr, Kb = 0.299, 0.114 (BT.601) or
/// 0.2126, 0.0722 (BT.709).
#[derive(Clone, Copy)]
struct Coefficients {
    luma: i16,
    red_v: i16,
    green_u: i16,
    green_v: i16,
    blue_u: i16,
    /// All that does not depend on the pixel, rounding included.
    red: i32,
    green: i32,
    blue: i32,
}

const COEFFICIENT_BITS: u32 = 13;

impl Coefficients {
    const fn of(colour: Colour) -> Self {
        // Units of 1/8192, to the nearest.
        let (luma, red_v, green_u, green_v, blue_u) = match (colour.matrix, colour.full_range) {
            (Matrix::Bt601, false) => (9539, 13075, -3209, -6660, 16525),
            (Matrix::Bt601, true) => (8192, 11485, -2819, -5850, 14516),
            (Matrix::Bt709, false) => (9539, 14686, -1747, -4366, 17305),
            (Matrix::Bt709, true) => (8192, 12901, -1535, -3835, 15201),
        };
        let half = 1 << (COEFFICIENT_BITS + LINE_BITS - 1);
        let base = half - if colour.full_range { 0 } else { (16 << LINE_BITS) * luma as i32 };
        let middle = 128 << LINE_BITS;
        Self {
            luma,
            red_v,
            green_u,
            green_v,
            blue_u,
            red: base - middle * red_v as i32,
            green: base - middle * (green_u as i32 + green_v as i32),
            blue: base - middle * blue_u as i32,
        }
    }

    /// The 8-bit channels of a pixel.
    #[inline(always)]
    fn rgb(&self, y: i16, u: i16, v: i16) -> [u32; 3] {
        let byte = |value: i32| (value >> (COEFFICIENT_BITS + LINE_BITS)).clamp(0, 255) as u32;
        let luma = product(y, self.luma);
        let green = product(u, self.green_u).wrapping_add(product(v, self.green_v));
        [
            byte(luma.wrapping_add(product(v, self.red_v)).wrapping_add(self.red)),
            byte(luma.wrapping_add(green).wrapping_add(self.green)),
            byte(luma.wrapping_add(product(u, self.blue_u)).wrapping_add(self.blue)),
        ]
    }

    /// A row in the layout of the screen; the two usual layouts have loops of their own.
    fn write(&self, layout: PixelLayout, row: [&[i16]; 3], out: &mut [u8]) {
        if layout == PixelLayout::XRGB8888 {
            self.write_as(row, out, |[r, g, b]| (r << 16 | g << 8 | b).to_le_bytes());
        } else if layout == PixelLayout::RGB565 {
            self.write_as(row, out, |[r, g, b]| ((r >> 3 << 11 | g >> 2 << 5 | b >> 3) as u16).to_le_bytes());
        } else {
            let pack = |[r, g, b]: [u32; 3]| layout.pack(Rgb::new(r as u8, g as u8, b as u8));
            match layout.bytes_per_pixel {
                2 => self.write_as(row, out, |rgb| (pack(rgb) as u16).to_le_bytes()),
                _ => self.write_as(row, out, |rgb| pack(rgb).to_le_bytes()),
            }
        }
    }

    #[inline(always)]
    fn write_as<const BYTES: usize>(
        &self,
        [y, u, v]: [&[i16]; 3],
        out: &mut [u8],
        pack: impl Fn([u32; 3]) -> [u8; BYTES],
    ) {
        let coefficients = *self;
        let (out, _) = out.as_chunks_mut::<BYTES>();
        for (((out, &y), &u), &v) in out.iter_mut().zip(y).zip(u).zip(v) {
            *out = pack(coefficients.rgb(y, u, v));
        }
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
            (x, y) in (0..5u32, 0..5u32), seed: u32,
            fit in prop_oneof![Just(Fit::Fill), Just(Fit::Contain), Just(Fit::Cover)],
            camera in 0..4u32, mirror: bool, screen in 0..4u32, layout in 0..3usize,
            matrix in prop_oneof![Just(Matrix::Bt601), Just(Matrix::Bt709)], full_range: bool,
        ) {
            let mut frame = Frame::new(Size::new(width * 2, height * 2));
            frame.colour = Colour { matrix, full_range };
            noise(&mut frame, seed);
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
                            let near = [-1.0, 0.0, 1.0].map(|off| (expected.clamp(0.0, 255.0).round() + off).clamp(0.0, 255.0) as u8);
                            prop_assert!(near.iter().any(|value| value >> (8 - length) == seen >> (8 - length)),
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

    fn noise(frame: &mut Frame, mut seed: u32) {
        for sample in frame.planes_mut().into_iter().flatten() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = (seed >> 24) as u8;
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
