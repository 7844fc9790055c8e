//! Opus (RFC 6716) as calls need it (RFC 7587): one channel, forward error correction, nothing sent in silence.

use super::sound::{Level, RATE_HZ, SLOT};
use bytes::Bytes;
use opus::{Application, Bitrate, Channels, packet};

pub use opus::Error;

/// Samples of the longest Opus packet: 120 ms (RFC 6716, section 2.1.4).
pub const LONGEST: usize = 6 * SLOT;
/// Lengths of concealment and repair are multiples of this many samples: 2.5 ms, the shortest Opus frame.
pub const STEP: usize = 120;

/// What is quieter than this, in decibels below full scale, may be left out as background.
const BACKGROUND_DB: u8 = 50;
const BITS_A_SECOND: i32 = 32_000;
/// Of 0 to 10: half the work of the highest, hardly to be told apart.
const COMPLEXITY: i32 = 5;
/// An encoder's longest frame (RFC 6716, section 3.2.1).
const LARGEST_FRAME: usize = 1_276;
/// A packet of so few bytes need not be sent (RFC 7587, section 3.1.3; the encoder's documentation).
const NOT_WORTH_SENDING: usize = 2;

/// Turns slots of 20 ms into packets.
pub struct Encoder {
    codec: opus::Encoder,
    packet: [u8; LARGEST_FRAME],
    /// Whether the codec may not leave out anything now.
    sends_all: bool,
}

impl Encoder {
    /// For speech at 32 kbit/s, with forward error correction and discontinuous transmission.
    ///
    /// # Errors
    /// The library has no memory left.
    pub fn new() -> Result<Self, Error> {
        let mut codec = opus::Encoder::new(RATE_HZ, Channels::Mono, Application::Voip)?;
        codec.set_complexity(COMPLEXITY)?;
        codec.set_bitrate(Bitrate::Bits(BITS_A_SECOND))?;
        codec.set_inband_fec(true)?;
        codec.set_dtx(true)?;
        Ok(Self { codec, packet: [0; LARGEST_FRAME], sends_all: false })
    }

    /// How many packets in a hundred the receivers lose: the more, the more of a packet repairs the one before.
    ///
    /// # Errors
    /// None that the library documents; more than 100 is taken for 100.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), Error> {
        self.codec.set_packet_loss_perc(i32::from(percent.min(100)))
    }

    /// Codes 20 ms; `None` if they are silence that need not be sent. The RTP time goes on all the same.
    ///
    /// # Errors
    /// The library failed inside; the next slot may succeed.
    pub fn encode(&mut self, slot: &[f32; SLOT]) -> Result<Option<Bytes>, Error> {
        // The codec takes a steady tone for background; only what hardly anybody hears is that to us.
        let audible = Level::of(slot, false).below_full_db < BACKGROUND_DB;
        if std::mem::replace(&mut self.sends_all, audible) != audible {
            self.codec.set_dtx(!audible)?;
        }
        let length = self.codec.encode_float(slot, &mut self.packet)?;
        Ok((length > NOT_WORTH_SENDING).then(|| Bytes::copy_from_slice(&self.packet[..length])))
    }
}

/// Turns packets of any duration and one or two channels into samples of one channel.
pub struct Decoder {
    codec: opus::Decoder,
    calls: u64,
}

impl Decoder {
    /// # Errors
    /// The library has no memory left.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { codec: opus::Decoder::new(RATE_HZ, Channels::Mono)?, calls: 0 })
    }

    /// Decodes the packet into the front of `out`; answers how many samples that are, at most [`LONGEST`].
    ///
    /// # Errors
    /// It is no Opus packet, or longer than `out`; the packets after it can be decoded all the same.
    pub fn decode(&mut self, packet: &[u8], out: &mut [f32]) -> Result<usize, Error> {
        self.calls += 1;
        // Without a byte the library would conceal.
        duration(packet)?;
        self.codec.decode_float(packet, out, false)
    }

    /// Fills `out` (a multiple of [`STEP`]) with what was said just before `next_packet`, from the copy in it;
    /// conceals where it has none.
    ///
    /// # Errors
    /// It is no Opus packet.
    pub fn repair(&mut self, next_packet: &[u8], out: &mut [f32]) -> Result<(), Error> {
        self.calls += 1;
        duration(next_packet)?;
        self.codec.decode_float(next_packet, out, true).map(drop)
    }

    /// Fills `out` (a multiple of [`STEP`], at most [`LONGEST`]) with what may have followed; fades in time.
    ///
    /// # Errors
    /// The length of `out` is not as said.
    pub fn conceal(&mut self, out: &mut [f32]) -> Result<(), Error> {
        self.calls += 1;
        self.codec.decode_float(&[], out, false).map(drop)
    }

    /// How often the library was asked to do anything.
    pub fn calls(&self) -> u64 {
        self.calls
    }
}

/// Samples that the packet lasts, by its first bytes (RFC 6716, section 3.1).
///
/// # Errors
/// It is no Opus packet.
pub fn duration(packet: &[u8]) -> Result<usize, Error> {
    packet::get_nb_samples(packet, RATE_HZ)
}

/// Samples of each of the packet's frames; 0 if it is no Opus packet. A copy is as long as the first one.
pub fn frame(packet: &[u8]) -> usize {
    packet::get_samples_per_frame(packet, RATE_HZ).unwrap_or(0)
}

/// Whether the packet carries a copy of the slot before it: the LBRR flag of its first SILK frame
/// (RFC 6716, section 4.2.3).
pub fn repairs(packet: &[u8]) -> bool {
    // Configurations 16 to 31 have no SILK part, hence no copy (section 3.1).
    let Some(toc) = packet.first() else { return false };
    if toc & 0x80 != 0 {
        return false;
    }
    let Ok(parsed) = packet::parse(packet) else { return false };
    let Some(flags) = parsed.frames.first().and_then(|frame| frame.first()) else { return false };
    // One voice flag for each 20 ms, then the copy's flag; in stereo the same again for the side.
    let voice_flags = (frame(packet) / SLOT).max(1);
    let mid = (flags >> (7 - voice_flags)) & 1;
    let side = if toc & 0x04 != 0 { (u32::from(*flags) << (2 * voice_flags + 1) >> 7) as u8 & 1 } else { 0 };
    mid | side != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sound::Level;
    use proptest::prelude::*;

    /// A voice-like sound: harmonics of a wandering pitch, three syllables a second.
    fn voice(slot: usize) -> [f32; SLOT] {
        std::array::from_fn(|n| {
            let t = (slot * SLOT + n) as f32 / RATE_HZ as f32;
            let phase = std::f32::consts::TAU * (140.0 * t + 3.0 * (2.0 * t).sin());
            let syllable = 0.55 + 0.45 * (19.0 * t).sin();
            (1..10).map(|k| (phase * k as f32).sin() / k as f32).sum::<f32>() * 0.15 * syllable
        })
    }

    fn coded(slots: usize, loss: u8) -> Vec<Bytes> {
        let mut encoder = Encoder::new().unwrap();
        encoder.set_expected_loss(loss).unwrap();
        (0..slots).map(|slot| encoder.encode(&voice(slot)).unwrap().expect("a voice is sent")).collect()
    }

    fn db(samples: &[f32]) -> i32 {
        -i32::from(Level::of(samples, false).below_full_db)
    }

    #[test]
    fn a_voice_comes_back_as_loud_as_it_was() {
        let mut decoder = Decoder::new().unwrap();
        let mut out = [0.0; SLOT];
        let mut heard = Vec::new();

        for packet in coded(50, 0) {
            assert_eq!(decoder.decode(&packet, &mut out).unwrap(), SLOT);
            heard.extend_from_slice(&out);
        }

        let said: Vec<f32> = (0..50).flat_map(voice).collect();
        assert!((db(&heard) - db(&said)).abs() <= 1, "{} dB from {} dB", db(&heard), db(&said));
    }

    #[test]
    fn silence_is_not_sent() {
        let mut encoder = Encoder::new().unwrap();

        let sent = (0..100).filter(|_| encoder.encode(&[0.0; SLOT]).unwrap().is_some()).count();

        assert!(sent < 30, "{sent} of 100 slots of silence were sent");
    }

    #[test]
    fn a_lost_slot_is_repaired_from_the_next_packet_better_than_concealed() {
        let packets = coded(60, 20);
        // Quiet slots carry no copy.
        assert!(packets.iter().filter(|packet| repairs(packet)).count() > 30);
        let error = |repaired: bool| -> f64 {
            let (mut plain, mut lossy) = (Decoder::new().unwrap(), Decoder::new().unwrap());
            let (mut whole, mut got) = ([0.0; SLOT], [0.0; SLOT]);
            let mut error = 0.0;
            for (n, packet) in packets.iter().enumerate() {
                plain.decode(packet, &mut whole).unwrap();
                if n % 10 != 9 {
                    lossy.decode(packet, &mut got).unwrap();
                    continue;
                }
                match packets.get(n + 1) {
                    Some(next) if repaired => lossy.repair(next, &mut got).unwrap(),
                    _ => lossy.conceal(&mut got).unwrap(),
                }
                error += whole.iter().zip(&got).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            error
        };

        let (repaired, concealed) = (error(true), error(false));

        assert!(repaired < concealed * 0.7, "repaired {repaired:.3}, concealed {concealed:.3}");
    }

    #[test]
    fn without_expected_loss_no_packet_carries_a_copy() {
        assert!(coded(30, 0).iter().all(|packet| !repairs(packet)));
    }

    #[test]
    fn packets_of_every_duration_and_of_two_channels_decode_to_one() {
        let mut encoder = opus::Encoder::new(RATE_HZ, Channels::Stereo, Application::Audio).unwrap();
        let mut decoder = Decoder::new().unwrap();
        let mut out = [0.0; LONGEST];

        for length in [120, 240, 480, 960, 1920, 2880, 3840, 5760] {
            let both: Vec<f32> = (0..length * 2).map(|n| ((n / 2) as f32 * 0.05).sin() * 0.3).collect();
            let packet = encoder.encode_vec_float(&both, 4000).unwrap();
            assert_eq!(duration(&packet).unwrap(), length);
            assert_eq!(decoder.decode(&packet, &mut out).unwrap(), length);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..20)) {
            let mut decoder = Decoder::new().unwrap();
            let mut out = [0.0; LONGEST];
            for packet in packets {
                repairs(&packet);
                if let Ok(length) = decoder.decode(&packet, &mut out) {
                    prop_assert!(length <= LONGEST && duration(&packet).unwrap() == length);
                }
                let _ = decoder.repair(&packet, &mut out[..SLOT]);
                prop_assert!(decoder.conceal(&mut out[..SLOT]).is_ok());
                prop_assert!(out.iter().all(|sample| sample.is_finite()));
            }
        }
    }
}
