//! Draws the picture that the boot loader of images shows, the way the daemon draws its waiting screen, to the standard
//! output: `cargo run --example splash > board/common/splash.png`.

use parlor::geometry::{Rotation, Size};
use parlor::media::canvas::{Canvas, PixelLayout};
use parlor::media::signs;
use parlor::media::snapshot::Picture;
use parlor::media::text::Fonts;
use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let mut canvas = Canvas::new(Size::new(1280, 720), PixelLayout::XRGB8888, Rotation::None);
    signs::idle(&mut canvas, &mut Fonts::built_in(), "Parlor", "Starting.");
    stdout().write_all(&Picture::of(&canvas, 1280).png()?)?;
    Ok(())
}
