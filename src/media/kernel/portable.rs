//! The definition of what all kernels write, for every processor.

use super::rows::Job;
use super::taps::{FULL, Tap};
use super::{Coefficients, Pixels};

/// Pixels whose samples are at hand at once: enough for vectors of any width.
const RUN: usize = 64;

pub fn blend(near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    let (w, v) = (u16::from(weight), u16::from(FULL - weight));
    for ((out, &a), &b) in out.iter_mut().zip(near).zip(far) {
        // At most 128 · 255 + 64.
        *out = (u16::from(a).wrapping_mul(v).wrapping_add(u16::from(b).wrapping_mul(w)).wrapping_add(64) >> 7)
            as u8;
    }
}

pub fn write<const ROWS: usize>(
    Job { luma, chroma, coefficients, lines, .. }: Job<'_, ROWS>,
    pixels: Pixels,
    mut out: [&mut [u8]; ROWS],
) {
    let runs = luma.as_slice().chunks(RUN).zip(chroma.as_slice().chunks(RUN));
    for (index, (luma, chroma)) in runs.enumerate() {
        let (u, v) = (sample(lines.u, chroma), sample(lines.v, chroma));
        for (line, out) in lines.y.iter().zip(&mut out) {
            let y = sample(line, luma);
            let start = index * RUN * pixels.bytes();
            let out = &mut out[start..start + luma.len() * pixels.bytes()];
            match pixels {
                Pixels::Xrgb8888 => {
                    let (out, _) = out.as_chunks_mut();
                    for (((out, &y), &u), &v) in out.iter_mut().zip(&y).zip(&u).zip(&v) {
                        let [r, g, b] = coefficients.rgb(y, u, v);
                        *out = (r << 16 | g << 8 | b).to_le_bytes();
                    }
                }
                Pixels::Rgb565 => {
                    let (out, _) = out.as_chunks_mut();
                    for (((out, &y), &u), &v) in out.iter_mut().zip(&y).zip(&u).zip(&v) {
                        let [r, g, b] = coefficients.rgb(y, u, v);
                        *out = ((r >> 3 << 11 | g >> 2 << 5 | b >> 3) as u16).to_le_bytes();
                    }
                }
            }
        }
    }
}

/// Each tap's sample in 1/128.
fn sample(line: &[u8], taps: &[Tap]) -> [i16; RUN] {
    let mut samples = [0; RUN];
    for (sample, tap) in samples.iter_mut().zip(taps) {
        let index = tap.index as usize;
        // A line of one sample has no second one.
        let pair = [line[index], line.get(index + 1).copied().unwrap_or(line[index])];
        let [a, b] = pair.map(i16::from);
        let w = i16::from(tap.weight);
        *sample = a.wrapping_mul(i16::from(FULL) - w).wrapping_add(b.wrapping_mul(w));
    }
    samples
}

impl Coefficients {
    /// The 8-bit channels of a pixel, from samples in 1/128.
    #[inline(always)]
    fn rgb(&self, y: i16, u: i16, v: i16) -> [u32; 3] {
        // Nothing here overflows: no sum is above 27,000.
        let luma = product(y, self.luma);
        let green = product(u, self.green_u).wrapping_add(product(v, self.green_v));
        let [red_offset, green_offset, blue_offset] = self.offsets;
        let byte = |value: i16| (luma.wrapping_add(value) >> 5).clamp(0, 255) as u32;
        [
            byte(product(v, self.red_v).wrapping_add(red_offset)),
            byte(green_offset.wrapping_sub(green)),
            byte(product(u, self.blue_u).wrapping_add(blue_offset)),
        ]
    }
}

/// A sample times a coefficient, in 1/32, to the nearest.
#[inline(always)]
fn product(sample: i16, coefficient: i16) -> i16 {
    (i32::from(sample).wrapping_mul(i32::from(coefficient)).wrapping_add(1 << 14) >> 15) as i16
}

/// `plane` begins with the first sample of the first row, of `rows`; lines are as many as fill `out`.
pub fn transpose(plane: &[u8], stride: usize, rows: usize, out: &mut [u8]) {
    for (column, line) in out.chunks_exact_mut(rows).enumerate() {
        for (sample, row) in line.iter_mut().zip(plane.chunks(stride)) {
            *sample = row[column];
        }
    }
}
