//! Hardware codecs: V4L2 memory-to-memory devices with a stateful encoder or decoder (kernel: dev-encoder, dev-decoder).
//!
//! Which they are is found by looking at every node, once. Every wait in here has a limit: a codec that hangs is an
//! error, and whoever uses it goes on with another one.
//!
//! What is decoded is shown from the driver's own buffer, which has it again when nobody looks at it any more. What is to
//! be encoded is copied once: without that the driver's memory would have to be the camera's (VIDIOC_EXPBUF,
//! V4L2_MEMORY_DMABUF), in the driver's format and with its stride.

mod controls;
mod decoder;
mod encoder;
mod node;
mod picture;
mod queue;

pub use decoder::V4l2Decoder;
pub use encoder::V4l2Encoder;

use super::camera::nodes;
use crate::geometry::Size;
use crate::media::codec::{Codecs, Decode, Encode};
use crate::media::h264::{DecodeError, EncodeError};
use node::{Direction, Node};
use picture::cheapest;
use std::path::PathBuf;
use std::time::Duration;

/// How long a codec may take for one picture. It takes some hundredths of a second; an emulated one half a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// FourCC of the coding that rooms speak. In tests another stands in its place.
pub const H264: [u8; 4] = *b"H264";

/// An encoder or a decoder of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node, as `/dev/video11`.
    pub path: PathBuf,
    /// The driver's name for it and its node, for people.
    pub name: String,
    /// FourCC of the coded side.
    pub coded: [u8; 4],
    /// FourCC of the raw side, `YU12` or `NV12`: the one that costs less of those it has.
    pub raw: [u8; 4],
}

/// The hardware codecs of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    pub encoder: Option<Found>,
    pub decoder: Option<Found>,
}

impl Hardware {
    /// Looks for the first encoder into and the first decoder from `coded`. Nodes that cannot be opened are passed over.
    pub fn find(coded: [u8; 4]) -> Self {
        let mut hardware = Self::default();
        for path in nodes() {
            let Ok(node) = Node::open(&path) else { continue };
            let Ok(Some(card)) = node.card() else { continue };
            let role = role(&node.formats(Direction::Output), &node.formats(Direction::Capture), coded);
            let (place, raw) = match role {
                Some(Role::Encoder(raw)) => (&mut hardware.encoder, raw),
                Some(Role::Decoder(raw)) => (&mut hardware.decoder, raw),
                None => continue,
            };
            let name = format!("{card} ({})", path.display());
            place.get_or_insert(Found { path, name, coded, raw });
        }
        hardware
    }

    /// Whether there is neither.
    pub fn is_empty(&self) -> bool {
        self.encoder.is_none() && self.decoder.is_none()
    }
}

impl Codecs for Hardware {
    fn encoder_name(&self) -> Option<&str> {
        self.encoder.as_ref().map(|found| found.name.as_str())
    }

    fn decoder_name(&self) -> Option<&str> {
        self.decoder.as_ref().map(|found| found.name.as_str())
    }

    fn encoder(&self, size: Size, rate_hz: f32, bitrate_bps: u32) -> Result<Box<dyn Encode>, EncodeError> {
        let absent = || EncodeError::Device("there is no hardware encoder".into());
        let found = self.encoder.as_ref().ok_or_else(absent)?;
        match V4l2Encoder::open(found, size, rate_hz, bitrate_bps) {
            Ok(encoder) => Ok(Box::new(encoder)),
            Err(error) => Err(EncodeError::Device(error.into())),
        }
    }

    fn decoder(&self) -> Result<Box<dyn Decode>, DecodeError> {
        let absent = || DecodeError::Device("there is no hardware decoder".into());
        let found = self.decoder.as_ref().ok_or_else(absent)?;
        match V4l2Decoder::open(found) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(error) => Err(DecodeError::Device(error.into())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// From this raw format.
    Encoder([u8; 4]),
    /// Into this one.
    Decoder([u8; 4]),
}

/// What a node is, by what goes in (`output`) and what comes out (`capture`).
fn role(output: &[[u8; 4]], capture: &[[u8; 4]], coded: [u8; 4]) -> Option<Role> {
    if let Some(raw) = cheapest(output)
        && capture.contains(&coded)
    {
        return Some(Role::Encoder(raw));
    }
    cheapest(capture).filter(|_| output.contains(&coded)).map(Role::Decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_what_goes_in_and_what_comes_out() {
        let raw = [*b"NM12", *b"NV12"];
        let coded = [*b"MPG2", *b"H264"];

        assert_eq!(role(&raw, &coded, H264), Some(Role::Encoder(*b"NV12")));
        assert_eq!(role(&coded, &raw, H264), Some(Role::Decoder(*b"NV12")));
        assert_eq!(role(&coded, &[*b"NV12", *b"YU12"], H264), Some(Role::Decoder(*b"YU12")));
        assert_eq!(role(&raw, &[*b"MJPG"], H264), None);
        // A scaler, a stateless decoder, and one whose pictures are of a kind that frames are not made of.
        assert_eq!(role(&raw, &raw, H264), None);
        assert_eq!(role(&[*b"S264"], &raw, H264), None);
        assert_eq!(role(&coded, &[*b"NV16"], H264), None);
    }

    #[test]
    fn what_is_not_there_is_said_and_not_opened() {
        let hardware = Hardware::default();

        assert!(hardware.is_empty());
        assert!(matches!(hardware.encoder(Size::new(640, 480), 30.0, 800_000), Err(EncodeError::Device(_))));
        assert!(matches!(hardware.decoder(), Err(DecodeError::Device(_))));
    }
}
