//! The kernel for x86-64 processors with AVX2 (2013 on).
#![allow(unsafe_code)]

use super::rows::{Job, by_pattern};
use super::taps::{FULL, Pattern, Place};
use super::{Coefficients, Pixels};
use std::arch::x86_64::*;

/// That the processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(());

impl Proof {
    pub fn find() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// `near`, `far` and `out` are of one length, and `weight` neither 0 nor [`FULL`].
pub fn blend(_: Proof, near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    // SAFETY: the proof says that the processor has AVX2.
    unsafe { blended(near, far, weight, out) }
}

/// Asks for the line to be brought into the first cache.
pub fn fetch(_: Proof, line: &[u8]) {
    for part in line.chunks(64) {
        // SAFETY: the processor has SSE, as all of x86-64; and a hint touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().cast()) };
    }
}

/// As [`super::Kernel::write`], whose checks were made.
pub fn write<const ROWS: usize>(_: Proof, job: Job<'_, ROWS>, pixels: Pixels, out: [&mut [u8]; ROWS]) {
    // SAFETY: the proof says that the processor has AVX2. `Kernel::write` has seen that lines are as long as their taps reach, rows as
    // long as there are taps of luma, and that those of chroma are as many or half of that.
    unsafe { by_pattern!(rows, job, pixels, out) }
}

/// Weighted means of whole vectors, then of the rest.
#[target_feature(enable = "avx2")]
fn blended(near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    let weights = _mm256_set1_epi16(i16::from_le_bytes([FULL - weight, weight]));
    let half = _mm256_set1_epi16(64);
    let (out, out_rest) = out.as_chunks_mut::<32>();
    let ((near, near_rest), (far, far_rest)) = (near.as_chunks::<32>(), far.as_chunks::<32>());
    for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
        // SAFETY: each is 32 bytes long.
        let (a, b) =
            unsafe { (_mm256_loadu_si256(near.as_ptr().cast()), _mm256_loadu_si256(far.as_ptr().cast())) };
        let mean = if weight == FULL / 2 {
            _mm256_avg_epu8(a, b)
        } else {
            let of =
                |pairs| _mm256_srli_epi16::<7>(_mm256_add_epi16(_mm256_maddubs_epi16(pairs, weights), half));
            _mm256_packus_epi16(of(_mm256_unpacklo_epi8(a, b)), of(_mm256_unpackhi_epi8(a, b)))
        };
        // SAFETY: it is 32 bytes long.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), mean) };
    }
    super::portable::blend(near_rest, far_rest, weight, out_rest);
}

const SAME: u8 = Pattern::Same as u8;
const HALF: u8 = Pattern::Half as u8;
const FAR: u8 = Pattern::Far as u8;

/// Rows of `BYTES` a pixel; each two pixels have one tap of chroma if `SHARED`.
///
/// # Safety
/// Lines are as long as their taps reach, rows as long as `BYTES` times the taps of luma; there are as many blocks of
/// chroma, and all are as the patterns want them.
#[target_feature(enable = "avx2")]
unsafe fn rows<
    const ROWS: usize,
    const BYTES: usize,
    const SHARED: bool,
    const LUMA: u8,
    const CHROMA: u8,
>(
    Job { luma, chroma, coefficients, lines }: Job<'_, ROWS>,
    out: [&mut [u8]; ROWS],
) {
    let Coefficients { luma: y_luma, red_v, green_u, green_v, blue_u, middle } = coefficients;
    let (y_luma, middle) = (_mm256_set1_epi16(y_luma), _mm256_set1_epi16(middle));
    // Shared samples have U in the lower half and V in the upper.
    let halves = |low, high| _mm256_setr_m128i(_mm_set1_epi16(low), _mm_set1_epi16(high));
    let (blue_red, greens) = (halves(blue_u, red_v), halves(green_u, green_v));
    let [red_v, green_u, green_v, blue_u] =
        [red_v, green_u, green_v, blue_u].map(|coefficient| _mm256_set1_epi16(coefficient));
    let out = out.map(|row| row.as_mut_ptr());
    for (luma, chroma) in luma.places().zip(chroma.places()) {
        let [red, green, blue] = if SHARED {
            // SAFETY: windows lie within a line that is as long as the taps reach.
            let samples = unsafe { shared_samples::<CHROMA>([lines.u, lines.v], chroma) };
            let (blue_red, greens) =
                (_mm256_mulhrs_epi16(samples, blue_red), _mm256_mulhrs_epi16(samples, greens));
            let green = _mm_add_epi16(_mm256_castsi256_si128(greens), _mm256_extracti128_si256::<1>(greens));
            // Each of eight twice.
            let green = _mm256_permute4x64_epi64::<0x10>(_mm256_castsi128_si256(green));
            let (red, blue) =
                (_mm256_permute4x64_epi64::<0x32>(blue_red), _mm256_permute4x64_epi64::<0x10>(blue_red));
            [red, green, blue].map(|each| _mm256_unpacklo_epi16(each, each))
        } else {
            // SAFETY: as above.
            let [u, v] = unsafe { [samples::<CHROMA>(lines.u, chroma), samples::<CHROMA>(lines.v, chroma)] };
            let green = _mm256_add_epi16(_mm256_mulhrs_epi16(u, green_u), _mm256_mulhrs_epi16(v, green_v));
            [_mm256_mulhrs_epi16(v, red_v), green, _mm256_mulhrs_epi16(u, blue_u)]
        };
        for (line, out) in lines.y.iter().zip(&out) {
            // SAFETY: as above.
            let y = unsafe { samples::<LUMA>(line, luma) };
            let y = _mm256_add_epi16(_mm256_mulhrs_epi16(y, y_luma), middle);
            let rgb = [_mm256_add_epi16(y, red), _mm256_sub_epi16(y, green), _mm256_add_epi16(y, blue)];
            // SAFETY: a block ends within the row.
            unsafe { store::<BYTES>(rgb, out.add(luma.block.first as usize * BYTES)) };
        }
    }
}

/// A block's samples of one line, less 128, in 1/128.
///
/// # Safety
/// The block is one of sixteen taps of this pattern, or of one that is denser than [`Pattern::Near`], and `line` is as
/// long as they reach.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn samples<const PATTERN: u8>(line: &[u8], place: Place<'_>) -> __m256i {
    let line = line.as_ptr();
    // SAFETY: 16 bytes from each window on lie within the line, and where samples stand side by side all that there are
    // from the start on: 16, or 32 of pairs. A block's arrays have 32 bytes.
    unsafe {
        match PATTERN {
            SAME => centred(_mm_loadu_si128(line.add(place.start).cast())),
            HALF => mean(_mm256_loadu_si256(line.add(place.start).cast())),
            _ => {
                let windows = |[low, high]: [u32; 2]| {
                    let window = |at: u32| _mm_loadu_si128(line.add(at as usize).cast());
                    _mm256_setr_m128i(window(low), window(high))
                };
                let bytes = |bytes: &[u8; 32]| _mm256_loadu_si256(bytes.as_ptr().cast());
                let mut pairs = _mm256_shuffle_epi8(windows(place.block.windows), bytes(&place.block.places));
                if PATTERN == FAR
                    && let Some(far) = place.far
                {
                    let others = _mm256_shuffle_epi8(windows(far.windows), bytes(&far.places));
                    pairs = _mm256_or_si256(pairs, others);
                }
                weighted(bytes(&place.block.weights), pairs)
            }
        }
    }
}

/// A block's samples of two lines, those of the second in the upper half.
///
/// # Safety
/// As of [`samples`], with eight taps.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn shared_samples<const PATTERN: u8>(lines: [&[u8]; 2], place: Place<'_>) -> __m256i {
    let lines = lines.map(|line| line.as_ptr());
    // SAFETY: as in `samples`, with half of what stands side by side.
    unsafe {
        let windows = |at: usize| {
            let [u, v] = lines.map(|line| _mm_loadu_si128(line.add(at).cast()));
            _mm256_setr_m128i(u, v)
        };
        match PATTERN {
            SAME => {
                let [u, v] = lines.map(|line| _mm_loadl_epi64(line.add(place.start).cast()));
                centred(_mm_unpacklo_epi64(u, v))
            }
            HALF => mean(windows(place.start)),
            _ => {
                let twice =
                    |bytes: &[u8; 32]| _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
                let window = windows(place.block.windows[0] as usize);
                let mut pairs = _mm256_shuffle_epi8(window, twice(&place.block.places));
                if PATTERN == FAR
                    && let Some(far) = place.far
                {
                    let window = windows(far.windows[0] as usize);
                    pairs = _mm256_or_si256(pairs, _mm256_shuffle_epi8(window, twice(&far.places)));
                }
                weighted(twice(&place.block.weights), pairs)
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn centred(samples: __m128i) -> __m256i {
    _mm256_slli_epi16::<7>(_mm256_sub_epi16(_mm256_cvtepu8_epi16(samples), _mm256_set1_epi16(128)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn mean(pairs: __m256i) -> __m256i {
    weighted(_mm256_set1_epi8(64), pairs)
}

#[inline]
#[target_feature(enable = "avx2")]
fn weighted(weights: __m256i, pairs: __m256i) -> __m256i {
    _mm256_maddubs_epi16(weights, _mm256_xor_si256(pairs, _mm256_set1_epi8(-128)))
}

/// Sixteen pixels of R, G, B in 1/32.
///
/// # Safety
/// `BYTES` is 4 (XRGB8888) or 2 (RGB565), and 16 pixels may be written to `to`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<const BYTES: usize>([red, green, blue]: [__m256i; 3], to: *mut u8) {
    let zero = _mm256_setzero_si256();
    if BYTES == 4 {
        let byte = |value| _mm256_srai_epi16::<5>(value);
        let blue_red = _mm256_packus_epi16(byte(blue), byte(red));
        let green_none = _mm256_packus_epi16(byte(green), zero);
        // B G of eight pixels, then R X of them, within each half.
        let blue_green = _mm256_unpacklo_epi8(blue_red, green_none);
        let red_none = _mm256_unpackhi_epi8(blue_red, green_none);
        let (low, high) =
            (_mm256_unpacklo_epi16(blue_green, red_none), _mm256_unpackhi_epi16(blue_green, red_none));
        // SAFETY: 64 bytes are ours.
        unsafe {
            _mm256_storeu_si256(to.cast(), _mm256_permute2x128_si256::<0x20>(low, high));
            _mm256_storeu_si256(to.add(32).cast(), _mm256_permute2x128_si256::<0x31>(low, high));
        }
    } else {
        let most = _mm256_set1_epi16(0x1fff);
        let clamped = |value| _mm256_min_epi16(_mm256_max_epi16(value, zero), most);
        let red = _mm256_slli_epi16::<3>(_mm256_and_si256(clamped(red), _mm256_set1_epi16(0x1f00)));
        let green = _mm256_srli_epi16::<2>(_mm256_and_si256(clamped(green), _mm256_set1_epi16(0x1f80)));
        let blue = _mm256_srli_epi16::<8>(clamped(blue));
        // SAFETY: 32 bytes are ours.
        unsafe { _mm256_storeu_si256(to.cast(), _mm256_or_si256(_mm256_or_si256(red, green), blue)) };
    }
}
