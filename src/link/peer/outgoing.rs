//! What leaves: pictures and sound as RTP, and the reports that say how their times belong together.

use super::sound::{self, Packer};
use super::time::{WallClock, advance};
use super::{Endless, Kind, PAYLOAD_LIMIT, RtpClock, Session};
use crate::media::Packet;
use crate::media::packetize::packetize;
use crate::media::sound::SoundPacket;
use anyhow::Context;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS};
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use webrtc::media_stream::Track;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::RTCPeerConnectionState;
use webrtc::rtp_transceiver::RtpSender;

/// Between two sender reports, after a first one with the first packet.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A track of ours, before it is known whether the other side takes it.
pub struct Channel {
    pub kind: Kind,
    pub track: Arc<TrackLocalStaticRTP>,
    pub sender: Arc<dyn RtpSender>,
}

impl Session {
    /// Sends access units and sound as RTP. Sound goes first: it never waits for more than one packet of a picture.
    pub(super) async fn send(
        &self,
        channels: Vec<Channel>,
        mut state: watch::Receiver<RTCPeerConnectionState>,
        mut access_units: mpsc::Receiver<Arc<Packet>>,
    ) -> Endless {
        state
            .wait_for(|state| *state == RTCPeerConnectionState::Connected)
            .await
            .context("webrtc's driver has stopped")?;
        let remote = self.connection.remote_description().await.context("no description")?.sdp;
        let (mut video, mut sound) = (None, None);
        for channel in channels.into_iter().filter(|channel| channel.kind.is_wanted(&remote)) {
            match channel.kind {
                Kind::Video => video = self.open(channel).await?,
                Kind::Sound => sound = self.open(channel).await?,
            }
        }
        match (&video, &sound) {
            (None, None) => {
                warn!("the other side takes neither H.264 (42e01f, packetization-mode 1) nor Opus")
            }
            (None, _) => info!("the other side takes no H.264 (42e01f, packetization-mode 1)"),
            (_, None) => info!("the other side takes no Opus"),
            _ => {}
        }

        let wall = WallClock::start();
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut due;
            tokio::select! {
                biased;
                packet = self.shared.sound.pop() => due = send_sound(&mut sound, &packet).await?,
                _ = reports.tick() => due = true,
                Some(unit) = access_units.recv() => {
                    let Some(video) = &mut video else { continue };
                    due = video.is_silent();
                    for payload in packetize(&unit, PAYLOAD_LIMIT) {
                        while let Some(packet) = self.shared.sound.try_pop() {
                            due |= send_sound(&mut sound, &packet).await?;
                        }
                        video.header.timestamp = unit.time;
                        video.header.marker = payload.marker;
                        let packet = rtp::Packet { header: video.header.clone(), payload: payload.data };
                        video.send(packet).await.context("send a picture")?;
                        video.header.sequence_number = video.header.sequence_number.wrapping_add(1);
                    }
                }
            }
            if due {
                report(&wall, video.iter().chain(&sound)).await?;
            }
        }
    }

    /// `None`: the codec is not in what was negotiated.
    async fn open(&self, channel: Channel) -> anyhow::Result<Option<Outlet>> {
        let (mime_type, clock) = match channel.kind {
            Kind::Video => (MIME_TYPE_H264, &self.shared.clocks.video),
            Kind::Sound => (MIME_TYPE_OPUS, &self.shared.clocks.sound),
        };
        let parameters = channel.sender.get_parameters().await.context("read what was negotiated")?;
        let parameters = parameters.rtp_parameters;
        let mut codecs = parameters.codecs.iter();
        let codec = codecs.find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case(mime_type));
        let Some(payload_type) = codec.map(|codec| codec.payload_type) else { return Ok(None) };
        let ssrc = channel.track.ssrcs().await.into_iter().next().context("our track has no SSRC")?;
        let sequence_number = rand::random();
        let header = rtp::Header { version: 2, payload_type, ssrc, sequence_number, ..Default::default() };
        let packer = Packer::new(sound::level_id(&parameters.header_extensions));
        let (track, clock) = (channel.track, clock.clone());
        Ok(Some(Outlet { track, header, packer, clock, latest: None, packets: 0, octets: 0 }))
    }
}

/// Sends a packet of sound, if the other side takes sound; whether it was the first one.
async fn send_sound(sound: &mut Option<Outlet>, packet: &SoundPacket) -> anyhow::Result<bool> {
    let Some(outlet) = sound else { return Ok(false) };
    let first = outlet.is_silent();
    let packet = outlet.packer.pack(packet, &outlet.header);
    outlet.send(packet).await.context("send sound")?;
    Ok(first)
}

/// Where one kind of media leaves.
struct Outlet {
    track: Arc<TrackLocalStaticRTP>,
    /// Payload type and SSRC of each packet, and what the next one of a picture begins with.
    header: rtp::Header,
    packer: Packer,
    clock: Arc<RtpClock>,
    /// RTP time of the latest packet, and when the first packet with it was sent; `None` before the first.
    latest: Option<(u32, Instant)>,
    packets: u32,
    octets: u32,
}

impl Outlet {
    fn is_silent(&self) -> bool {
        self.latest.is_none()
    }

    async fn send(&mut self, packet: rtp::Packet) -> anyhow::Result<()> {
        let time = packet.header.timestamp;
        if self.latest.is_none_or(|(latest, _)| latest != time) {
            self.latest = Some((time, Instant::now()));
        }
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        Ok(self.track.write_rtp(packet).await?)
    }

    /// The report for `now`, which is `ntp`; `None` before the first packet.
    fn report(&self, now: Instant, ntp: u64) -> Option<SenderReport> {
        let (time, sent) = self.latest?;
        Some(SenderReport {
            ssrc: self.header.ssrc,
            ntp_time: ntp,
            // A clock that nobody has set: as if it were captured when it was sent.
            rtp_time: self.clock.time(now).unwrap_or_else(|| advance(time, sent, now, self.clock.rate_hz())),
            packet_count: self.packets,
            octet_count: self.octets,
            ..Default::default()
        })
    }
}

/// Sends the reports of all outlets, for the same moment of the same clock.
async fn report(wall: &WallClock, outlets: impl Iterator<Item = &Outlet>) -> anyhow::Result<()> {
    let now = Instant::now();
    let ntp = wall.ntp(now);
    let mut track = None;
    let mut reports: Vec<Box<dyn rtc::rtcp::Packet>> = Vec::new();
    for outlet in outlets {
        if let Some(report) = outlet.report(now, ntp) {
            reports.push(Box::new(report));
            track = Some(&outlet.track);
        }
    }
    if let Some(track) = track {
        track.write_rtcp(reports).await.context("send a report")?;
    }
    Ok(())
}
