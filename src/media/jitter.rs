//! One member's sound between the wire and the mix: puts packets back in order and plays them steadily.
//!
//! The delay follows what the network does; stretching ([`super::stretch`]) follows the delay and the sender's
//! clock. Inside, all times count samples at 48 kHz, without wraps.

use super::arrivals::{Arrivals, MS};
use super::opus::{self, Decoder, LONGEST, STEP};
use super::sound::{BLOCK, Block, RATE_HZ, SILENCE, SLOT, SoundPacket};
use super::stretch::Seam;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets that wait at most; when another comes, the oldest goes. 2 s of usual ones.
const CAPACITY: usize = 100;
/// Bytes of a packet at most: no UDP payload of a call is larger. Larger ones are dropped.
const LARGEST: usize = 1_500;
/// A sender that is this much earlier or later than it was, or skips so many packets, has begun anew.
const EARLIER: i64 = 1_000 * MS;
const LATER: i64 = 2_000 * MS;
const SKIPPED: i64 = 1_000;
/// Concealment fades out in 100 ms; sound comes back in 5 ms.
const FADE_OUT: f32 = 1.0 / (100 * MS) as f32;
const FADE_IN: f32 = 1.0 / (5 * MS) as f32;
/// How far the delay may be off, and how alike the passages must then be that are joined to correct it.
const CORRECTIONS: [(i64, f32); 3] = [(40 * MS, -1.0), (20 * MS, 0.6), (8 * MS, 0.9)];

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// What the member sent.
    Speech,
    /// At least partly made up, because something was lost, late or not sent.
    Concealed,
    /// Nothing: the member is silent.
    Silence,
}

/// What has happened since the member came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets given to [`Jitter::put`].
    pub received: u64,
    /// Packets that were played.
    pub decoded: u64,
    /// Packets that came after their time, or twice.
    pub late: u64,
    /// Packets that were not there in time, whether they came later or never.
    pub lost: u64,
    /// Lost packets that were replaced by the copy in the next one.
    pub repaired: u64,
    /// Pieces of sound that were made up.
    pub concealed: u64,
    /// Packets of background noise amid silence, passed over.
    pub passed_over: u64,
    /// Times the sound was shortened or lengthened by at most 10 ms.
    pub stretched: u64,
    /// Packets that are no Opus or too large.
    pub broken: u64,
    /// Packets dropped because too many waited.
    pub overflowed: u64,
    /// Times the sender began anew.
    pub restarted: u64,
}

struct Waiting {
    data: Bytes,
    sequence: i64,
    duration: i64,
    /// Samples before this packet that it can repair.
    copy: i64,
    /// Nothing was sent just before it.
    resumes: bool,
}

/// The adaptive playout buffer of one member. Bounded: 100 packets and 140 ms of samples.
pub struct Jitter {
    decoder: Decoder,
    arrivals: Arrivals,
    /// By time of their first sample.
    waiting: BTreeMap<i64, Waiting>,
    /// Decoded and not yet pulled.
    samples: Vec<f32>,
    scratch: Box<[f32; LONGEST]>,
    /// Sequence, time and end of the newest packet received: wrapped numbers are read as near to it.
    newest: Option<(i64, i64, i64)>,
    /// Sequence of the last packet played, and the time after the last sample decoded.
    played: i64,
    end: i64,
    /// How much of the time before `end` was made up, not knowing whether anything was sent then.
    made_up: i64,
    playing: bool,
    /// 0 to 1: concealment fades out, sound fades in.
    gain: f32,
    /// Delay of the block pulled last, against the fastest packet.
    delay: i64,
    stats: Stats,
}

impl Jitter {
    pub fn new(decoder: Decoder) -> Self {
        Self {
            decoder,
            arrivals: Arrivals::default(),
            waiting: BTreeMap::new(),
            samples: Vec::with_capacity(LONGEST + 2 * BLOCK),
            scratch: Box::new([0.0; LONGEST]),
            newest: None,
            played: 0,
            end: 0,
            made_up: 0,
            playing: false,
            gain: 0.0,
            delay: 0,
            stats: Stats::default(),
        }
    }

    /// Takes a packet that arrived `now`, in whatever order.
    pub fn put(&mut self, packet: SoundPacket, now: Duration) {
        self.stats.received += 1;
        let duration = match opus::duration(&packet.data) {
            Ok(duration) if (1..=LONGEST).contains(&duration) && packet.data.len() <= LARGEST => {
                duration as i64
            }
            _ => {
                self.stats.broken += 1;
                return;
            }
        };
        let now = in_samples(now);
        let (sequence, time) = self.place(&packet, now);
        self.arrivals.note(now, time);
        let newest_end = self.newest.map(|(_, _, end)| end);
        if self.newest.is_none_or(|(_, newest, _)| time > newest) {
            self.newest = Some((sequence, time, time + duration));
        }
        // Just missed while nothing was there to play: what was made up meanwhile becomes added delay.
        if (self.end - self.made_up..self.end).contains(&time) {
            self.made_up -= self.end - time;
            self.end = time;
        }
        if time < self.end || self.waiting.contains_key(&time) {
            self.stats.late += 1;
            return;
        }
        if self.waiting.len() == CAPACITY {
            self.waiting.pop_first();
            self.stats.overflowed += 1;
        }
        let copy = if opus::repairs(&packet.data) { opus::frame(&packet.data) as i64 } else { 0 };
        let resumes = newest_end.is_none_or(|end| time > end);
        self.waiting.insert(time, Waiting { data: packet.data, sequence, duration, copy, resumes });
    }

    /// Writes the next 10 ms, which leave `now`.
    pub fn pull(&mut self, now: Duration, block: &mut Block) -> Pulled {
        let now = in_samples(now);
        if !self.playing && !self.begin(now) {
            *block = SILENCE;
            return Pulled::Silence;
        }
        self.delay = self.delay_of_end(now);
        let mut pulled = Pulled::Speech;
        while self.playing && self.samples.len() < BLOCK {
            if self.refill(now) {
                pulled = Pulled::Concealed;
            }
        }
        if !self.playing {
            // Faded out: what is beyond this block is next to nothing.
            self.samples.resize(BLOCK, 0.0);
        }
        block.copy_from_slice(&self.samples[..BLOCK]);
        self.samples.drain(..BLOCK);
        pulled
    }

    /// RTP time of the sample that leaves next; `None` while the member is silent.
    pub fn playing(&self) -> Option<u32> {
        // Wraps as RTP does.
        self.playing.then(|| (self.end - self.samples.len() as i64) as u32)
    }

    /// How much later the sound leaves than the fastest packet could: as it is, or in silence as it will be.
    pub fn delay(&self) -> Duration {
        let delay = if self.playing { self.delay } else { self.arrivals.target() };
        Duration::from_micros(delay.max(0) as u64 * 1_000 / MS as u64)
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How often the decoder was called: not at all while the member is silent.
    pub fn decoder_calls(&self) -> u64 {
        self.decoder.calls()
    }

    /// The packet's sequence and time without wraps; begins anew if they do not go on from the ones before.
    fn place(&mut self, packet: &SoundPacket, now: i64) -> (i64, i64) {
        if let Some((sequence, time, _)) = self.newest {
            let skipped = i64::from(packet.sequence.wrapping_sub(sequence as u16) as i16);
            let passed = i64::from(packet.time.wrapping_sub(time as u32) as i32);
            let late = self.arrivals.lateness(now, time + passed);
            if skipped.abs() <= SKIPPED && (-EARLIER..=LATER).contains(&late) {
                return (sequence + skipped, time + passed);
            }
            self.stats.restarted += 1;
        }
        let (sequence, time) = (i64::from(packet.sequence), i64::from(packet.time));
        self.arrivals.restart(now, time);
        self.waiting.clear();
        self.samples.clear();
        self.newest = None;
        self.playing = false;
        self.gain = 0.0;
        self.played = sequence - 1;
        self.end = time;
        self.made_up = 0;
        (sequence, time)
    }

    /// Ends the silence when the first packet that waits is due.
    fn begin(&mut self, now: i64) -> bool {
        let Some((&time, first)) = self.waiting.first_key_value() else { return false };
        let due = self.arrivals.lateness(now, time) - self.arrivals.target();
        // What comes alone in a pause is an update of the background noise (RFC 7587, section 3.1.3). Played,
        // it would be a puff of noise amid silence: it waits whether something follows.
        let alone = first.resumes && self.waiting.len() == 1;
        if due < 0 || alone && due < first.duration + SLOT as i64 {
            return false;
        }
        self.end = time;
        if alone {
            self.end += first.duration;
            self.played = first.sequence;
            self.waiting.clear();
            self.stats.passed_over += 1;
            return false;
        }
        self.playing = true;
        true
    }

    /// Adds some samples, or ends playing; answers whether they are made up.
    fn refill(&mut self, now: i64) -> bool {
        let Some((&time, next)) = self.waiting.first_key_value() else {
            // Late, lost or a pause: nobody knows.
            self.conceal(BLOCK);
            self.end += BLOCK as i64;
            self.made_up += BLOCK as i64;
            return true;
        };
        let gap = time - self.end;
        self.made_up = 0;
        if gap >= STEP as i64 {
            let lost = next.sequence > self.played + 1;
            if lost && next.copy == gap {
                return self.repair(gap as usize);
            }
            // Up to the copy in the next packet, if there is one.
            let until = if lost && next.copy < gap { gap - next.copy } else { gap };
            let length = (until.min(BLOCK as i64) as usize / STEP * STEP).max(STEP);
            self.conceal(length);
            self.end += length as i64;
            return true;
        }
        if let Some((time, packet)) = self.waiting.pop_first() {
            if gap < 0 {
                self.stats.late += 1;
            } else {
                return self.decode(time, &packet, now);
            }
        }
        false
    }

    fn decode(&mut self, time: i64, packet: &Waiting, now: i64) -> bool {
        self.stats.lost += (packet.sequence - self.played - 1).max(0) as u64;
        self.played = packet.sequence;
        self.end = time + packet.duration;
        match self.decoder.decode(&packet.data, &mut self.scratch[..]) {
            Ok(length) => {
                self.stats.decoded += 1;
                self.append(length, FADE_IN);
                self.correct(now);
                false
            }
            Err(_) => {
                self.stats.broken += 1;
                self.conceal(packet.duration as usize);
                true
            }
        }
    }

    /// Fills the gap before the next packet from the copy in it; answers whether that had to be made up.
    fn repair(&mut self, gap: usize) -> bool {
        let Some((_, next)) = self.waiting.first_key_value() else { return true };
        let repaired = self.decoder.repair(&next.data, &mut self.scratch[..gap]).is_ok();
        self.end += gap as i64;
        if repaired {
            self.stats.repaired += 1;
            self.append(gap, FADE_IN);
        } else {
            self.conceal(gap);
        }
        !repaired
    }

    /// Makes up `length` samples that fade out; ends playing when they have.
    fn conceal(&mut self, length: usize) {
        self.stats.concealed += 1;
        if self.decoder.conceal(&mut self.scratch[..length]).is_err() {
            self.scratch[..length].fill(0.0);
        }
        self.append(length, -FADE_OUT);
        self.playing = self.gain > 0.0;
    }

    /// Moves the scratch samples behind the others while the gain changes.
    fn append(&mut self, length: usize, step: f32) {
        for sample in &self.scratch[..length] {
            self.gain = (self.gain + step).clamp(0.0, 1.0);
            self.samples.push(sample * self.gain);
        }
    }

    /// Brings the delay nearer to the target by at most 10 ms, where the sound allows it.
    fn correct(&mut self, now: i64) {
        let excess = self.delay_of_end(now) - self.arrivals.target();
        // With nothing behind it, shorter sound would only end sooner.
        if excess > 0 && self.waiting.is_empty() {
            return;
        }
        let Some((_, wanted)) = CORRECTIONS.into_iter().find(|(off, _)| excess.abs() > *off) else { return };
        let Some(seam) = Seam::find(&self.samples).filter(|seam| seam.likeness >= wanted) else { return };
        self.stats.stretched += 1;
        if excess > 0 { seam.shorten(&mut self.samples) } else { seam.lengthen(&mut self.samples) }
    }

    /// Delay of the sample after the last decoded one when it leaves, and so of all before it.
    fn delay_of_end(&self, now: i64) -> i64 {
        self.arrivals.lateness(now + self.samples.len() as i64, self.end)
    }
}

fn in_samples(time: Duration) -> i64 {
    (time.as_micros() * u128::from(RATE_HZ) / 1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::opus::Encoder;
    use proptest::prelude::*;

    /// A voice-like sound that never pauses.
    fn voice(slot: usize) -> [f32; SLOT] {
        std::array::from_fn(|n| {
            let t = (slot * SLOT + n) as f32 / RATE_HZ as f32 * std::f32::consts::TAU;
            let phase = 140.0 * t + 6.0 * (2.0 * t).sin();
            (1..10).map(|k| (phase * k as f32).sin() / k as f32).sum::<f32>()
                * 0.15
                * (0.6 + 0.4 * (3.0 * t).sin())
        })
    }

    fn packets(count: usize, loss: u8) -> Vec<SoundPacket> {
        let mut encoder = Encoder::new().unwrap();
        encoder.set_expected_loss(loss).unwrap();
        let coded = |slot| SoundPacket {
            data: encoder.encode(&voice(slot)).unwrap().expect("a voice is sent"),
            sequence: (65_530 + slot) as u16,
            time: (u32::MAX - 5_000).wrapping_add((slot * SLOT) as u32),
            level: None,
        };
        (0..count).map(coded).collect()
    }

    /// Puts what has arrived and pulls every 10 ms until `end_ms`; answers what was pulled.
    fn play(jitter: &mut Jitter, mut arrivals: Vec<(u64, SoundPacket)>, end_ms: u64) -> Vec<(Pulled, Block)> {
        arrivals.sort_by_key(|(at, _)| *at);
        let mut arrivals = arrivals.into_iter().peekable();
        (0..end_ms / 10)
            .map(|step| {
                while let Some((at, packet)) = arrivals.next_if(|(at, _)| *at <= step * 10) {
                    jitter.put(packet, Duration::from_millis(at));
                }
                let mut block = SILENCE;
                (jitter.pull(Duration::from_millis(step * 10), &mut block), block)
            })
            .collect()
    }

    fn steadily(packets: Vec<SoundPacket>) -> Vec<(u64, SoundPacket)> {
        packets.into_iter().enumerate().map(|(slot, packet)| (20 * slot as u64, packet)).collect()
    }

    fn new() -> Jitter {
        Jitter::new(Decoder::new().unwrap())
    }

    fn count(pulled: &[(Pulled, Block)], what: Pulled) -> usize {
        pulled.iter().filter(|(pulled, _)| *pulled == what).count()
    }

    #[test]
    fn on_an_even_network_all_is_played_and_the_delay_becomes_the_least() {
        let mut jitter = new();

        let pulled = play(&mut jitter, steadily(packets(200, 0)), 4_000);

        let stats = jitter.stats();
        assert_eq!(count(&pulled[10..], Pulled::Speech), 390, "{stats:?}");
        assert_eq!((stats.late, stats.lost, stats.concealed), (0, 0, 0));
        assert!((12..=28).contains(&jitter.delay().as_millis()), "{:?}", jitter.delay());
    }

    #[test]
    fn packets_out_of_order_or_twice_are_played_in_order_and_once() {
        let mut jitter = new();
        let mut arrivals = steadily(packets(200, 0));
        for pair in (100..198).step_by(7) {
            arrivals[pair].0 += 25;
        }
        let twice = arrivals[150].clone();
        arrivals.push(twice);

        play(&mut jitter, arrivals, 4_000);

        // The first few come too late, until the delay has grown; and the last may still wait.
        let stats = jitter.stats();
        assert!((1..=8).contains(&stats.late) && stats.late + stats.decoded >= 200, "{stats:?}");
    }

    #[test]
    fn a_lost_packet_is_repaired_from_the_next_or_concealed() {
        for (loss, repaired, concealed) in [(20, true, false), (0, false, true)] {
            let mut jitter = new();
            let mut arrivals = steadily(packets(100, loss));
            arrivals.remove(50);

            let pulled = play(&mut jitter, arrivals, 1_900);

            let stats = jitter.stats();
            assert_eq!(
                (stats.lost, stats.repaired == 1, stats.concealed > 0),
                (1, repaired, concealed),
                "{stats:?}"
            );
            assert_eq!(count(&pulled[10..], Pulled::Silence), 0);
        }
    }

    #[test]
    fn who_sends_nothing_fades_within_120_ms_and_costs_nothing_then() {
        let mut jitter = new();
        let pulled = play(&mut jitter, steadily(packets(50, 0)), 3_000);
        let calls = jitter.decoder_calls();

        let last = pulled.iter().rposition(|(pulled, _)| *pulled != Pulled::Silence).unwrap();
        let spoken = pulled.iter().rposition(|(pulled, _)| *pulled == Pulled::Speech).unwrap();
        let loudest = pulled[last].1.iter().fold(0.0_f32, |most, sample| most.max(sample.abs()));

        assert!((8..=12).contains(&(last - spoken)) && loudest < 0.05, "{} blocks, {loudest}", last - spoken);
        assert_eq!(jitter.playing(), None);
        let mut block = [1.0; BLOCK];
        assert_eq!(jitter.pull(Duration::from_secs(4), &mut block), Pulled::Silence);
        assert_eq!((jitter.decoder_calls(), block), (calls, SILENCE));
    }

    #[test]
    fn a_pause_is_not_a_loss() {
        let mut jitter = new();
        // As the coder does in silence: the time goes on, the sequence does not.
        let mut arrivals = steadily(packets(150, 0));
        arrivals.drain(60..100);
        for (_, packet) in &mut arrivals[60..] {
            packet.sequence = packet.sequence.wrapping_sub(40);
        }

        let pulled = play(&mut jitter, arrivals, 3_000);

        let stats = jitter.stats();
        assert_eq!((stats.lost, stats.late, stats.decoded > 107), (0, 0, true), "{stats:?}");
        assert!(count(&pulled[130..190], Pulled::Silence) > 50);
        assert_eq!(count(&pulled[215..290], Pulled::Speech), 75);
    }

    #[test]
    fn a_sender_that_begins_anew_is_heard_at_once() {
        let mut jitter = new();
        let mut arrivals = steadily(packets(200, 0));
        for (slot, (_, packet)) in arrivals[100..].iter_mut().enumerate() {
            packet.sequence = packet.sequence.wrapping_add(20_000);
            packet.time = 777_000_000 + (slot * SLOT) as u32;
        }

        let pulled = play(&mut jitter, arrivals, 4_000);

        assert_eq!(jitter.stats().restarted, 1);
        assert_eq!(count(&pulled[210..], Pulled::Speech), 190, "{:?}", jitter.stats());
    }

    #[test]
    fn packets_of_10_and_of_60_ms_and_of_two_channels_are_played() {
        for (length, step_ms) in [(480, 10), (2_880, 60)] {
            let mut encoder =
                ::opus::Encoder::new(RATE_HZ, ::opus::Channels::Stereo, ::opus::Application::Audio).unwrap();
            let sound: Vec<f32> = (0..100).flat_map(voice).flat_map(|sample| [sample, sample]).collect();
            let arrivals: Vec<(u64, SoundPacket)> = sound
                .chunks_exact(2 * length)
                .enumerate()
                .map(|(n, part)| {
                    let data = Bytes::from(encoder.encode_vec_float(part, 1_400).unwrap());
                    let packet =
                        SoundPacket { data, sequence: n as u16, time: (n * length) as u32, level: None };
                    (n as u64 * step_ms, packet)
                })
                .collect();
            let mut jitter = new();

            let pulled = play(&mut jitter, arrivals, 1_900);

            assert_eq!(count(&pulled[15..], Pulled::Speech), 175, "{length}: {:?}", jitter.stats());
        }
    }

    #[test]
    fn of_too_many_packets_the_oldest_go() {
        let mut jitter = new();
        for packet in packets(CAPACITY + 20, 0) {
            jitter.put(packet, Duration::from_millis(500));
        }

        assert_eq!((jitter.waiting.len(), jitter.stats().overflowed), (CAPACITY, 20));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put { data: Vec<u8>, sequence: u16, time: u32 },
        Next { data: Vec<u8>, sequence: u16, time: u32 },
        Pull(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let data = || prop::collection::vec(any::<u8>(), 0..1_600);
        prop_oneof![
            (data(), any::<u16>(), any::<u32>()).prop_map(|(data, sequence, time)| Step::Put {
                data,
                sequence,
                time
            }),
            (data(), 0_u16..4, 0_u32..6_000).prop_map(|(data, sequence, time)| Step::Next {
                data,
                sequence,
                time
            }),
            (0_u64..40).prop_map(Step::Pull),
            (0_u64..40).prop_map(Step::Pull),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_bounded_and_finite(steps in prop::collection::vec(step(), 1..200)) {
            let mut jitter = new();
            let (mut now, mut last) = (Duration::ZERO, (0_u16, 0_u32));
            let mut block = SILENCE;
            for step in steps {
                match step {
                    Step::Put { data, sequence, time } => {
                        last = (sequence, time);
                        jitter.put(SoundPacket { data: data.into(), sequence, time, level: None }, now);
                    }
                    Step::Next { data, sequence, time } => {
                        last = (last.0.wrapping_add(sequence), last.1.wrapping_add(time));
                        jitter.put(SoundPacket { data: data.into(), sequence: last.0, time: last.1, level: None }, now);
                    }
                    Step::Pull(ms) => {
                        now += Duration::from_millis(ms);
                        jitter.pull(now, &mut block);
                        prop_assert!(block.iter().all(|sample| sample.is_finite()));
                    }
                }
                prop_assert!(jitter.waiting.len() <= CAPACITY);
                prop_assert!(jitter.samples.len() <= LONGEST + 2 * BLOCK);
            }
        }
    }
}
