//! webrtc's side of a connection: what it is built of, and its callbacks.

use super::feedback::{Feedback, Listener};
use super::{CANDIDATES, Kind, Settings, sound};
use crate::link::repair::{self, Estimate, RoundTrip};
use anyhow::Context;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_RTX, MediaEngine,
};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::warn;
use webrtc::data_channel::DataChannel;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder, RTCIceServer,
    RTCIceTransportPolicy, RTCPeerConnectionIceEvent, RTCPeerConnectionState, SettingEngineBuilder,
};

/// How long ICE may hear nothing before the connection counts as disconnected; media does not count.
const ICE_SILENCE: Duration = Duration::from_secs(2);
/// How often each side asks whether the other is there (RFC 7675): by far more than is lost before that.
const ICE_INTERVAL: Duration = Duration::from_millis(400);
/// Data channels of the other side that are looked at; one is for us.
const CHANNELS: usize = 4;
/// What may wait to be sent on a data channel, in bytes: a few wishes.
const CHANNEL_BUFFER: usize = 2 * 1024;
/// H.264 at 90 kHz (RFC 6184, section 8.1); the payload types are ours, an offer may choose others.
const CLOCK_RATE: u32 = 90_000;
const PAYLOAD_TYPE: u8 = 102;
const PAYLOAD_TYPE_RTX: u8 = 103;
const PAYLOAD_TYPE_OPUS: u8 = 111;

/// Binds the sockets and starts webrtc's driver.
pub async fn open(
    settings: &Settings,
    ears: Ears,
    listener: Listener,
    estimate: Estimate,
) -> anyhow::Result<Arc<dyn PeerConnection>> {
    let mut engine = MediaEngine::default();
    engine.register_codec(h264(), RtpCodecKind::Video).context("register H.264")?;
    engine.register_codec(rtx(), RtpCodecKind::Video).context("register RTX")?;
    engine.register_codec(opus(), RtpCodecKind::Audio).context("register Opus")?;
    let level = RTCRtpHeaderExtensionCapability { uri: sound::LEVEL_URI.into() };
    engine.register_header_extension(level, RtpCodecKind::Audio, None).context("register the level")?;
    let interceptors = repair::interceptors(&mut engine, listener, ears.round_trip.clone(), estimate)?;

    let bind = if settings.bind.is_empty() {
        // webrtc makes a socket for each address of each interface of it.
        vec![SocketAddr::from(([0, 0, 0, 0], 0)), SocketAddr::from(([0_u16; 8], 0))]
    } else {
        settings.bind.clone()
    };
    let engine_settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(bind.iter().any(|address| address.ip().is_loopback()))
        // It would open a multicast socket a connection; whom we can reach reaches our host candidates.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        // The default of one second only delays connections through address translation.
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_ice_timeouts(Some(ICE_SILENCE), None, Some(ICE_INTERVAL))
        // A restart looks for the addresses that there are then.
        .with_discard_local_candidates_during_ice_restart(true)
        .build();
    let servers = settings.ice_servers.iter().map(|server| RTCIceServer {
        urls: vec![server.url.clone()],
        username: server.username.clone(),
        credential: server.credential.reveal().to_owned(),
    });

    let policy = if settings.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
    let configuration = RTCConfigurationBuilder::new()
        .with_ice_servers(servers.collect())
        .with_ice_transport_policy(policy)
        .build();

    let mut builder = PeerConnectionBuilder::new();
    if let Some(runtime) = &settings.runtime {
        builder = builder.with_runtime(runtime.clone());
    }
    let connection = builder
        .with_configuration(configuration)
        .with_media_engine(engine)
        .with_setting_engine(engine_settings)
        .with_interceptor_registry(interceptors)
        .with_handler(Arc::new(ears))
        .with_udp_addrs(bind)
        .with_data_channel_send_buffer_limit(CHANNEL_BUFFER)
        .build()
        .await
        .with_context(|| format!("open a connection on {:?}", settings.bind))?;
    Ok(Arc::new(connection))
}

/// Constrained baseline, level 3.1: the profile every WebRTC endpoint has (RFC 7742, section 6.2).
fn h264() -> RTCRtpCodecParameters {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
    let rtp_codec = RTCRtpCodec {
        mime_type: MIME_TYPE_H264.into(),
        clock_rate: CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".into(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")],
    };
    RTCRtpCodecParameters { rtp_codec, payload_type: PAYLOAD_TYPE }
}

/// Retransmissions of it (RFC 4588).
fn rtx() -> RTCRtpCodecParameters {
    let rtp_codec = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.into(),
        clock_rate: CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: format!("apt={PAYLOAD_TYPE}"),
        rtcp_feedback: vec![],
    };
    RTCRtpCodecParameters { rtp_codec, payload_type: PAYLOAD_TYPE_RTX }
}

/// Opus is always declared with two channels, and says in each packet how many it has (RFC 7587, section 7). With
/// forward error correction, and without packets while it is silent. No `nack`: see [`repair`].
fn opus() -> RTCRtpCodecParameters {
    let rtp_codec = RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.into(),
        clock_rate: crate::media::sound::RATE_HZ,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1;usedtx=1".into(),
        rtcp_feedback: vec![],
    };
    RTCRtpCodecParameters { rtp_codec, payload_type: PAYLOAD_TYPE_OPUS }
}

/// A track of ours: one stream, and the retransmissions of a video. Both kinds belong to one media stream, which is
/// what browsers keep in step.
pub fn track(kind: Kind) -> MediaStreamTrack {
    let (name, codec_kind, codec, rtx) = match kind {
        Kind::Video => ("camera", RtpCodecKind::Video, h264(), Some(rand::random())),
        Kind::Sound => ("microphone", RtpCodecKind::Audio, opus(), None),
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(rand::random()),
            rtx: rtx.map(|ssrc| RTCRtpRtxParameters { ssrc }),
            ..Default::default()
        },
        codec: codec.rtp_codec,
        ..Default::default()
    };
    // An id of its own: webrtc tells tracks apart by it, remote ones from local ones too.
    let id = format!("{name}-{:016x}", rand::random::<u64>());
    MediaStreamTrack::new("parlor".into(), id.clone(), id, codec_kind, vec![encoding])
}

/// Hears webrtc's callbacks. They run on its driver, so nothing here waits.
pub struct Ears {
    candidates: mpsc::Sender<String>,
    video: mpsc::Sender<Arc<dyn TrackRemote>>,
    sound: mpsc::Sender<Arc<dyn TrackRemote>>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
    state: watch::Sender<RTCPeerConnectionState>,
    round_trip: RoundTrip,
}

/// The other end of [`Ears`] and of the [`Listener`].
pub struct Heard {
    pub candidates: mpsc::Receiver<String>,
    pub video: mpsc::Receiver<Arc<dyn TrackRemote>>,
    pub sound: mpsc::Receiver<Arc<dyn TrackRemote>>,
    /// Data channels that the other side has opened.
    pub channels: mpsc::Receiver<Arc<dyn DataChannel>>,
    pub feedback: mpsc::Receiver<Feedback>,
    /// Counts the packets of media and RTCP that came.
    pub pulse: Arc<AtomicU64>,
    pub round_trip: RoundTrip,
    pub state: watch::Receiver<RTCPeerConnectionState>,
}

impl Ears {
    pub fn new() -> (Self, Listener, Heard) {
        // Full: the candidate, a track beyond the first of its kind, or the channel is ignored.
        let (candidates, local_candidates) = mpsc::channel(CANDIDATES);
        let (video, remote_video) = mpsc::channel(1);
        let (sound, remote_sound) = mpsc::channel(1);
        let (channels, remote_channels) = mpsc::channel(CHANNELS);
        let (state, states) = watch::channel(RTCPeerConnectionState::New);
        let (listener, feedback, pulse) = Listener::new();
        let round_trip = RoundTrip::default();
        let heard = Heard {
            candidates: local_candidates,
            video: remote_video,
            sound: remote_sound,
            channels: remote_channels,
            feedback,
            pulse,
            round_trip: round_trip.clone(),
            state: states,
        };
        (Self { candidates, video, sound, channels, state, round_trip }, listener, heard)
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Ears {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let json = event.candidate.to_json().ok().and_then(|init| serde_json::to_string(&init).ok());
        if json.is_none_or(|json| self.candidates.try_send(json).is_err()) {
            warn!("a local candidate was lost");
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let tracks = match track.kind().await {
            RtpCodecKind::Audio => &self.sound,
            _ => &self.video,
        };
        if tracks.try_send(track).is_err() {
            warn!("a remote track too many");
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        if self.channels.try_send(channel).is_err() {
            warn!("a data channel too many");
        }
    }
}
