//! Sound on its way in and out: the queue to the connection, the RTP packets, the level beside them (RFC 6464).

use crate::media::sound::{Level, SLOT, SoundPacket};
use bytes::Bytes;
use heapless::Deque;
use rtc::rtp::{Header, Packet};
use rtc::rtp_transceiver::rtp_sender::RTCRtpHeaderExtensionParameters;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// URI of the header extension that carries a [`Level`].
pub const LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Ids that fit the one-byte form of a header extension (RFC 8285, section 4.2).
const LEVEL_IDS: RangeInclusive<u16> = 1..=14;
/// Packets between the encoder and the connection: 200 ms.
const PACKETS: usize = 10;

/// Sound that waits for the connection. Full: the oldest goes, for late sound is worse than lost sound.
#[derive(Default)]
pub struct Queue {
    packets: Mutex<Deque<Arc<SoundPacket>, PACKETS>>,
    filled: Notify,
}

impl Queue {
    /// Never waits.
    pub fn push(&self, packet: Arc<SoundPacket>) {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.is_full() {
            packets.pop_front();
        }
        // There is room now.
        let _ = packets.push_back(packet);
        drop(packets);
        self.filled.notify_one();
    }

    /// The oldest packet, if there is one.
    pub fn try_pop(&self) -> Option<Arc<SoundPacket>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The oldest packet, as soon as there is one. For one reader.
    pub async fn pop(&self) -> Arc<SoundPacket> {
        loop {
            if let Some(packet) = self.try_pop() {
                return packet;
            }
            self.filled.notified().await;
        }
    }
}

/// The id under which the level was negotiated, if it was.
pub fn level_id(extensions: &[RTCRtpHeaderExtensionParameters]) -> Option<u16> {
    extensions.iter().find(|extension| extension.uri == LEVEL_URI).map(|extension| extension.id)
}

/// Makes RTP of sound (RFC 7587, section 4).
pub struct Packer {
    /// Id of the level's header extension; `None` if the other side does not want it.
    level: Option<u16>,
    last: Option<(u16, u32)>,
}

impl Packer {
    pub fn new(level: Option<u16>) -> Self {
        Self { level: level.filter(|id| LEVEL_IDS.contains(id)), last: None }
    }

    /// The RTP packet; payload type and SSRC are those of `header`.
    pub fn pack(&mut self, packet: &SoundPacket, header: &Header) -> Packet {
        let mut header = header.clone();
        header.sequence_number = packet.sequence;
        header.timestamp = packet.time;
        // The first packet after a pause (RFC 3551, section 4.1): time went on, the sequence did not.
        header.marker = self.last.is_none_or(|(sequence, time)| {
            let packets = u32::from(packet.sequence.wrapping_sub(sequence));
            packet.time.wrapping_sub(time) != packets.wrapping_mul(SLOT as u32)
        });
        self.last = Some((packet.sequence, packet.time));
        if let (Some(id), Some(level)) = (self.level, packet.level) {
            let byte = u8::from(level.voice) << 7 | level.below_full_db.min(127);
            // Cannot fail: the id and the length are within the one-byte form.
            let _ = header.set_extension(id as u8, Bytes::copy_from_slice(&[byte]));
        }
        Packet { header, payload: packet.data.clone() }
    }
}

/// The sound of an RTP packet; `None` if there is none in it (padding). What the payload holds is for the decoder.
pub fn unpack(packet: Packet, level: Option<u16>) -> Option<SoundPacket> {
    let Packet { header, payload } = packet;
    let said = header.extensions.iter().find(|extension| Some(u16::from(extension.id)) == level);
    // One byte; the two-byte form may pad it (RFC 6464, section 3).
    let level = said
        .and_then(|extension| extension.payload.first())
        .map(|byte| Level { below_full_db: byte & 0x7f, voice: byte & 0x80 != 0 });
    (!payload.is_empty()).then_some(SoundPacket {
        data: payload,
        sequence: header.sequence_number,
        time: header.timestamp,
        level,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc::shared::marshal::{Marshal, Unmarshal};

    #[test]
    fn the_level_survives_the_wire() {
        for voice in [false, true] {
            for below_full_db in 0..=127 {
                let sound = packet(7, 960, Some(Level { below_full_db, voice }));

                let mut wire = Packer::new(Some(3)).pack(&sound, &header()).marshal().expect("fits");
                let arrived = Packet::unmarshal(&mut wire).expect("is RTP");

                assert_eq!(arrived.header.extension_profile, 0xBEDE);
                assert_eq!(unpack(arrived, Some(3)), Some(sound));
            }
        }
    }

    #[test]
    fn a_level_that_was_not_agreed_on_is_neither_sent_nor_read() {
        let sound = packet(7, 960, Some(Level::SILENT));

        let bare = Packer::new(None).pack(&sound, &header());
        let beyond = Packer::new(Some(15)).pack(&sound, &header());
        let said = Packer::new(Some(3)).pack(&sound, &header());

        assert!(bare.header.extensions.is_empty() && beyond.header.extensions.is_empty());
        assert_eq!(unpack(said.clone(), None).and_then(|sound| sound.level), None);
        assert_eq!(unpack(said, Some(4)).and_then(|sound| sound.level), None);
    }

    #[test]
    fn the_marker_is_on_the_first_packet_after_a_pause() {
        let mut packer = Packer::new(None);
        let mut marked = |sequence, time| packer.pack(&packet(sequence, time, None), &header()).header.marker;

        assert!(marked(u16::MAX, u32::MAX - 959), "the first");
        assert!(!marked(0, 0), "the next, over both wraps");
        assert!(!marked(2, 1_920), "one was dropped on the way, which is no pause");
        assert!(marked(3, 48_000), "after a second of silence");
        assert!(!marked(4, 48_960));
    }

    #[tokio::test]
    async fn in_a_full_queue_the_oldest_gives_way() {
        let queue = Queue::default();

        for sequence in 0..25 {
            queue.push(Arc::new(packet(sequence, 0, None)));
        }

        assert_eq!(queue.pop().await.sequence, 15);
        assert_eq!(std::iter::from_fn(|| queue.try_pop()).count(), PACKETS - 1);
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_the_first_packet() {
        let queue = Arc::new(Queue::default());
        let reader = tokio::spawn({
            let queue = queue.clone();
            async move { queue.pop().await.sequence }
        });
        tokio::task::yield_now().await;

        queue.push(Arc::new(packet(9, 0, None)));

        assert_eq!(reader.await.expect("ends"), 9);
    }

    proptest! {
        #[test]
        fn no_packet_from_the_wire_brings_the_reader_down(
            first in 0x80_u8..=0xbf,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            level in prop::option::of(0_u16..20),
        ) {
            let mut wire: Bytes = std::iter::once(first).chain(bytes).collect();
            if let Ok(arrived) = Packet::unmarshal(&mut wire) {
                let payload = arrived.payload.clone();
                let sound = unpack(arrived, level);
                prop_assert_eq!(sound.map(|sound| sound.data).unwrap_or_default(), payload);
            }
        }

        #[test]
        fn a_level_of_any_length_is_read_by_its_first_byte(bytes in prop::collection::vec(any::<u8>(), 0..255)) {
            let mut header = header();
            header.extension = true;
            header.extension_profile = 0x1000;
            header.extensions = vec![rtc::rtp::header::Extension { id: 3, payload: bytes.clone().into() }];

            let sound = unpack(Packet { header, payload: Bytes::from_static(&[1]) }, Some(3));

            let level = sound.and_then(|sound| sound.level).map(|level| level.below_full_db);
            prop_assert_eq!(level, bytes.first().map(|byte| byte & 0x7f));
        }
    }

    fn packet(sequence: u16, time: u32, level: Option<Level>) -> SoundPacket {
        SoundPacket { data: Bytes::from_static(&[0xf8, 0xff, 0xfe]), sequence, time, level }
    }

    fn header() -> Header {
        Header { version: 2, payload_type: 111, ssrc: 5, ..Default::default() }
    }
}
