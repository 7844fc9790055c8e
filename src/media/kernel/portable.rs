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

pub fn transpose(plane: &[u8], stride: usize, first: usize, lines: usize, out: &mut [u8]) {
    let rows = out.len() / lines.max(1);
    let mut row = 0;
    while row < rows {
        let tall = if row + 8 <= rows { 8 } else { 1 };
        let mut line = 0;
        while line < lines {
            let wide = if line + 8 <= lines && tall == 8 { 8 } else { 1 };
            let from = |y: usize| &plane[(row + y) * stride + first + line..];
            if wide == 8 {
                let square = std::array::from_fn(|y| {
                    u64::from_le_bytes(*from(y).first_chunk().expect("eight columns are left"))
                });
                for (x, column) in turned(square).into_iter().enumerate() {
                    out[(line + x) * rows + row..][..8].copy_from_slice(&column.to_le_bytes());
                }
            } else {
                for y in 0..tall {
                    out[line * rows + row + y] = from(y)[0];
                }
            }
            line += wide;
        }
        row += tall;
    }
}

/// Eight rows of eight bytes as eight columns: quarters change places, then quarters of those, then of those.
#[inline(always)]
fn turned(mut rows: [u64; 8]) -> [u64; 8] {
    for (apart, mask) in [(4, 0x0000_0000_ffff_ffff), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff)]
    {
        for upper in (0..8).filter(|row| row & apart == 0) {
            let (a, b) = (rows[upper], rows[upper + apart]);
            rows[upper] = a & mask | (b & mask) << (8 * apart);
            rows[upper + apart] = a >> (8 * apart) & mask | b & !mask;
        }
    }
    rows
}
