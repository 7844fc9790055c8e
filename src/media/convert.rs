//! What cameras deliver (YUYV, NV12, YU12, MJPG) into I420.

use super::frame::{Colour, Frame, Matrix};
use super::image::deinterleave;
use crate::geometry::Size;
use std::borrow::Cow;
use std::fmt;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Why a camera's buffer is no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// A pixel format that is not converted.
    Format([u8; 4]),
    /// A side is zero or above 16384, or a row is longer than the stride.
    Size,
    /// Fewer bytes than a picture of this size needs.
    Short { needed: usize, got: usize },
    /// JPEG data that cannot be decoded.
    Jpeg(String),
    /// A JPEG of another size than was set on the camera.
    JpegSize { width: usize, height: usize },
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(fourcc) => {
                write!(f, "pixel format {} is not known", String::from_utf8_lossy(fourcc))
            }
            Self::Size => write!(f, "size and bytes per line do not fit"),
            Self::Short { needed, got } => write!(f, "picture of {got} bytes, {needed} needed"),
            Self::Jpeg(reason) => write!(f, "JPEG: {reason}"),
            Self::JpegSize { width, height } => write!(f, "JPEG of {width}x{height}, another size was set"),
        }
    }
}

impl std::error::Error for ConvertError {}

/// Writes `data` into `frame`, which takes `size` (rounded down to even sides) and the colour of the format:
/// BT.601, limited range, for MJPG full range (JFIF). `captured` is left alone.
///
/// `fourcc` is a V4L2 pixel format; `stride` is `bytesperline` of its first plane, 0 for rows without
/// padding. The chroma rows of YU12 have half of it, those of NV12 the same (kernel: "Planar YUV formats").
///
/// # Errors
/// See [`ConvertError`]; the content of `frame` is undefined then.
pub fn convert(
    fourcc: [u8; 4],
    size: Size,
    stride: usize,
    data: &[u8],
    frame: &mut Frame,
) -> Result<(), ConvertError> {
    if size.width < 2 || size.height < 2 || size.width.max(size.height) > crate::geometry::LARGEST_SIDE {
        return Err(ConvertError::Size);
    }
    let (width, height) = (size.width as usize, size.height as usize);
    let row = if &fourcc == b"YUYV" { width.next_multiple_of(2) * 2 } else { width };
    let stride = if stride == 0 { row } else { stride };
    if stride < row || stride > 1 << 20 {
        return Err(ConvertError::Size);
    }
    frame.resize(size);
    frame.colour = Colour { matrix: Matrix::Bt601, full_range: &fourcc == b"MJPG" };
    match &fourcc {
        b"YUYV" => {
            enough(data, stride * (height - 1) + row)?;
            yuyv(stride, data, frame);
        }
        b"NV12" => {
            let rows = height + height.div_ceil(2);
            enough(data, stride * (rows - 1) + width.next_multiple_of(2).min(stride))?;
            nv12(stride, &data[..stride * height], &data[stride * height..], frame);
        }
        b"YU12" => {
            let (chroma, rows) = (stride.div_ceil(2), height.div_ceil(2));
            enough(data, stride * height + chroma * (2 * rows - 1) + width.div_ceil(2))?;
            let (y, rest) = data.split_at(stride * height);
            let (u, v) = rest.split_at(chroma * rows);
            let half = frame.size().width as usize / 2;
            let full = half * 2;
            let [to_y, to_u, to_v] = frame.planes_mut();
            copy_rows(to_y, full, y, stride);
            copy_rows(to_u, half, u, chroma);
            copy_rows(to_v, half, v, chroma);
        }
        b"MJPG" => mjpg(size, data, frame)?,
        _ => return Err(ConvertError::Format(fourcc)),
    }
    Ok(())
}

fn enough(data: &[u8], needed: usize) -> Result<(), ConvertError> {
    if data.len() < needed { Err(ConvertError::Short { needed, got: data.len() }) } else { Ok(()) }
}

fn copy_rows(to: &mut [u8], width: usize, from: &[u8], stride: usize) {
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks(stride)) {
        to.copy_from_slice(&from[..width]);
    }
}

/// Y U Y V; the chroma of two rows is averaged, as 4:2:0 has one for both.
///
/// Bytes are taken out of whole little-endian words: so the compiler sees that a register's worth can be done at once.
fn yuyv(stride: usize, data: &[u8], frame: &mut Frame) {
    let width = frame.size().width as usize;
    let [luma, u, v] = frame.planes_mut();
    let chroma = u.chunks_exact_mut(width / 2).zip(v.chunks_exact_mut(width / 2));
    let rows = luma.chunks_exact_mut(2 * width).zip(data.chunks(2 * stride));
    for ((luma, pair), (u, v)) in rows.zip(chroma) {
        let (upper, lower) = pair.split_at(stride);
        let (upper, lower) = (&upper[..2 * width], &lower[..2 * width]);
        let (luma_upper, luma_lower) = luma.split_at_mut(width);
        for (luma, source) in [(luma_upper, upper), (luma_lower, lower)] {
            for (to, from) in luma.iter_mut().zip(source.as_chunks::<2>().0) {
                *to = u16::from_le_bytes(*from) as u8;
            }
        }
        let pairs = || upper.as_chunks::<4>().0.iter().zip(lower.as_chunks::<4>().0);
        for (u, (upper, lower)) in u.iter_mut().zip(pairs()) {
            *u = mean(u32::from_le_bytes(*upper) >> 8 & 0xff, u32::from_le_bytes(*lower) >> 8 & 0xff);
        }
        for (v, (upper, lower)) in v.iter_mut().zip(pairs()) {
            *v = mean(u32::from_le_bytes(*upper) >> 24, u32::from_le_bytes(*lower) >> 24);
        }
    }
}

/// Of two bytes, as wide as they were read: narrowed earlier, or with `div_ceil`, it takes three times as long.
fn mean(a: u32, b: u32) -> u8 {
    ((a + b + 1) >> 1) as u8
}

fn nv12(stride: usize, luma: &[u8], chroma: &[u8], frame: &mut Frame) {
    let width = frame.size().width as usize;
    let [y, u, v] = frame.planes_mut();
    copy_rows(y, width, luma, stride);
    let rows = u.chunks_exact_mut(width / 2).zip(v.chunks_exact_mut(width / 2));
    for ((u, v), row) in rows.zip(chroma.chunks(stride)) {
        deinterleave(row, u, v);
    }
}

fn mjpg(size: Size, data: &[u8], frame: &mut Frame) -> Result<(), ConvertError> {
    let broken = |error: zune_jpeg::errors::DecodeErrors| {
        ConvertError::Jpeg(format!("{error:?}").chars().take(120).collect())
    };
    let data = with_huffman_tables(data);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(size.width as usize)
        .set_max_height(size.height as usize)
        .jpeg_set_out_colorspace(ColorSpace::YCbCr);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&data[..]), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    if (width, height) != (size.width as usize, size.height as usize) {
        return Err(ConvertError::JpegSize { width, height });
    }
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    if grey {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let samples = decoder.decode().map_err(broken)?;
    let channels = if grey { 1 } else { 3 };
    enough(&samples, width * height * channels)?;
    let even = frame.size().width as usize;
    let [y, u, v] = frame.planes_mut();
    if grey {
        copy_rows(y, even, &samples, width);
        u.fill(128);
        v.fill(128);
        return Ok(());
    }
    for (to, from) in y.chunks_exact_mut(even).zip(samples.chunks_exact(3 * width)) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(3)) {
            *to = from[0];
        }
    }
    let pairs = samples.chunks_exact(6 * width);
    for ((u, v), pair) in u.chunks_exact_mut(even / 2).zip(v.chunks_exact_mut(even / 2)).zip(pairs) {
        let (upper, lower) = pair.split_at(3 * width);
        for ((u, v), (a, b)) in u.iter_mut().zip(v).zip(upper.chunks_exact(6).zip(lower.chunks_exact(6))) {
            let of = |at: usize| {
                let sum = u16::from(a[at]) + u16::from(a[at + 3]) + u16::from(b[at]) + u16::from(b[at + 3]);
                ((sum + 2) / 4) as u8
            };
            (*u, *v) = (of(1), of(2));
        }
    }
    Ok(())
}

/// The picture with the tables of ITU-T T.81, annex K.3, where it has none: UVC cameras leave them out.
fn with_huffman_tables(data: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 2;
    while let Some([0xff, marker, high, low]) = data.get(at..at + 4) {
        match marker {
            0xc4 => return Cow::Borrowed(data),
            0xda => return Cow::Owned([&data[..at], &standard_tables(), &data[at..]].concat()),
            _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }
    Cow::Borrowed(data)
}

/// The DHT segment of the four typical tables.
fn standard_tables() -> Vec<u8> {
    const DC_LUMA: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
    const DC_CHROMA: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
    const AC_LUMA: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d];
    const AC_CHROMA: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77];
    // Run and size of each code, tables K.5 and K.6.
    const AC_LUMA_VALUES: &str = "0102030004110512213141061351610722711432 8191a1082342b1c11552d1f024336272\
        82090a161718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a73747576\
        7778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2\
        d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa";
    const AC_CHROMA_VALUES: &str = "0001020311040521310612415107617113223281 08144291a1b1c109233352f0156272d1\
        0a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475\
        767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9\
        cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa";
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    let dc: Vec<u8> = (0..12).collect();
    let mut segment = vec![0xff, 0xc4, 0x01, 0xa2];
    for (class, counts, values) in [
        (0x00, DC_LUMA, &dc),
        (0x01, DC_CHROMA, &dc),
        (0x10, AC_LUMA, &hex(AC_LUMA_VALUES)),
        (0x11, AC_CHROMA, &hex(AC_CHROMA_VALUES)),
    ] {
        segment.push(class);
        segment.extend(counts);
        segment.extend(values);
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use jpeg_encoder::{ColorType, SamplingFactor};
    use proptest::prelude::*;

    #[test]
    fn yuyv_with_padded_rows_is_taken_apart() {
        let data = [1, 10, 2, 20, 9, 9, 3, 12, 4, 24, 9, 9];
        let mut frame = Frame::new(Size::new(2, 2));

        convert(*b"YUYV", Size::new(2, 2), 6, &data, &mut frame).expect("a whole picture");

        assert_eq!(frame.planes(), [&[1, 2, 3, 4][..], &[11], &[22]]);
        assert!(!frame.colour.full_range);
    }

    #[test]
    fn wide_yuyv_and_nv12_are_what_their_samples_say() {
        let (width, height) = (70, 6);
        let byte = |index: usize| ((index * 37) ^ (index >> 3)) as u8;
        let data: Vec<u8> = (0..2 * width * height).map(byte).collect();
        let size = Size::new(width as u32, height as u32);
        let (mut yuyv, mut nv12) = (Frame::new(size), Frame::new(size));

        convert(*b"YUYV", size, 0, &data, &mut yuyv).expect("a whole picture");
        convert(*b"NV12", size, 0, &data[..width * height * 3 / 2], &mut nv12).expect("a whole picture");

        assert!((0..width * height).all(|at| yuyv.planes()[0][at] == byte(2 * at)));
        for at in 0..width * height / 4 {
            let (row, column) = (at / (width / 2), at % (width / 2));
            for plane in [1, 2] {
                let first = 4 * row * width + 4 * column + 2 * plane - 1;
                let sum = u16::from(byte(first)) + u16::from(byte(first + 2 * width));
                assert_eq!(u16::from(yuyv.planes()[plane][at]), sum.div_ceil(2), "{plane} at {at}");
                assert_eq!(nv12.planes()[plane][at], byte(width * height + 2 * at + plane - 1));
            }
        }
    }

    #[test]
    fn nv12_and_yu12_of_one_picture_are_equal() {
        let (mut one, mut other) = (Frame::new(Size::new(4, 2)), Frame::new(Size::new(4, 2)));
        let luma = [1, 2, 3, 4, 5, 6, 7, 8];

        convert(*b"NV12", Size::new(4, 2), 0, &[&luma[..], &[20, 30, 21, 31]].concat(), &mut one)
            .expect("whole");
        convert(*b"YU12", Size::new(4, 2), 4, &[&luma[..], &[20, 21, 30, 31]].concat(), &mut other)
            .expect("whole");

        assert_eq!(one.planes(), other.planes());
        assert_eq!(one.planes()[2], [30, 31]);
    }

    #[test]
    fn mjpg_of_every_sampling_gives_the_same_flat_picture() {
        for sampling in [SamplingFactor::R_4_2_0, SamplingFactor::R_4_2_2, SamplingFactor::R_4_4_4] {
            let mut frame = Frame::new(Size::new(2, 2));
            let data = jpeg(ColorType::Ycbcr, sampling, [90, 100, 160]);

            convert(*b"MJPG", Size::new(48, 32), 0, &data, &mut frame).expect("a whole picture");

            for (plane, value) in frame.planes().into_iter().zip([90u8, 100, 160]) {
                assert!(
                    plane.iter().all(|sample| sample.abs_diff(value) <= 2),
                    "{sampling:?}: {:?}",
                    &plane[..8]
                );
            }
            assert!(frame.colour.full_range);
        }
    }

    #[test]
    fn mjpg_without_huffman_tables_is_decoded() {
        let whole = jpeg(ColorType::Ycbcr, SamplingFactor::R_4_2_2, [90, 100, 160]);
        let (mut bare, mut at) = (whole[..2].to_vec(), 2);
        while whole[at + 1] != 0xda {
            let end = at + 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
            if whole[at + 1] != 0xc4 {
                bare.extend(&whole[at..end]);
            }
            at = end;
        }
        bare.extend(&whole[at..]);
        let (mut one, mut other) = (Frame::new(Size::new(2, 2)), Frame::new(Size::new(2, 2)));

        convert(*b"MJPG", Size::new(48, 32), 0, &whole, &mut one).expect("a whole picture");
        convert(*b"MJPG", Size::new(48, 32), 0, &bare, &mut other).expect("a picture without tables");

        assert!(bare.len() < whole.len());
        assert_eq!(one.planes(), other.planes());
    }

    #[test]
    fn grey_mjpg_has_no_colour() {
        let mut frame = Frame::new(Size::new(2, 2));

        convert(
            *b"MJPG",
            Size::new(48, 32),
            0,
            &jpeg(ColorType::Luma, SamplingFactor::R_4_4_4, [77; 3]),
            &mut frame,
        )
        .expect("a whole picture");

        assert!(frame.planes()[0].iter().all(|luma| luma.abs_diff(77) <= 1));
        assert!(frame.planes()[1].iter().all(|&chroma| chroma == 128));
    }

    #[test]
    fn bad_pictures_are_errors() {
        let mut frame = Frame::new(Size::new(2, 2));
        let data = jpeg(ColorType::Ycbcr, SamplingFactor::R_4_2_0, [1, 2, 3]);
        let mut convert = |fourcc, size, data| convert(fourcc, size, 0, data, &mut frame);

        assert_eq!(convert(*b"H264", Size::new(2, 2), &[0; 99]), Err(ConvertError::Format(*b"H264")));
        assert_eq!(
            convert(*b"YUYV", Size::new(2, 2), &[0; 7]),
            Err(ConvertError::Short { needed: 8, got: 7 })
        );
        assert!(convert(*b"MJPG", Size::new(64, 32), &data).is_err());
        assert!(convert(*b"MJPG", Size::new(48, 32), &data[..data.len() / 3]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            fourcc in prop_oneof![Just(*b"YUYV"), Just(*b"NV12"), Just(*b"YU12"), Just(*b"MJPG")],
            width in 0..24u32, height in 0..24u32, stride in 0..64usize,
            data in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let _ = convert(fourcc, Size::new(width, height), stride, &data, &mut Frame::new(Size::new(2, 2)));
        }

        #[test]
        fn a_damaged_jpeg_never_panics(at in 0..400usize, value: u8) {
            let mut data = jpeg(ColorType::Ycbcr, SamplingFactor::R_4_2_0, [90, 100, 160]);
            let at = at % data.len();
            data[at] = value;

            let _ = convert(*b"MJPG", Size::new(48, 32), 0, &data, &mut Frame::new(Size::new(2, 2)));
        }
    }

    fn jpeg(colours: ColorType, sampling: SamplingFactor, pixel: [u8; 3]) -> Vec<u8> {
        let channels = if colours == ColorType::Luma { 1 } else { 3 };
        let mut data = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut data, 95);
        encoder.set_sampling_factor(sampling);
        encoder.encode(&pixel[..channels].repeat(48 * 32), 48, 32, colours).expect("encoded");
        data
    }
}
