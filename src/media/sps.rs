//! H.264 sequence parameter sets: what they say of size, profile and colour. Bounded, whatever the bytes.

use super::frame::{Colour, Matrix};
use crate::geometry::Size;

/// What a sequence parameter set says of the pictures after it (H.264, 7.3.2.1.1 and E.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// profile_idc: 66 Baseline, 77 Main, 100 High.
    pub profile: u8,
    /// Size of the shown picture, cropping applied.
    pub size: Size,
    /// BT.601 and limited range where the stream is silent.
    pub colour: Colour,
    /// chroma_format_idc: 1 is 4:2:0.
    pub chroma_format: u32,
    /// More than 8 bits a sample.
    pub deep: bool,
}

impl Parameters {
    /// Reads a set without its NAL header; `None` if it is cut short or out of the standard's ranges.
    pub fn read(set: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(set);
        let profile = bits.bits(8)? as u8;
        bits.bits(16)?;
        bits.ue()?;
        let (mut chroma_format, mut deep) = (1, false);
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            chroma_format = bits.ue()?;
            if chroma_format == 3 {
                bits.bits(1)?;
            }
            deep = (bits.ue()? | bits.ue()?) != 0;
            bits.bits(1)?;
            if bits.bits(1)? == 1 {
                for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                    if bits.bits(1)? == 1 {
                        bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.ue()?;
        match bits.ue()? {
            0 => drop(bits.ue()?),
            1 => {
                bits.bits(1)?;
                bits.ue()?;
                bits.ue()?;
                let cycle = bits.ue()?;
                if cycle > 255 {
                    return None;
                }
                for _ in 0..cycle {
                    bits.ue()?;
                }
            }
            2 => {}
            _ => return None,
        }
        bits.ue()?;
        bits.bits(1)?;
        let (across, down) = (bits.ue()?.checked_add(1)?, bits.ue()?.checked_add(1)?);
        let frames_only = bits.bits(1)?;
        if frames_only == 0 {
            bits.bits(1)?;
        }
        bits.bits(1)?;
        let mut crop = [0; 4];
        if bits.bits(1)? == 1 {
            for edge in &mut crop {
                *edge = bits.ue()?;
            }
        }
        let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma_format == 1 { 2 } else { 1 } * (2 - frames_only);
        let side = |blocks: u32, crops: [u32; 2], unit: u32| {
            blocks.checked_mul(16)?.checked_sub(crops[0].checked_add(crops[1])?.checked_mul(unit)?)
        };
        let size = Size::new(
            side(across, [crop[0], crop[1]], unit_x)?,
            side(down.checked_mul(2 - frames_only)?, [crop[2], crop[3]], unit_y)?,
        );
        if size.is_empty() {
            return None;
        }
        let colour = bits.colour().unwrap_or_default();
        Some(Self { profile, size, colour, chroma_format, deep })
    }
}

/// Reads bits, most significant first, leaving out emulation prevention bytes (H.264, 7.3.1). All reads end at
/// the end of the bytes.
pub(super) struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    zeros: u32,
    current: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), zeros: 0, current: 0, left: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            let mut byte = *self.bytes.next()?;
            if self.zeros >= 2 && byte == 3 {
                self.zeros = 0;
                byte = *self.bytes.next()?;
            }
            self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
            (self.current, self.left) = (byte, 8);
        }
        self.left -= 1;
        Some(u32::from(self.current >> self.left) & 1)
    }

    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | self.bit()?))
    }

    /// Unsigned Exp-Golomb (H.264, 9.1), below 2^31.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 30 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Skips a scaling list (H.264, 7.3.2.1.1.1).
    pub(super) fn scaling_list(&mut self, length: u32) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..length {
            if next != 0 {
                let code = i64::from(self.ue()?);
                let delta = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
                next = (last + delta).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }

    /// The colour of the VUI, if it is there.
    pub(super) fn colour(&mut self) -> Option<Colour> {
        let mut colour = Colour::default();
        if self.bits(1)? == 0 {
            return None;
        }
        // Extended_SAR carries two 16-bit numbers.
        if self.bits(1)? == 1 && self.bits(8)? == 255 {
            self.bits(32)?;
        }
        if self.bits(1)? == 1 {
            self.bits(1)?;
        }
        if self.bits(1)? == 1 {
            self.bits(3)?;
            colour.full_range = self.bits(1)? == 1;
            if self.bits(1)? == 1 {
                self.bits(16)?;
                if self.bits(8)? == 1 {
                    colour.matrix = Matrix::Bt709;
                }
            }
        }
        Some(colour)
    }
}
