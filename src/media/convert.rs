//! A stand-in until the real conversions arrive: correct, not fast.

use super::frame::Frame;
use crate::geometry::Size;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

/// Why a picture cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvertError;

/// Writes a camera's picture as I420 into `frame`.
///
/// # Errors
/// The format is not known, or `data` is too short or damaged.
pub fn convert(
    fourcc: [u8; 4],
    size: Size,
    stride: usize,
    data: &[u8],
    frame: &mut Frame,
) -> Result<(), ConvertError> {
    let mut packed = Vec::new();
    frame.resize(size);
    let (width, height) = (frame.size().width as usize, frame.size().height as usize);
    let (data, stride) = if &fourcc == b"MJPG" {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::YCbCr);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        packed.extend(decoder.decode().map_err(|_| ConvertError)?);
        if decoder.dimensions() != Some((size.width as usize, size.height as usize)) {
            return Err(ConvertError);
        }
        (packed.as_slice(), size.width as usize * 3)
    } else {
        (data, stride)
    };
    let at = |index: usize| data.get(index).copied().ok_or(ConvertError);
    let chroma_at = stride * size.height as usize;
    let quarter = stride / 2 * (size.height as usize / 2);
    let [luma, blue, red] = frame.planes_mut();
    for y in 0..height {
        for x in 0..width {
            let (l, b, r) = match &fourcc {
                b"YUYV" => (y * stride + 2 * x, y * stride + (x & !1) * 2 + 1, y * stride + (x & !1) * 2 + 3),
                b"NV12" => {
                    let chroma = chroma_at + y / 2 * stride + (x & !1);
                    (y * stride + x, chroma, chroma + 1)
                }
                b"YU12" => {
                    let chroma = chroma_at + y / 2 * (stride / 2) + x / 2;
                    (y * stride + x, chroma, chroma + quarter)
                }
                b"MJPG" => (y * stride + 3 * x, y * stride + 3 * x + 1, y * stride + 3 * x + 2),
                _ => return Err(ConvertError),
            };
            luma[y * width + x] = at(l)?;
            blue[y / 2 * (width / 2) + x / 2] = at(b)?;
            red[y / 2 * (width / 2) + x / 2] = at(r)?;
        }
    }
    Ok(())
}
