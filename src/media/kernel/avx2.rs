//! The kernel for x86-64 processors with AVX2 (2013 on).
#![allow(unsafe_code)]

use super::rows::{Job, by_pattern};
use super::taps::{FULL, Pattern, Place, stored};
use super::{Coefficients, Pixels};
use std::arch::asm;
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
    let mut at = 0;
    while at < line.len() {
        // SAFETY: the processor has SSE, as all of x86-64; a hint touches nothing, and its place lies within the line.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().add(at).cast()) };
        at += 64;
    }
}

/// Rows that are transposed at once: sixteen in each half of a vector.
pub const TRANSPOSED: usize = 32;

/// Sixteen columns of [`TRANSPOSED`] rows of `from` as rows of `to`, `stride` and `to_stride` apart.
///
/// # Panics
/// If one of them is shorter than that.
pub fn transpose(_: Proof, from: &[u8], stride: usize, to: &mut [u8], to_stride: usize) {
    // SAFETY: the proof says that the processor has AVX2.
    unsafe { transposed(from, stride, to, to_stride) }
}

#[target_feature(enable = "avx2")]
fn transposed(from: &[u8], stride: usize, to: &mut [u8], to_stride: usize) {
    assert!(from.len() >= 31 * stride + 16 && to.len() >= 15 * to_stride + 32);
    let mut square = [_mm256_setzero_si256(); 16];
    for (row, vector) in square.iter_mut().enumerate() {
        // SAFETY: 16 bytes each, the last of which lie within what was just seen to be there.
        *vector = unsafe {
            let half = |row| _mm_loadu_si128(from.as_ptr().add(row * stride).cast());
            _mm256_setr_m128i(half(row), half(row + 16))
        };
    }
    // Rows that are eight apart interleaved: the digits of each sample's place move on by one, and after four times row
    // and column have changed sides.
    for _ in 0..4 {
        let before = square;
        for row in 0..8 {
            square[2 * row] = _mm256_unpacklo_epi8(before[row], before[row + 8]);
            square[2 * row + 1] = _mm256_unpackhi_epi8(before[row], before[row + 8]);
        }
    }
    for (row, vector) in square.into_iter().enumerate() {
        // SAFETY: 32 bytes each, the last of which lie within what was seen to be there.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(row * to_stride).cast(), vector) };
    }
}

/// As [`super::Kernel::write`], whose checks were made.
pub fn write<const ROWS: usize>(_: Proof, job: Job<'_, ROWS>, pixels: Pixels, out: [&mut [u8]; ROWS]) {
    // SAFETY: the proof says that the processor has AVX2. `Kernel::write` has seen that lines are as long as their taps reach, rows as
    // long as there are taps of luma, and that those of chroma are as many.
    unsafe { by_pattern!(rows, job, pixels, out) }
}

/// Weighted means of whole vectors, the last of which lies over the one before as far as it must.
#[target_feature(enable = "avx2")]
fn blended(near: &[u8], far: &[u8], weight: u8, out: &mut [u8]) {
    const VECTOR: usize = 32;
    let length = out.len();
    assert!(near.len() == length && far.len() == length);
    let Some(last) = length.checked_sub(VECTOR) else {
        return super::portable::blend(near, far, weight, out);
    };
    let (near, far, out) = (near.as_ptr(), far.as_ptr(), out.as_mut_ptr());
    let weights = _mm256_set1_epi16(i16::from_le_bytes([FULL - weight, weight]));
    let mut at = 0;
    loop {
        // SAFETY: `at` is at most `last`, from which on each has a whole vector.
        unsafe {
            let (a, b) = (_mm256_loadu_si256(near.add(at).cast()), _mm256_loadu_si256(far.add(at).cast()));
            let mean = if weight == FULL / 2 { _mm256_avg_epu8(a, b) } else { weighted(a, b, weights) };
            _mm256_storeu_si256(out.add(at).cast(), mean);
        }
        if at == last {
            return;
        }
        at = (at + VECTOR).min(last);
    }
}

/// `weights` of `a` and `b`, in 1/128, to the nearest.
#[inline]
#[target_feature(enable = "avx2")]
fn weighted(a: __m256i, b: __m256i, weights: __m256i) -> __m256i {
    // Times 2⁸ by 2⁻¹⁵, rounded: by 2⁻⁷.
    let by_seven = _mm256_set1_epi16(1 << 8);
    let low = _mm256_mulhrs_epi16(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), weights), by_seven);
    let high = _mm256_mulhrs_epi16(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), weights), by_seven);
    _mm256_packus_epi16(low, high)
}

const SAME: u8 = Pattern::Same as u8;
const HALF: u8 = Pattern::Half as u8;
const CLOSE: u8 = Pattern::Close as u8;
const FAR: u8 = Pattern::Far as u8;

/// What is added to a channel in 1/32, so that a sum that saturates is none above 255 and 31/32, and taken away again,
/// which leaves none below 0. There is room for it: without luma no channel of any matrix is above 8191.
const BIAS: u16 = u16::MAX - 0x1fff;

/// Whether pixels 4–7 and 8–11 of sixteen stand in each other's place until they are stored.
const fn crossed(luma: u8) -> bool {
    luma == SAME || luma == CLOSE
}

/// Rows of `BYTES` a pixel.
///
/// # Safety
/// Lines are as long as their taps reach, rows as long as `BYTES` times the taps of luma; there are as many blocks of
/// chroma, and all are as the patterns want them.
#[target_feature(enable = "avx2")]
unsafe fn rows<const ROWS: usize, const BYTES: usize, const LUMA: u8, const CHROMA: u8>(
    Job { luma, chroma, coefficients, lines, ahead }: Job<'_, ROWS>,
    out: [&mut [u8]; ROWS],
) {
    let Coefficients { luma: y_luma, red_v, green_u, green_v, blue_u, offsets } = coefficients;
    // Samples come negative. Vectors are in none of the closures here: `map` and its like are not made of AVX2, and what
    // they call is inlined only if they are.
    let [y_luma, red_v, green_u, green_v, blue_u] =
        [y_luma, red_v, green_u, green_v, blue_u].map(|coefficient| -coefficient);
    let [red_offset, green_offset, blue_offset] =
        offsets.map(|offset| offset.wrapping_add(BIAS.cast_signed()));
    let out = out.map(|row| row.as_mut_ptr());
    for (luma, chroma) in luma.places().zip(chroma.places()) {
        // SAFETY: windows lie within a line that is as long as the taps reach.
        let (u, v) =
            unsafe { (samples::<CHROMA, LUMA>(lines.u, chroma), samples::<CHROMA, LUMA>(lines.v, chroma)) };
        let green = _mm256_add_epi16(scaled(u, green_u), scaled(v, green_v));
        let red = _mm256_add_epi16(scaled(v, red_v), _mm256_set1_epi16(red_offset));
        let green = _mm256_sub_epi16(_mm256_set1_epi16(green_offset), green);
        let blue = _mm256_add_epi16(scaled(u, blue_u), _mm256_set1_epi16(blue_offset));
        for (line, out) in lines.y.iter().zip(&out) {
            // SAFETY: as above, and a block ends within the row.
            unsafe {
                let y = scaled(samples::<LUMA, LUMA>(line, luma), y_luma);
                let rgb = [channel(y, red), channel(y, green), channel(y, blue)];
                let out = out.add(luma.first * BYTES);
                put::<BYTES, LUMA>(rgb, out);
                expect(out.wrapping_add(ahead));
            }
        }
    }
}

/// Has a line of the cache ready to be written. Else stores wait for what they are about to replace: the screen is larger
/// than the second cache, and each row of a tile begins on another page, where the processor does not look ahead.
#[inline]
#[target_feature(enable = "avx2")]
fn expect(place: *const u8) {
    // SAFETY: a hint, which touches nothing; processors that do not know it pass over it.
    unsafe { asm!("prefetchw [{}]", in(reg) place.addr(), options(nomem, nostack, preserves_flags)) };
}

/// Samples times a coefficient, in 1/32, to the nearest.
#[inline]
#[target_feature(enable = "avx2")]
fn scaled(samples: __m256i, coefficient: i16) -> __m256i {
    _mm256_mulhrs_epi16(samples, _mm256_set1_epi16(coefficient))
}

/// What luma and colour are together, none above 255 and 31/32 and none below 0.
#[inline]
#[target_feature(enable = "avx2")]
fn channel(luma: __m256i, colour: __m256i) -> __m256i {
    _mm256_subs_epu16(_mm256_adds_epu16(luma, colour), _mm256_set1_epi16(BIAS.cast_signed()))
}

/// A block's samples of one line in 1/128, negative, in the order of what luma's pattern is.
///
/// # Safety
/// The block is one of sixteen taps of this pattern, or of one that is denser than [`Pattern::Near`], and `line` is as
/// long as they reach.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn samples<const PATTERN: u8, const LUMA: u8>(line: &[u8], place: Place<'_>) -> __m256i {
    let line = line.as_ptr();
    // SAFETY: 16 bytes from each window on lie within the line, and where samples stand side by side all that there are
    // from the start on: 16, or 32 of pairs. A block's arrays have 32 bytes.
    unsafe {
        let weight = |weight| _mm256_set1_epi8(stored(weight) as i8);
        match PATTERN {
            SAME => {
                let samples = _mm_loadu_si128(line.add(place.origin + place.first).cast());
                let pairs = match crossed(LUMA) {
                    true => _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(samples), crossing()),
                    false => _mm256_cvtepu8_epi16(samples),
                };
                _mm256_maddubs_epi16(pairs, weight(FULL))
            }
            HALF => {
                let pairs = _mm256_loadu_si256(line.add(place.origin + 2 * place.first).cast());
                _mm256_maddubs_epi16(pairs, weight(FULL / 2))
            }
            _ => {
                let windows = |[low, high]: [u32; 2]| {
                    let window = |at: u32| _mm_loadu_si128(line.add(at as usize).cast());
                    match PATTERN {
                        CLOSE => _mm256_broadcastsi128_si256(window(low)),
                        _ => _mm256_setr_m128i(window(low), window(high)),
                    }
                };
                let bytes = |bytes: &[u8; 32]| _mm256_loadu_si256(bytes.as_ptr().cast());
                let mut pairs = _mm256_shuffle_epi8(windows(place.block.windows), bytes(&place.block.places));
                if PATTERN == FAR {
                    let others = _mm256_shuffle_epi8(windows(place.far.windows), bytes(&place.far.places));
                    pairs = _mm256_or_si256(pairs, others);
                }
                _mm256_maddubs_epi16(pairs, bytes(&place.block.weights))
            }
        }
    }
}

/// Places of sixteen samples one after the other, each with nothing beside it.
#[inline]
#[target_feature(enable = "avx2")]
fn crossing() -> __m256i {
    #[rustfmt::skip]
    const PLACES: [i8; 32] = [
        0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1, 4, -1, 5, -1, 6, -1, 7, -1, 12, -1, 13, -1, 14, -1, 15, -1,
    ];
    // SAFETY: they are 32 bytes.
    unsafe { _mm256_loadu_si256(PLACES.as_ptr().cast()) }
}

/// Sixteen pixels of R, G, B in 1/32, from 0 to 255 and 31/32.
///
/// # Safety
/// `BYTES` is 4 (XRGB8888) or 2 (RGB565), and 16 pixels may be written to `to`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn put<const BYTES: usize, const LUMA: u8>([red, green, blue]: [__m256i; 3], to: *mut u8) {
    let only = |value, bits: u16| _mm256_and_si256(value, _mm256_set1_epi16(bits.cast_signed()));
    if BYTES == 4 {
        let green = only(_mm256_slli_epi16::<3>(green), 0xff00);
        let blue_green = _mm256_or_si256(_mm256_srli_epi16::<5>(blue), green);
        let red_none = _mm256_srli_epi16::<5>(red);
        // Eight pixels each, in the lower and the upper half.
        let (even, odd) =
            (_mm256_unpacklo_epi16(blue_green, red_none), _mm256_unpackhi_epi16(blue_green, red_none));
        let [first, second] = match crossed(LUMA) {
            true => [even, odd],
            false => {
                [_mm256_permute2x128_si256::<0x20>(even, odd), _mm256_permute2x128_si256::<0x31>(even, odd)]
            }
        };
        // SAFETY: 64 bytes are ours.
        unsafe {
            _mm256_storeu_si256(to.cast(), first);
            _mm256_storeu_si256(to.add(32).cast(), second);
        }
    } else {
        let (red, green) =
            (_mm256_slli_epi16::<3>(only(red, 0x1f00)), _mm256_srli_epi16::<2>(only(green, 0x1f80)));
        let pixels = _mm256_or_si256(_mm256_or_si256(red, green), _mm256_srli_epi16::<8>(blue));
        let pixels = if crossed(LUMA) { _mm256_permute4x64_epi64::<0b11_01_10_00>(pixels) } else { pixels };
        // SAFETY: 32 bytes are ours.
        unsafe { _mm256_storeu_si256(to.cast(), pixels) };
    }
}
