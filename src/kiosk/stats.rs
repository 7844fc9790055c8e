//! What `stats` says: how each tile is doing, and what the process costs.

use crate::clock::Clock;
use crate::media::stamps::StageTimes;
use crate::pipeline::sound::Sound;
use crate::pipeline::{Coded, Fanout, Stage};
use crate::room::Publication;
use crate::room::layers::Layer;
use crate::room::message::MemberId;
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Measures between one call and the next.
pub struct Stats {
    clock: Clock,
    last: Duration,
    cpu: Duration,
    /// Pictures shown and dropped at the last call.
    counts: BTreeMap<MemberId, (u64, u64)>,
}

#[derive(Serialize)]
struct Document {
    up_ms: u64,
    /// Of one core, since the last time.
    cpu: f64,
    rss_kib: u64,
    /// In how many sizes the own picture is coded, two at most.
    layers: Vec<LayerStats>,
    tiles: Vec<TileStats>,
}

#[derive(Serialize)]
struct LayerStats {
    layer: Layer,
    /// Width and height.
    size: [u32; 2],
    /// What it is allowed to have.
    kbps: u32,
    /// Every picture is coded (1), every other (2) or one of four (4).
    every: u32,
}

#[derive(Serialize)]
struct TileStats {
    openid: String,
    /// Width and height of the last picture; null before the first.
    size: Option<[u32; 2]>,
    /// Coded pictures that came since the start.
    received: u64,
    /// What goes to this member; null of the own tile and of who is not connected.
    sent: Option<SentStats>,
    /// Pictures drawn a second, since the last time.
    fps: f64,
    /// Since the last time: pictures drawn, and pictures displaced by a newer one before they were drawn.
    shown: u64,
    dropped: u64,
    /// Since the last picture was drawn; null before the first.
    age_ms: Option<u64>,
    /// From arrival (own tile: capture) to the glass, of the last picture.
    latency_ms: Option<f64>,
    /// Of the pictures drawn since the last time, from station to station; null without one.
    stages_ms: Option<StageTimes>,
    /// The member's voice; null of the own tile.
    sound: Option<VoiceStats>,
}

#[derive(Serialize)]
struct SentStats {
    /// Null: it does not show them.
    layer: Option<Layer>,
    /// Since the connection was made.
    pictures: u64,
    /// What the way to it carries, sound and all; null until that is known.
    estimate_kbps: Option<u32>,
}

/// Counts since the connection was made.
#[derive(Serialize)]
struct VoiceStats {
    /// Packets that came.
    received: u64,
    /// Slots of 20 ms that did not come in time: repaired from the packet after them, or guessed.
    repaired: u64,
    concealed: u64,
    /// From arrival to the speaker's door.
    delay_ms: f64,
    /// How late it is against the member's picture; null while nothing is heard.
    late_ms: Option<f64>,
}

impl LayerStats {
    fn of(coded: Coded) -> Self {
        let (size, rate) = (coded.size, coded.rate);
        Self {
            layer: coded.layer,
            size: [size.width, size.height],
            kbps: rate.bitrate_bps / 1000,
            every: rate.every,
        }
    }
}

impl Stats {
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: clock.mono(), cpu: cpu_time(), counts: BTreeMap::new() }
    }

    /// The JSON of the time since the last call.
    pub fn take(&mut self, stage: &Stage, sound: &Sound, fanout: &Fanout) -> Bytes {
        let (now, cpu) = (self.clock.mono(), cpu_time());
        let seconds = (now - self.last).as_secs_f64().max(1e-3);
        let mut counts = BTreeMap::new();
        let voices: BTreeMap<_, _> = sound.voices().into_iter().collect();
        let (coded, sent) = fanout.sending();
        let tiles = stage.videos().into_iter().map(|(member, video)| {
            let now_counts = (video.meter.shown.load(Relaxed), video.meter.dropped.load(Relaxed));
            let before = self.counts.get(&member).copied().unwrap_or_default();
            let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let (shown, dropped) = (since(now_counts.0, before.0), since(now_counts.1, before.1));
            let shown_at = video.meter.shown_at_us.load(Relaxed);
            let tile = TileStats {
                openid: member.to_string(),
                size: video.meter.size().map(|size| [size.width, size.height]),
                received: video.meter.received.load(Relaxed),
                sent: sent.get(&member).map(|sent| SentStats {
                    layer: sent.layer,
                    pictures: sent.pictures,
                    estimate_kbps: sent.estimate_bps.map(|bps| bps / 1000),
                }),
                fps: rounded(shown as f64 / seconds),
                shown,
                dropped,
                age_ms: (shown_at > 0).then(|| (now.as_micros() as u64).saturating_sub(shown_at) / 1000),
                latency_ms: (shown_at > 0)
                    .then(|| rounded(video.meter.latency_us.load(Relaxed) as f64 / 1e3)),
                stages_ms: video.meter.take_stages(),
                sound: voices.get(&member).map(|voice| {
                    let (stats, delay) = voice.stats();
                    VoiceStats {
                        received: stats.received,
                        repaired: stats.repaired,
                        concealed: stats.concealed,
                        delay_ms: rounded(delay.as_secs_f64() * 1e3),
                        late_ms: Some(video.meter.sound_late_us.load(Relaxed))
                            .filter(|late| *late != i64::MIN)
                            .map(|late| rounded(late as f64 / 1e3)),
                    }
                }),
            };
            counts.insert(member, now_counts);
            tile
        });
        let document = Document {
            up_ms: now.as_millis() as u64,
            layers: coded.into_iter().map(LayerStats::of).collect(),
            tiles: tiles.collect(),
            cpu: rounded(cpu.saturating_sub(self.cpu).as_secs_f64() / seconds),
            rss_kib: resident_kib(),
        };
        (self.last, self.cpu, self.counts) = (now, cpu, counts);
        serde_json::to_vec(&document).expect("numbers and strings").into()
    }
}

/// `{id}/stats`: what is missed is not worth repeating.
pub fn publication(id: &MemberId, payload: Bytes) -> Publication {
    let topic = format!("{id}/stats");
    Publication { topic, payload, retained: false, qos: 0, expiry_s: None, correlation: None }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// User and system time of this process (`/proc/self/stat`, fields 14 and 15, in ticks of 10 ms).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Resident memory of this process in KiB (`/proc/self/status`, VmRSS); 0 where that cannot be read.
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
