//! The interceptors of a connection: what repairs losses, and what webrtc 0.21 leaves open.
//!
//! ```text
//!  wire ─► NACK responder · RtxUnwrap · NACK generator · TWCC receiver · receiver reports · listener ─► tracks
//! ```
//!
//! Sound is not asked for again (its codec has no `nack`): forward error correction is sooner.
//!
//! No sender reports: those of webrtc 0.21 say when a packet was sent, not when it was captured, and picture and sound
//! do not take equally long in between. The session makes its own.
//!
//! What leaves is numbered last (TWCC), so that the other side reports on retransmissions too, and [`Estimate`] says how
//! much the way carries.
//!
//! No pacer: the one of webrtc 0.21 is first in, first out, and lets retransmissions wait behind pictures.

mod congestion;
mod nack;

use anyhow::Context;
use congestion::Controller;
pub use congestion::Estimate;
use nack::Asker;
pub use nack::RoundTrip;
use rtc::interceptor::{
    AttributedPacket, CongestionControlBuilder, Interceptor, NackResponderBuilder, Packet,
    ReceiverReportBuilder, Slot, StreamInfo, TaggedPacket,
};
use rtc::peer_connection::configuration::interceptor_registry::{Registry, configure_twcc};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The chain of one connection, with the header extension it needs registered in `engine`; `listener` sees all that
/// comes, `round_trip` says how long an answer takes, and `estimate` will say how much the way carries.
///
/// # Errors
///
/// When `engine` has no room for the header extension.
pub fn interceptors(
    engine: &mut MediaEngine,
    listener: impl Tap + 'static,
    round_trip: RoundTrip,
    estimate: Estimate,
) -> anyhow::Result<Registry> {
    // Numbers, reports, and what is to be negotiated for both.
    let registry = configure_twcc(Registry::new(), engine).context("register transport-cc")?;
    Ok(registry
        .with(Slot::CongestionControl, CongestionControlBuilder::new(Controller::new(estimate)).build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
        .with(Slot::NackResponder, NackResponderBuilder::new().build())
        .with(Slot::NackGenerator, Asker::new(round_trip))
        // Before the NACK generator, so that it sees what was repaired.
        .with(Slot::from(6_500), Inbound::new(RtxUnwrap::default()))
        // Behind everything that acts on RTCP itself.
        .with(Slot::from(14_000), Inbound::new(listener)))
}

/// Puts a retransmission back into its stream (RFC 4588, section 4).
///
/// webrtc 0.21 does so only behind the interceptors; its NACK generator then never learns that a packet was
/// repaired, and asks for it for ever.
#[derive(Default)]
struct RtxUnwrap {
    /// SSRC of the retransmissions → SSRC and payload type of the stream; one entry a remote track.
    streams: HashMap<u32, (u32, u8)>,
}

impl Tap for RtxUnwrap {
    fn inbound(&mut self, packet: &mut AttributedPacket, _now: Instant) -> bool {
        let Packet::Rtp(rtp) = &mut packet.packet else { return true };
        let Some(&(ssrc, payload_type)) = self.streams.get(&rtp.header.ssrc) else { return true };
        let Some(&sequence) = rtp.payload.first_chunk::<2>() else {
            return false; // padding that probes the bandwidth
        };

        rtp.payload = rtp.payload.slice(2..);
        rtp.header.ssrc = ssrc;
        rtp.header.payload_type = payload_type;
        rtp.header.sequence_number = u16::from_be_bytes(sequence);
        true
    }

    fn bind(&mut self, stream: &StreamInfo) {
        if let Some(rtx) = stream.ssrc_rtx {
            self.streams.insert(rtx, (stream.ssrc, stream.payload_type));
        }
    }

    fn unbind(&mut self, stream: &StreamInfo) {
        if let Some(rtx) = stream.ssrc_rtx {
            self.streams.remove(&rtx);
        }
    }
}

/// Something that looks at what comes in, and leaves alone what goes out.
pub trait Tap: Send + Sync {
    /// May change the packet, which arrived at `now`; false drops it. Runs on webrtc's driver: it must not wait.
    fn inbound(&mut self, packet: &mut AttributedPacket, now: Instant) -> bool;
    /// A stream of ours begins.
    fn bind_local(&mut self, _stream: &StreamInfo) {}
    /// A stream of theirs begins.
    fn bind(&mut self, _stream: &StreamInfo) {}
    /// A stream of theirs has ended.
    fn unbind(&mut self, _stream: &StreamInfo) {}
}

/// Makes an interceptor of a [`Tap`]. Its queues are emptied by the driver after each packet.
struct Inbound<T> {
    tap: T,
    incoming: VecDeque<TaggedPacket>,
    outgoing: VecDeque<TaggedPacket>,
}

impl<T> Inbound<T> {
    fn new(tap: T) -> Self {
        Self { tap, incoming: VecDeque::new(), outgoing: VecDeque::new() }
    }
}

impl<T: Tap> Protocol<TaggedPacket, TaggedPacket, ()> for Inbound<T> {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if self.tap.inbound(&mut packet.message, packet.now) {
            self.incoming.push_back(packet);
        }
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.incoming.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.outgoing.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outgoing.pop_front()
    }
}

impl<T: Tap> Interceptor for Inbound<T> {
    fn bind_local_stream(&mut self, stream: &StreamInfo) {
        self.tap.bind_local(stream);
    }

    fn unbind_local_stream(&mut self, _stream: &StreamInfo) {}

    fn bind_remote_stream(&mut self, stream: &StreamInfo) {
        self.tap.bind(stream);
    }

    fn unbind_remote_stream(&mut self, stream: &StreamInfo) {
        self.tap.unbind(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_retransmission_becomes_the_packet_that_was_lost() {
        let mut unwrap = RtxUnwrap::default();
        unwrap.bind(&stream());

        let mut packet = rtp(22, &[0x12, 0x34, 7, 8, 9]);
        let kept = unwrap.inbound(&mut packet, Instant::now());

        let Packet::Rtp(rtp) = packet.packet else { panic!("still RTP") };
        assert!(kept);
        assert_eq!(rtp.header.ssrc, 11);
        assert_eq!(rtp.header.payload_type, 102);
        assert_eq!(rtp.header.sequence_number, 0x1234);
        assert_eq!(&rtp.payload[..], &[7, 8, 9]);
    }

    #[test]
    fn padding_on_the_retransmission_stream_is_dropped() {
        let mut unwrap = RtxUnwrap::default();
        unwrap.bind(&stream());
        let now = Instant::now();

        assert!(!unwrap.inbound(&mut rtp(22, &[]), now));
        assert!(!unwrap.inbound(&mut rtp(22, &[1]), now));
        assert!(unwrap.inbound(&mut rtp(11, &[]), now));
    }

    fn stream() -> StreamInfo {
        StreamInfo { ssrc: 11, ssrc_rtx: Some(22), payload_type: 102, ..Default::default() }
    }

    fn rtp(ssrc: u32, payload: &'static [u8]) -> AttributedPacket {
        let header = rtc::rtp::Header { ssrc, payload_type: 103, ..Default::default() };
        AttributedPacket::new(Packet::Rtp(rtc::rtp::Packet { header, payload: Bytes::from_static(payload) }))
    }
}
