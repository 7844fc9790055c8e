//! Sound inside the house: 48 kHz, one channel, samples of −1 to 1, in blocks of 10 ms.

use bytes::Bytes;

/// Samples a second, everywhere between the devices and the wire.
pub const RATE_HZ: u32 = 48_000;
/// Samples of a [`Block`]: 10 ms, the step of devices, mixing and echo cancellation.
pub const BLOCK: usize = 480;
/// Samples of one coded [`SoundPacket`]: 20 ms.
pub const SLOT: usize = 2 * BLOCK;

/// 10 ms of sound.
pub type Block = [f32; BLOCK];

pub const SILENCE: Block = [0.0; BLOCK];

/// How loud a packet is (RFC 6464): carried beside it, so that nobody must decode to know who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Decibels below full scale, 0 (loudest) to 127 (silence).
    pub below_full_db: u8,
    /// Whether the sender takes it for speech.
    pub voice: bool,
}

impl Level {
    pub const SILENT: Self = Self { below_full_db: 127, voice: false };

    /// The level of these samples: their root mean square against full scale.
    pub fn of(samples: &[f32], voice: bool) -> Self {
        let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        let rms = (energy / samples.len().max(1) as f64).sqrt();
        let below = (-20.0 * rms.max(1e-9).log10()).round().clamp(0.0, 127.0);
        Self { below_full_db: below as u8, voice }
    }
}

/// One coded slot of sound (Opus, RFC 7587).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoundPacket {
    /// One Opus packet.
    pub data: Bytes,
    /// RTP sequence number: one more a packet sent, wraps.
    pub sequence: u16,
    /// RTP time of the first sample, 48 kHz, wraps; goes on while nothing is sent.
    pub time: u32,
    /// `None` if the sender does not say.
    pub level: Option<Level>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_in_decibels_below_full_scale() {
        let square = |amplitude: f32| Level::of(&[amplitude, -amplitude], true).below_full_db;

        assert_eq!([square(1.0), square(0.5), square(0.1), square(0.0)], [0, 6, 20, 127]);
        assert_eq!(Level::of(&[], false), Level::SILENT);
    }
}
