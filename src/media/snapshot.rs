//! A canvas as a PNG file, as large as fits.

use super::canvas::Canvas;
use crate::geometry::Size;

/// A picture of what the viewer sees, 8-bit RGB, rows without padding.
#[derive(Clone, Debug)]
pub struct Picture {
    pub size: Size,
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The canvas upright, scaled down to `width` (each pixel the mean of what it covers); never scaled up.
    pub fn of(canvas: &Canvas, width: u32) -> Self {
        let from = canvas.logical_size();
        let width = width.clamp(1, from.width);
        let height = (u64::from(from.height) * u64::from(width)).div_ceil(u64::from(from.width)) as u32;
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        for y in 0..height {
            let (top, bottom) = span(y, height, from.height);
            for x in 0..width {
                let (left, right) = span(x, width, from.width);
                let (mut sum, count) = ([0u32; 3], (bottom - top) * (right - left));
                for (x, y) in (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y))) {
                    let pixel = canvas.pixel(x, y);
                    sum[0] += u32::from(pixel.red);
                    sum[1] += u32::from(pixel.green);
                    sum[2] += u32::from(pixel.blue);
                }
                rgb.extend(sum.map(|sum| ((sum + count / 2) / count) as u8));
            }
        }
        Self { size: Size::new(width, height), rgb }
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// None that a picture of its own size can cause; passed on all the same.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.size.width, self.size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(file)
    }
}

/// A PNG of the canvas of at most `most` bytes and at most `width` pixels across.
///
/// # Errors
/// As [`Picture::png`].
pub fn fitting(canvas: &Canvas, width: u32, most: usize) -> Result<Vec<u8>, png::EncodingError> {
    let mut width = width.clamp(1, canvas.logical_size().width);
    loop {
        let file = Picture::of(canvas, width).png()?;
        if file.len() <= most || width == 1 {
            return Ok(file);
        }
        // Bytes grow with the area: aim a little below, and make sure to come down.
        let aim = f64::from(width) * (most as f64 / file.len() as f64).sqrt() * 0.95;
        width = (aim as u32).clamp(1, width - 1);
    }
}

/// The source pixels that destination pixel `index` of `count` covers, at least one.
fn span(index: u32, count: u32, of: u32) -> (u32, u32) {
    let at = |index: u32| (u64::from(index) * u64::from(of) / u64::from(count)) as u32;
    let start = at(index).min(of - 1);
    (start, at(index + 1).clamp(start + 1, of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Rotation;
    use crate::media::canvas::PixelLayout;

    /// Every pixel another colour, so that it hardly compresses.
    fn noisy() -> Canvas {
        let mut canvas = Canvas::new(Size::new(320, 200), PixelLayout::XRGB8888, Rotation::Quarter);
        let mut state = 1u32;
        for byte in canvas.data_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        canvas
    }

    #[test]
    fn a_snapshot_is_upright_and_keeps_its_aspect_ratio() {
        let picture = Picture::of(&noisy(), 100);

        assert_eq!(picture.size, Size::new(100, 160));
        assert_eq!(picture.rgb.len(), 100 * 160 * 3);
    }

    #[test]
    fn a_snapshot_shrinks_until_it_fits() {
        let file = fitting(&noisy(), 4000, 10_000).expect("encodes");

        assert!(file.len() <= 10_000);
        let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        assert!(reader.info().width > 20);
    }
}
