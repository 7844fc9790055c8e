//! How much the way to the other side carries: Google congestion control (draft-ietf-rmcat-gcc-02) on what the other
//! side reports of each packet (transport-wide congestion control).
//!
//! Filter and overuse detector are webrtc's. What follows from them is decided here: webrtc 0.21 takes loss by bad
//! radio for congestion and never stops backing off, and takes a network that only jitters for one that fills up.

use rtc::interceptor::{BandwidthEstimator, OveruseDetector, PacketReport, SlopeEstimator, Usage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tracing::debug;

/// The estimate begins here, and grows beyond only to twice what arrives: nothing more is known.
const START_BPS: f64 = 1_600_000.0;
const LEAST_BPS: f64 = 50_000.0;
const MOST_BPS: f64 = 25_000_000.0;
/// Backing off goes to this share of what arrives, so that the queue on the way empties, and at most to half of what was
/// before: little arrives where little was sent.
const DECREASE: (f64, f64) = (0.85, 0.5);
/// Growth in a second, and how long after backing off it is careful.
const CAREFUL_GROWTH: f64 = 1.08;
const GROWTH: f64 = 1.25;
const CAREFUL_FOR: Duration = Duration::from_secs(4);
/// Between two steps down: the one before must show first.
const STEP: Duration = Duration::from_millis(700);
/// A step down that shortens the queue by less was in vain. After the second, the way has become longer.
const SHRINKS: Duration = Duration::from_millis(30);
const MOST_VAIN: u32 = 2;
/// A trend counts only while packets wait this long on the way.
const WAITS: Duration = Duration::from_millis(50);
/// So long they never wait without somebody sending too much.
const WAITS_TOO_LONG: Duration = Duration::from_millis(160);
/// Reports in a row that say so; one alone may be of a machine that was busy.
const REPORTS: u32 = 3;

/// How many bits a second the way to the other side carries at the moment. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Estimate(Arc<AtomicU32>);

impl Estimate {
    /// The estimate in bits a second, 50,000 to 25,000,000; `None` until the other side has reported.
    pub fn get(&self) -> Option<u32> {
        Some(self.0.load(Relaxed)).filter(|bps| *bps > 0)
    }

    fn set(&self, bps: f64) {
        self.0.store(bps as u32, Relaxed);
    }
}

/// Makes the estimate from reports.
pub struct Controller {
    estimate: Estimate,
    target_bps: f64,
    slope: SlopeEstimator,
    detector: OveruseDetector,
    received: Received,
    queue: Queue,
    loss: Loss,
    looked: Option<Instant>,
    backed_off: Option<Instant>,
    /// How long packets waited at the last step down since they last did not wait, and how many steps were in vain.
    waited: Option<Duration>,
    vain: u32,
    /// Reports in a row that say that packets wait.
    over: u32,
}

impl Controller {
    pub fn new(estimate: Estimate) -> Self {
        Self {
            estimate,
            target_bps: START_BPS,
            slope: SlopeEstimator::new(),
            detector: OveruseDetector::new(),
            received: Received::default(),
            queue: Queue::default(),
            loss: Loss::default(),
            looked: None,
            backed_off: None,
            waited: None,
            vain: 0,
            over: 0,
        }
    }

    /// Packets wait on the way: sends less than arrives, unless that does not help.
    fn relieve(&mut self, waits: Duration, now: Instant) {
        let Some(received) = self.received.bps() else { return };
        let shrunk = self.waited.replace(waits).is_none_or(|before| waits + SHRINKS <= before);
        self.vain = if shrunk { 0 } else { self.vain + 1 };
        if self.vain >= MOST_VAIN {
            debug!(?waits, "the way has become longer");
            self.queue.forget();
            (self.waited, self.vain) = (None, 0);
        } else {
            debug!(?waits, received, "packets wait on the way");
            self.back_off((DECREASE.0 * received).max(DECREASE.1 * self.target_bps), now);
        }
    }

    fn back_off(&mut self, target_bps: f64, now: Instant) {
        self.target_bps = self.target_bps.min(target_bps);
        self.backed_off = Some(now);
    }

    fn grow(&mut self, time: Duration, now: Instant) {
        let careful = self.backed_off.is_some_and(|at| now.saturating_duration_since(at) < CAREFUL_FOR);
        let growth = if careful { CAREFUL_GROWTH } else { GROWTH };
        let most = self.received.bps().map_or(START_BPS, |received| START_BPS.max(2.0 * received));
        let grown = self.target_bps * growth.powf(time.as_secs_f64().min(1.0));
        self.target_bps = grown.min(most.max(self.target_bps));
    }
}

impl BandwidthEstimator for Controller {
    fn on_reports(&mut self, now: Instant, reports: &[PacketReport]) {
        if reports.is_empty() {
            return;
        }
        let mut usage = self.detector.usage();
        for report in reports {
            self.received.add(report);
            if let Some(trend) = self.slope.accumulate(report) {
                usage = self.detector.update(trend.at, trend.estimate_ms);
            }
        }
        let waits = self.queue.look(reports, now);
        let since = now.saturating_duration_since(self.looked.replace(now).unwrap_or(now));
        let settled = self.backed_off.is_none_or(|at| now.saturating_duration_since(at) >= STEP);

        if waits > WAITS_TOO_LONG || (usage == Usage::Over && waits > WAITS) {
            self.over += 1;
            if settled && self.over >= REPORTS {
                self.relieve(waits, now);
            }
        } else if waits > WAITS {
            self.over = 0;
        } else {
            (self.waited, self.vain, self.over) = (None, 0, 0);
            if usage != Usage::Under {
                self.grow(since, now);
            }
        }
        match self.loss.look(reports, self.target_bps, waits > WAITS, now) {
            Some(Verdict::TooMuch(bps)) => {
                debug!(bps, "packets are lost on the way");
                self.back_off(bps, now);
            }
            Some(Verdict::NotOurs(before)) => {
                (self.target_bps, self.backed_off) = (self.target_bps.max(before), None);
            }
            None => {}
        }
        self.target_bps = self.target_bps.clamp(LEAST_BPS, MOST_BPS);
        self.estimate.set(self.target_bps);
    }

    fn target_bitrate(&self) -> f64 {
        self.target_bps
    }
}

/// What arrived in the last half second of the other side's clock.
#[derive(Default)]
struct Received {
    /// When, and how many bytes; those of [`Received::WINDOW`].
    packets: VecDeque<(Duration, usize)>,
    bytes: usize,
    full: bool,
}

impl Received {
    const WINDOW: Duration = Duration::from_millis(500);

    fn add(&mut self, report: &PacketReport) {
        let Some(at) = report.arrival.filter(|_| report.arrived) else { return };
        self.packets.push_back((at, report.size));
        self.bytes += report.size;
        let left = |packet: &mut (Duration, usize)| at.abs_diff(packet.0) > Self::WINDOW;
        while let Some((_, size)) = self.packets.pop_front_if(left) {
            self.bytes -= size;
            self.full = true;
        }
    }

    /// Bits a second; `None` before half a second has passed.
    fn bps(&self) -> Option<f64> {
        self.full.then(|| (self.bytes * 8) as f64 / Self::WINDOW.as_secs_f64())
    }
}

/// How long packets wait on the way: their time under way against the shortest of the last seconds. The clocks of both
/// sides do not agree, so only the difference means something.
#[derive(Default)]
struct Queue {
    start: Option<Instant>,
    /// The shortest of this span and of the one before, in milliseconds.
    shortest: (f64, f64),
    turned: Option<Instant>,
    waits: Duration,
}

impl Queue {
    const SPAN: Duration = Duration::from_secs(4);
    /// The other side's clock has jumped.
    const JUMP_MS: f64 = 10_000.0;

    /// Begins anew with what comes next.
    fn forget(&mut self) {
        self.turned = None;
    }

    fn look(&mut self, reports: &[PacketReport], now: Instant) -> Duration {
        let start = *self.start.get_or_insert(now);
        let sent_ms = |report: &PacketReport| match report.departure.checked_duration_since(start) {
            Some(since) => since.as_secs_f64() * 1e3,
            None => -(start - report.departure).as_secs_f64() * 1e3,
        };
        let arrived = reports.iter().filter(|report| report.arrived);
        let took = arrived.filter_map(|report| Some(report.arrival?.as_secs_f64() * 1e3 - sent_ms(report)));
        // The quickest of them: jitter only adds.
        let Some(took) = took.min_by(f64::total_cmp) else { return self.waits };

        if (took - self.shortest.0).abs() > Self::JUMP_MS || self.turned.is_none() {
            (self.shortest, self.turned) = ((took, took), Some(now));
        } else if self.turned.is_some_and(|turned| now.saturating_duration_since(turned) >= Self::SPAN) {
            (self.shortest, self.turned) = ((took, self.shortest.0), Some(now));
        }
        self.shortest.0 = self.shortest.0.min(took);
        let shortest = self.shortest.0.min(self.shortest.1);
        self.waits = Duration::from_secs_f64((took - shortest).max(0.0) / 1e3);
        self.waits
    }
}

/// What is lost because too much is sent, told from what is lost anyway: the one ends when less is sent.
#[derive(Default)]
struct Loss {
    since: Option<Instant>,
    lost: usize,
    sent: usize,
    bytes: usize,
    /// The share that is lost whatever is sent.
    anyway: f64,
    /// Of the last step down: the share lost and the target before it.
    before: Option<(f64, f64)>,
}

enum Verdict {
    TooMuch(f64),
    /// What was the target before less was sent in vain.
    NotOurs(f64),
}

impl Loss {
    const WINDOW: Duration = Duration::from_secs(1);
    /// How long a step down takes to show: encoder, way and report.
    const SETTLE: Duration = Duration::from_millis(1_200);
    /// Fewer say little.
    const FEWEST: usize = 40;
    const TOLERATED: f64 = 0.15;

    fn look(
        &mut self,
        reports: &[PacketReport],
        target_bps: f64,
        waits: bool,
        now: Instant,
    ) -> Option<Verdict> {
        let since = *self.since.get_or_insert(now);
        let time = now.checked_duration_since(since)?;
        // Those before the first that arrived: it may be that only a report of the other side was lost.
        let told = reports.iter().skip_while(|report| !report.arrived);
        let (sent, lost) =
            told.fold((0, 0), |(sent, lost), report| (sent + 1, lost + usize::from(!report.arrived)));
        self.sent += sent;
        self.lost += lost;
        self.bytes += reports.iter().map(|report| report.size).sum::<usize>();
        if time < Self::WINDOW || self.sent < Self::FEWEST {
            return None;
        }
        let share = self.lost as f64 / self.sent as f64;
        let sent_bps = (self.bytes * 8) as f64 / time.as_secs_f64();
        (self.sent, self.lost, self.bytes, self.since) = (0, 0, 0, Some(now));

        if share <= self.anyway + Self::TOLERATED {
            self.anyway = self.anyway.min(0.95 * self.anyway + 0.05 * share);
            self.before = None;
            return None;
        }
        if let Some((share_before, target_before)) = self.before.take()
            && share > 0.6 * share_before
            && !waits
        {
            self.anyway = share;
            return Some(Verdict::NotOurs(target_before));
        }
        self.before = Some((share, target_bps));
        // The next window begins when this shows.
        self.since = Some(now + Self::SETTLE);
        Some(Verdict::TooMuch(sent_bps.min(target_bps) * (1.0 - share).max(0.5)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way that carries so much, with a queue of so long; what does not fit is lost.
    struct Way {
        carries_bps: f64,
        longest_queue: Duration,
        loses_each: u64,
        jitter: Duration,
        longer: Duration,
    }

    const OPEN: Way = Way {
        carries_bps: 1e9,
        longest_queue: Duration::from_millis(300),
        loses_each: u64::MAX,
        jitter: Duration::ZERO,
        longer: Duration::ZERO,
    };

    #[test]
    fn a_way_without_limit_is_found_to_be_wide() {
        let mut sender = Sender::new();

        sender.send(3_000_000.0, &OPEN, 10);

        assert!(sender.bps() > 3_000_000.0, "{}", sender.bps());
    }

    #[test]
    fn a_narrow_way_is_found_and_left_with_little_in_its_queue() {
        let narrow = Way { carries_bps: 300_000.0, ..OPEN };
        let mut sender = Sender::new();
        sender.send(800_000.0, &OPEN, 5);

        sender.send(800_000.0, &narrow, 10);
        let (mut least, mut most, mut waits) = (f64::MAX, 0.0_f64, Duration::ZERO);
        for _ in 0..20 {
            sender.send(800_000.0, &narrow, 1);
            (least, most) = (least.min(sender.bps()), most.max(sender.bps()));
            waits += sender.free.saturating_sub(Duration::from_micros(sender.frame * 33_333)) / 20;
        }

        assert!(least > 120_000.0 && most < 420_000.0, "{least} to {most}");
        assert!(waits < Duration::from_millis(120), "{waits:?} in the mean");
    }

    #[test]
    fn when_the_limit_is_gone_the_estimate_is_back_in_seconds() {
        let narrow = Way { carries_bps: 300_000.0, ..OPEN };
        let mut sender = Sender::new();
        sender.send(800_000.0, &narrow, 15);

        sender.send(800_000.0, &OPEN, 12);

        assert!(sender.bps() > 800_000.0, "{}", sender.bps());
    }

    #[test]
    fn a_way_that_throws_away_what_is_too_much_is_found_by_its_loss() {
        let police = Way { carries_bps: 300_000.0, longest_queue: Duration::from_millis(20), ..OPEN };
        let mut sender = Sender::new();

        sender.send(800_000.0, &police, 20);

        assert!((100_000.0..500_000.0).contains(&sender.bps()), "{}", sender.bps());
    }

    #[test]
    fn what_bad_radio_loses_is_not_taken_for_congestion() {
        for loses_each in [10, 5] {
            let radio = Way { loses_each, ..OPEN };
            let mut sender = Sender::new();

            sender.send(800_000.0, &radio, 20);

            assert!(sender.bps() > 800_000.0, "1 of {loses_each}: {}", sender.bps());
        }
    }

    #[test]
    fn a_way_that_becomes_longer_is_not_taken_for_a_queue() {
        let mut sender = Sender::new();
        sender.send(800_000.0, &OPEN, 5);

        sender.send(800_000.0, &Way { longer: Duration::from_millis(200), ..OPEN }, 10);

        assert!(sender.bps() > 800_000.0, "{}", sender.bps());
    }

    #[test]
    fn lost_reports_are_not_taken_for_lost_packets() {
        let mut sender = Sender { reports_lost: 4, ..Sender::new() };

        sender.send(400_000.0, &OPEN, 20);

        assert!(sender.bps() >= START_BPS, "{}", sender.bps());
    }

    #[test]
    fn jitter_is_not_taken_for_congestion() {
        let far = Way { jitter: Duration::from_millis(60), ..OPEN };
        let mut sender = Sender::new();

        sender.send(800_000.0, &far, 20);

        assert!(sender.bps() > 800_000.0, "{}", sender.bps());
    }

    /// Sends pictures, thirty a second, and hears what came of them ten times a second.
    struct Sender {
        controller: Controller,
        start: Instant,
        frame: u64,
        packets: u64,
        /// When the queue on the way is empty, from the start.
        free: Duration,
        chance: u64,
        /// One of so many reports does not come; 0: all come.
        reports_lost: u64,
        heard: u64,
        untold: Vec<PacketReport>,
    }

    impl Sender {
        fn new() -> Self {
            let controller = Controller::new(Estimate::default());
            let (start, free) = (Instant::now(), Duration::ZERO);
            Self {
                controller,
                start,
                frame: 0,
                packets: 0,
                free,
                chance: 1,
                reports_lost: 0,
                heard: 0,
                untold: Vec::new(),
            }
        }

        fn bps(&self) -> f64 {
            self.controller.target_bitrate()
        }

        /// Sends for so many seconds, never more than `most_bps` nor the estimate.
        fn send(&mut self, most_bps: f64, way: &Way, seconds: u64) {
            let mut reports = Vec::new();
            for _ in 0..seconds * 30 {
                let sent = Duration::from_micros(self.frame * 33_333);
                self.frame += 1;
                let bytes = most_bps.min(self.bps()) / 8.0 / 30.0;
                for _ in 0..(bytes / 1000.0).ceil() as usize {
                    self.packets += 1;
                    let size = (bytes / (bytes / 1000.0).ceil()) as usize;
                    reports.push(self.carry(sent, size, way));
                }
                if self.frame.is_multiple_of(3) {
                    // Packets on their way are reported later.
                    let now = sent + Duration::from_millis(20);
                    let arrived = reports.iter().position(|report: &PacketReport| {
                        report.arrival.is_some_and(|arrival| arrival > now + Duration::from_secs(100))
                    });
                    let later = reports.split_off(arrived.unwrap_or(reports.len()));
                    self.heard += 1;
                    if self.heard.is_multiple_of(self.reports_lost) {
                        // The next report says nothing of them, and they count as lost.
                        self.untold.extend(reports.drain(..).map(|report| PacketReport {
                            arrived: false,
                            arrival: None,
                            ..report
                        }));
                        reports = later;
                        continue;
                    }
                    reports.splice(..0, self.untold.drain(..));
                    self.controller.on_reports(self.start + now, &reports);
                    reports = later;
                }
            }
        }

        fn carry(&mut self, sent: Duration, size: usize, way: &Way) -> PacketReport {
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let jitter = way.jitter.mul_f64((self.chance >> 40) as f64 / (1_u64 << 24) as f64);
            let waits = self.free.saturating_sub(sent);
            let lost = waits > way.longest_queue || (self.chance >> 33).is_multiple_of(way.loses_each);
            if !lost {
                self.free =
                    self.free.max(sent) + Duration::from_secs_f64(size as f64 * 8.0 / way.carries_bps);
            }
            PacketReport {
                ssrc: 1,
                id: self.packets,
                rtp_sequence_number: self.packets as u16,
                is_twcc: true,
                twcc_sequence_number: self.packets as u16,
                size,
                arrived: !lost,
                departure: self.start + sent,
                // Their clock is a hundred seconds ahead.
                arrival: (!lost)
                    .then(|| self.free.max(sent) + way.longer + jitter + Duration::from_secs(100)),
                ecn: Default::default(),
            }
        }
    }
}
