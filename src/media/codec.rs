//! What a video codec is, whether it runs in software or in a device: frames into packets, and back.

use super::Packet;
use super::frame::{Frame, FramePool};
use super::h264::{DecodeError, Decoder, EncodeError, Encoder};
use super::image::Image;
use crate::geometry::Size;
use std::sync::Arc;
use std::time::Duration;

/// Codes one stream of pictures.
pub trait Encode: Send {
    /// Codes `frame`, following its size and colour; `time_90khz` is passed on. `keyframe` asks for a picture at which
    /// decoding can begin. `None`: rate control skipped this picture.
    ///
    /// # Errors
    /// The next call begins with a keyframe. After [`EncodeError::Device`] another encoder is to be opened.
    fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError>;

    /// Sets bits and pictures a second from the next picture on, as near as the codec can; neither rises above what the
    /// encoder was made for. One that cannot any more says so with the next picture.
    fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32);
}

/// Decodes one stream of pictures.
pub trait Decode: Send {
    /// Says that access units were left out: all is refused until the next keyframe.
    fn lose(&mut self);

    /// Decodes one access unit into a frame of `into`, stamped `captured`, or into memory of the codec's own. `None`: no
    /// picture yet. A device may answer with the picture of an earlier call, stamped as that was.
    ///
    /// # Errors
    /// See [`DecodeError`]; after one, only a keyframe is taken. After [`DecodeError::Device`] another decoder is to be
    /// opened.
    fn decode(
        &mut self,
        packet: &Packet,
        into: &mut FramePool,
        captured: Duration,
    ) -> Result<Option<Arc<dyn Image>>, DecodeError>;
}

/// A maker of codecs.
pub trait Codecs: Send + Sync {
    /// What pictures are coded with, for people; `None`: it has no encoder.
    fn encoder_name(&self) -> Option<&str>;

    /// What pictures are decoded with, for people; `None`: it has no decoder.
    fn decoder_name(&self) -> Option<&str>;

    /// An encoder for pictures that begin with this size, at so many a second at most.
    ///
    /// # Errors
    /// Pictures too large, or a device that cannot be used.
    fn encoder(&self, size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Box<dyn Encode>, EncodeError>;

    /// A decoder for one stream.
    ///
    /// # Errors
    /// It cannot be initialised.
    fn decoder(&self) -> Result<Box<dyn Decode>, DecodeError>;
}

/// OpenH264, on the processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Software;

impl Software {
    pub const NAME: &str = "OpenH264";
}

impl Codecs for Software {
    fn encoder_name(&self) -> Option<&str> {
        Some(Self::NAME)
    }

    fn decoder_name(&self) -> Option<&str> {
        Some(Self::NAME)
    }

    fn encoder(&self, size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Box<dyn Encode>, EncodeError> {
        Ok(Box::new(Encoder::new(size, rate_hz, bitrate_bps)?))
    }

    fn decoder(&self) -> Result<Box<dyn Decode>, DecodeError> {
        Ok(Box::new(Decoder::new().map_err(DecodeError::Broken)?))
    }
}

impl Encode for Encoder {
    fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError> {
        Self::encode(self, frame, time_90khz, keyframe)
    }

    fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
        Self::set_rate(self, bitrate_bps, rate_hz);
    }
}

impl Decode for Decoder {
    fn lose(&mut self) {
        Self::lose(self);
    }

    fn decode(
        &mut self,
        packet: &Packet,
        into: &mut FramePool,
        captured: Duration,
    ) -> Result<Option<Arc<dyn Image>>, DecodeError> {
        Ok(Self::decode(self, packet, into, captured)?.map(|frame| frame as Arc<dyn Image>))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size::new(320, 180);

    #[test]
    fn software_codes_and_decodes_through_the_traits() {
        let mut encoder = Software.encoder(SIZE, 30.0, 500_000).expect("an encoder");
        let mut decoder = Software.decoder().expect("a decoder");
        let mut frame = Frame::new(SIZE);
        frame.planes_mut()[0].fill(90);

        let packet = encoder.encode(&frame, 3_000, true).expect("coded").expect("not skipped");
        let seen = decoder.decode(&packet, &mut FramePool::default(), Duration::from_millis(5));

        let seen = seen.expect("decoded").expect("a picture");
        assert_eq!((seen.size(), seen.captured(), packet.time), (SIZE, Duration::from_millis(5), 3_000));
        assert!(seen.view().luma().row(100).iter().all(|sample| sample.abs_diff(90) < 4));
    }

    #[test]
    fn another_bit_rate_makes_another_size_of_packet() {
        // Noise, which costs what it may cost.
        let mut seed = 1u32;
        let mut coded = |bitrate_bps| {
            let mut encoder = Software.encoder(SIZE, 30.0, 8_000_000).expect("an encoder");
            encoder.set_rate(bitrate_bps, 30.0);
            let bytes = (0..30).map(|number| {
                let mut frame = Frame::new(SIZE);
                frame.planes_mut()[0].fill_with(|| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                });
                let packet = encoder.encode(&frame, number * 3_000, false).expect("coded");
                packet.map_or(0, |packet| packet.data.len())
            });
            bytes.sum::<usize>()
        };

        let (low, high) = (coded(200_000), coded(8_000_000));

        assert!(low * 3 < high, "{low} and {high} bytes");
    }
}
