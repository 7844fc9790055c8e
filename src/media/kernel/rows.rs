//! Rows of the screen as every kernel with vectors goes about them.

use super::taps::Taps;
use super::{Coefficients, Lines};

/// What `ROWS` rows are made of.
#[derive(Clone, Copy)]
pub struct Job<'a, const ROWS: usize> {
    pub luma: &'a Taps,
    pub chroma: &'a Taps,
    pub coefficients: Coefficients,
    pub lines: Lines<'a, ROWS>,
    /// Bytes from what is written to what will be after it.
    // Elsewhere the processor itself sees to what comes next.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub ahead: usize,
}

/// Calls the kernel's `rows::<ROWS, BYTES, LUMA, CHROMA>(job, out)` for bytes a pixel and the patterns of both taps; rows
/// whose samples are scattered are the portable kernel's. A pattern stands for itself, and what is denser than `Near` has
/// blocks like it.
macro_rules! by_pattern {
    ($rows:ident, $job:expr, $pixels:expr, $out:expr) => {{
        use super::Pixels::{Rgb565, Xrgb8888};
        use super::taps::Pattern::{Close, Far, Half, Near, Same};
        let (job, out) = ($job, $out);
        macro_rules! of {
            ($luma:expr, $chroma:expr) => {
                match $pixels {
                    Xrgb8888 => $rows::<ROWS, 4, { $luma as u8 }, { $chroma as u8 }>(job, out),
                    Rgb565 => $rows::<ROWS, 2, { $luma as u8 }, { $chroma as u8 }>(job, out),
                }
            };
        }
        match (job.luma.pattern(), job.chroma.pattern()) {
            (Same, Close) => of!(Same, Close),
            (Half, Same) => of!(Half, Same),
            (Half, Half | Near) => of!(Half, Near),
            (Close, Close) => of!(Close, Close),
            (Near, Same | Half | Near) => of!(Near, Near),
            (Far, Far) => of!(Far, Far),
            (Far, Same | Half | Near) => of!(Far, Near),
            _ => super::portable::write(job, $pixels, out),
        }
    }};
}
pub(super) use by_pattern;
