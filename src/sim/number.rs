//! A frame number drawn into the picture itself, so that what arrives on a screen can be told from what was sent.
//!
//! Sixteen by three blocks in the middle of the picture, where `cover` does not cut: 16 bits of number, 32 bits of
//! check, black or white, most significant bit at the upper left.

use crate::geometry::{self, Fit, ONE_PIXEL, Placement, Rect, Size};
use crate::media::canvas::Canvas;
use crate::media::frame::Frame;

const COLUMNS: u32 = 16;
const ROWS: u32 = 3;
/// Luma of a block, well inside the limited range.
const DARK: u8 = 32;
const LIGHT: u8 = 219;

/// The middle half of the width, an eighth of the height.
fn band(size: Size) -> Rect {
    let (width, height) = (size.width / 2 / COLUMNS * COLUMNS, size.height / 8 / ROWS * ROWS);
    Rect::new((size.width - width) / 2, (size.height - height) / 2, width, height)
}

/// What a blurred, torn or foreign picture does not have right: even where no picture of this kind is, nobody reads
/// a number.
fn check(number: u16) -> u32 {
    u32::from(number).wrapping_mul(0x9E37_79B1) ^ 0x5A5A_5A5A
}

/// Draws `number` into the middle of the frame, grey blocks without colour.
pub fn draw(frame: &mut Frame, number: u16) {
    let (size, bits) = (frame.size(), u64::from(number) << 32 | u64::from(check(number)));
    let band = band(size);
    let (across, down) = (band.width / COLUMNS, band.height / ROWS);
    let [luma, u, v] = frame.planes_mut();
    for y in 0..band.height {
        let start = (band.y + y) as usize * size.width as usize + band.x as usize;
        let row = &mut luma[start..start + band.width as usize];
        for (column, block) in row.chunks_mut(across as usize).enumerate() {
            let bit = COLUMNS * ROWS - 1 - (y / down * COLUMNS + column as u32);
            block.fill(if bits >> bit & 1 == 1 { LIGHT } else { DARK });
        }
    }
    for y in band.y / 2..band.bottom().div_ceil(2) {
        let start = y as usize * (size.width / 2) as usize + (band.x / 2) as usize;
        for plane in [&mut *u, &mut *v] {
            plane[start..start + band.width.div_ceil(2) as usize].fill(128);
        }
    }
}

/// Reads the number back from where a picture of `picture` size was placed into `area` (logical coordinates) of a
/// screen with `fit`, mirrored or not. `None` if there is none that can be trusted.
pub fn read(canvas: &Canvas, picture: Size, area: Rect, fit: Fit) -> Option<u16> {
    let upright = bits(canvas, picture, area, fit)?;
    let mirrored = (0..ROWS).fold(0, |bits: u64, row| {
        let line = upright >> ((ROWS - 1 - row) * COLUMNS) & ((1 << COLUMNS) - 1);
        bits << COLUMNS | line.reverse_bits() >> (u64::BITS - COLUMNS)
    });
    [upright, mirrored].into_iter().find_map(|bits| {
        let number = (bits >> 32) as u16;
        (check(number) == bits as u32).then_some(number)
    })
}

fn bits(canvas: &Canvas, picture: Size, area: Rect, fit: Fit) -> Option<u64> {
    let Placement { source, target } = geometry::place(picture, area, fit)?;
    if !Rect::of(canvas.logical_size()).contains(target) {
        return None;
    }
    let band = band(picture);
    let mut bits = 0;
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            // The middle of a block, in the picture and then on the screen.
            let x =
                (band.x + band.width / COLUMNS * column) * ONE_PIXEL + band.width * (ONE_PIXEL / 2) / COLUMNS;
            let y = (band.y + band.height / ROWS * row) * ONE_PIXEL + band.height * (ONE_PIXEL / 2) / ROWS;
            let x = scaled(x.checked_sub(source.x)?, target.width, source.width)?;
            let y = scaled(y.checked_sub(source.y)?, target.height, source.height)?;
            bits = bits << 1 | u64::from(canvas.pixel(target.x + x, target.y + y).green >= 128);
        }
    }
    Some(bits)
}

/// `value * to / from`, if it is less than `to`.
fn scaled(value: u32, to: u32, from: u32) -> Option<u32> {
    let scaled = u64::from(value) * u64::from(to) / u64::from(from);
    u32::try_from(scaled).ok().filter(|scaled| *scaled < to)
}
