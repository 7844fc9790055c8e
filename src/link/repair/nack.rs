//! Asks for lost packets again (generic NACK, RFC 4585, section 6.2.1), by the time that an answer takes.
//!
//! That of webrtc 0.21 asks at fixed intervals: those short enough for the room next door ask many times for what is
//! on its way from far, those long enough for that lose pictures that one more question would have saved.

use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A packet that is so late may only have been overtaken.
const OVERTAKEN: Duration = Duration::from_millis(10);
/// Between two questions for the same packet, beyond the time that an answer takes.
const MARGIN: Duration = Duration::from_millis(15);
/// How long an answer takes until that is measured.
const UNMEASURED: Duration = Duration::from_millis(50);
/// A packet is asked for at most so often.
const MOST_ASKED: u8 = 10;
/// Packets missing of one stream. More: the network was away, and a keyframe is sooner than all of them.
const MOST_MISSING: usize = 256;
/// How long a picture waits for its missing packets, at least and at most. The keyframe that is needed without them
/// would come a round trip later, and be of many packets.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(900));

/// How long it takes from here to the other side and back, smoothed. It rises fast and falls slowly: to wait too long
/// costs little, to give up too soon costs a keyframe. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RoundTrip(Arc<AtomicU64>);

impl RoundTrip {
    /// The smoothed time; 50 ms before the first measurement.
    pub fn get(&self) -> Duration {
        match self.0.load(Relaxed) {
            0 => UNMEASURED,
            us => Duration::from_micros(us),
        }
    }

    /// How long it is worth to wait for a missing packet: for three questions and their answers, 200 to 900 ms.
    pub fn patience(&self) -> Duration {
        (self.get() * 3 + Duration::from_millis(100)).clamp(PATIENCE.0, PATIENCE.1)
    }

    /// Takes what one answer took; more than two seconds count as two.
    pub fn measured(&self, time: Duration) {
        let us = (time.as_micros() as u64).clamp(1, 2_000_000);
        let smoothed = match self.0.load(Relaxed) {
            0 => us,
            before if us > before => before.midpoint(us),
            before => before - (before - us) / 8,
        };
        self.0.store(smoothed, Relaxed);
    }
}

/// A packet that did not come.
struct Missing {
    since: Instant,
    due: Instant,
    asked: u8,
}

/// What is missing of one stream, by sequence numbers extended to 64 bits.
#[derive(Default)]
struct Stream {
    newest: Option<u64>,
    /// At most [`MOST_MISSING`].
    missing: BTreeMap<u64, Missing>,
}

impl Stream {
    /// A packet has come, for the first time or again.
    fn arrived(&mut self, sequence: u16, now: Instant) {
        let Some(newest) = self.newest else {
            // Far enough from zero that a packet before it has a number too.
            self.newest = Some((1 << 32) + u64::from(sequence));
            return;
        };
        let number = newest.wrapping_add_signed(i64::from(sequence.wrapping_sub(newest as u16) as i16));
        if number <= newest {
            self.missing.remove(&number);
            return;
        }
        self.newest = Some(number);
        let gap = (number - newest - 1) as usize;
        if self.missing.len() + gap > MOST_MISSING {
            self.missing.clear();
            return;
        }
        let missing = || Missing { since: now, due: now + OVERTAKEN, asked: 0 };
        self.missing.extend((newest + 1..number).map(|number| (number, missing())));
    }

    /// The next moment at which something is to be asked for.
    fn due(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// What is to be asked for now.
    fn questions(&mut self, now: Instant, round_trip: &RoundTrip) -> Vec<u16> {
        let (patience, again) = (round_trip.patience(), now + round_trip.get() + MARGIN);
        self.missing.retain(|_, missing| missing.asked < MOST_ASKED && now < missing.since + patience);
        let due = self.missing.iter_mut().filter(|(_, missing)| missing.due <= now);
        due.map(|(number, missing)| {
            (missing.asked, missing.due) = (missing.asked + 1, again);
            *number as u16
        })
        .collect()
    }
}

/// The interceptor: behind [`super::RtxUnwrap`], so that it sees what was sent again.
pub struct Asker {
    round_trip: RoundTrip,
    ssrc: u32,
    /// One entry a remote track that may be asked for.
    streams: HashMap<u32, Stream>,
    /// Both are emptied by the driver after each packet.
    incoming: VecDeque<TaggedPacket>,
    outgoing: VecDeque<TaggedPacket>,
}

impl Asker {
    pub fn new(round_trip: RoundTrip) -> Self {
        let (incoming, outgoing) = (VecDeque::new(), VecDeque::new());
        Self { round_trip, ssrc: rand::random(), streams: HashMap::new(), incoming, outgoing }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Asker {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(rtp) = &packet.message.packet
            && let Some(stream) = self.streams.get_mut(&rtp.header.ssrc)
        {
            stream.arrived(rtp.header.sequence_number, packet.now);
        }
        self.incoming.push_back(packet);
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

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        for (&media_ssrc, stream) in &mut self.streams {
            let missing = stream.questions(now, &self.round_trip);
            if missing.is_empty() {
                continue;
            }
            let nacks = nack_pairs_from_sequence_numbers(&missing);
            let nack = TransportLayerNack { sender_ssrc: self.ssrc, media_ssrc, nacks };
            self.outgoing.push_back(TaggedPacket {
                now,
                transport: TransportContext::default(),
                message: AttributedPacket::new(Packet::Rtcp(vec![Box::new(nack)])),
            });
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.streams.values().filter_map(Stream::due).min()
    }
}

impl Interceptor for Asker {
    fn bind_local_stream(&mut self, _stream: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _stream: &StreamInfo) {}

    fn bind_remote_stream(&mut self, stream: &StreamInfo) {
        let mut feedback = stream.rtcp_feedback.iter();
        if feedback.any(|feedback| feedback.typ == "nack" && feedback.parameter.is_empty()) {
            self.streams.insert(stream.ssrc, Stream::default());
        }
    }

    fn unbind_remote_stream(&mut self, stream: &StreamInfo) {
        self.streams.remove(&stream.ssrc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lost_packet_is_asked_for_until_it_comes() {
        let (mut stream, round_trip, start) = stream(&[65_534, 0]);

        assert_eq!(stream.due(), Some(start + 10 * MS));
        assert_eq!(stream.questions(start + 9 * MS, &round_trip), [0; 0]);
        assert_eq!(stream.questions(start + 10 * MS, &round_trip), [65_535]);
        assert_eq!(stream.questions(start + 11 * MS, &round_trip), [0; 0]);
        let next = stream.due().expect("it is asked for again");
        assert_eq!(stream.questions(next, &round_trip), [65_535]);
        stream.arrived(65_535, next);
        assert_eq!(stream.due(), None);
    }

    #[test]
    fn who_was_only_overtaken_is_not_asked_for() {
        let (mut stream, _, start) = stream(&[7, 9]);

        stream.arrived(8, start + 5 * MS);

        assert_eq!(stream.due(), None);
    }

    #[test]
    fn the_next_question_waits_for_the_answer_to_the_last() {
        let (mut stream, round_trip, start) = stream(&[7, 9]);
        round_trip.measured(200 * MS);

        stream.questions(start + 10 * MS, &round_trip);

        assert_eq!(stream.due(), Some(start + 10 * MS + 200 * MS + MARGIN));
        assert_eq!(round_trip.patience(), 700 * MS);
    }

    #[test]
    fn a_longer_way_is_believed_at_once_and_a_shorter_one_slowly() {
        let round_trip = RoundTrip::default();
        assert_eq!(round_trip.get(), UNMEASURED);

        let times = [40, 240, 240, 140].map(|ms| {
            round_trip.measured(ms * MS);
            round_trip.get().as_millis()
        });

        assert_eq!(times, [40, 140, 190, 183]);
    }

    #[test]
    fn nobody_asks_for_what_would_be_too_late() {
        let (mut stream, round_trip, start) = stream(&[7, 9]);

        assert_eq!(stream.questions(start + round_trip.patience(), &round_trip), [0; 0]);

        assert_eq!(stream.due(), None);
    }

    #[test]
    fn after_a_long_cut_nothing_is_asked_for() {
        let (stream, ..) = stream(&[7, 9, 600]);

        assert_eq!(stream.due(), None);
    }

    /// A stream of which these packets have come, all at once.
    fn stream(sequences: &[u16]) -> (Stream, RoundTrip, Instant) {
        let (mut stream, round_trip, start) = (Stream::default(), RoundTrip::default(), Instant::now());
        for sequence in sequences {
            stream.arrived(*sequence, start);
        }
        (stream, round_trip, start)
    }
}
