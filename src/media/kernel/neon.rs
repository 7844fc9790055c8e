//! The kernel for 64-bit ARM, which always has NEON.
#![allow(unsafe_code)]

use super::rows::{Job, by_pattern};
use super::taps::{FULL, Pattern, Place};
use super::{Coefficients, Pixels};
use std::arch::aarch64::*;

/// `near`, `far` and `out` are of one length, and `weight` neither 0 nor [`FULL`].
pub fn blend(near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    let (out, out_rest) = out.as_chunks_mut::<16>();
    let ((near, near_rest), (far, far_rest)) = (near.as_chunks::<16>(), far.as_chunks::<16>());
    // SAFETY: the processor has NEON, and each vector is read from and written to 16 bytes.
    unsafe {
        let (whole, part) = (vdup_n_u8(FULL - weight), vdup_n_u8(weight));
        for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
            let (a, b) = (vld1q_u8(near.as_ptr()), vld1q_u8(far.as_ptr()));
            let mean = if weight == FULL / 2 {
                vrhaddq_u8(a, b)
            } else {
                let low = vmlal_u8(vmull_u8(vget_low_u8(a), whole), vget_low_u8(b), part);
                let high = vmlal_u8(vmull_u8(vget_high_u8(a), whole), vget_high_u8(b), part);
                vcombine_u8(vrshrn_n_u16::<7>(low), vrshrn_n_u16::<7>(high))
            };
            vst1q_u8(out.as_mut_ptr(), mean);
        }
    }
    super::portable::blend(near_rest, far_rest, weight, out_rest);
}

/// A square of sixteen by sixteen samples, rows of `from` as rows of `to`, `stride` and `to_stride` apart.
///
/// # Panics
/// If one of them is shorter than that.
pub fn transpose(from: &[u8], stride: usize, to: &mut [u8], to_stride: usize) {
    assert!(from.len() >= 15 * stride + 16 && to.len() >= 15 * to_stride + 16);
    // SAFETY: the processor has NEON, and each vector is read from and written to 16 bytes, the last
    // of which lie within what was just seen to be there.
    unsafe {
        let square = std::array::from_fn(|row| vld1q_u8(from.as_ptr().add(row * stride)));
        let square = interleaved(interleaved(interleaved(interleaved(square))));
        for (row, vector) in square.into_iter().enumerate() {
            vst1q_u8(to.as_mut_ptr().add(row * to_stride), vector);
        }
    }
}

/// Rows that are eight apart interleaved: the digits of each sample's place move on by one, and after four times row and
/// column have changed sides.
#[inline(always)]
fn interleaved(square: [uint8x16_t; 16]) -> [uint8x16_t; 16] {
    let mut out = square;
    for row in 0..8 {
        let (a, b) = (square[row], square[row + 8]);
        // SAFETY: the processor has NEON.
        [out[2 * row], out[2 * row + 1]] = unsafe { [vzip1q_u8(a, b), vzip2q_u8(a, b)] };
    }
    out
}

/// As [`super::Kernel::write`], whose checks were made.
pub fn write<const ROWS: usize>(job: Job<'_, ROWS>, pixels: Pixels, out: [&mut [u8]; ROWS]) {
    // SAFETY: `Kernel::write` has seen that lines are as long as their taps reach, rows as
    // long as there are taps of luma, and that those of chroma are as many or half of that.
    unsafe { by_pattern!(rows, job, pixels, out) }
}

const SAME: u8 = Pattern::Same as u8;
const HALF: u8 = Pattern::Half as u8;
const FAR: u8 = Pattern::Far as u8;

/// Sixteen values, the first eight first.
type Wide = [int16x8_t; 2];

/// Rows of `BYTES` a pixel.
///
/// # Safety
/// Lines are as long as their taps reach, rows as long as `BYTES` times the taps of luma; there are as many blocks of
/// chroma, and all are as the patterns want them.
unsafe fn rows<const ROWS: usize, const BYTES: usize, const LUMA: u8, const CHROMA: u8>(
    Job { luma, chroma, coefficients, lines, .. }: Job<'_, ROWS>,
    out: [&mut [u8]; ROWS],
) {
    let Coefficients { luma: y_luma, red_v, green_u, green_v, blue_u, offsets } = coefficients;
    let out = out.map(|row| row.as_mut_ptr());
    for (luma, chroma) in luma.places().zip(chroma.places()) {
        // SAFETY: windows lie within a line that is as long as the taps reach, and a block ends within the row.
        unsafe {
            let offsets = offsets.map(|offset| vdupq_n_s16(offset));
            let colour = |u: int16x8_t, v: int16x8_t| {
                let green = vaddq_s16(vqrdmulhq_n_s16(u, green_u), vqrdmulhq_n_s16(v, green_v));
                [
                    vaddq_s16(vqrdmulhq_n_s16(v, red_v), offsets[0]),
                    vsubq_s16(offsets[1], green),
                    vaddq_s16(vqrdmulhq_n_s16(u, blue_u), offsets[2]),
                ]
            };
            let [u, v] = [lines.u, lines.v].map(|line| samples::<CHROMA>(line, chroma));
            let [low, high] = [colour(u[0], v[0]), colour(u[1], v[1])];
            for (line, out) in lines.y.iter().zip(&out) {
                let y = samples::<LUMA>(line, luma);
                let rgb = |y: int16x8_t, colour: [int16x8_t; 3]| {
                    let y = vqrdmulhq_n_s16(y, y_luma);
                    colour.map(|of| vqshrun_n_s16::<5>(vaddq_s16(y, of)))
                };
                store::<BYTES>([rgb(y[0], low), rgb(y[1], high)], out.add(luma.first * BYTES));
            }
        }
    }
}

/// A block's samples in 1/128.
///
/// # Safety
/// The block is one of sixteen taps of this pattern, or of one that is denser than [`Pattern::Near`], and `line` is as
/// long as they reach.
#[inline]
unsafe fn samples<const PATTERN: u8>(line: &[u8], place: Place<'_>) -> Wide {
    let line = line.as_ptr();
    // SAFETY: 16 bytes from each window on lie within the line, and where samples stand side by side all that there are
    // from the start on: 16, or 32 of pairs. A block's arrays have 32 bytes.
    unsafe {
        match PATTERN {
            SAME => {
                let samples = vld1q_u8(line.add(place.origin + place.first));
                [vget_low_u8(samples), vget_high_u8(samples)].map(|half| signed(vshll_n_u8::<7>(half)))
            }
            HALF => {
                let uint8x16x2_t(first, second) = vld2q_u8(line.add(place.origin + 2 * place.first));
                let low = vaddl_u8(vget_low_u8(first), vget_low_u8(second));
                let high = vaddl_u8(vget_high_u8(first), vget_high_u8(second));
                [low, high].map(|sum| signed(vshlq_n_u16::<6>(sum)))
            }
            _ => {
                let window = |at: u32| vld1q_u8(line.add(at as usize));
                let weights = vld2q_u8(place.block.weights.as_ptr());
                let places = vld2q_u8(place.block.places.as_ptr());
                let [low, high] = place.block.windows.map(window);
                let mut pairs = [picked(low, lower(places)), picked(high, upper(places))];
                if PATTERN == FAR
                    && let Some(far) = place.far
                {
                    let places = vld2q_u8(far.places.as_ptr());
                    let [low, high] = far.windows.map(window);
                    let others = [picked(low, lower(places)), picked(high, upper(places))];
                    pairs = [either(pairs[0], others[0]), either(pairs[1], others[1])];
                }
                [weighted(lower(weights), pairs[0]), weighted(upper(weights), pairs[1])]
            }
        }
    }
}

#[inline]
fn lower(uint8x16x2_t(first, second): uint8x16x2_t) -> uint8x8x2_t {
    // SAFETY: the processor has NEON.
    unsafe { uint8x8x2_t(vget_low_u8(first), vget_low_u8(second)) }
}

#[inline]
fn upper(uint8x16x2_t(first, second): uint8x16x2_t) -> uint8x8x2_t {
    // SAFETY: the processor has NEON.
    unsafe { uint8x8x2_t(vget_high_u8(first), vget_high_u8(second)) }
}

/// The bytes of a window at these places; nothing where a place is 0x80.
#[inline]
fn picked(window: uint8x16_t, uint8x8x2_t(first, second): uint8x8x2_t) -> uint8x8x2_t {
    // SAFETY: the processor has NEON.
    unsafe { uint8x8x2_t(vqtbl1_u8(window, first), vqtbl1_u8(window, second)) }
}

#[inline]
fn either(one: uint8x8x2_t, other: uint8x8x2_t) -> uint8x8x2_t {
    // SAFETY: the processor has NEON.
    unsafe { uint8x8x2_t(vorr_u8(one.0, other.0), vorr_u8(one.1, other.1)) }
}

#[inline]
fn weighted(weights: uint8x8x2_t, pairs: uint8x8x2_t) -> int16x8_t {
    // SAFETY: the processor has NEON.
    signed(unsafe { vmlal_u8(vmull_u8(pairs.0, weights.0), pairs.1, weights.1) })
}

/// None is above 32,640.
#[inline]
fn signed(samples: uint16x8_t) -> int16x8_t {
    // SAFETY: the processor has NEON.
    unsafe { vreinterpretq_s16_u16(samples) }
}

/// Twice eight pixels of R, G, B.
///
/// # Safety
/// `BYTES` is 4 (XRGB8888) or 2 (RGB565), and 16 pixels may be written to `to`.
#[inline]
unsafe fn store<const BYTES: usize>([low, high]: [[uint8x8_t; 3]; 2], to: *mut u8) {
    // SAFETY: 64 or 32 bytes are ours.
    unsafe {
        if BYTES == 4 {
            let whole = |channel: usize| vcombine_u8(low[channel], high[channel]);
            vst4q_u8(to, uint8x16x4_t(whole(2), whole(1), whole(0), vdupq_n_u8(0)));
        } else {
            let packed = |[red, green, blue]: [uint8x8_t; 3]| {
                let [red, green, blue] = [red, green, blue].map(|channel| vshll_n_u8::<8>(channel));
                vsriq_n_u16::<11>(vsriq_n_u16::<5>(red, green), blue)
            };
            vst1q_u8(to, vreinterpretq_u8_u16(packed(low)));
            vst1q_u8(to.add(16), vreinterpretq_u8_u16(packed(high)));
        }
    }
}
