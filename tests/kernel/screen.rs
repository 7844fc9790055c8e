//! Canvases on a real framebuffer, compared with what the display shows.

use crate::bed::{await_canvas, await_glass, display, paint, test_canvas};
use parlor::device::console::Console;
use parlor::device::screen::{Framebuffer, open};
use parlor::device::{Kind, MOST_PAGES, Screen, console};
use parlor::geometry::{Rect, Rotation, Size};
use parlor::media::canvas::{Canvas, PixelLayout, Rgb, Surface};
use parlor::media::glazing;
use std::fs;
use std::io::Write;
use std::time::Instant;

const PATH: &str = "/dev/fb0";

#[test]
fn the_screen_says_what_it_is() {
    let screen = open(PATH, false).expect("a screen");

    let (name, size, layout) = match display().as_str() {
        "bochs" => ("bochs-drm", Size::new(1280, 720), PixelLayout::XRGB8888),
        "virtio" => ("virtio_gpu", Size::new(1280, 720), PixelLayout::XRGB8888),
        "cirrusfb" => ("CL ", Size::new(1024, 768), PixelLayout::RGB565),
        "vesa16" => ("VESA VGA", Size::new(1024, 768), PixelLayout::RGB565),
        other => panic!("nothing is known of {other}"),
    };
    assert!(screen.mode().name.starts_with(name), "{}", screen.mode().name);
    assert_eq!((screen.mode().size, screen.mode().layout, screen.mode().flip), (size, layout, false));
}

#[test]
fn a_canvas_is_on_the_glass_pixel_by_pixel() {
    let _quiet = Console::open(console::FRONT).expect("a console");
    let mut screen = open(PATH, false).expect("a screen");

    shows_whole_and_changed(&mut screen);
}

#[test]
fn pages_are_flipped_where_the_driver_can() {
    let _quiet = Console::open(console::FRONT).expect("a console");
    let mut screen = open(PATH, true).expect("a screen");

    assert_eq!(screen.mode().flip, matches!(display().as_str(), "virtio" | "cirrusfb"));
    shows_whole_and_changed(&mut screen);
    // The page that was shown last may have been the second.
    drop(screen);
    let mut screen = open(PATH, false).expect("a screen");
    shows_whole_and_changed(&mut screen);
}

#[test]
fn the_console_is_silent_while_it_is_taken_and_back_afterwards() {
    let mut screen = open(PATH, false).expect("a screen");
    let canvas = test_canvas(black(&screen), 1);
    let console = Console::open(console::FRONT).expect("a console");
    present(&mut screen, &canvas);
    await_canvas(&canvas);

    write_text();
    // A mark that comes after the text shows that the text would be there by now.
    let mut canvas = canvas;
    let mark = Rect::new(300, 300, 8, 8);
    paint(&mut canvas, mark, |_, _| Rgb::WHITE);
    present(&mut screen, &canvas);
    await_canvas(&canvas);

    drop(console);
    text_is_shown();

    // After a panic, too.
    let panicked = std::thread::spawn(|| {
        let _console = Console::open(console::FRONT).expect("a console");
        panic!("as a thread of ours might");
    });
    assert!(panicked.join().is_err());
    text_is_shown();

    // And by someone else after a crash.
    std::mem::forget(Console::open(console::FRONT).expect("a console"));
    console::restore(console::FRONT).expect("restored");
    text_is_shown();
}

#[test]
fn the_front_console_is_taken_and_given_back() {
    assert!(Console::open("/dev/tty-none").is_err());
    let taken = Console::take();
    drop(taken);
    text_is_shown();
}

/// Only on cirrusfb: the other drivers' rows have no padding.
#[test]
fn rows_with_padding_are_not_skewed() {
    fs::write("/sys/class/graphics/fb0/virtual_size", "1280,768").expect("the driver knows wide rows");
    let _quiet = Console::open(console::FRONT).expect("a console");

    for flip in [false, true] {
        shows_whole_and_changed(&mut open(PATH, flip).expect("a screen"));
    }

    let stride = fs::read_to_string("/sys/class/graphics/fb0/stride").expect("readable");
    assert_eq!(stride.trim(), "2560", "of 2048 that are shown");
    fs::write("/sys/class/graphics/fb0/virtual_size", "1024,768").expect("and narrow ones");
}

/// Only on cirrusfb: the other drivers' modes never change.
#[test]
fn a_screen_whose_depth_is_changed_is_opened_anew_in_a_usable_one() {
    let mut screen = open(PATH, false).expect("a screen");
    let before = screen.mode().clone();
    let canvas = black(&screen);
    present(&mut screen, &canvas);

    fs::write("/sys/class/graphics/fb0/bits_per_pixel", "8").expect("the driver knows palettes");

    let deadline = Instant::now() + crate::bed::PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "the change is never noticed");
        if let Err(error) = screen.check() {
            break error;
        }
    };
    assert_eq!(error.kind, Kind::Gone);
    drop(screen);
    let _quiet = Console::open(console::FRONT).expect("a console");
    let mut screen = open(PATH, false).expect("a screen in 16 bits again");
    assert_eq!(screen.mode(), &before);
    shows_whole_and_changed(&mut screen);
}

/// Presents a canvas, then changes here and there, each of which must be on the glass and nothing else.
fn shows_whole_and_changed(screen: &mut Framebuffer) {
    let mut canvas = test_canvas(black(screen), 0);
    // On each page.
    for _ in 0..MOST_PAGES {
        present(screen, &canvas);
        await_canvas(&canvas);
    }

    let Size { width, height } = screen.mode().size;
    let mut before = Vec::new();
    for (step, changed) in [
        vec![Rect::new(100, 50, 333, 77)],
        vec![
            Rect::new(0, 0, 1, 1),
            Rect::new(width - 3, height - 2, 3, 2),
            Rect::new(0, height / 2, width, 1),
        ],
        vec![Rect::new(90, 40, 20, 20), Rect::new(400, 300, 7, 5)],
    ]
    .into_iter()
    .enumerate()
    {
        for &area in &changed {
            paint(&mut canvas, area, |x, y| Rgb::new((x * 11) as u8, 255 - y as u8, 60 * step as u8));
        }
        // The page lacks what came onto the other one before, too.
        present_parts(screen, &canvas, &[before, changed.clone()].concat());
        await_canvas(&canvas);
        before = changed;
    }
}

/// Shows a canvas.
fn present(screen: &mut Framebuffer, canvas: &Canvas) {
    let whole = Rect::of(canvas.physical_size());
    present_parts(screen, canvas, &[whole]);
}

/// Shows what of a canvas lies in these areas, on the next page.
fn present_parts(screen: &mut Framebuffer, canvas: &Canvas, parts: &[Rect]) {
    let whole = Rect::of(canvas.physical_size());
    let mut draw = |page: usize, mut surface: Surface<'_>| {
        assert!(page < MOST_PAGES);
        parts.iter().for_each(|part| glazing::copy(&mut surface, whole, canvas, *part, &[]));
    };
    screen.present(&mut draw).expect("presented");
}

fn black(screen: &Framebuffer) -> Canvas {
    Canvas::new(screen.mode().size, screen.mode().layout, Rotation::None)
}

/// Clears the console and writes a line to it.
fn write_text() {
    let mut tty = fs::OpenOptions::new().write(true).open(console::FRONT).expect("a console");
    tty.write_all(b"\x1b[2J\x1b[Hthe quick brown fox jumps over the lazy dog").expect("written");
}

/// The console's text and nothing of a canvas: black but for the first line.
pub fn text_is_shown() {
    write_text();
    await_glass(|glass| {
        let row_is_black = |y| (0..glass.size.width).all(|x| glass.at(x, y) == Rgb::BLACK);
        let text = (0..32).any(|y| !row_is_black(y));
        let rest = (64..glass.size.height).all(row_is_black);
        if text && rest { Ok(()) } else { Err(format!("text: {text}, black below: {rest}")) }
    });
}
