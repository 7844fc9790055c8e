//! TRANSFORMS: bytes into bytes. No clock, thread, file, network or randomness; `unsafe` nowhere.

pub mod arrivals;
pub mod assemble;
pub mod canvas;
pub mod codec;
pub mod compose;
pub mod convert;
pub mod echo;
pub mod frame;
pub mod glazing;
pub mod h264;
pub mod halve;
pub mod image;
pub mod jitter;
pub mod kernel;
pub mod lip_sync;
pub mod mix;
pub mod opus;
pub mod overlay;
pub mod packetize;
pub mod rotate;
pub mod selftest;
pub mod signs;
pub mod snapshot;
pub mod sound;
pub mod speaking;
pub mod sps;
pub mod stamps;
mod stretch;
pub mod text;

use bytes::Bytes;

/// One coded picture (an H.264 access unit in Annex B form: ITU-T H.264, Annex B).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Annex B byte stream of one access unit.
    pub data: Bytes,
    /// Whether decoding can begin here (an IDR picture with its parameter sets).
    pub keyframe: bool,
    /// Time stamp in the codec's clock: 90 kHz, wraps (RFC 6184, section 8.2.1).
    pub time: u32,
}
