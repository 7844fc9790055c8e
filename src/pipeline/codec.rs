//! Which codec a stream gets: the machine's own where it has one, the software where it has none or that one fails, at
//! the start or in the middle of a call.

use super::cause;
use crate::device::{self, Kind};
use crate::geometry::Size;
use crate::media::Packet;
use crate::media::codec::{Codecs, Decode, Encode, Software};
use crate::media::frame::{Frame, FramePool};
use crate::media::h264::{DecodeError, EncodeError};
use crate::media::image::Image;
use crate::room::fault::{Cause, Code, Fault, Part};
use crate::room::{CodecInfo, Event};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Hands out codecs, to every stream its own.
pub struct CodecChoice {
    hardware: Option<Arc<dyn Codecs>>,
    /// Not tried any more until the process ends: a device that came and went would break the picture each time.
    encoder_lost: AtomicBool,
    decoder_lost: AtomicBool,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl CodecChoice {
    /// Prefers `hardware`. `tell` is told what is used, and why when it is no longer the hardware.
    pub fn new(hardware: Option<Arc<dyn Codecs>>, tell: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        let choice = Self { hardware, tell: Box::new(tell), ..Self::software_only() };
        choice.introduce();
        Arc::new(choice)
    }

    /// The software, always, and not a word about it.
    pub fn software() -> Arc<Self> {
        Arc::new(Self::software_only())
    }

    fn software_only() -> Self {
        Self {
            hardware: None,
            encoder_lost: AtomicBool::new(false),
            decoder_lost: AtomicBool::new(false),
            tell: Box::new(|_| {}),
        }
    }

    /// An encoder for pictures that begin with this size.
    ///
    /// # Errors
    /// The software refuses too, as pictures are too large.
    pub fn encoder(
        self: &Arc<Self>,
        size: Size,
        rate_hz: f32,
        bitrate_bps: u32,
    ) -> Result<Box<dyn Encode>, EncodeError> {
        let hardware = self.hardware.as_ref().filter(|hardware| hardware.encoder_name().is_some());
        if let Some(hardware) = hardware.filter(|_| !self.encoder_lost.load(Relaxed)) {
            match hardware.encoder(size, rate_hz, bitrate_bps) {
                Ok(inner) => {
                    let choice = self.clone();
                    return Ok(Box::new(Encoder { inner: Some(inner), choice, rate_hz, bitrate_bps }));
                }
                Err(EncodeError::Device(error)) => {
                    self.lose(&self.encoder_lost, "open encoder", error.as_ref())
                }
                Err(error) => return Err(error),
            }
        }
        Software.encoder(size, rate_hz, bitrate_bps)
    }

    /// A decoder for one stream.
    ///
    /// # Errors
    /// The software cannot be initialised.
    pub fn decoder(self: &Arc<Self>) -> Result<Box<dyn Decode>, DecodeError> {
        let hardware = self.hardware.as_ref().filter(|hardware| hardware.decoder_name().is_some());
        if let Some(hardware) = hardware.filter(|_| !self.decoder_lost.load(Relaxed)) {
            match hardware.decoder() {
                Ok(inner) => return Ok(Box::new(Decoder { inner: Some(inner), choice: self.clone() })),
                Err(DecodeError::Device(error)) => {
                    self.lose(&self.decoder_lost, "open decoder", error.as_ref())
                }
                Err(error) => return Err(error),
            }
        }
        Software.decoder()
    }

    /// Says that a stream goes on in software, and gives the hardware up for all streams if it was not this one's kind.
    fn lose(&self, lost: &AtomicBool, op: &str, error: &(dyn Error + Send + Sync + 'static)) {
        let cause = match error.downcast_ref::<device::Error>() {
            Some(error) => {
                // This size, or one stream too many: others may fare better.
                let of_the_stream = matches!(error.kind, Kind::Format | Kind::Busy | Kind::BadFrame)
                    || error.errno == Some(libc::ENOMEM);
                lost.fetch_or(!of_the_stream, Relaxed);
                cause(error.clone())
            }
            None => Cause { op: op.into(), errno: Some(error.to_string()), target: None },
        };
        tracing::warn!(op, %error, "codec failed, going on in software");
        (self.tell)(Event::Raised(Fault {
            part: Part::Codec,
            code: Code::CodecSoftware,
            cause: Some(cause),
            retry_in: None,
        }));
        self.introduce();
    }

    fn introduce(&self) {
        let name = |of: fn(&dyn Codecs) -> Option<&str>, lost: &AtomicBool| {
            let hardware = self.hardware.as_deref().and_then(of).filter(|_| !lost.load(Relaxed));
            hardware.unwrap_or(Software::NAME).to_owned()
        };
        let encoder = name(|codecs| codecs.encoder_name(), &self.encoder_lost);
        let decoder = name(|codecs| codecs.decoder_name(), &self.decoder_lost);
        tracing::info!(encoder, decoder, "codecs");
        (self.tell)(Event::CodecsChosen { info: CodecInfo { encoder, decoder } });
    }
}

/// The machine's encoder, and after its failure the software's.
struct Encoder {
    /// `None` after a failure, until the software is open.
    inner: Option<Box<dyn Encode>>,
    choice: Arc<CodecChoice>,
    rate_hz: f32,
    bitrate_bps: u32,
}

impl Encode for Encoder {
    fn encode(
        &mut self,
        frame: &Frame,
        time_90khz: u32,
        keyframe: bool,
    ) -> Result<Option<Packet>, EncodeError> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            None => self.inner.insert(Software.encoder(frame.size(), self.rate_hz, self.bitrate_bps)?),
        };
        match inner.encode(frame, time_90khz, keyframe) {
            Err(EncodeError::Device(error)) => {
                self.inner = None;
                self.choice.lose(&self.choice.encoder_lost, "encode", error.as_ref());
                // The same picture: nothing is lost.
                let software = Software.encoder(frame.size(), self.rate_hz, self.bitrate_bps)?;
                self.inner.insert(software).encode(frame, time_90khz, true)
            }
            coded => coded,
        }
    }

    fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
        if let Some(inner) = &mut self.inner {
            inner.set_rate(bitrate_bps, rate_hz);
        }
    }
}

/// The machine's decoder, and after its failure the software's.
struct Decoder {
    /// `None` after a failure, until the software is open.
    inner: Option<Box<dyn Decode>>,
    choice: Arc<CodecChoice>,
}

impl Decode for Decoder {
    fn lose(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.lose();
        }
    }

    fn decode(
        &mut self,
        packet: &Packet,
        into: &mut FramePool,
        captured: Duration,
    ) -> Result<Option<Arc<dyn Image>>, DecodeError> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            None => self.inner.insert(Software.decoder()?),
        };
        match inner.decode(packet, into, captured) {
            Err(DecodeError::Device(error)) => {
                self.inner = None;
                self.choice.lose(&self.choice.decoder_lost, "decode", error.as_ref());
                // The same packet: if it is a keyframe nothing is lost, else one is asked for.
                self.inner.insert(Software.decoder()?).decode(packet, into, captured)
            }
            decoded => decoded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    const SIZE: Size = Size::new(64, 64);

    /// Codecs that work for some pictures and fail then, as a device that is taken away.
    struct Frail {
        pictures: Arc<AtomicU32>,
        kind: Kind,
    }

    impl Frail {
        fn error(&self) -> Option<Box<device::Error>> {
            let left = self.pictures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            let (kind, operation, target) = (self.kind, "VIDIOC_DQBUF", "/dev/video11".to_owned());
            left.is_err()
                .then(|| Box::new(device::Error { kind, operation, errno: Some(libc::ENODEV), target }))
        }
    }

    struct Failing<T>(T, Frail);

    impl Codecs for Frail {
        fn encoder_name(&self) -> Option<&str> {
            Some("frail")
        }

        fn decoder_name(&self) -> Option<&str> {
            Some("frail")
        }

        fn encoder(
            &self,
            size: Size,
            rate_hz: f32,
            bitrate_bps: u32,
        ) -> Result<Box<dyn Encode>, EncodeError> {
            if self.kind == Kind::Format && size == SIZE {
                return Err(EncodeError::Device(self.error().expect("it has no pictures")));
            }
            let frail = Frail { pictures: self.pictures.clone(), kind: self.kind };
            Ok(Box::new(Failing(Software.encoder(size, rate_hz, bitrate_bps)?, frail)))
        }

        fn decoder(&self) -> Result<Box<dyn Decode>, DecodeError> {
            let frail = Frail { pictures: self.pictures.clone(), kind: self.kind };
            Ok(Box::new(Failing(Software.decoder()?, frail)))
        }
    }

    impl Encode for Failing<Box<dyn Encode>> {
        fn encode(
            &mut self,
            frame: &Frame,
            time_90khz: u32,
            keyframe: bool,
        ) -> Result<Option<Packet>, EncodeError> {
            match self.1.error() {
                Some(error) => Err(EncodeError::Device(error)),
                None => self.0.encode(frame, time_90khz, keyframe),
            }
        }

        fn set_rate(&mut self, bitrate_bps: u32, rate_hz: f32) {
            self.0.set_rate(bitrate_bps, rate_hz);
        }
    }

    impl Decode for Failing<Box<dyn Decode>> {
        fn lose(&mut self) {
            self.0.lose();
        }

        fn decode(
            &mut self,
            packet: &Packet,
            into: &mut FramePool,
            captured: Duration,
        ) -> Result<Option<Arc<dyn Image>>, DecodeError> {
            match self.1.error() {
                Some(error) => Err(DecodeError::Device(error)),
                None => self.0.decode(packet, into, captured),
            }
        }
    }

    type Told = Arc<Mutex<Vec<String>>>;

    /// A choice with codecs that work for so many pictures, and what it tells, in short.
    fn choice(pictures: u32, kind: Kind) -> (Arc<CodecChoice>, Told) {
        let told = Told::default();
        let heard = told.clone();
        let hardware = Frail { pictures: Arc::new(pictures.into()), kind };
        let choice = CodecChoice::new(Some(Arc::new(hardware)), move |event| {
            let short = match event {
                Event::CodecsChosen { info } => format!("{} {}", info.encoder, info.decoder),
                Event::Raised(fault) => {
                    let cause = fault.cause.expect("there is a cause");
                    format!(
                        "{} {:?}: {} on {}",
                        fault.part,
                        fault.code,
                        cause.op,
                        cause.target.expect("a device")
                    )
                }
                other => panic!("{other:?}"),
            };
            heard.lock().expect("no panic").push(short);
        });
        (choice, told)
    }

    fn coded(encoder: &mut dyn Encode, keyframe: bool) -> Packet {
        encoder.encode(&Frame::new(SIZE), 0, keyframe).expect("coded").expect("not skipped")
    }

    #[test]
    fn an_encoder_that_fails_in_mid_call_is_replaced_without_a_lost_picture() {
        let (choice, told) = choice(3, Kind::Gone);
        let mut encoder = choice.encoder(SIZE, 30.0, 200_000).expect("an encoder");
        let mut decoder = Software.decoder().expect("a decoder");

        let keyframes = (0..5).map(|_| {
            let packet = coded(encoder.as_mut(), false);
            let seen = decoder.decode(&packet, &mut FramePool::default(), Duration::ZERO);
            assert!(seen.expect("decoded").is_some());
            packet.keyframe
        });

        assert_eq!(keyframes.collect::<Vec<_>>(), [true, false, false, true, false]);
        let next = choice.encoder(SIZE, 30.0, 200_000);
        coded(next.expect("software").as_mut(), true);
        let fault = "codec CodecSoftware: VIDIOC_DQBUF on /dev/video11";
        assert_eq!(*told.lock().expect("no panic"), ["frail frail", fault, "OpenH264 frail"]);
    }

    #[test]
    fn a_decoder_that_fails_in_mid_call_is_replaced_and_goes_on_with_the_next_keyframe() {
        let (choice, told) = choice(1, Kind::Stalled);
        let mut encoder = Software.encoder(SIZE, 30.0, 200_000).expect("an encoder");
        let mut decoder = choice.decoder().expect("a decoder");
        let mut pool = FramePool::default();
        let mut decode = |packet: Packet| decoder.decode(&packet, &mut pool, Duration::ZERO);

        assert!(decode(coded(encoder.as_mut(), true)).expect("decoded").is_some());
        let after = decode(coded(encoder.as_mut(), false));
        assert!(matches!(after, Err(DecodeError::NeedsKeyframe)));
        assert!(decode(coded(encoder.as_mut(), true)).expect("decoded").is_some());

        let fault = "codec CodecSoftware: VIDIOC_DQBUF on /dev/video11";
        assert_eq!(*told.lock().expect("no panic"), ["frail frail", fault, "frail OpenH264"]);
    }

    #[test]
    fn a_size_that_a_codec_refuses_is_no_reason_to_give_it_up_for_others() {
        let (choice, told) = choice(0, Kind::Format);

        coded(choice.encoder(SIZE, 30.0, 200_000).expect("software").as_mut(), true);
        choice.encoder(Size::new(128, 64), 30.0, 200_000).expect("hardware");

        let fault = "codec CodecSoftware: VIDIOC_DQBUF on /dev/video11";
        assert_eq!(*told.lock().expect("no panic"), ["frail frail", fault, "frail frail"]);
    }

    #[test]
    fn a_machine_without_a_codec_uses_software_and_complains_of_nothing() {
        let told = Told::default();
        let heard = told.clone();
        let choice = CodecChoice::new(None, move |event| {
            heard.lock().expect("no panic").push(format!("{event:?}"));
        });

        let packet = coded(choice.encoder(SIZE, 30.0, 200_000).expect("an encoder").as_mut(), true);
        let seen =
            choice.decoder().expect("a decoder").decode(&packet, &mut FramePool::default(), Duration::ZERO);

        assert!(seen.expect("decoded").is_some());
        let told = told.lock().expect("no panic");
        assert!(told.len() == 1 && told[0].contains("OpenH264"), "{told:?}");
    }
}
