//! What the other side says in RTCP that concerns somebody outside of webrtc.

use super::Kind;
use crate::link::repair::Tap;
use rtc::interceptor::{AttributedPacket, Packet, StreamInfo};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two reports of the same sort: about a second. A little less, so that reports made each second all pass.
const INTERVAL: Duration = Duration::from_millis(900);
/// Feedback between webrtc's driver and the session. Full: it is dropped, the next report says it again.
const WAITING: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// PLI (RFC 4585, section 6.3.1) or FIR (RFC 5104, section 4.3.1).
    KeyframeWanted,
    /// How much of our sound was lost since the report before, in percent.
    SoundLoss(u8),
    /// What they send of this kind has the RTP time `rtp` at `ntp`.
    SenderTime { kind: Kind, ntp: u64, rtp: u32 },
}

/// Reads RTCP as it passes by. By itself webrtc 0.21 lets none through, and gives a compound packet as a whole to the
/// track that its first block is about.
pub struct Listener {
    say: mpsc::Sender<Feedback>,
    /// Counts the packets of media and RTCP that came.
    pulse: Arc<AtomicU64>,
    /// SSRCs of our sound; one.
    ours: Vec<u32>,
    /// SSRC → kind of what they send; one entry a remote track.
    theirs: HashMap<u32, Kind>,
    last_loss: Option<Instant>,
    last_video: Option<Instant>,
    last_sound: Option<Instant>,
}

impl Listener {
    pub fn new() -> (Self, mpsc::Receiver<Feedback>, Arc<AtomicU64>) {
        let (say, heard) = mpsc::channel(WAITING);
        let pulse = Arc::<AtomicU64>::default();
        let (ours, theirs) = (Vec::new(), HashMap::new());
        let (last_loss, last_video, last_sound) = (None, None, None);
        let listener = Self { say, pulse: pulse.clone(), ours, theirs, last_loss, last_video, last_sound };
        (listener, heard, pulse)
    }

    fn loss(&mut self, blocks: &[ReceptionReport], now: Instant) {
        for block in blocks {
            if self.ours.contains(&block.ssrc) && is_due(&mut self.last_loss, now) {
                // A fraction of 256 (RFC 3550, section 6.4.1).
                let percent = (u16::from(block.fraction_lost) * 100 + 128) / 256;
                self.say(Feedback::SoundLoss(percent as u8));
            }
        }
    }

    fn time(&mut self, report: &SenderReport, now: Instant) {
        let Some(&kind) = self.theirs.get(&report.ssrc) else { return };
        let last = match kind {
            Kind::Video => &mut self.last_video,
            Kind::Sound => &mut self.last_sound,
        };
        if is_due(last, now) {
            self.say(Feedback::SenderTime { kind, ntp: report.ntp_time, rtp: report.rtp_time });
        }
    }

    fn say(&self, feedback: Feedback) {
        let _ = self.say.try_send(feedback);
    }
}

impl Tap for Listener {
    fn inbound(&mut self, packet: &mut AttributedPacket, now: Instant) -> bool {
        self.pulse.fetch_add(1, Relaxed);
        let Packet::Rtcp(compound) = &packet.packet else { return true };
        for rtcp in compound {
            let rtcp = rtcp.as_any();
            if let Some(report) = rtcp.downcast_ref::<ReceiverReport>() {
                self.loss(&report.reports, now);
            } else if let Some(report) = rtcp.downcast_ref::<SenderReport>() {
                self.loss(&report.reports, now);
                self.time(report, now);
            } else if rtcp.is::<PictureLossIndication>() || rtcp.is::<FullIntraRequest>() {
                self.say(Feedback::KeyframeWanted);
            }
        }
        true
    }

    fn bind_local(&mut self, stream: &StreamInfo) {
        if kind(stream) == Kind::Sound {
            self.ours = vec![stream.ssrc];
        }
    }

    fn bind(&mut self, stream: &StreamInfo) {
        self.theirs.insert(stream.ssrc, kind(stream));
    }

    fn unbind(&mut self, stream: &StreamInfo) {
        self.theirs.remove(&stream.ssrc);
    }
}

fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}

fn kind(stream: &StreamInfo) -> Kind {
    match stream.mime_type.to_ascii_lowercase().starts_with("audio/") {
        true => Kind::Sound,
        false => Kind::Video,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUR_VIDEO: u32 = 1;
    const OUR_SOUND: u32 = 2;
    const THEIR_VIDEO: u32 = 3;
    const THEIR_SOUND: u32 = 4;

    #[test]
    fn requests_for_a_keyframe_are_heard_in_any_place_of_a_compound() {
        let (mut listener, mut heard) = listener();
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc: OUR_VIDEO };

        hear(&mut listener, vec![Box::new(ReceiverReport::default()), Box::new(pli)], Instant::now());

        assert_eq!(heard.try_recv(), Ok(Feedback::KeyframeWanted));
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn only_the_loss_of_our_sound_is_told() {
        let (mut listener, mut heard) = listener();
        let blocks = vec![block(OUR_VIDEO, 255), block(OUR_SOUND, 64), block(99, 255)];

        hear(&mut listener, vec![Box::new(receiver_report(blocks))], Instant::now());

        assert_eq!(heard.try_recv(), Ok(Feedback::SoundLoss(25)));
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_senders_report_tells_its_time_and_our_loss() {
        let (mut listener, mut heard) = listener();
        let report = SenderReport { reports: vec![block(OUR_SOUND, 0)], ..sender_report(THEIR_SOUND) };

        hear(&mut listener, vec![Box::new(report), Box::new(sender_report(THEIR_VIDEO))], Instant::now());

        assert_eq!(heard.try_recv(), Ok(Feedback::SoundLoss(0)));
        for kind in [Kind::Sound, Kind::Video] {
            assert_eq!(heard.try_recv(), Ok(Feedback::SenderTime { kind, ntp: 7, rtp: 8 }));
        }
    }

    #[test]
    fn a_flood_of_reports_is_told_about_once_a_second() {
        let (mut listener, mut heard) = listener();
        let start = Instant::now();

        for tenth in 0..30 {
            let now = start + Duration::from_millis(100) * tenth;
            hear(&mut listener, vec![Box::new(sender_report(THEIR_SOUND))], now);
            hear(&mut listener, vec![Box::new(receiver_report(vec![block(OUR_SOUND, 1)]))], now);
        }

        let told: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
        assert_eq!(told.len(), 2 * 4, "{told:?}");
    }

    #[test]
    fn a_report_of_a_stranger_is_passed_over() {
        let (mut listener, mut heard) = listener();

        hear(&mut listener, vec![Box::new(sender_report(99))], Instant::now());

        assert!(heard.try_recv().is_err());
    }

    fn listener() -> (Listener, mpsc::Receiver<Feedback>) {
        let (mut listener, heard, _) = Listener::new();
        listener.bind_local(&stream(OUR_VIDEO, "video/H264"));
        listener.bind_local(&stream(OUR_SOUND, "audio/opus"));
        listener.bind(&stream(THEIR_VIDEO, "video/H264"));
        listener.bind(&stream(THEIR_SOUND, "audio/opus"));
        (listener, heard)
    }

    fn hear(listener: &mut Listener, compound: Vec<Box<dyn rtc::rtcp::Packet>>, now: Instant) {
        assert!(
            listener.inbound(&mut AttributedPacket::new(Packet::Rtcp(compound)), now),
            "webrtc reads it too"
        );
    }

    fn stream(ssrc: u32, mime_type: &str) -> StreamInfo {
        StreamInfo { ssrc, mime_type: mime_type.into(), ..Default::default() }
    }

    fn block(ssrc: u32, fraction_lost: u8) -> ReceptionReport {
        ReceptionReport { ssrc, fraction_lost, ..Default::default() }
    }

    fn receiver_report(reports: Vec<ReceptionReport>) -> ReceiverReport {
        ReceiverReport { reports, ..Default::default() }
    }

    fn sender_report(ssrc: u32) -> SenderReport {
        SenderReport { ssrc, ntp_time: 7, rtp_time: 8, ..Default::default() }
    }
}
