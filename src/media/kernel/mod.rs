//! The inner loops of the compositor, for each processor in its own instructions, with the same bytes from all of them.
//!
//! A row of the screen is made of three lines of samples (Y, U, V), which [`Kernel::blend`] has made of two rows of the
//! picture where it lies between them. Every pixel is sampled between two neighbours of a line, with weights of 7 bits:
//! `(128 - w) a + w b` is the sample in 1/128. Times a coefficient in 1/8192, rounded and shifted by 15, it is in 1/32: so
//! all of it fits into 16 bits, and into the multiplications that processors have (`pmaddubsw` and `pmulhrsw` of SSSE3,
//! `umlal` and `sqrdmulh` of NEON). `portable` is the definition.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
pub(super) mod rate;
mod rows;
mod taps;

use super::canvas::PixelLayout;
use super::frame::{Colour, Matrix};
use rows::Job;
pub use taps::{FULL, Tap, Taps};

/// Whose instructions are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Proof),
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Layouts that rows are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    Xrgb8888,
    Rgb565,
}

impl Pixels {
    /// `None`: rows are written as [`Pixels::Xrgb8888`] and packed by [`PixelLayout::pack`].
    pub fn of(layout: PixelLayout) -> Option<Self> {
        match layout {
            PixelLayout::XRGB8888 => Some(Self::Xrgb8888),
            PixelLayout::RGB565 => Some(Self::Rgb565),
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Xrgb8888 => 4,
            Self::Rgb565 => 2,
        }
    }
}

/// The lines that `ROWS` rows of the screen are made of: each has its luma, and all share the chroma.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a, const ROWS: usize> {
    pub y: [&'a [u8]; ROWS],
    pub u: &'a [u8],
    pub v: &'a [u8],
}

/// Y′CbCr to R′G′B′ in 1/8192: for limited range `R = 255/219 (Y-16) + 2 (1-Kr) 255/224 (V-128)` and so on, with Kr, Kb
/// of 0.299, 0.114 (BT.601) or 0.2126, 0.0722 (BT.709). All are even, so that what a channel lacks of a sample less 128
/// is a whole number: half the coefficient.
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    luma: i16,
    red_v: i16,
    /// What is taken away.
    green_u: i16,
    green_v: i16,
    blue_u: i16,
    /// What is added to red, green, blue, in 1/32, with the half that rounds.
    offsets: [i16; 3],
}

impl Coefficients {
    pub const fn of(colour: Colour) -> Self {
        let (luma, red_v, green_u, green_v, blue_u) = match (colour.matrix, colour.full_range) {
            (Matrix::Bt601, false) => (9538, 13074, 3210, 6660, 16526),
            (Matrix::Bt601, true) => (8192, 11484, 2820, 5850, 14516),
            (Matrix::Bt709, false) => (9538, 14686, 1748, 4366, 17304),
            (Matrix::Bt709, true) => (8192, 12902, 1534, 3834, 15202),
        };
        // (128 - 16) 255/219 and 128, in 1/32.
        let middle = if colour.full_range { 4096 } else { 4173 } + 16 - luma / 2;
        let offsets = [middle - red_v / 2, middle + (green_u + green_v) / 2, middle - blue_u / 2];
        Self { luma, red_v, green_u, green_v, blue_u, offsets }
    }
}

/// Columns that are transposed at once; fewer than these, one sample after the other.
pub const TRANSPOSED: usize = 16;

impl Kernel {
    /// The fastest that this processor has.
    pub fn best() -> Self {
        *Self::all().last().expect("the portable one is always there")
    }

    /// All that this processor has, the fastest last.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        all.extend(avx2::Proof::find().map(Self::Avx2));
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon);
        all
    }

    /// The line between two: `((128 - weight) near + weight far + 64) / 128` of each sample, `weight` at most 128.
    ///
    /// # Panics
    /// If a line is shorter than `out`.
    pub fn blend(self, near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
        let (near, far) = (&near[..out.len()], &far[..out.len()]);
        assert!(weight <= FULL);
        match self {
            _ if weight == 0 => out.copy_from_slice(near),
            _ if weight == FULL => out.copy_from_slice(far),
            Self::Portable => portable::blend(near, far, weight, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => avx2::blend(proof, near, far, weight, out),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::blend(near, far, weight, out),
        }
    }

    /// Writes rows of the screen, sampled along `luma` and `chroma` in lines that are cut to their [`Taps::range`]. The
    /// memory that is written after them, `ahead` bytes further (wrapping), is had ready meanwhile where the processor does
    /// not see to that by itself.
    ///
    /// # Panics
    /// If a line is shorter than its taps reach, or a row has not just as many pixels as there are taps of each.
    pub fn write<const ROWS: usize>(
        self,
        (luma, chroma): (&Taps, &Taps),
        coefficients: Coefficients,
        pixels: Pixels,
        lines: Lines<'_, ROWS>,
        out: [&mut [u8]; ROWS],
        ahead: usize,
    ) {
        assert!(lines.y.iter().all(|line| line.len() >= luma.reach()));
        assert!([lines.u, lines.v].iter().all(|line| line.len() >= chroma.reach()));
        assert!(out.iter().all(|row| row.len() == pixels.bytes() * luma.count()));
        assert_eq!(luma.count(), chroma.count());
        let job = Job { luma, chroma, coefficients, lines, ahead };
        match self {
            Self::Portable => portable::write(job, pixels, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => avx2::write(proof, job, pixels, out),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::write(job, pixels, out),
        }
    }

    /// Says that `line` will be read soon.
    pub fn fetch(self, line: &[u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => avx2::fetch(proof, line),
            // Elsewhere it is left to the processor.
            _ => _ = line,
        }
    }

    /// Columns `first..first + lines` of `rows` rows, `stride` apart in `plane`, as lines of `rows` samples.
    ///
    /// # Panics
    /// If `plane` or `out` is too short for that.
    pub fn transpose(self, plane: &[u8], stride: usize, first: usize, lines: usize, out: &mut [u8]) {
        let Some(rows) = out.len().checked_div(lines).filter(|&rows| rows > 0) else { return };
        let plane = &plane[first..(rows - 1) * stride + first + lines];
        let at_once = match self {
            Self::Portable => usize::MAX,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => avx2::TRANSPOSED,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::TRANSPOSED,
        };
        if rows < at_once || lines < TRANSPOSED {
            return portable::transpose(plane, stride, rows, out);
        }
        // The last ones of a row or column lie over those before as far as they must.
        let starts =
            |length: usize, step: usize| (0..length).step_by(step).map(move |start| start.min(length - step));
        for row in starts(rows, at_once) {
            for line in starts(lines, TRANSPOSED) {
                let (from, to) = (&plane[row * stride + line..], &mut out[line * rows + row..]);
                match self {
                    Self::Portable => unreachable!("it has returned"),
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2(proof) => avx2::transpose(proof, from, stride, to, rows),
                    #[cfg(target_arch = "aarch64")]
                    Self::Neon => neon::transpose(from, stride, to, rows),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that are all over the range, the same each time.
    fn noise(length: usize, mut seed: u32) -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(length)
        .collect()
    }

    /// `count` taps at even distances in a line, backwards if told so.
    fn taps(count: usize, samples: usize, step: f64, first: f64, backwards: bool) -> Vec<Tap> {
        let tap = |index: usize| {
            let place = (first + step * index as f64).clamp(0.0, samples as f64 - 1.0);
            Tap { index: place as u32, weight: (place.fract() * 128.0).round() as u8 }
        };
        let mut taps: Vec<Tap> = (0..count).map(tap).collect();
        if backwards {
            taps.reverse();
        }
        taps
    }

    fn even(pixels: usize, samples: usize, step: f64, first: f64, backwards: bool) -> Taps {
        Taps::new(taps(pixels, samples, step, first, backwards), samples)
    }

    fn written<const ROWS: usize>(
        kernel: Kernel,
        taps: (&Taps, &Taps),
        colour: Colour,
        pixels: Pixels,
        lines: Lines<'_, ROWS>,
    ) -> [Vec<u8>; ROWS] {
        let mut out = [const { Vec::new() }; ROWS];
        out.iter_mut().for_each(|row| row.resize(taps.0.count() * pixels.bytes(), 0));
        let rows = out.each_mut().map(|row| row.as_mut_slice());
        kernel.write(taps, Coefficients::of(colour), pixels, lines, rows, taps.0.count() * pixels.bytes());
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_kernel_writes_the_same_bytes(
            pixels in 1..130usize, samples in 1..300usize, seed: u32, backwards: bool,
            step in prop_oneof![Just(1.0), Just(2.0), Just(0.5), 0.05..9.0f64],
            first in prop_oneof![Just(0.0), Just(0.5), 0.0..40.0f64],
            xrgb: bool, full_range: bool, bt709: bool, shared: bool,
        ) {
            let luma = even(pixels, samples, step, first, backwards);
            let half = samples.div_ceil(2);
            let mut chroma = taps(pixels, half, step / 2.0, (first - 0.5) / 2.0, backwards);
            if shared {
                chroma = chroma.iter().step_by(2).flat_map(|&tap| [tap; 2]).take(pixels).collect();
            }
            let chroma = luma.like(chroma, half);
            let (y, below) = (noise(samples, seed), noise(samples, seed ^ 1));
            let (u, v) = (noise(half, seed ^ 2), noise(half, seed ^ 3));
            let matrix = if bt709 { Matrix::Bt709 } else { Matrix::Bt601 };
            let colour = Colour { matrix, full_range };
            let layout = if xrgb { Pixels::Xrgb8888 } else { Pixels::Rgb565 };
            let [y, below] = [&y, &below].map(|line| &line[luma.range()]);
            let [u, v] = [&u, &v].map(|line| &line[chroma.range()]);
            let (one, two) = (Lines { y: [y], u, v }, Lines { y: [y, below], u, v });
            let expected = written(Kernel::Portable, (&luma, &chroma), colour, layout, two);

            for kernel in Kernel::all() {
                let rows = written(kernel, (&luma, &chroma), colour, layout, two);
                prop_assert_eq!(&rows, &expected, "{:?} {:?} {:?}", kernel, luma.pattern(), chroma.pattern());
                let [row] = written(kernel, (&luma, &chroma), colour, layout, one);
                prop_assert_eq!(&row, &expected[0], "{:?}", kernel);
            }
        }

        #[test]
        fn every_kernel_blends_the_same(length in 0..200usize, weight in 0..=FULL, seed: u32) {
            let (near, far) = (noise(length, seed), noise(length, !seed));
            let mean = |(&a, &b): (&u8, &u8)| {
                ((u32::from(a) * u32::from(FULL - weight) + u32::from(b) * u32::from(weight) + 64) / 128) as u8
            };
            let expected: Vec<u8> = near.iter().zip(&far).map(mean).collect();

            for kernel in Kernel::all() {
                let mut out = vec![0; length];
                kernel.blend(&near, &far, weight, &mut out);
                prop_assert_eq!(&out, &expected, "{:?}", kernel);
            }
        }

        #[test]
        fn columns_become_lines(
            (width, rows) in (1..40usize, 0..80usize), (first, lines) in (0..20usize, 0..40usize), seed: u32,
        ) {
            let stride = first + lines + width;
            let plane = noise(stride * rows, seed);

            for kernel in Kernel::all() {
                let mut out = vec![0; lines * rows];
                kernel.transpose(&plane, stride, first, lines, &mut out);

                for (at, &sample) in out.iter().enumerate() {
                    prop_assert_eq!(sample, plane[at % rows * stride + first + at / rows], "{:?}", kernel);
                }
            }
        }
    }

    #[test]
    fn every_kernel_agrees_at_the_ends_of_what_samples_are() {
        let ends = |bit: usize| -> Vec<u8> {
            (0..64).map(|index: usize| if index >> bit & 1 == 0 { 0 } else { 255 }).collect()
        };
        let taps = even(64, 64, 1.0, 0.0, false);
        // Every three of them together, whole and half as much.
        let chroma = taps.like(taps.as_slice().to_vec(), 64);
        let between = even(63, 64, 1.0, 0.5, false);
        let half = between.like(between.as_slice().to_vec(), 64);
        let (y, u, v) = (ends(3), ends(4), ends(5));
        let lines = Lines { y: [&y[..]], u: &u, v: &v };
        for (matrix, full_range) in [Matrix::Bt601, Matrix::Bt709].into_iter().zip([false, true].repeat(2)) {
            let colour = Colour { matrix, full_range };
            for taps in [(&taps, &chroma), (&between, &half)] {
                for pixels in [Pixels::Xrgb8888, Pixels::Rgb565] {
                    let expected = written(Kernel::Portable, taps, colour, pixels, lines);

                    for kernel in Kernel::all() {
                        assert_eq!(
                            written(kernel, taps, colour, pixels, lines),
                            expected,
                            "{kernel:?} {colour:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_special_is_found() {
        let pattern = |step, first| even(160, 640, step, first, false).pattern();

        assert_eq!(pattern(1.0, 3.0), taps::Pattern::Same);
        assert_eq!(pattern(2.0, 0.5), taps::Pattern::Half);
        assert_eq!(pattern(4.0 / 3.0, 0.0), taps::Pattern::Near);
        assert_eq!(pattern(0.25, 0.0), taps::Pattern::Close);
        assert_eq!(pattern(3.0, 0.0), taps::Pattern::Far);
        assert_eq!(pattern(6.0, 0.0), taps::Pattern::Scattered);
        assert_eq!(even(160, 160, 1.0, 0.0, true).pattern(), taps::Pattern::Near);
    }
}
