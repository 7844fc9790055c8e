//! RTP payloads back into coded pictures (RFC 6184): puts packets in order, waits a bounded time for those that
//! are missing, and after a loss lets nothing out before the next keyframe.

use super::Packet;
use super::packetize::FU_A;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets held at most; with [`LARGEST_PAYLOAD`] this bounds the memory of one stream to 1 MiB.
pub const RING: u64 = 512;
/// Longer payloads are refused: no path carries them in one datagram.
pub const LARGEST_PAYLOAD: usize = 2048;

/// NAL unit type of aggregates (RFC 6184, section 5.7.1).
const STAP_A: u8 = 24;

#[derive(Debug)]
struct Slot {
    timestamp: u32,
    marker: bool,
    payload: Bytes,
    arrived: Duration,
}

/// The reorder ring and frame assembly of one H.264 stream.
#[derive(Debug)]
pub struct Assembler {
    wait: Duration,
    /// Packets by sequence number extended to 64 bits. Full: the stream begins anew at the newest packet.
    slots: BTreeMap<u64, Slot>,
    /// The first packet not yet used.
    next: Option<u64>,
    /// Nothing has been used yet: a packet before the first one may still come.
    fresh: bool,
    /// A reference was lost: only a keyframe may come out.
    damaged: bool,
    /// The last packet far outside the ring; its successor proves that the sender began anew (RFC 3550, A.1).
    stray: Option<u16>,
}

/// What stands at the front of the ring.
enum Front {
    /// Packets up to this one (exclusive) make a picture.
    Complete(u64),
    /// A packet is missing before this one (inclusive); it has been missed since then.
    Gap(u64, Duration),
    Incomplete,
}

impl Assembler {
    /// `wait`: how long a missing packet is waited for, so that NACK and RTX can bring it.
    pub fn new(wait: Duration) -> Self {
        Self { wait, slots: BTreeMap::new(), next: None, fresh: true, damaged: true, stray: None }
    }

    /// Changes how long a missing packet is waited for.
    pub fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// Takes one RTP packet; duplicates, late packets and payloads above [`LARGEST_PAYLOAD`] are dropped.
    pub fn push(&mut self, sequence: u16, timestamp: u32, marker: bool, payload: Bytes, now: Duration) {
        if payload.len() > LARGEST_PAYLOAD {
            return;
        }
        let Some(number) = self.extend(sequence) else { return };
        let slot = Slot { timestamp, marker, payload, arrived: now };
        self.slots.entry(number).or_insert(slot);
    }

    /// The next picture in order, complete and decodable; call until `None` after each `push` and timeout.
    pub fn pop(&mut self, now: Duration) -> Option<Packet> {
        loop {
            match self.front() {
                Front::Incomplete => return None,
                Front::Gap(_, since) if now < since + self.wait => return None,
                Front::Gap(resume, _) => {
                    self.damaged = true;
                    self.use_up_to(resume);
                }
                Front::Complete(end) => {
                    let first = self.next.unwrap_or(end);
                    let unit = access_unit(self.slots.range(first..end).map(|(_, slot)| slot));
                    self.use_up_to(end);
                    if let Some(packet) = self.judge(unit) {
                        return Some(packet);
                    }
                }
            }
        }
    }

    /// When to call [`Assembler::pop`] though no packet came.
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.front() {
            Front::Gap(_, since) => Some(since + self.wait),
            _ => None,
        }
    }

    /// Whether nothing can come out before the sender makes a keyframe: ask for one.
    pub fn needs_keyframe(&self) -> bool {
        self.damaged
    }

    /// The 64-bit number of a sequence number near the ring; `None` if it is late or a stray.
    fn extend(&mut self, sequence: u16) -> Option<u64> {
        // Far enough from zero that a packet before the first one has a number too.
        const ORIGIN: u64 = 1 << 32;
        let Some(next) = self.next else {
            let number = ORIGIN + u64::from(sequence);
            self.next = Some(number);
            return Some(number);
        };
        let delta = i64::from(sequence.wrapping_sub(next as u16) as i16);
        let number = next.wrapping_add_signed(delta);
        if (0..RING as i64).contains(&delta) {
            self.stray = None;
            return Some(number);
        }
        if (-(RING as i64)..0).contains(&delta) {
            let spread = self.slots.last_key_value().map_or(0, |(last, _)| last - number);
            if self.fresh && spread < RING {
                self.next = Some(number);
                return Some(number);
            }
            return None;
        }
        if delta > 0 || self.stray == Some(sequence.wrapping_sub(1)) {
            self.slots.clear();
            self.stray = None;
            self.damaged = true;
            self.fresh = true;
            self.next = Some(number);
            return Some(number);
        }
        self.stray = Some(sequence);
        None
    }

    fn front(&self) -> Front {
        let (Some(first), Some((_, begin))) = (self.next, self.slots.first_key_value()) else {
            return Front::Incomplete;
        };
        for (expected, (&number, slot)) in (first..).zip(&self.slots) {
            if number != expected {
                let since = self.slots.range(number..).map(|(_, slot)| slot.arrived).min();
                return Front::Gap(number, since.unwrap_or(slot.arrived));
            }
            if slot.timestamp != begin.timestamp {
                return Front::Complete(number);
            }
            if slot.marker {
                return Front::Complete(number + 1);
            }
        }
        Front::Incomplete
    }

    fn use_up_to(&mut self, end: u64) {
        self.slots = self.slots.split_off(&end);
        self.next = Some(end);
        self.fresh = false;
    }

    /// Lets a picture through if it can be decoded.
    fn judge(&mut self, unit: Option<AccessUnit>) -> Option<Packet> {
        let Some(unit) = unit else {
            self.damaged = true;
            return None;
        };
        if unit.data.is_empty() {
            return None;
        }
        // Both parameter sets must be in it: after a gap their absence may be the loss.
        let keyframe = unit.idr && unit.sequence_set && unit.picture_set;
        if self.damaged && !(keyframe && unit.from_the_top) {
            return None;
        }
        self.damaged = false;
        Some(Packet { data: unit.data.into(), keyframe, time: unit.time })
    }
}

#[derive(Default)]
struct AccessUnit {
    data: Vec<u8>,
    time: u32,
    idr: bool,
    sequence_set: bool,
    picture_set: bool,
    /// Its first slice begins at macroblock 0.
    from_the_top: bool,
}

impl AccessUnit {
    fn begin(&mut self, header: u8, body: &[u8]) {
        self.data.extend_from_slice(&[0, 0, 0, 1, header]);
        self.data.extend_from_slice(body);
        match header & 0x1f {
            // first_mb_in_slice is the first field, and `1` is zero in Exp-Golomb (H.264, 7.3.3).
            kind @ (1 | 5) => {
                self.idr |= kind == 5;
                self.from_the_top |= body.first().is_some_and(|byte| byte & 0x80 != 0);
            }
            7 => self.sequence_set = true,
            8 => self.picture_set = true,
            _ => {}
        }
    }
}

/// The access unit in consecutive packets; `None` if it is not well formed.
fn access_unit<'a>(slots: impl Iterator<Item = &'a Slot>) -> Option<AccessUnit> {
    let mut unit = AccessUnit::default();
    // The NAL header of the fragmented unit that is under way.
    let mut fragmented = None;
    for slot in slots {
        unit.time = slot.timestamp;
        // Padding-only packets of a bandwidth probe have no payload and belong to no picture.
        let Some((&header, body)) = slot.payload.split_first() else { continue };
        if header & 0x1f != FU_A && fragmented.is_some() {
            return None;
        }
        match header & 0x1f {
            1..=23 => unit.begin(header, body),
            STAP_A => {
                let mut rest = body;
                while !rest.is_empty() {
                    let (length, tail) = rest.split_first_chunk::<2>()?;
                    let (inner, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                    let (&header, body) = inner.split_first()?;
                    unit.begin(header, body);
                    rest = tail;
                }
            }
            FU_A => {
                let (&fragment, body) = body.split_first()?;
                let whole = (header & 0xe0) | (fragment & 0x1f);
                match (fragment & 0x80 != 0, fragmented) {
                    (true, None) => unit.begin(whole, body),
                    (false, Some(under_way)) if under_way == whole => unit.data.extend_from_slice(body),
                    _ => return None,
                }
                fragmented = (fragment & 0x40 == 0).then_some(whole);
            }
            _ => return None,
        }
    }
    fragmented.is_none().then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::super::packetize::packetize;
    use super::*;
    use proptest::prelude::*;

    const WAIT: Duration = Duration::from_millis(100);

    type Rtp = (u16, u32, bool, Bytes);

    #[test]
    fn a_stream_in_order_comes_out_as_it_went_in() {
        let pictures = stream(6);

        let seen = assemble(&rtp(&pictures, 65_530));

        assert_eq!(seen, pictures);
    }

    #[test]
    fn a_loss_silences_the_stream_until_the_next_keyframe() {
        let pictures = stream(9);
        let mut packets = rtp(&pictures, 7);
        let lost =
            packets.iter().position(|packet| packet.1 == pictures[2].time).expect("picture 2 was sent");
        packets.remove(lost);

        let seen = assemble(&packets);

        assert_eq!(seen, [&pictures[..2], &pictures[4..]].concat());
    }

    #[test]
    fn a_missing_packet_is_waited_for_and_the_time_is_announced() {
        let pictures = stream(1);
        let packets = rtp(&pictures, 0);
        let mut assembler = Assembler::new(WAIT);
        let (missing, rest) = (packets[1].clone(), [&packets[..1], &packets[2..]].concat());
        for (sequence, time, marker, payload) in rest {
            assembler.push(sequence, time, marker, payload, Duration::from_secs(1));
        }

        assert_eq!(assembler.next_timeout(), Some(Duration::from_secs(1) + WAIT));
        assert_eq!(assembler.pop(Duration::from_millis(1_099)), None);
        assembler.push(missing.0, missing.1, missing.2, missing.3, Duration::from_millis(1_099));
        assert_eq!(assembler.pop(Duration::from_millis(1_099)).as_ref(), Some(&pictures[0]));
        assert!(!assembler.needs_keyframe());
    }

    #[test]
    fn parameter_sets_in_one_aggregate_are_taken_apart() {
        let mut assembler = Assembler::new(WAIT);

        assembler.push(1, 9, false, Bytes::from_static(&[24, 0, 2, 0x67, 1, 0, 2, 0x68, 2]), WAIT);
        assembler.push(2, 9, true, Bytes::from_static(&[0x65, 0x80]), WAIT);
        let packet = assembler.pop(WAIT).expect("the picture is complete");

        assert_eq!(packet.data[..], [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0x80]);
        assert!(packet.keyframe);
    }

    #[test]
    fn a_sender_that_began_anew_behind_us_is_followed() {
        let pictures = stream(4);
        let mut assembler = Assembler::new(WAIT);
        feed(&mut assembler, &rtp(&pictures, 30_000));

        let seen = feed(
            &mut assembler,
            &[rtp(&pictures[..1], 9_999)[..1].to_vec(), rtp(&pictures, 10_000)].concat(),
        );

        assert_eq!(seen, pictures);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reordered_and_repeated_packets_give_exactly_the_stream(
            first in any::<u16>(), seeds in proptest::collection::vec(0..40usize, 400), twice in 0..20usize,
        ) {
            let pictures = stream(8);
            let packets = rtp(&pictures, first);
            let mut order: Vec<usize> = (0..packets.len()).chain((0..packets.len()).skip(twice).step_by(3)).collect();
            order.sort_by_key(|&index| if index == 0 { 0 } else { index + seeds[index] });

            let shuffled: Vec<Rtp> = order.into_iter().map(|index| packets[index].clone()).collect();

            prop_assert_eq!(assemble(&shuffled), pictures);
        }

        #[test]
        fn after_any_loss_the_first_picture_is_a_keyframe(lost in proptest::collection::vec(0..80usize, 1..9)) {
            let pictures = stream(12);
            let packets: Vec<Rtp> = rtp(&pictures, 100).into_iter().enumerate()
                .filter(|(index, _)| !lost.contains(index)).map(|(_, packet)| packet).collect();

            let seen = assemble(&packets);

            let mut before = None;
            for picture in &seen {
                let index = pictures.iter().position(|sent| sent == picture).expect("only whole pictures");
                prop_assert!(picture.keyframe || before == index.checked_sub(1));
                before = Some(index);
            }
        }

        #[test]
        fn arbitrary_packets_never_panic_and_are_bounded(
            packets in proptest::collection::vec(
                (any::<u16>(), 0..3u32, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..8), 0..300u64), 0..700),
        ) {
            let mut assembler = Assembler::new(WAIT);
            for (sequence, time, marker, payload, at) in packets {
                let now = Duration::from_millis(at);
                assembler.push(sequence, time, marker, payload.into(), now);
                while assembler.pop(now).is_some() {}
                prop_assert!(assembler.slots.len() as u64 <= RING);
            }
        }
    }

    /// Pictures of several packets each, every fourth a keyframe.
    fn stream(count: u32) -> Vec<Packet> {
        (0..count)
            .map(|index| {
                let keyframe = index % 4 == 0;
                let mut data = Vec::new();
                if keyframe {
                    data.extend_from_slice(&[0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3]);
                }
                data.extend_from_slice(&[0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }, 0x88]);
                data.extend((0..400).map(|at| 1 + ((at + index) % 250) as u8));
                Packet { data: data.into(), keyframe, time: index.wrapping_mul(3000).wrapping_sub(9000) }
            })
            .collect()
    }

    fn rtp(pictures: &[Packet], first: u16) -> Vec<Rtp> {
        let payloads = pictures.iter().flat_map(|picture| {
            packetize(picture, 100).into_iter().map(|payload| (picture.time, payload.marker, payload.data))
        });
        let number = |(index, (time, marker, data)): (usize, (u32, bool, Bytes))| {
            (first.wrapping_add(index as u16), time, marker, data)
        };
        payloads.enumerate().map(number).collect()
    }

    fn assemble(packets: &[Rtp]) -> Vec<Packet> {
        feed(&mut Assembler::new(WAIT), packets)
    }

    /// All that comes out at once and, at the end, after the wait.
    fn feed(assembler: &mut Assembler, packets: &[Rtp]) -> Vec<Packet> {
        let mut seen = Vec::new();
        for (sequence, time, marker, payload) in packets {
            assembler.push(*sequence, *time, *marker, payload.clone(), Duration::ZERO);
            seen.extend(std::iter::from_fn(|| assembler.pop(Duration::ZERO)));
        }
        seen.extend(std::iter::from_fn(|| assembler.pop(WAIT)));
        seen
    }
}
