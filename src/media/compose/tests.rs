//! Every pixel against the formula, in any orientation, layout and place.

use super::super::canvas::{Canvas, Channel};
use super::super::frame::{Colour, Frame, Matrix};
use super::*;
use crate::geometry::Size;
use proptest::prelude::*;
use std::time::Duration;

const BACKGROUND: Rgb = Rgb::new(40, 80, 120);

#[test]
fn what_lies_beyond_the_canvas_is_not_drawn() {
    let mut canvas = Canvas::new(Size::new(20, 10), PixelLayout::RGB565, Rotation::Quarter);

    let frame = Frame::new(Size::new(8, 8));
    let area = Rect::new(5, 15, 100, 300);
    let shot = Shot { fit: Fit::Contain, background: Rgb::WHITE, ..Shot::of(&frame) };
    Compositor::default().draw(&mut canvas.surface(), area, &shot, &[]);
    canvas.fill(Rect::new(50, 50, 9, 9), Rgb::WHITE);

    assert_eq!(canvas.pixel(4, 15), Rgb::BLACK);
    assert_eq!(canvas.pixel(5, 15), Rgb::WHITE);
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

        let shot = Shot { fit, orientation, background: BACKGROUND, ..Shot::of(&frame) };
        Compositor::default().draw(&mut canvas.surface(), area, &shot, &[]);

        let placement = place(orientation.rotation.size(frame.size()), area, fit).expect("placeable");
        for py in 0..logical.height {
            for px in 0..logical.width {
                let seen = canvas.pixel(px, py);
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

    #[test]
    fn where_the_samples_lie_does_not_change_a_byte(
        (width, height) in (1..100u32, 1..100u32), (columns, lines) in (1..90u32, 1..90u32), seed: u32,
        fit in prop_oneof![Just(Fit::Fill), Just(Fit::Contain), Just(Fit::Cover)],
        camera in 0..4u32, mirror: bool, screen in 0..4u32, fast: bool, interleaved: bool,
        (begin, gap, padding) in (0..70usize, 0..70usize, (0..9usize, 0..9usize)),
    ) {
        let mut frame = Frame::new(Size::new(width * 2, height * 2));
        noise(&mut frame, seed, 255);
        let lent = Lent::new(&frame, interleaved, begin, gap, padding);
        let screen = Rotation::from_degrees(screen * 90).expect("a quarter");
        let orientation = Orientation { mirror, rotation: Rotation::from_degrees(camera * 90).expect("a quarter") };
        let quality = if fast { Quality::Fast } else { Quality::High };
        let logical = Size::new(columns, lines);
        let drawn = |kernel: Kernel, image: &dyn Image| {
            let mut canvas = Canvas::new(screen.size(logical), PixelLayout::XRGB8888, screen);
            let shot = Shot { fit, orientation, ..Shot::of(image) };
            Compositor::new(kernel, quality).draw(&mut canvas.surface(), Rect::of(logical), &shot, &[]);
            canvas
        };

        for kernel in Kernel::all() {
            let (own, lent) = (drawn(kernel, &frame), drawn(kernel, &lent));
            prop_assert!(own.data() == lent.data(), "{:?}", kernel);
        }
    }
}

/// The samples of a frame in a memory like a codec's: somewhere in it, with rows that are padded.
#[derive(Debug)]
struct Lent {
    bytes: Vec<u8>,
    size: Size,
    interleaved: bool,
    /// Where each plane begins, and the bytes from row to row.
    places: [(usize, usize); 3],
}

impl Lent {
    fn new(frame: &Frame, interleaved: bool, begin: usize, gap: usize, padding: (usize, usize)) -> Self {
        let (width, height) = (frame.size().width as usize, frame.size().height as usize);
        let (step, stride) = if interleaved { (2, width + padding.1) } else { (1, width / 2 + padding.1) };
        let luma = begin + (width + padding.0) * height;
        let next = if interleaved { luma + gap + 1 } else { luma + 2 * gap + stride * height / 2 };
        let places = [(begin, width + padding.0), (luma + gap, stride), (next, stride)];
        // Nothing follows the last sample.
        let mut bytes = vec![0x55; next + stride * (height / 2 - 1) + (width / 2 - 1) * step + 1];
        for (plane, samples) in frame.planes().into_iter().enumerate() {
            let (width, step) = if plane == 0 { (width, 1) } else { (width / 2, step) };
            for (at, sample) in samples.iter().enumerate() {
                bytes[places[plane].0 + at / width * places[plane].1 + at % width * step] = *sample;
            }
        }
        Self { bytes, size: frame.size(), interleaved, places }
    }
}

impl Image for Lent {
    fn view(&self) -> Planes<'_> {
        let plane = |plane: usize, size| {
            let (begin, stride) = self.places[plane];
            Plane::new(&self.bytes[begin..], stride, size).expect("it fits")
        };
        let Size { width, height } = self.size;
        let half = Size::new(width / 2, height / 2);
        let chroma = match self.interleaved {
            true => Chroma::Interleaved(plane(1, Size::new(width, height / 2))),
            false => Chroma::Planar([plane(1, half), plane(2, half)]),
        };
        Planes::new(plane(0, self.size), chroma).expect("it fits")
    }

    fn colour(&self) -> Colour {
        Colour::default()
    }

    fn captured(&self) -> Duration {
        Duration::ZERO
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
            f64::from(frame.planes()[plane][(y.min(rows - 1.0) * columns + x.min(columns - 1.0)) as usize])
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
        *sample = (128 - i32::from(contrast / 2) + ((seed >> 24) * u32::from(contrast) / 255) as i32) as u8;
    }
}
