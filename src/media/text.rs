//! Text and shapes on the canvas, in the viewer's upright coordinates: an embedded-graphics target, anti-aliased
//! shapes, and glyphs of a font file or of the built-in bitmap font.

use super::canvas::{Canvas, Rgb};
use crate::geometry::Rect;
use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use bytes::Bytes;
use embedded_graphics::Pixel;
use embedded_graphics::pixelcolor::{BinaryColor, Rgb888};
use embedded_graphics::prelude::{
    Dimensions, DrawTarget, OriginDimensions, Point, PointsIter, RgbColor, Size as Extent,
};
use embedded_graphics::primitives::Rectangle;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use u8g2_fonts::types::{FontColor, VerticalPosition};
use u8g2_fonts::{FontRenderer, fonts::u8g2_font_wqy16_t_gb2312};

/// Draws on a canvas in logical coordinates, nothing outside of its clip.
#[derive(Debug)]
pub struct Painter<'a> {
    canvas: &'a mut Canvas,
    clip: Rectangle,
}

impl<'a> Painter<'a> {
    /// Draws inside the logical rectangle `clip` only.
    pub fn new(canvas: &'a mut Canvas, clip: Rect) -> Self {
        let size = canvas.logical_size();
        let screen = Rectangle::new(Point::zero(), Extent::new(size.width, size.height));
        let clip =
            Rectangle::new(Point::new(clip.x as i32, clip.y as i32), Extent::new(clip.width, clip.height));
        Self { canvas, clip: clip.intersection(&screen) }
    }

    /// Lays `colour` over a rectangle, `cover` of 255 opaque.
    pub fn tint(&mut self, rect: Rect, colour: Rgb, cover: u8) {
        self.shape(rect, colour, |_, _| f32::from(cover) / 255.0);
    }

    /// A rectangle with corners of `radius`, smooth edges, `cover` of 255 opaque.
    pub fn rounded(&mut self, rect: Rect, radius: f32, colour: Rgb, cover: u8) {
        let (half_x, half_y) = (rect.width as f32 / 2.0, rect.height as f32 / 2.0);
        let radius = radius.min(half_x).min(half_y);
        let (centre_x, centre_y) = (rect.x as f32 + half_x, rect.y as f32 + half_y);
        let cover = f32::from(cover) / 255.0;
        self.shape(rect, colour, |x, y| {
            let across = ((x - centre_x).abs() - half_x + radius).max(0.0);
            let down = ((y - centre_y).abs() - half_y + radius).max(0.0);
            (radius - across.hypot(down) + 0.5).clamp(0.0, 1.0) * cover
        });
    }

    /// A line from `from` to `to` with round ends and smooth edges.
    pub fn stroke(&mut self, from: (f32, f32), to: (f32, f32), width: f32, colour: Rgb) {
        let reach = width / 2.0 + 1.0;
        let low = ((from.0.min(to.0) - reach).max(0.0), (from.1.min(to.1) - reach).max(0.0));
        let high = (from.0.max(to.0) + reach, from.1.max(to.1) + reach);
        let bounds = Rect::new(
            low.0 as u32,
            low.1 as u32,
            (high.0 - low.0).max(0.0).ceil() as u32 + 1,
            (high.1 - low.1).max(0.0).ceil() as u32 + 1,
        );
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = (dx * dx + dy * dy).max(1e-6);
        self.shape(bounds, colour, |x, y| {
            let along = (((x - from.0) * dx + (y - from.1) * dy) / length).clamp(0.0, 1.0);
            let distance = (x - from.0 - along * dx).hypot(y - from.1 - along * dy);
            (width / 2.0 - distance + 0.5).clamp(0.0, 1.0)
        });
    }

    /// Lays `colour` over `bounds` as far as `cover` (0 to 1, asked at pixel centres) says.
    fn shape(&mut self, bounds: Rect, colour: Rgb, cover: impl Fn(f32, f32) -> f32) {
        let bounds = Rectangle::new(
            Point::new(bounds.x as i32, bounds.y as i32),
            Extent::new(bounds.width, bounds.height),
        )
        .intersection(&self.clip);
        for point in bounds.points() {
            let cover = cover(point.x as f32 + 0.5, point.y as f32 + 0.5);
            self.blend(point, colour, (cover * 255.0 + 0.5) as u8);
        }
    }

    /// Mixes `colour` into one pixel, `cover` of 255 parts.
    fn blend(&mut self, at: Point, colour: Rgb, cover: u8) {
        if cover == 0 || !self.clip.contains(at) {
            return;
        }
        let layout = self.canvas.layout();
        let bytes = layout.bytes_per_pixel;
        let place = self.canvas.physical(Rect::new(at.x as u32, at.y as u32, 1, 1));
        let start = place.y as usize * self.canvas.stride() + place.x as usize * bytes;
        let out = &mut self.canvas.data_mut()[start..start + bytes];
        let under = layout.read(out);
        let mix = |under: u8, over: u8| {
            let cover = u32::from(cover);
            ((u32::from(under) * (255 - cover) + u32::from(over) * cover + 127) / 255) as u8
        };
        let mixed = Rgb::new(
            mix(under.red, colour.red),
            mix(under.green, colour.green),
            mix(under.blue, colour.blue),
        );
        layout.write(out, mixed);
    }
}

impl Dimensions for Painter<'_> {
    fn bounding_box(&self) -> Rectangle {
        self.clip
    }
}

impl DrawTarget for Painter<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            self.blend(at, plain(colour), 255);
        }
        Ok(())
    }

    fn fill_contiguous<I: IntoIterator<Item = Rgb888>>(
        &mut self,
        area: &Rectangle,
        colours: I,
    ) -> Result<(), Infallible> {
        for (at, colour) in area.points().zip(colours) {
            self.blend(at, plain(colour), 255);
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Infallible> {
        let area = area.intersection(&self.clip);
        let corner = (area.top_left.x as u32, area.top_left.y as u32);
        let area = Rect::new(corner.0, corner.1, area.size.width, area.size.height);
        self.canvas.fill(area, plain(colour));
        Ok(())
    }
}

fn plain(colour: Rgb888) -> Rgb {
    Rgb::new(colour.r(), colour.g(), colour.b())
}

/// The font file's bytes are no TrueType or OpenType font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFont;

impl std::fmt::Display for NotAFont {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("read a font: neither TrueType nor OpenType")
    }
}

impl std::error::Error for NotAFont {}

/// One character at one height: how much of each pixel it covers.
#[derive(Debug)]
struct Glyph {
    /// Of the bitmap, from the pen and from the top of the line.
    left: i32,
    top: i32,
    width: usize,
    cover: Vec<u8>,
    advance: i32,
}

/// Where glyphs come from: a font file if there is one, then the built-in font (simplified Chinese and Latin,
/// 16 pixels, scaled by whole factors), then a box.
#[derive(Debug)]
pub struct Fonts {
    file: Option<Bytes>,
    built_in: FontRenderer,
    /// By character and height. Full: emptied, the glyphs in use are drawn anew.
    glyphs: BTreeMap<(char, u32), Arc<Glyph>>,
}

/// Glyphs kept at most: two screens full of Chinese text.
const MOST_GLYPHS: usize = 1024;
/// Text is never higher, so that a glyph has at most 64 KiB.
const HIGHEST: u32 = 256;
/// Height of the built-in font, and its baseline from the top of the line.
const BUILT_IN: (u32, i32) = (16, 13);

impl Fonts {
    /// The built-in font only.
    pub fn built_in() -> Self {
        let built_in = FontRenderer::new::<u8g2_font_wqy16_t_gb2312>();
        Self { file: None, built_in, glyphs: BTreeMap::new() }
    }

    /// The font in the bytes of a TTF, OTF or TTC file (its first font), with the built-in one behind it.
    ///
    /// # Errors
    /// Bytes that are no font; use [`Fonts::built_in`] then.
    pub fn new(file: Bytes) -> Result<Self, NotAFont> {
        FontRef::try_from_slice(&file).map_err(|_| NotAFont)?;
        Ok(Self { file: Some(file), ..Self::built_in() })
    }

    /// Width in pixels of one line of `text`, `height` pixels high.
    pub fn measure(&mut self, text: &str, height: u32) -> u32 {
        characters(text).map(|character| self.glyph(character, height).advance.max(0) as u32).sum()
    }

    /// `text` if it is at most `width` pixels wide, else as much of it as fits before an ellipsis.
    pub fn shortened<'a>(&mut self, text: &'a str, height: u32, width: u32) -> Cow<'a, str> {
        if self.measure(text, height) <= width {
            return text.into();
        }
        let mut left = width.saturating_sub(self.measure("…", height));
        let mut short: String = characters(text)
            .take_while(|&character| {
                let advance = self.glyph(character, height).advance.max(0) as u32;
                let fits = advance <= left;
                left = left.saturating_sub(advance);
                fits
            })
            .collect();
        short.truncate(short.trim_end().len());
        short.push('…');
        short.into()
    }

    /// `text` in at most `most` lines of `width` pixels, broken at spaces and between Chinese characters.
    pub fn wrapped(&mut self, text: &str, height: u32, width: u32, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() && lines.len() + 1 < most {
            let (mut used, mut end, mut fits) = (0, 0, true);
            for (at, character) in rest.char_indices() {
                if at > 0 && (character == ' ' || character >= '\u{2e80}') {
                    end = at;
                }
                used += self.glyph(character, height).advance.max(0) as u32;
                if used > width {
                    fits = false;
                    break;
                }
            }
            if fits || end == 0 {
                break;
            }
            lines.push(rest[..end].trim_end().to_owned());
            rest = rest[end..].trim_start();
        }
        if !rest.is_empty() && most > 0 {
            lines.push(self.shortened(rest, height, width).into_owned());
        }
        lines
    }

    fn glyph(&mut self, character: char, height: u32) -> Arc<Glyph> {
        let height = height.clamp(1, HIGHEST);
        if let Some(glyph) = self.glyphs.get(&(character, height)) {
            return glyph.clone();
        }
        let glyph = self.outline(character, height).or_else(|| self.bitmap(character, height));
        let glyph = Arc::new(glyph.unwrap_or_else(|| missing(height)));
        if self.glyphs.len() >= MOST_GLYPHS {
            self.glyphs.clear();
        }
        self.glyphs.insert((character, height), glyph.clone());
        glyph
    }

    fn outline(&self, character: char, height: u32) -> Option<Glyph> {
        // Its tables are only pointed at: that costs little beside a glyph's outline.
        let font = FontRef::try_from_slice(self.file.as_ref()?).ok()?;
        let id = font.glyph_id(character);
        if id.0 == 0 {
            return None;
        }
        let scale = PxScale::from(height as f32);
        let scaled = font.as_scaled(scale);
        let advance = scaled.h_advance(id).round() as i32;
        let empty = Glyph { left: 0, top: 0, width: 0, cover: Vec::new(), advance };
        let baseline = scaled.ascent().round();
        let glyph = id.with_scale_and_position(scale, ab_glyph::point(0.0, baseline));
        let Some(outline) = font.outline_glyph(glyph) else { return Some(empty) };
        let bounds = outline.px_bounds();
        let (width, rows) = (bounds.width() as usize, bounds.height() as usize);
        // A font may claim any size for a glyph.
        if width.max(rows) > 4 * HIGHEST as usize {
            return None;
        }
        let mut cover = vec![0; width * rows];
        outline.draw(|x, y, part| {
            if let Some(cover) = cover.get_mut(y as usize * width + x as usize) {
                *cover = (part.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
            }
        });
        Some(Glyph { left: bounds.min.x as i32, top: bounds.min.y as i32, width, cover, advance })
    }

    fn bitmap(&self, character: char, height: u32) -> Option<Glyph> {
        let mut bitmap = Bitmap([0; Bitmap::SIDE * Bitmap::SIDE]);
        let colour = FontColor::Transparent(BinaryColor::On);
        let pen = Point::new(Bitmap::MARGIN, Bitmap::MARGIN + BUILT_IN.1);
        let drawn =
            self.built_in.render(character, pen, VerticalPosition::Baseline, colour, &mut bitmap).ok()?;
        let factor = (height / BUILT_IN.0).max(1) as usize;
        let width = Bitmap::SIDE * factor;
        let cover = (0..width * width)
            .map(|at| bitmap.0[at / width / factor * Bitmap::SIDE + at % width / factor])
            .collect();
        let (scale, spare) = (factor as i32, (height as i32 - (BUILT_IN.0 as usize * factor) as i32) / 2);
        let margin = Bitmap::MARGIN * scale;
        Some(Glyph { left: -margin, top: spare - margin, width, cover, advance: drawn.advance.x * scale })
    }
}

/// A glyph of the built-in font with a margin for what reaches out of its cell.
struct Bitmap([u8; Bitmap::SIDE * Bitmap::SIDE]);

impl Bitmap {
    const MARGIN: i32 = 4;
    const SIDE: usize = 24;
}

impl OriginDimensions for Bitmap {
    fn size(&self) -> Extent {
        Extent::new(Self::SIDE as u32, Self::SIDE as u32)
    }
}

impl DrawTarget for Bitmap {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if self.bounding_box().contains(at) {
                self.0[at.y as usize * Self::SIDE + at.x as usize] = if colour.is_on() { 255 } else { 0 };
            }
        }
        Ok(())
    }
}

/// The box that stands for a character no font has.
fn missing(height: u32) -> Glyph {
    let (width, rows) = ((height as usize / 2).max(3), (height as usize * 3 / 4).max(3));
    let edge = |at: usize| {
        at.is_multiple_of(width) || at % width == width - 1 || at / width == 0 || at / width == rows - 1
    };
    let cover = (0..width * rows).map(|at| if edge(at) { 255 } else { 0 }).collect();
    Glyph { left: 1, top: height as i32 / 8, width, cover, advance: width as i32 + 2 }
}

/// What is drawn of a text: control characters are spaces.
fn characters(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|character| if character.is_control() { ' ' } else { character })
}

/// Draws one line of `text`, `height` pixels high from its top left corner; returns its width.
pub fn draw_text(
    painter: &mut Painter,
    fonts: &mut Fonts,
    text: &str,
    position: Point,
    height: u32,
    colour: Rgb,
) -> u32 {
    let mut pen = position.x;
    for character in characters(text) {
        let glyph = fonts.glyph(character, height);
        for (row, covers) in glyph.cover.chunks_exact(glyph.width.max(1)).enumerate() {
            for (column, &cover) in covers.iter().enumerate() {
                let at = Point::new(pen + glyph.left + column as i32, position.y + glyph.top + row as i32);
                painter.blend(at, colour, cover);
            }
        }
        pen = pen.saturating_add(glyph.advance);
    }
    pen.saturating_sub(position.x).max(0) as u32
}

#[cfg(test)]
mod tests {
    use super::super::canvas::PixelLayout;
    use super::*;
    use crate::geometry::{Rotation, Size};
    use proptest::prelude::*;

    #[test]
    fn latin_and_chinese_are_drawn_upright_on_a_turned_screen() {
        let mut upright = Canvas::new(Size::new(120, 40), PixelLayout::XRGB8888, Rotation::None);
        let mut turned = Canvas::new(Size::new(40, 120), PixelLayout::XRGB8888, Rotation::Quarter);

        for canvas in [&mut upright, &mut turned] {
            let area = Rect::of(canvas.logical_size());
            let mut painter = Painter::new(canvas, area);
            draw_text(&mut painter, &mut Fonts::built_in(), "Ab 王医生", Point::new(3, 5), 16, Rgb::WHITE);
        }

        for (x, y) in (0..120).flat_map(|x| (0..40).map(move |y| (x, y))) {
            let lit = |canvas: &Canvas| {
                let at = canvas.physical(Rect::new(x, y, 1, 1));
                canvas.data()[at.y as usize * canvas.stride() + at.x as usize * 4]
            };
            assert_eq!(lit(&upright), lit(&turned));
        }
        assert!(upright.data().iter().filter(|&&byte| byte == 255).count() > 300);
    }

    #[test]
    fn a_character_no_font_has_is_a_box() {
        let mut fonts = Fonts::built_in();

        let glyph = fonts.glyph('\u{10ffff}', 16);

        assert_eq!(glyph.width, 8);
        assert_eq!(glyph.cover.iter().filter(|&&cover| cover == 255).count(), 2 * 8 + 2 * 10);
    }

    #[test]
    fn too_wide_a_text_ends_in_an_ellipsis() {
        let mut fonts = Fonts::built_in();

        let short = fonts.shortened("consulting room", 16, 60);

        assert!(short.ends_with('…') && short.starts_with("con"), "{short}");
        assert!(fonts.measure(&short, 16) <= 60);
        assert_eq!(fonts.shortened("ok", 16, 60), "ok");
    }

    #[test]
    fn lines_break_at_spaces_and_between_chinese_characters() {
        let mut fonts = Fonts::built_in();

        assert_eq!(fonts.wrapped("one two", 16, 40, 3), ["one", "two"]);
        assert_eq!(fonts.wrapped("摄像头断开", 16, 50, 3), ["摄像头", "断开"]);
    }

    #[test]
    fn bytes_that_are_no_font_are_refused() {
        assert_eq!(Fonts::new(vec![0; 100].into()).map(drop), Err(NotAFont));
    }

    proptest! {
        #[test]
        fn any_text_anywhere_stays_inside_its_clip(
            text in ".{0,20}", x in -40..60i32, y in -40..60i32, height in 1..70u32, turn in 0..4u32,
        ) {
            let rotation = Rotation::from_degrees(turn * 90).expect("a quarter");
            let mut canvas = Canvas::new(Size::new(50, 30), PixelLayout::RGB565, rotation);
            let clip = Rect::new(5, 6, 12, 13);

            draw_text(&mut Painter::new(&mut canvas, clip), &mut Fonts::built_in(), &text, Point::new(x, y), height, Rgb::WHITE);

            let inside = canvas.physical(clip);
            for (at, pixel) in canvas.data().chunks_exact(2).enumerate() {
                let here = Rect::new(at as u32 % 50, at as u32 / 50, 1, 1);
                prop_assert!(pixel == [0, 0] || inside.contains(here));
            }
        }
    }
}
