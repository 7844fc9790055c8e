//! Where the pixels of a row are sampled, and the same as processors with vectors want it.

use std::ops::Range;

/// The whole weight: 7 bits.
pub const FULL: u8 = 128;
/// Pixels that are made at once.
pub const BLOCK: usize = 16;
/// Samples that are loaded at once.
pub const WINDOW: usize = 16;

/// One sample between two neighbours of a line: `index`, and the weight of the next one, in 1/128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    pub index: u32,
    pub weight: u8,
}

/// The taps of a row of the screen.
#[derive(Debug)]
pub struct Taps {
    taps: Vec<Tap>,
    range: Range<usize>,
    pattern: Pattern,
    /// The first tap's sample.
    origin: u32,
    blocks: Vec<Block>,
    far_blocks: Vec<FarBlock>,
}

/// What taps have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One to one: the samples themselves.
    Same,
    /// Two to one: the means of pairs.
    Half,
    /// The samples of sixteen pixels lie in one window.
    Close,
    /// The samples of eight pixels lie in one window.
    Near,
    /// The samples of four pixels lie in one window.
    Far,
    /// None of that.
    Scattered,
}

/// Sixteen pixels, their samples as bytes of windows. Small: those of a row are to stay in the first cache.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Block {
    /// For each pixel the places of its two samples in the window of its eight pixels; 0x80 where its window is another.
    /// [`Pattern::Close`] has its pixels where [`slot`] says, all others in order.
    pub places: [u8; 32],
    /// The weights of the two samples, as [`stored`], in the same order.
    pub weights: [u8; 32],
    /// Where the windows of pixels 0–7 and 8–15 begin, which are one if [`Pattern::Close`].
    pub windows: [u32; 2],
}

/// What a [`Block`] has besides where samples lie [`Pattern::Far`] apart: the same for pixels 4–7 and 12–15. Beside it, so
/// that those that need none stay small.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct FarBlock {
    pub places: [u8; 32],
    pub windows: [u32; 2],
}

/// A block, and where its samples are.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub block: &'a Block,
    /// Says something if [`Pattern::Far`].
    pub far: &'a FarBlock,
    /// The first pixel.
    pub first: usize,
    /// The sample of the row's first pixel.
    pub origin: usize,
}

/// A weight as processors multiply it. x86-64 has signed bytes for it, and 128 as a negative one only.
pub const fn stored(weight: u8) -> u8 {
    if cfg!(target_arch = "x86_64") { weight.wrapping_neg() } else { weight }
}

/// Where the pixel of a [`Pattern::Close`] block stands in it. x86-64 interleaves within halves: with 4–7 and 12–15 in
/// the second one, pixels come out in the order of the screen.
const fn slot(pixel: usize) -> usize {
    if cfg!(target_arch = "x86_64") { pixel / 4 % 2 * 8 + pixel / 8 * 4 + pixel % 4 } else { pixel }
}

impl Taps {
    /// `taps` lie within a line of `samples`, of which at least one is needed.
    ///
    /// # Panics
    /// If one lies beyond, or weighs more than [`FULL`].
    pub fn new(taps: Vec<Tap>, samples: usize) -> Self {
        Self::of(taps, samples, Pattern::Same)
    }

    /// The taps of the same pixels in another line, whose blocks have their pixels in the same order as these.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn like(&self, taps: Vec<Tap>, samples: usize) -> Self {
        Self::of(taps, samples, self.pattern)
    }

    fn of(mut taps: Vec<Tap>, samples: usize, beside: Pattern) -> Self {
        for tap in &mut taps {
            assert!((tap.index as usize) < samples && tap.weight <= FULL, "{tap:?} of {samples}");
            // The last sample is the second of its pair, so that each pair lies within the line.
            if tap.index as usize == samples - 1 && samples > 1 {
                *tap = Tap { index: tap.index - 1, weight: FULL };
            }
        }
        let indices = || taps.iter().map(|tap| tap.index as usize);
        let last = (indices().max().unwrap_or(0) + 2).min(samples);
        // At least one window, where the line has one.
        let first = indices().min().unwrap_or(0).min(last.saturating_sub(WINDOW));
        let range = first..last.max(first + WINDOW).min(samples);
        taps.iter_mut().for_each(|tap| tap.index -= first as u32);
        let in_order = !matches!(beside, Pattern::Same | Pattern::Close);
        let pattern = match pattern(&taps, range.len()) {
            Pattern::Close if in_order => Pattern::Near,
            pattern => pattern,
        };
        let (mut blocks, mut far_blocks) = (Vec::new(), Vec::new());
        if pattern != Pattern::Scattered {
            for start in starts(taps.len()) {
                let (block, far) = block(&taps[start..start + BLOCK], range.len(), pattern);
                blocks.push(block);
                far_blocks.push(far);
            }
        }
        let origin = taps.first().map_or(0, |tap| tap.index);
        Self { taps, range, pattern, origin, blocks, far_blocks }
    }

    /// How many taps there are.
    pub fn count(&self) -> usize {
        self.taps.len()
    }

    /// The samples of a line that are needed; the kernel is given these alone.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// How many samples are needed.
    pub fn reach(&self) -> usize {
        self.range.len()
    }

    pub fn as_slice(&self) -> &[Tap] {
        &self.taps
    }

    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The blocks of all taps in order, the last one ending with the last tap; none if [`Pattern::Scattered`].
    #[inline(always)]
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let origin = self.origin as usize;
        let blocks = self.blocks.iter().zip(&self.far_blocks);
        blocks.zip(starts(self.taps.len())).map(move |((block, far), first)| Place {
            block,
            far,
            first,
            origin,
        })
    }
}

/// The first tap of each block.
#[inline(always)]
fn starts(taps: usize) -> impl Iterator<Item = usize> {
    (0..taps.div_ceil(BLOCK)).map(move |block| (block * BLOCK).min(taps - BLOCK))
}

fn pattern(taps: &[Tap], samples: usize) -> Pattern {
    if taps.len() < BLOCK || samples < WINDOW {
        return Pattern::Scattered;
    }
    let first = taps[0].index;
    let every = |step: u32, weight: u8| {
        (0..).zip(taps).all(|(pixel, tap)| {
            // The last one of the line is the second of its pair.
            let same = Tap { index: first + step * pixel, weight };
            *tap == same || step == 1 && *tap == Tap { index: same.index.wrapping_sub(1), weight: FULL }
        })
    };
    let fit =
        |pixels: usize| starts(taps.len()).all(|start| taps[start..start + BLOCK].chunks(pixels).all(fits));
    match () {
        () if every(1, 0) => Pattern::Same,
        () if every(2, FULL / 2) => Pattern::Half,
        () if fit(BLOCK) => Pattern::Close,
        () if fit(8) => Pattern::Near,
        () if fit(4) => Pattern::Far,
        () => Pattern::Scattered,
    }
}

/// Whether the pairs of these pixels lie in one window.
fn fits(taps: &[Tap]) -> bool {
    let indices = || taps.iter().map(|tap| tap.index);
    let (Some(least), Some(most)) = (indices().min(), indices().max()) else { return true };
    ((most - least) as usize) < WINDOW - 1
}

fn block(taps: &[Tap], samples: usize, pattern: Pattern) -> (Block, FarBlock) {
    let each = match pattern {
        Pattern::Close => BLOCK,
        Pattern::Far => 4,
        _ => 8,
    };
    let mut block = Block { places: [0x80; 32], weights: [0; 32], windows: [0; 2] };
    let mut far = FarBlock { places: [0x80; 32], windows: [0; 2] };
    for (pixel, tap) in taps.iter().enumerate() {
        let group = &taps[pixel / each * each..][..each];
        let least = group.iter().map(|tap| tap.index).min().unwrap_or(0);
        // A window that would end beyond the line begins earlier.
        let window = least.min((samples - WINDOW) as u32);
        let (places, windows) = match pixel % 8 < each {
            true => (&mut block.places, &mut block.windows),
            false => (&mut far.places, &mut far.windows),
        };
        windows[pixel / 8] = window;
        let place = (tap.index - window) as u8;
        let at = 2 * if pattern == Pattern::Close { slot(pixel) } else { pixel };
        places[at..at + 2].copy_from_slice(&[place, place + 1]);
        block.weights[at..at + 2].copy_from_slice(&[stored(FULL - tap.weight), stored(tap.weight)]);
    }
    (block, far)
}
