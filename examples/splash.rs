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
    stdout().write_all(&picture()?)?;
    Ok(())
}

/// A PNG of the shape most screens have; the boot loader stretches it over those that have another.
pub fn picture() -> Result<Vec<u8>, Box<dyn Error>> {
    let size = Size::new(1280, 720);
    let mut canvas = Canvas::new(size, PixelLayout::XRGB8888, Rotation::None);
    signs::idle(&mut canvas, &mut Fonts::built_in(), "Parlor", "Starting.");
    Ok(Picture::of(&canvas, size.width).png()?)
}
