//! The way to the other side: whether anything still comes along it, and how long it is.

use super::{Endless, Session};
use crate::link::repair::RoundTrip;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use webrtc::peer_connection::StatsSelector;

/// How long nothing at all may arrive until another way is looked for; reports come each second.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two looks at how far the other side is; it is asked more often.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);

impl Session {
    /// Looks for another way once when nothing arrives any more. ICE does not notice if only what the other side sends
    /// is lost: its questions are answered to where they come from, its pictures go to where we were.
    pub(super) async fn feel(&self, pulse: &AtomicU64) -> Endless {
        let mut look = interval(SILENCE / 8);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beats, mut missed) = (0, 0);
        loop {
            look.tick().await;
            missed = if std::mem::replace(&mut beats, pulse.load(Relaxed)) == beats { missed + 1 } else { 0 };
            if beats > 0 && missed == 8 {
                self.restart.notify_one();
            }
        }
    }

    /// Measures how far the other side is, by what ICE's questions take (RFC 7675). Reports on what is received would
    /// tell only somebody who sends.
    pub(super) async fn measure(&self, round_trip: &RoundTrip) -> Endless {
        let mut look = interval(MEASURE_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answers = 0;
        loop {
            look.tick().await;
            let report = self.connection.get_stats(Instant::now().into_std(), StatsSelector::None).await;
            let selected = report.transport().map(|transport| transport.selected_candidate_pair_id.as_str());
            let pair = report.candidate_pairs().find(|pair| Some(pair.stats.id.as_str()) == selected);
            let Some(pair) = pair else { continue };
            if std::mem::replace(&mut answers, pair.responses_received) != pair.responses_received
                && let Ok(time) = Duration::try_from_secs_f64(pair.current_round_trip_time)
            {
                round_trip.measured(time);
            }
        }
    }
}
