//! What arrives: pictures put together, sound as it comes.

use super::sound::{level_id, unpack};
use super::{Endless, Report, Session, Sink, SoundSink, at, short};
use crate::link::repair::RoundTrip;
use crate::media::assemble::Assembler;
use crate::room::fault::Code;
use rtc::peer_connection::configuration::media_engine::MIME_TYPE_OPUS;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpReceiveParameters, RtpCodecKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

/// How long a keyframe is asked for in vain, while packets come, until that is said.
const KEYFRAME_LIMIT: Duration = Duration::from_secs(3);
/// Between two PLIs.
const PLI_INTERVAL: Duration = Duration::from_millis(500);

impl Session {
    /// Puts the other side's video together and hands it to the sink.
    pub(super) async fn receive_video(
        &self,
        mut tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
        round_trip: &RoundTrip,
        mut sink: Sink,
    ) -> Endless {
        let Some(track) = tracks.recv().await else { std::future::pending().await };
        let started = Instant::now();
        let mut assembler = Assembler::new(round_trip.patience());
        // Somebody behind the assembler lacks a keyframe: the sink had no room, or the decoder asks.
        let mut wanted = false;
        let mut dropping = false;
        let mut next_pli = started;
        // Since when a keyframe is asked for, whether anything came since it was last, and whether that was said.
        let (mut lacking, mut arrived, mut said) = (None, false, false);

        loop {
            let needed = wanted || assembler.needs_keyframe();
            let repair = assembler.next_timeout().map(|timeout| started + timeout);
            tokio::select! {
                event = track.poll() => match event {
                    Some(TrackRemoteEvent::OnRtpPacket(packet)) => {
                        assembler.set_wait(round_trip.patience());
                        let header = &packet.header;
                        let now = started.elapsed();
                        let (sequence, time) = (header.sequence_number, header.timestamp);
                        assembler.push(sequence, time, header.marker, packet.payload, now);
                        arrived = true;
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                },
                () = self.shared.keyframe.notified() => wanted = true,
                () = at(repair) => {}
                () = at(needed.then_some(next_pli)) => {
                    self.ask(&*track).await;
                    let now = Instant::now();
                    next_pli = now + PLI_INTERVAL;
                    let long = now - *lacking.get_or_insert(now) >= KEYFRAME_LIMIT;
                    if std::mem::take(&mut arrived) && long && !std::mem::replace(&mut said, true) {
                        self.unseen(Code::NoKeyframe, format!("none in {KEYFRAME_LIMIT:?}"));
                    }
                }
            }
            while let Some(packet) = assembler.pop(started.elapsed()) {
                if packet.keyframe {
                    (wanted, dropping, lacking) = (false, false, None);
                    if std::mem::take(&mut said) {
                        let _ = self.reports.try_send(Report::Seen);
                    }
                }
                if !dropping && !sink(packet) {
                    (wanted, dropping) = (true, true);
                }
            }
        }
    }

    /// Sends a PLI.
    async fn ask(&self, track: &dyn TrackRemote) {
        let Some(media_ssrc) = track.ssrcs().await.first().copied() else { return };
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        if let Err(error) = track.write_rtcp(vec![Box::new(pli)]).await {
            debug!(error = short(&error.into()), "ask for a keyframe");
        }
    }

    /// Hands the other side's sound to the sink.
    pub(super) async fn receive_sound(
        &self,
        mut tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
        mut sink: SoundSink,
    ) -> Endless {
        let Some(track) = tracks.recv().await else { std::future::pending().await };
        let parameters = self.sound_parameters().await.unwrap_or_default().rtp_parameters;
        let level = level_id(&parameters.header_extensions);
        let is_opus = |payload_type| {
            parameters.codecs.iter().any(|codec| {
                codec.payload_type == payload_type
                    && codec.rtp_codec.mime_type.eq_ignore_ascii_case(MIME_TYPE_OPUS)
            })
        };
        loop {
            match track.poll().await {
                Some(TrackRemoteEvent::OnRtpPacket(packet)) if is_opus(packet.header.payload_type) => {
                    if let Some(packet) = unpack(packet, level) {
                        sink(packet);
                    }
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// What was negotiated for the sound that we receive.
    async fn sound_parameters(&self) -> Option<RTCRtpReceiveParameters> {
        for receiver in self.connection.get_receivers().await {
            if receiver.track().kind().await == RtpCodecKind::Audio {
                return receiver.get_parameters().await.ok();
            }
        }
        None
    }
}
