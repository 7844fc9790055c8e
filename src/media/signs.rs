//! What the house itself says on the glass: name plates, placeholders, badges, notices, the waiting screen.
//! All of it scales with its area and stays inside.

use super::canvas::{Canvas, Rgb};
use super::text::{Fonts, Painter, draw_text};
use crate::geometry::{Rect, Size};
use embedded_graphics::prelude::Point;

/// The colours of the house.
pub mod palette {
    use super::Rgb;

    /// Between and behind tiles.
    pub const GROUND: Rgb = Rgb::new(16, 19, 26);
    /// A tile without a picture.
    pub const TILE: Rgb = Rgb::new(29, 34, 45);
    /// Plates under text over a picture.
    pub const PLATE: Rgb = Rgb::new(12, 14, 19);
    pub const TEXT: Rgb = Rgb::new(238, 241, 246);
    pub const QUIET: Rgb = Rgb::new(150, 160, 178);
    /// The kiosk's own voice: ids, the identify frame.
    pub const ACCENT: Rgb = Rgb::new(94, 178, 255);
    /// Around who speaks.
    pub const SPEAKING: Rgb = Rgb::new(82, 201, 126);
    /// Something is off or missing.
    pub const ALERT: Rgb = Rgb::new(214, 72, 72);
    /// Avatars; a name always has the same one.
    pub const AVATARS: [Rgb; 6] = [
        Rgb::new(66, 110, 180),
        Rgb::new(44, 132, 124),
        Rgb::new(126, 92, 176),
        Rgb::new(166, 98, 66),
        Rgb::new(92, 130, 66),
        Rgb::new(164, 78, 120),
    ];
}

/// Parts of `whole` to the pixel, at least `least`.
fn part(whole: u32, parts: f32, least: u32) -> u32 {
    ((whole as f32 * parts).round() as u32).max(least)
}

/// The measure of an area: its height, or what its height would be at 16:9 if it is narrow.
fn measure(area: Rect) -> u32 {
    area.height.min(area.width * 9 / 16).max(1)
}

/// The height of small text in an area: 10 to 34 pixels.
fn small(area: Rect) -> u32 {
    part(measure(area), 0.05, 10).clamp(10, 34)
}

/// One line centred at `centre_x`, shortened to `area` less a margin.
fn centred(
    painter: &mut Painter,
    fonts: &mut Fonts,
    area: Rect,
    text: &str,
    top: u32,
    height: u32,
    colour: Rgb,
) {
    let text = fonts.shortened(text, height, area.width * 9 / 10);
    let width = fonts.measure(&text, height);
    let left = area.x as i32 + (area.width as i32 - width as i32) / 2;
    draw_text(painter, fonts, &text, Point::new(left, top as i32), height, colour);
}

/// The name at the foot of a tile, on a translucent plate over the picture.
pub fn label(canvas: &mut Canvas, fonts: &mut Fonts, area: Rect, name: &str) {
    let height = small(area);
    let (margin, pad) = (part(height, 0.5, 3), part(height, 0.55, 3));
    let room = area.width.saturating_sub(2 * (margin + pad));
    let tall = height + height * 2 / 5;
    if name.trim().is_empty() || room < height || area.height < tall + margin {
        return;
    }
    let name = fonts.shortened(name, height, room);
    let width = fonts.measure(&name, height) + 2 * pad;
    let plate = Rect::new(area.x + margin, area.bottom() - margin - tall, width, tall);
    let mut painter = Painter::new(canvas, area);
    painter.rounded(plate, tall as f32 * 0.3, palette::PLATE, 165);
    let at = Point::new((plate.x + pad) as i32, (plate.y + (tall - height) / 2) as i32);
    draw_text(&mut painter, fonts, &name, at, height, palette::TEXT);
}

/// A tile without a picture: who is missing, and why.
pub fn placeholder(canvas: &mut Canvas, fonts: &mut Fonts, area: Rect, name: &str, reason: &str) {
    canvas.fill(area, palette::TILE);
    let unit = measure(area);
    let (circle, title, line) =
        (part(unit, 0.30, 12), part(unit, 0.085, 12).min(72), part(unit, 0.058, 10).min(48));
    let lines = fonts.wrapped(reason, line, area.width * 17 / 20, 2);
    let gap = part(unit, 0.035, 2);
    let leading = line + line / 4;
    let tall = circle + gap + title + gap + leading * lines.len() as u32;
    let top = area.y + area.height.saturating_sub(tall) / 2;

    let mut painter = Painter::new(canvas, area);
    let avatar = Rect::new(area.x + area.width.saturating_sub(circle) / 2, top, circle, circle);
    // The same name, the same colour, on every kiosk.
    let sum = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let colour = palette::AVATARS[sum % palette::AVATARS.len()];
    painter.rounded(avatar, circle as f32, colour, 255);
    let initial: String = name.trim().chars().take(1).flat_map(char::to_uppercase).collect();
    let letter = part(circle, 0.56, 8);
    centred(
        &mut painter,
        fonts,
        avatar,
        &initial,
        avatar.y + (circle - letter.min(circle)) / 2,
        letter,
        palette::TEXT,
    );
    centred(&mut painter, fonts, area, name, avatar.bottom() + gap, title, palette::TEXT);
    for (index, text) in lines.iter().enumerate() {
        let top = avatar.bottom() + gap + title + gap + leading * index as u32;
        centred(&mut painter, fonts, area, text, top, line, palette::QUIET);
    }
}

/// The waiting screen of the whole canvas: `title` (the kiosk's id) large, `line` below.
pub fn idle(canvas: &mut Canvas, fonts: &mut Fonts, title: &str, line: &str) {
    let area = Rect::of(canvas.logical_size());
    canvas.fill(area, palette::GROUND);
    large(canvas, fonts, area, title, line);
}

/// The kiosk's id on the whole canvas, in a frame that is seen across a hall.
pub fn identify(canvas: &mut Canvas, fonts: &mut Fonts, id: &str, line: &str) {
    let screen = Rect::of(canvas.logical_size());
    let mut painter = Painter::new(canvas, screen);
    painter.tint(screen, palette::GROUND, 255);
    for side in border(screen, part(measure(screen), 0.02, 2)) {
        painter.tint(side, palette::ACCENT, 255);
    }
    large(canvas, fonts, screen, id, line);
}

fn large(canvas: &mut Canvas, fonts: &mut Fonts, area: Rect, title: &str, line: &str) {
    let unit = measure(area);
    let (mut height, quiet) = (part(unit, 0.19, 16), part(unit, 0.05, 10));
    while height > 16 && fonts.measure(title, height) > area.width * 9 / 10 {
        height = (height * 9 / 10).max(16);
    }
    let lines = fonts.wrapped(line, quiet, area.width * 8 / 10, 3);
    let leading = quiet + quiet / 3;
    let (rule, gap) = (part(unit, 0.006, 2), part(unit, 0.035, 3));
    let tall = height + 2 * gap + rule + leading * lines.len() as u32;
    let top = area.y + area.height.saturating_sub(tall) / 2;
    let mut painter = Painter::new(canvas, area);
    centred(&mut painter, fonts, area, title, top, height, palette::TEXT);
    let width = part(unit, 0.16, 8).min(area.width);
    let under = Rect::new(area.x + (area.width - width) / 2, top + height + gap, width, rule);
    painter.rounded(under, rule as f32, palette::ACCENT, 255);
    for (index, text) in lines.iter().enumerate() {
        let top = under.bottom() + gap + leading * index as u32;
        centred(&mut painter, fonts, area, text, top, quiet, palette::QUIET);
    }
}

/// Where [`notice`] lies on a screen of this logical size.
pub fn notice_area(screen: Size) -> Rect {
    let tall = (small(Rect::of(screen)) * 2).min(screen.height);
    Rect::new(0, screen.height - tall, screen.width, tall)
}

/// One line, opaque, that fills the canvas: what is wrong with the kiosk as a whole.
pub fn notice(canvas: &mut Canvas, fonts: &mut Fonts, text: &str) {
    let strip = Rect::of(canvas.logical_size());
    let height = strip.height / 2;
    let mut painter = Painter::new(canvas, strip);
    painter.tint(strip, palette::PLATE, 255);
    painter.tint(Rect { width: part(height, 0.25, 2).min(strip.width), ..strip }, palette::ALERT, 255);
    centred(&mut painter, fonts, strip, text, (strip.height - height) / 2, height, palette::TEXT);
}

/// A border inside the tile of who speaks.
pub fn speaking(canvas: &mut Canvas, area: Rect) {
    let edge = part(measure(area), 0.012, 3);
    let mut painter = Painter::new(canvas, area);
    for side in border(area, edge) {
        painter.tint(side, palette::SPEAKING, 255);
    }
}

/// The four sides of a border of this width inside an area.
fn border(area: Rect, edge: u32) -> [Rect; 4] {
    let edge = edge.min(area.width / 2).min(area.height / 2);
    [
        Rect { height: edge, ..area },
        Rect { y: area.bottom() - edge, height: edge, ..area },
        Rect { width: edge, ..area },
        Rect { x: area.right() - edge, width: edge, ..area },
    ]
}

/// What a badge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Badge {
    MicrophoneOff,
    EarphoneOff,
    CameraOff,
}

/// Round badges in the upper right corner of a tile, the first rightmost.
pub fn badges(canvas: &mut Canvas, area: Rect, badges: &[Badge]) {
    let side = part(small(area), 1.6, 14);
    let step = side + side / 4;
    let mut painter = Painter::new(canvas, area);
    for (index, badge) in (1u32..).zip(badges) {
        if step * index > area.width || step > area.height {
            return;
        }
        let disc = Rect::new(area.right() - step * index, area.y + side / 4, side, side);
        painter.rounded(disc, side as f32, palette::ALERT, 235);
        match badge {
            Badge::MicrophoneOff => microphone(&mut painter, disc),
            Badge::EarphoneOff => earphone(&mut painter, disc),
            Badge::CameraOff => camera(&mut painter, disc),
        }
        let at = units(disc);
        let unit = side as f32 / 24.0;
        painter.stroke(at(6.0, 6.0), at(18.0, 18.0), 3.6 * unit, palette::ALERT);
        painter.stroke(at(6.0, 6.0), at(18.0, 18.0), 1.7 * unit, palette::TEXT);
    }
}

/// Where a point of an icon lies: icons are drawn in a square of 24 units.
fn units(square: Rect) -> impl Fn(f32, f32) -> (f32, f32) {
    let unit = square.width as f32 / 24.0;
    move |x, y| (square.x as f32 + x * unit, square.y as f32 + y * unit)
}

fn microphone(painter: &mut Painter, square: Rect) {
    let (at, unit) = (units(square), square.width as f32 / 24.0);
    painter.stroke(at(12.0, 7.5), at(12.0, 11.5), 4.4 * unit, palette::TEXT);
    painter.stroke(at(8.0, 12.0), at(9.4, 14.6), 1.5 * unit, palette::TEXT);
    painter.stroke(at(9.4, 14.6), at(14.6, 14.6), 1.5 * unit, palette::TEXT);
    painter.stroke(at(14.6, 14.6), at(16.0, 12.0), 1.5 * unit, palette::TEXT);
    painter.stroke(at(12.0, 14.6), at(12.0, 18.0), 1.5 * unit, palette::TEXT);
}

fn earphone(painter: &mut Painter, square: Rect) {
    let (at, unit) = (units(square), square.width as f32 / 24.0);
    painter.stroke(at(8.4, 12.0), at(9.6, 12.0), 4.4 * unit, palette::TEXT);
    painter.stroke(at(9.6, 12.0), at(12.6, 7.8), 1.5 * unit, palette::TEXT);
    painter.stroke(at(12.6, 7.8), at(12.6, 16.2), 1.5 * unit, palette::TEXT);
    painter.stroke(at(12.6, 16.2), at(9.6, 12.0), 1.5 * unit, palette::TEXT);
    painter.stroke(at(15.4, 9.4), at(16.8, 12.0), 1.5 * unit, palette::TEXT);
    painter.stroke(at(16.8, 12.0), at(15.4, 14.6), 1.5 * unit, palette::TEXT);
}

fn camera(painter: &mut Painter, square: Rect) {
    let (at, unit) = (units(square), square.width as f32 / 24.0);
    painter.stroke(at(8.0, 12.0), at(11.5, 12.0), 6.4 * unit, palette::TEXT);
    painter.stroke(at(15.6, 12.0), at(18.2, 9.6), 1.5 * unit, palette::TEXT);
    painter.stroke(at(18.2, 9.6), at(18.2, 14.4), 1.5 * unit, palette::TEXT);
    painter.stroke(at(18.2, 14.4), at(15.6, 12.0), 1.5 * unit, palette::TEXT);
}

/// Where [`live`] lies on a screen of this logical size: in the upper left corner; nowhere if nothing is live.
pub fn live_area(screen: Size, is_camera: bool, is_microphone: bool) -> Rect {
    let side = part(small(Rect::of(screen)), 1.5, 14).min(screen.width / 2).min(screen.height);
    Rect::new(0, 0, side * (u32::from(is_camera) + u32::from(is_microphone)), side)
}

/// Says, opaque and all over the canvas, that the camera or the microphone is live.
pub fn live(canvas: &mut Canvas, is_camera: bool, is_microphone: bool) {
    let area = Rect::of(canvas.logical_size());
    let mut painter = Painter::new(canvas, area);
    painter.tint(area, palette::ALERT, 255);
    let mut square = Rect { width: area.height, ..area };
    if is_camera {
        camera(&mut painter, square);
        square.x += area.height;
    }
    if is_microphone {
        microphone(&mut painter, square);
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::PixelLayout;
    use super::*;
    use crate::geometry::{Rotation, Size};

    #[test]
    fn every_sign_stays_inside_its_area_whatever_its_size() {
        let mut fonts = Fonts::built_in();
        let outside = Rgb::new(1, 2, 3);
        for (width, height) in [(0, 0), (1, 1), (7, 90), (160, 90), (320, 240), (90, 300)] {
            let area = Rect::new(10, 20, width, height);
            let mut canvas = Canvas::new(Size::new(350, 330), PixelLayout::XRGB8888, Rotation::Half);
            let all = Rect::of(canvas.logical_size());
            canvas.fill(all, outside);

            placeholder(
                &mut canvas,
                &mut fonts,
                area,
                "王医生 a very long name indeed",
                "摄像头已断开, reconnecting in a moment",
            );
            label(&mut canvas, &mut fonts, area, "Ward 3 东区");
            speaking(&mut canvas, area);
            badges(&mut canvas, area, &[Badge::MicrophoneOff, Badge::EarphoneOff, Badge::CameraOff]);

            let inside = canvas.physical(area);
            for (at, pixel) in canvas.data().chunks_exact(4).enumerate() {
                let here = Rect::new(at as u32 % 350, at as u32 / 350, 1, 1);
                assert!(inside.contains(here) || pixel == [3, 2, 1, 0], "{here:?} with {area:?}");
            }
        }
    }

    #[test]
    fn a_placeholder_shows_name_and_reason() {
        let mut fonts = Fonts::built_in();
        let area = Rect::new(0, 0, 480, 270);
        let draw = |fonts: &mut Fonts, name, reason| {
            let mut canvas = Canvas::new(area.size(), PixelLayout::RGB565, Rotation::None);
            placeholder(&mut canvas, fonts, area, name, reason);
            canvas
        };

        let shown = draw(&mut fonts, "lobby", "connecting");

        assert_ne!(shown.data(), draw(&mut fonts, "lobbY", "connecting").data());
        assert_ne!(shown.data(), draw(&mut fonts, "lobby", "camera off").data());
    }

    #[test]
    fn what_is_live_is_said_in_the_corner_and_only_that() {
        let screen = Size::new(640, 360);
        let draw = |is_camera, is_microphone| {
            let area = live_area(screen, is_camera, is_microphone);
            let mut canvas = Canvas::new(area.size(), PixelLayout::XRGB8888, Rotation::None);
            live(&mut canvas, is_camera, is_microphone);
            (area, canvas)
        };

        let ((nothing, _), (camera, one), (both, two)) =
            (draw(false, false), draw(true, false), draw(true, true));

        assert!(nothing.is_empty());
        assert_eq!((camera.x, camera.y, both.width), (0, 0, 2 * camera.width));
        assert_eq!(two.pixel(both.width - 1, 0), palette::ALERT);
        assert_ne!(one.data(), draw(false, true).1.data());
    }

    #[test]
    fn a_notice_lies_at_the_foot_and_says_what_it_says() {
        let mut fonts = Fonts::built_in();
        for screen in [Size::new(1, 1), Size::new(640, 360), Size::new(90, 300)] {
            let area = notice_area(screen);
            let mut draw = |text| {
                let mut canvas = Canvas::new(area.size(), PixelLayout::XRGB8888, Rotation::None);
                notice(&mut canvas, &mut fonts, text);
                canvas
            };

            assert!(Rect::of(screen).contains(area) && area.bottom() == screen.height);
            assert!(screen.area() == 1 || draw("no broker").data() != draw("no clock").data());
        }
    }

    #[test]
    fn full_screens_are_drawn_at_every_size_and_turn() {
        let mut fonts = Fonts::built_in();
        for size in [Size::new(1, 1), Size::new(64, 48), Size::new(480, 800)] {
            for rotation in [Rotation::None, Rotation::ThreeQuarters] {
                let mut canvas = Canvas::new(size, PixelLayout::RGB565, rotation);

                idle(&mut canvas, &mut fonts, "lobby-entrance-west", "waiting for a room");
                let waiting = canvas.clone();
                identify(&mut canvas, &mut fonts, "lobby", "10.0.0.7");

                assert!(size.area() == 1 || canvas.data() != waiting.data());
            }
        }
    }
}
