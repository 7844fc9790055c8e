//! H.264 in software: OpenH264 as encoder and decoder, and what of a stream must be known before it is decoded.

use super::kernel::rate;

use super::Packet;
use super::frame::{Colour, Frame, FramePool, Matrix};
use super::packetize::nal_units;
use super::sps::{Bits, Parameters};
use crate::geometry::Size;
use bytes::Bytes;
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Level, Profile,
    RateControlMode, VuiConfig,
};
use openh264::formats::YUVSource;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Pictures with more pixels than 1920x1088 or a side above 4096 are neither coded nor decoded.
const MOST_PIXELS: u64 = 1920 * 1088;
const LONGEST_SIDE: u32 = 4096;

/// Whether a picture is beyond what is coded and decoded.
pub fn too_large(size: Size) -> bool {
    size.area() > MOST_PIXELS || size.width.max(size.height) > LONGEST_SIDE
}

/// Why a picture could not be coded.
#[derive(Debug)]
pub enum EncodeError {
    TooLarge(Size),
    Codec(openh264::Error),
    /// A hardware codec failed: another encoder is to be opened.
    Device(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(size) => write!(f, "encode {size}: larger than 1920x1088"),
            Self::Codec(error) => write!(f, "encode a picture: {error}"),
            Self::Device(error) => write!(f, "encode a picture: {error}"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Constrained Baseline, one slice a picture, no B pictures: what every browser decodes at once.
pub struct Encoder {
    /// What it is opened with: its bit rate cannot rise above.
    rate_hz: f32,
    bitrate_bps: u32,
    /// What is wanted now, and what OpenH264 knows of that; it listens only after its first picture.
    wanted: (u32, f32),
    told: (u32, f32),
    begun: bool,
    made_for: (Size, Colour),
    inner: openh264::encoder::Encoder,
    /// Asked for and not come out yet: rate control may skip the picture that was to be it.
    keyframe_due: bool,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("made_for", &self.made_for).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for `rate_hz` pictures a second of at most `bitrate_bps` in all.
    ///
    /// # Errors
    /// A size above 1920x1088, or settings OpenH264 refuses.
    pub fn new(size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Self, EncodeError> {
        let made_for = (size, Colour::default());
        let inner = open_encoder(made_for, rate_hz, bitrate_bps)?;
        let rate = (bitrate_bps, rate_hz);
        Ok(Self {
            rate_hz,
            bitrate_bps,
            wanted: rate,
            told: rate,
            begun: false,
            made_for,
            inner,
            keyframe_due: true,
        })
    }

    /// Sets bits and pictures a second from the next picture on, or from the one after the first; neither rises above
    /// what the encoder was made for.
    pub fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
        self.wanted = (bitrate_bps.min(self.bitrate_bps), rate_hz.min(self.rate_hz));
    }

    /// Codes `frame`, following its size and colour; `time_90khz` is passed on. `keyframe` asks for an IDR
    /// picture. `None`: rate control skipped this picture.
    ///
    /// # Errors
    /// As [`Encoder::new`]; the next call begins with a keyframe.
    pub fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError> {
        let wanted = (frame.size(), frame.colour);
        if wanted != self.made_for {
            self.inner = open_encoder(wanted, self.rate_hz, self.bitrate_bps)?;
            self.made_for = wanted;
            self.told = (self.bitrate_bps, self.rate_hz);
            (self.keyframe_due, self.begun) = (true, false);
        } else if keyframe || self.keyframe_due {
            // Before its first picture the codec does not listen: that one is a keyframe anyway.
            self.inner.force_intra_frame();
            self.keyframe_due = true;
        }
        if self.begun
            && self.told != self.wanted
            && rate::set_rate(&mut self.inner, self.wanted.0, self.wanted.1)
        {
            self.told = self.wanted;
        }
        let time = openh264::Timestamp::from_millis(u64::from(time_90khz / 90));
        let (data, kind) = match self.inner.encode_at(&Planes(frame), time) {
            Ok(stream) => (stream.to_vec(), stream.frame_type()),
            Err(error) => {
                self.keyframe_due = true;
                return Err(EncodeError::Codec(error));
            }
        };
        self.begun = true;
        if data.is_empty() {
            return Ok(None);
        }
        let keyframe = matches!(kind, FrameType::IDR);
        self.keyframe_due &= !keyframe;
        Ok(Some(Packet { data: Bytes::from(data), keyframe, time: time_90khz }))
    }
}

fn open_encoder(
    (size, colour): (Size, Colour),
    rate_hz: f32,
    bitrate_bps: u32,
) -> Result<openh264::encoder::Encoder, EncodeError> {
    if too_large(size) {
        return Err(EncodeError::TooLarge(size));
    }
    // Macroblocks a second decide the level (H.264, table A-1): 3.1 holds 1280x720 at 30 Hz.
    let macroblocks = size.width.div_ceil(16) * size.height.div_ceil(16);
    let small = macroblocks <= 3600 && macroblocks as f32 * rate_hz <= 108_000.0;
    let vui = match colour.matrix {
        Matrix::Bt601 => VuiConfig::bt601(),
        Matrix::Bt709 => VuiConfig::bt709(),
    };
    let config = EncoderConfig::new()
        .profile(Profile::Baseline)
        .level(if small { Level::Level_3_1 } else { Level::Level_4_0 })
        .rate_control_mode(RateControlMode::Bitrate)
        .bitrate(BitRate::from_bps(bitrate_bps))
        .max_frame_rate(FrameRate::from_hz(rate_hz))
        .skip_frames(true)
        .complexity(Complexity::Low)
        .scene_change_detect(false)
        .intra_frame_period(IntraFramePeriod::from_num_frames(0))
        .num_threads(1)
        .vui(vui.full_range(colour.full_range));
    openh264::encoder::Encoder::with_api_config(OpenH264API::from_source(), config)
        .map_err(EncodeError::Codec)
}

/// Lends the planes of a frame to the codec without a copy.
struct Planes<'a>(&'a Frame);

impl YUVSource for Planes<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.0.size().width as usize, self.0.size().height as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        let width = self.0.size().width as usize;
        (width, width / 2, width / 2)
    }

    fn y(&self) -> &[u8] {
        self.0.planes()[0]
    }

    fn u(&self) -> &[u8] {
        self.0.planes()[1]
    }

    fn v(&self) -> &[u8] {
        self.0.planes()[2]
    }
}

/// Why there is no picture; in each case the last good one stays and a keyframe must be asked for.
#[derive(Debug)]
pub enum DecodeError {
    /// The stream is of a kind that was not negotiated: it will not get better.
    CodecMismatch(&'static str),
    /// Larger than 1920x1088.
    TooLarge(Size),
    /// An earlier picture was lost or damaged: everything is refused until the next keyframe.
    NeedsKeyframe,
    /// The decoder refused the packet.
    Broken(openh264::Error),
    /// A hardware codec could not make a whole picture of the packet.
    Damaged,
    /// A hardware codec failed: another decoder is to be opened.
    Device(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CodecMismatch(what) => write!(f, "decode a picture: {what} was not negotiated"),
            Self::TooLarge(size) => write!(f, "decode {size}: larger than 1920x1088"),
            Self::NeedsKeyframe => write!(f, "decode a picture: waiting for a keyframe"),
            Self::Broken(error) => write!(f, "decode a picture: {error}"),
            Self::Damaged => write!(f, "decode a picture: it is damaged"),
            Self::Device(error) => write!(f, "decode a picture: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// One remote stream's decoder, without added delay.
pub struct Decoder {
    inner: openh264::decoder::Decoder,
    colour: Colour,
    needs_keyframe: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("needs_keyframe", &self.needs_keyframe).finish_non_exhaustive()
    }
}

impl Decoder {
    /// # Errors
    /// When OpenH264 cannot be initialised.
    pub fn new() -> Result<Self, openh264::Error> {
        Ok(Self {
            inner: openh264::decoder::Decoder::new()?,
            colour: Colour::default(),
            needs_keyframe: true,
        })
    }

    /// Whether all is refused until the next keyframe: ask the sender for one.
    pub fn needs_keyframe(&self) -> bool {
        self.needs_keyframe
    }

    /// Says that access units were left out.
    pub fn lose(&mut self) {
        self.needs_keyframe = true;
    }

    /// Decodes one access unit into a frame of `into`, stamped `captured`. `None`: no picture in it.
    ///
    /// # Errors
    /// See [`DecodeError`]; after one, only a keyframe is taken.
    pub fn decode(
        &mut self,
        packet: &Packet,
        into: &mut FramePool,
        captured: Duration,
    ) -> Result<Option<Arc<Frame>>, DecodeError> {
        let begins = match inspect(&packet.data) {
            Ok(Some(parameters)) => {
                self.colour = parameters.colour;
                packet.keyframe
            }
            Ok(None) => false,
            Err(error) => {
                self.needs_keyframe = true;
                return Err(error);
            }
        };
        if self.needs_keyframe && !begins {
            return Err(DecodeError::NeedsKeyframe);
        }
        self.needs_keyframe = true;
        let Some(picture) = self.inner.decode(&packet.data).map_err(DecodeError::Broken)? else {
            self.needs_keyframe = false;
            return Ok(None);
        };
        let (width, height) = picture.dimensions();
        let size = Size::new(width as u32, height as u32);
        if too_large(size) {
            return Err(DecodeError::TooLarge(size));
        }
        let colour = self.colour;
        let frame = into.produce(size, |frame| {
            frame.colour = colour;
            frame.captured = captured;
            copy(&picture, frame);
            Ok(())
        });
        self.needs_keyframe = frame.is_err();
        frame.map(Some)
    }
}

fn copy(picture: &impl YUVSource, frame: &mut Frame) {
    let width = frame.size().width as usize;
    let strides = picture.strides();
    let sources = [
        (picture.y(), strides.0, width),
        (picture.u(), strides.1, width / 2),
        (picture.v(), strides.2, width / 2),
    ];
    for (plane, (source, stride, width)) in frame.planes_mut().into_iter().zip(sources) {
        for (to, from) in plane.chunks_exact_mut(width).zip(source.chunks(stride)) {
            to.copy_from_slice(&from[..width]);
        }
    }
}

/// Looks at the headers of an access unit: its parameters if it has a sequence parameter set.
///
/// # Errors
/// [`DecodeError::CodecMismatch`], [`DecodeError::TooLarge`].
pub fn inspect(stream: &[u8]) -> Result<Option<Parameters>, DecodeError> {
    let mut found = None;
    for unit in nal_units(stream) {
        match (unit[0] & 0x1f, unit) {
            // The two-byte headers of H.265's VPS, SPS and PPS (H.265, 7.3.1.2); in H.264 these bytes mean
            // types that no sender of one-layer streams uses.
            (_, [0x40 | 0x42 | 0x44, 1, ..]) => return Err(DecodeError::CodecMismatch("H.265")),
            (1 | 5, _) if slice_type(&unit[1..]) == Some(1) => {
                return Err(DecodeError::CodecMismatch("a B picture"));
            }
            (7, _) => {
                let Some(parameters) = Parameters::read(&unit[1..]) else {
                    return Err(DecodeError::CodecMismatch("an unreadable sequence parameter set"));
                };
                if parameters.deep || parameters.chroma_format != 1 {
                    return Err(DecodeError::CodecMismatch("H.264 other than 8-bit 4:2:0"));
                }
                if too_large(parameters.size) {
                    return Err(DecodeError::TooLarge(parameters.size));
                }
                found = Some(parameters);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// slice_type modulo 5 (H.264, table 7-6): 0 P, 1 B, 2 I.
fn slice_type(slice: &[u8]) -> Option<u32> {
    let mut bits = Bits::new(slice);
    bits.ue()?;
    Some(bits.ue()? % 5)
}

#[cfg(test)]
mod tests {
    use super::super::assemble::Assembler;
    use super::super::packetize::packetize;
    use super::*;
    use proptest::prelude::*;

    const VGA: Size = Size::new(640, 480);

    #[test]
    fn a_picture_survives_coding_with_its_size_and_colour() {
        let mut frame = picture(VGA, 0);
        frame.colour = Colour { matrix: Matrix::Bt709, full_range: true };
        let mut encoder = Encoder::new(VGA, 30.0, 2_000_000).expect("an encoder");
        let mut decoder = Decoder::new().expect("a decoder");

        let packet = encoder.encode(&frame, 90, false).expect("coded").expect("not skipped");
        let seen =
            decoder.decode(&packet, &mut FramePool::default(), Duration::from_millis(7)).expect("decoded");

        let seen = seen.expect("a picture");
        assert!(packet.keyframe);
        assert_eq!((seen.size(), seen.colour, seen.captured), (VGA, frame.colour, Duration::from_millis(7)));
        let error: u64 =
            std::iter::zip(seen.planes()[0], frame.planes()[0]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(error / VGA.area() < 8, "mean difference {}", error / VGA.area());
    }

    #[test]
    fn the_encoder_follows_a_changed_size() {
        let mut encoder = Encoder::new(VGA, 30.0, 1_000_000).expect("an encoder");
        let mut decoder = Decoder::new().expect("a decoder");
        let mut pool = FramePool::default();

        for size in [VGA, Size::new(480, 640), Size::new(322, 242), Size::new(1920, 1080)] {
            let packet = encoder.encode(&picture(size, 1), 0, false).expect("coded").expect("not skipped");
            let seen =
                decoder.decode(&packet, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");

            assert!(packet.keyframe);
            assert_eq!(seen.size(), size);
        }
    }

    #[test]
    fn the_encoder_follows_a_changed_bit_rate_down_and_up_without_a_keyframe() {
        let mut encoder = Encoder::new(VGA, 30.0, 1_600_000).expect("an encoder");
        let mut noise = picture(VGA, 0);
        let mut seed = 1_u32;
        let mut second = |encoder: &mut Encoder, from: u32| {
            let mut bytes = 0;
            for index in from..from + 30 {
                for value in noise.planes_mut()[0].iter_mut() {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *value = 100 + (seed >> 27) as u8;
                }
                let packet = encoder.encode(&noise, index * 3000, false).expect("coded");
                assert!(packet.as_ref().is_none_or(|packet| packet.keyframe == (index == 0)));
                bytes += packet.map_or(0, |packet| packet.data.len());
            }
            bytes * 8
        };

        second(&mut encoder, 0);
        let high = second(&mut encoder, 30);
        encoder.set_rate(400_000, 30.0);
        second(&mut encoder, 60);
        let low = second(&mut encoder, 90);
        encoder.set_rate(1_600_000, 30.0);
        second(&mut encoder, 120);
        let again = second(&mut encoder, 150);

        assert!(low < high / 2, "{high} then {low} bits a second");
        assert!(again > low * 2, "{low} then {again} bits a second");
    }

    #[test]
    fn after_a_damaged_picture_all_is_refused_until_the_keyframe_that_was_asked_for() {
        let packets = coded(8, 6);
        let mut decoder = Decoder::new().expect("a decoder");
        let mut pool = FramePool::default();
        let mut decode =
            |packet: &Packet| decoder.decode(packet, &mut pool, Duration::ZERO).map(|frame| frame.is_some());
        let damaged =
            Packet { data: packets[2].data.slice(..packets[2].data.len() / 2), ..packets[2].clone() };

        assert!(matches!(decode(&packets[0]), Ok(true)));
        assert!(matches!(decode(&packets[1]), Ok(true)));
        assert!(decode(&damaged).is_err());
        assert!(matches!(decode(&packets[3]), Err(DecodeError::NeedsKeyframe)));
        assert!(packets[6].keyframe);
        assert!(matches!(decode(&packets[6]), Ok(true)));
        assert!(matches!(decode(&packets[7]), Ok(true)));
    }

    #[test]
    fn a_real_stream_is_the_same_after_the_network() {
        let packets = coded(5, 3);
        let mut assembler = Assembler::new(Duration::ZERO);
        let mut sequence = 65_534u16;
        let mut seen = Vec::new();

        for packet in &packets {
            for payload in packetize(packet, 1200) {
                assembler.push(sequence, packet.time, payload.marker, payload.data, Duration::ZERO);
                sequence = sequence.wrapping_add(1);
                seen.extend(assembler.pop(Duration::ZERO));
            }
        }

        assert_eq!(seen, packets);
    }

    #[test]
    fn other_codecs_are_named() {
        let packet = |data: &'static [u8]| Packet { data: Bytes::from_static(data), keyframe: true, time: 0 };
        let mut decoder = Decoder::new().expect("a decoder");
        let mut named =
            |data| decoder.decode(&packet(data), &mut FramePool::default(), Duration::ZERO).map(|_| ());

        // first_mb_in_slice 0 is `1`, slice_type 1 is `010`.
        assert!(matches!(
            named(&[0, 0, 1, 0x01, 0b1010_0000, 9]),
            Err(DecodeError::CodecMismatch("a B picture"))
        ));
        assert!(matches!(named(&[0, 0, 0, 1, 0x40, 1, 12]), Err(DecodeError::CodecMismatch("H.265"))));
    }

    #[test]
    fn too_large_a_picture_is_refused() {
        assert!(matches!(Encoder::new(Size::new(2560, 1440), 30.0, 1), Err(EncodeError::TooLarge(_))));
        assert!(too_large(Size::new(4098, 16)) && !too_large(Size::new(1080, 1920)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn arbitrary_parameter_sets_never_panic(set in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parameters::read(&set);
        }

        #[test]
        fn a_damaged_stream_never_panics(at in 0..4000usize, bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let mut packets = coded(2, 9);
            let mut decoder = Decoder::new().expect("a decoder");
            let mut data = packets[0].data.to_vec();
            let at = at % data.len();
            let end = (at + bytes.len()).min(data.len());
            data[at..end].copy_from_slice(&bytes[..end - at]);
            packets[0].data = data.into();

            for packet in packets {
                let _ = decoder.decode(&packet, &mut FramePool::default(), Duration::ZERO);
            }
        }
    }

    fn picture(size: Size, shift: usize) -> Frame {
        let mut frame = Frame::new(size);
        let width = frame.size().width as usize;
        for (index, value) in frame.planes_mut()[0].iter_mut().enumerate() {
            *value = ((index % width + shift * 3) / 2 + index / width) as u8 / 2 + 40;
        }
        frame
    }

    /// `count` packets of a moving picture, a keyframe forced at `keyframe_at`.
    fn coded(count: usize, keyframe_at: usize) -> Vec<Packet> {
        let size = Size::new(160, 120);
        let mut encoder = Encoder::new(size, 30.0, 3_000_000).expect("an encoder");
        (0..count)
            .map(|index| {
                let frame = picture(size, index);
                let packet = encoder.encode(&frame, index as u32 * 3000, index == keyframe_at);
                packet.expect("coded").expect("not skipped at this bitrate")
            })
            .collect()
    }
}
