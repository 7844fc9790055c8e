//! What lies over a picture: drawn once, then laid into each row before the row is stored.

use super::canvas::{Canvas, PixelLayout, Rgb};
use crate::geometry::{Rect, Rotation, Size};
use std::ops::Range;

/// Translucent pixels over a part of the screen, row by row, without those that cover nothing.
#[derive(Debug)]
pub struct Overlay {
    /// Physical, on the screen.
    area: Rect,
    /// Of all rows, from above.
    runs: Vec<Run>,
    /// Where each row's runs begin, and the end of the last.
    rows: Vec<usize>,
    pixels: Vec<Veil>,
}

/// Pixels side by side.
#[derive(Debug)]
struct Run {
    /// Columns of the screen.
    columns: Range<u32>,
    /// Its first one among all pixels.
    first: usize,
}

/// A colour in front of another: what it adds, and how much of 255 parts of what is below stays.
#[derive(Clone, Copy, Debug)]
struct Veil {
    adds: Rgb,
    keeps: u8,
}

impl Overlay {
    /// What `paint` paints on a canvas as large as the logical `area` of a screen of physical size `screen`. It is asked
    /// twice, over black and over white: the difference tells how much shines through.
    pub fn of(screen: Size, rotation: Rotation, area: Rect, mut paint: impl FnMut(&mut Canvas)) -> Self {
        let mut over = |ground: Rgb| {
            let mut canvas = Canvas::new(rotation.size(area.size()), PixelLayout::XRGB8888, rotation);
            canvas.fill(Rect::of(area.size()), ground);
            paint(&mut canvas);
            canvas
        };
        let (black, white) = (over(Rgb::BLACK), over(Rgb::WHITE));
        let area = rotation.rect(area, rotation.size(screen));
        let (mut runs, mut rows, mut pixels) = (Vec::<Run>::new(), vec![0], Vec::new());
        let stride = black.stride().max(1);
        for (black, white) in black.data().chunks_exact(stride).zip(white.data().chunks_exact(stride)) {
            let (black, white) = (black.as_chunks::<4>().0, white.as_chunks::<4>().0);
            let mut open = false;
            for (x, (dark, light)) in (area.x..).zip(black.iter().zip(white)) {
                let layout = PixelLayout::XRGB8888;
                let (adds, light) = (layout.read(dark), layout.read(light));
                let keeps = light.green.saturating_sub(adds.green);
                let covers = keeps != 255 || adds != Rgb::BLACK;
                match runs.last_mut() {
                    Some(run) if covers && open => run.columns.end = x + 1,
                    _ if covers => runs.push(Run { columns: x..x + 1, first: pixels.len() }),
                    _ => {}
                }
                open = covers;
                if covers {
                    pixels.push(Veil { adds, keeps });
                }
            }
            rows.push(runs.len());
        }
        Self { area, runs, rows, pixels }
    }

    /// Whether it covers anything of a physical rectangle.
    pub fn touches(&self, rect: Rect) -> bool {
        rect.overlaps(self.area) && (rect.y..rect.bottom()).any(|y| !self.row(y).is_empty())
    }

    fn row(&self, y: u32) -> &[Run] {
        let row = y.checked_sub(self.area.y).map(|row| row as usize);
        row.and_then(|row| Some(&self.runs[*self.rows.get(row)?..*self.rows.get(row + 1)?])).unwrap_or(&[])
    }

    /// Lays it over a row of the screen, of which `out` are the pixels from column `left` on.
    pub fn lay(&self, y: u32, left: u32, layout: PixelLayout, out: &mut [u8]) {
        // The usual layouts are constants here, so that none of their shifts is left to be looked up for each pixel.
        match layout {
            PixelLayout::XRGB8888 => self.lay_in(PixelLayout::XRGB8888, y, left, out),
            PixelLayout::RGB565 => self.lay_in(PixelLayout::RGB565, y, left, out),
            other => self.lay_in(other, y, left, out),
        }
    }

    #[inline(always)]
    fn lay_in(&self, layout: PixelLayout, y: u32, left: u32, out: &mut [u8]) {
        let right = left + (out.len() / layout.bytes_per_pixel) as u32;
        for run in self.row(y) {
            let columns = run.columns.start.max(left)..run.columns.end.min(right);
            if columns.is_empty() {
                continue;
            }
            let veils =
                &self.pixels[run.first + (columns.start - run.columns.start) as usize..][..columns.len()];
            let out = &mut out[(columns.start - left) as usize * layout.bytes_per_pixel..];
            for (pixel, veil) in out.chunks_exact_mut(layout.bytes_per_pixel).zip(veils) {
                layout.write(pixel, veil.over(layout.read(pixel)));
            }
        }
    }
}

impl Veil {
    fn over(self, below: Rgb) -> Rgb {
        let mix = |adds: u8, below: u8| {
            let stays = (u32::from(below) * u32::from(self.keeps) + 127) / 255;
            adds.saturating_add(stays as u8)
        };
        let Rgb { red, green, blue } = self.adds;
        Rgb::new(mix(red, below.red), mix(green, below.green), mix(blue, below.blue))
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Painter;
    use super::*;

    const COLOUR: Rgb = Rgb::new(200, 100, 40);

    /// Something round, translucent and smooth at its edges.
    fn paint(canvas: &mut Canvas, area: Rect) {
        let mut painter = Painter::new(canvas, area);
        painter.rounded(Rect { width: area.width / 2, ..area }, 5.0, COLOUR, 165);
        painter.stroke(
            (area.x as f32 + 3.0, area.y as f32 + 2.0),
            (area.x as f32 + 30.0, area.y as f32 + 9.0),
            2.5,
            Rgb::WHITE,
        );
    }

    #[test]
    fn what_is_laid_over_looks_as_if_it_was_painted_there() {
        let area = Rect::new(7, 5, 40, 20);
        for layout in [PixelLayout::XRGB8888, PixelLayout::RGB565] {
            for rotation in [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
                let screen = rotation.size(Size::new(60, 30));
                let mut painted = Canvas::new(screen, layout, rotation);
                painted.fill(Rect::new(0, 0, 60, 30), Rgb::new(90, 160, 230));
                let mut laid = painted.clone();
                paint(&mut painted, area);

                let overlay =
                    Overlay::of(screen, rotation, area, |canvas| paint(canvas, Rect::of(area.size())));
                for (y, row) in (0..).zip(laid.surface().rows(Rect::of(screen))) {
                    overlay.lay(y, 0, layout, row);
                }

                for (x, y) in (0..60).flat_map(|x| (0..30).map(move |y| (x, y))) {
                    let (seen, wanted) = (laid.pixel(x, y), painted.pixel(x, y));
                    // Twice rounded, each to a step of the layout.
                    let most = if layout == PixelLayout::RGB565 { 18 } else { 3 };
                    let far = |one: u8, other: u8| one.abs_diff(other) > most;
                    assert!(
                        !far(seen.red, wanted.red)
                            && !far(seen.green, wanted.green)
                            && !far(seen.blue, wanted.blue),
                        "{seen:?} and not {wanted:?} at {x},{y}, {rotation:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_row_gets_its_own_part() {
        let (screen, area) = (Size::new(60, 30), Rect::new(7, 5, 40, 20));
        let overlay =
            Overlay::of(screen, Rotation::None, area, |canvas| paint(canvas, Rect::of(area.size())));
        let layout = PixelLayout::XRGB8888;
        let mut whole = Canvas::new(screen, layout, Rotation::None);
        let mut parts = whole.clone();
        whole
            .surface()
            .rows(Rect::of(screen))
            .enumerate()
            .for_each(|(y, row)| overlay.lay(y as u32, 0, layout, row));

        for part in [Rect::new(0, 0, 11, 30), Rect::new(11, 0, 1, 30), Rect::new(12, 0, 48, 30)] {
            let mut surface = parts.surface();
            for (y, row) in (0..).zip(surface.rows(part)) {
                overlay.lay(y, part.x, layout, row);
            }
        }

        assert_eq!(parts.data(), whole.data());
        assert!(overlay.touches(Rect::new(0, 0, 60, 30)) && !overlay.touches(Rect::new(0, 0, 60, 5)));
        assert!(!overlay.touches(Rect::new(50, 0, 10, 30)));
    }
}
