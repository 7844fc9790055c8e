//! The kernel for 64-bit ARM, which always has NEON.
#![allow(unsafe_code)]

use super::rows::{Job, by_pattern};
use super::taps::{FULL, Pattern, Place};
use super::{Coefficients, Pixels};
use std::arch::aarch64::*;

/// `near`, `far` and `out` are of one length, and `weight` neither 0 nor [`FULL`].
pub fn blend(near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    let (out, out_rest) = out.as_chunks_mut::<32>();
    let ((near, near_rest), (far, far_rest)) = (near.as_chunks::<32>(), far.as_chunks::<32>());
    // SAFETY: the processor has NEON, and vectors are read from and written to 32 bytes.
    unsafe {
        let (whole, part) = (vdupq_n_u8(FULL - weight), vdupq_n_u8(weight));
        let mean = |a, b| {
            if weight == FULL / 2 {
                return vrhaddq_u8(a, b);
            }
            let low = vmull_u8(vget_low_u8(a), vget_low_u8(whole));
            let low = vmlal_u8(low, vget_low_u8(b), vget_low_u8(part));
            let high = vmlal_high_u8(vmull_high_u8(a, whole), b, part);
            vrshrn_high_n_u16::<7>(vrshrn_n_u16::<7>(low), high)
        };
        for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
            let (a, b) = (vld1q_u8_x2(near.as_ptr()), vld1q_u8_x2(far.as_ptr()));
            vst1q_u8_x2(out.as_mut_ptr(), uint8x16x2_t(mean(a.0, b.0), mean(a.1, b.1)));
        }
    }
    super::portable::blend(near_rest, far_rest, weight, out_rest);
}

/// Rows that are transposed at once.
pub const TRANSPOSED: usize = 16;

/// Sixteen columns of [`TRANSPOSED`] rows of `from` as rows of `to`, `stride` and `to_stride` apart.
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
    // long as there are taps of luma, and that those of chroma are as many.
    unsafe { by_pattern!(rows, job, pixels, out) }
}

const SAME: u8 = Pattern::Same as u8;
const HALF: u8 = Pattern::Half as u8;
const CLOSE: u8 = Pattern::Close as u8;
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
            let scaled = |of: Wide, coefficient| of.map(|half| vqrdmulhq_n_s16(half, coefficient));
            let both = |of: unsafe fn(int16x8_t, int16x8_t) -> int16x8_t, a: Wide, b: Wide| {
                [of(a[0], b[0]), of(a[1], b[1])]
            };
            let chosen = choice::<CHROMA>(chroma);
            let [u, v] = [lines.u, lines.v].map(|line| samples::<CHROMA>(line, chroma, chosen));
            let green = both(vaddq_s16, scaled(u, green_u), scaled(v, green_v));
            let colour = [
                scaled(v, red_v).map(|half| vaddq_s16(half, offsets[0])),
                green.map(|half| vsubq_s16(offsets[1], half)),
                scaled(u, blue_u).map(|half| vaddq_s16(half, offsets[2])),
            ];
            let chosen = choice::<LUMA>(luma);
            for (line, out) in lines.y.iter().zip(&out) {
                let y = scaled(samples::<LUMA>(line, luma, chosen), y_luma);
                store::<BYTES>(colour.map(|of| both(vaddq_s16, y, of)), out.add(luma.first * BYTES));
            }
        }
    }
}

/// Which bytes of a block's windows, one after the other, are the samples of its pixels, and what they weigh.
#[derive(Clone, Copy)]
struct Choice {
    places: uint8x16x2_t,
    weights: uint8x16x2_t,
}

/// What a block says, once for all rows.
#[inline]
fn choice<const PATTERN: u8>(place: Place<'_>) -> Choice {
    // SAFETY: the processor has NEON, and a block's arrays have 32 bytes.
    unsafe {
        let of = |bytes: &[u8; 32]| vld2q_u8(bytes.as_ptr());
        let moved = |uint8x16x2_t(first, second): uint8x16x2_t, low, high| {
            let by = vcombine_u8(vdup_n_u8(low), vdup_n_u8(high));
            uint8x16x2_t(vaddq_u8(first, by), vaddq_u8(second, by))
        };
        let places = match PATTERN {
            SAME | HALF | CLOSE => of(&place.block.places),
            // What is not in one of the windows is far beyond all four.
            FAR => {
                let (near, far) =
                    (moved(of(&place.block.places), 0, 32), moved(of(&place.far.places), 16, 48));
                uint8x16x2_t(vminq_u8(near.0, far.0), vminq_u8(near.1, far.1))
            }
            _ => moved(of(&place.block.places), 0, 16),
        };
        Choice { places, weights: of(&place.block.weights) }
    }
}

/// A block's samples in 1/128.
///
/// # Safety
/// The block is one of sixteen taps of this pattern, or of one that is denser than [`Pattern::Near`], and `line` is as
/// long as they reach.
#[inline]
unsafe fn samples<const PATTERN: u8>(
    line: &[u8],
    place: Place<'_>,
    Choice { places, weights }: Choice,
) -> Wide {
    let line = line.as_ptr();
    // SAFETY: 16 bytes from each window on lie within the line, and where samples stand side by side all that there are
    // from the start on: 16, or 32 of pairs.
    unsafe {
        let window = |at: u32| vld1q_u8(line.add(at as usize));
        let [low, high] = place.block.windows;
        let (first, second) = match PATTERN {
            SAME => {
                let samples = vld1q_u8(line.add(place.origin + place.first));
                return [vshll_n_u8::<7>(vget_low_u8(samples)), vshll_high_n_u8::<7>(samples)].map(signed);
            }
            HALF => {
                let uint8x16x2_t(first, second) = vld2q_u8(line.add(place.origin + 2 * place.first));
                let sums = [vaddl_u8(vget_low_u8(first), vget_low_u8(second)), vaddl_high_u8(first, second)];
                return sums.map(|sum| signed(vshlq_n_u16::<6>(sum)));
            }
            CLOSE => {
                let window = window(low);
                (vqtbl1q_u8(window, places.0), vqtbl1q_u8(window, places.1))
            }
            FAR => {
                let [far_low, far_high] = place.far.windows.map(window);
                let windows = uint8x16x4_t(window(low), far_low, window(high), far_high);
                (vqtbl4q_u8(windows, places.0), vqtbl4q_u8(windows, places.1))
            }
            _ => {
                let windows = uint8x16x2_t(window(low), window(high));
                (vqtbl2q_u8(windows, places.0), vqtbl2q_u8(windows, places.1))
            }
        };
        let low = vmull_u8(vget_low_u8(first), vget_low_u8(weights.0));
        let high = vmull_high_u8(first, weights.0);
        [
            signed(vmlal_u8(low, vget_low_u8(second), vget_low_u8(weights.1))),
            signed(vmlal_high_u8(high, second, weights.1)),
        ]
    }
}

/// None is above 32,640.
#[inline]
fn signed(samples: uint16x8_t) -> int16x8_t {
    // SAFETY: the processor has NEON.
    unsafe { vreinterpretq_s16_u16(samples) }
}

/// Sixteen pixels of R, G, B in 1/32.
///
/// # Safety
/// `BYTES` is 4 (XRGB8888) or 2 (RGB565), and 16 pixels may be written to `to`.
#[inline]
unsafe fn store<const BYTES: usize>([red, green, blue]: [Wide; 3], to: *mut u8) {
    // SAFETY: 64 or 32 bytes are ours.
    unsafe {
        if BYTES == 4 {
            let bytes = |[low, high]: Wide| vqshrun_high_n_s16::<5>(vqshrun_n_s16::<5>(low), high);
            vst4q_u8(to, uint8x16x4_t(bytes(blue), bytes(green), bytes(red), vdupq_n_u8(0)));
        } else {
            // From the highest bit on, what lies beyond taken for the ends of the range.
            let packed = |half: usize| {
                let [red, green, blue] = [red, green, blue].map(|channel| vqshluq_n_s16::<3>(channel[half]));
                let only = |channel, bits| vandq_u16(channel, vdupq_n_u16(bits));
                let red_green = vsraq_n_u16::<5>(only(red, 0xf800), only(green, 0xfc00));
                vreinterpretq_u8_u16(vsraq_n_u16::<11>(red_green, blue))
            };
            vst1q_u8(to, packed(0));
            vst1q_u8(to.add(16), packed(1));
        }
    }
}
