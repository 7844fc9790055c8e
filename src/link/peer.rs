//! One WebRTC connection to one member: video and sound both ways, trickle ICE, keyframes on request.
//!
//! ```text
//!  Peer ── commands, access units, sound ──► one task: signal ┐                ┌─ driver of webrtc (own task)
//!                                                      send   ├─► connection ◄─┤
//!  Report ◄── SDP, candidates, state, feedback ──      receive┘                └─ Ears, Listener: never waiting
//! ```

mod connection;
mod feedback;
mod incoming;
mod kind;
mod outgoing;
mod sound;
mod time;
mod way;
mod wish;

use crate::link::repair::Estimate;
use crate::media::Packet;
use crate::media::sound::SoundPacket;
use crate::room::fault::Code;
use crate::room::wish::Wish;
use crate::room::{PeerEvent, Role};
use crate::secret::Secret;
use anyhow::{Context, bail, ensure};
use connection::{Ears, Heard};
use feedback::Feedback;
pub use kind::Kind;
use outgoing::Channel;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::rtp_transceiver::RTCRtpTransceiverDirection;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
pub use time::{Clocks, RtpClock};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};
use webrtc::data_channel::DataChannel;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{
    PeerConnection, RTCIceCandidateInit, RTCPeerConnectionState, RTCSessionDescription,
};
pub use webrtc::runtime::Runtime;
use wish::Wishes;

/// Access units between the encoder and the connection. Full: the connection is too slow, drop to a keyframe.
const ACCESS_UNITS: usize = 8;
/// The other side's candidates that are taken, in all; further ones are ignored.
const CANDIDATES: usize = 64;
/// Commands on their way to the task. Full (an answer and all candidates at once fit): the command is dropped.
const COMMANDS: usize = CANDIDATES + 8;
/// Longest SDP that is read, in bytes.
const SDP_LIMIT: usize = 64 * 1024;
/// Longest candidate that is read, in bytes.
const CANDIDATE_LIMIT: usize = 2 * 1024;
/// Payload of an RTP packet, in bytes: with all headers below the 1,280 that every path carries (RFC 8200).
const PAYLOAD_LIMIT: usize = 1_160;
/// How long a connection may be disconnected before it is given up.
const DISCONNECTED_LIMIT: Duration = Duration::from_secs(6);
/// How long a disconnected connection may come back by itself, and how long each restart of ICE may take: as long as
/// webrtc goes on asking a pair of addresses that does not answer.
const RESTART_INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1_500));
/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What every connection of this kiosk has in common.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Local UDP addresses to bind, port 0 for any; empty: every interface's own.
    pub bind: Vec<SocketAddr>,
    /// `stun:` and `turn:` URLs.
    pub ice_servers: Vec<IceServer>,
    /// Whether media goes over relays only, so that members do not learn each other's addresses.
    pub relay_only: bool,
    /// Where sockets come from; `None`: the kernel.
    pub runtime: Option<Arc<dyn Runtime>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    pub url: String,
    pub username: String,
    pub credential: Secret,
}

/// What a connection says to whoever holds it.
#[derive(Clone, Debug)]
pub enum Report {
    /// For the room.
    State(PeerEvent),
    /// The other side asks for a keyframe (PLI or FIR), or has just connected and needs one.
    KeyframeWanted,
    /// Why nothing can be seen of the other side although it is connected, in words.
    Unseen(Code, String),
    /// What was in the way is so no more.
    Seen,
    /// How much of our sound the other side has lost lately, in percent; about once a second at most.
    SoundLoss(u8),
    /// What the other side sends of this kind was captured at `ntp` if its RTP time is `rtp` (RFC 3550, section
    /// 6.4.1); `ntp` is of the other side's clock, in 2⁻³² s. About once a second at most for each kind.
    SenderTime { kind: Kind, ntp: u64, rtp: u32 },
}

/// Where what is received goes.
pub struct Sinks {
    pub video: Sink,
    pub sound: SoundSink,
}

/// Takes received access units; answers false if it has no room. Then nothing more is delivered until the next
/// keyframe, which is asked for. Runs on the connection's task: it must not wait.
pub type Sink = Box<dyn FnMut(Packet) -> bool + Send>;

/// Takes received sound as it comes off the wire: late, twice, not at all or hostile. Runs on the connection's task:
/// it must not wait.
pub type SoundSink = Box<dyn FnMut(SoundPacket) + Send>;

/// A connection. Ends by [`Peer::close`]; a handle that is dropped closes it in the background.
pub struct Peer {
    commands: mpsc::Sender<Remote>,
    access_units: mpsc::Sender<Arc<Packet>>,
    shared: Arc<Shared>,
    /// Dropped: the task closes the connection and ends.
    open: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

/// What the other side has signalled.
enum Remote {
    Offer(String),
    Answer(String),
    Candidate(String),
}

/// What the handle and the task both see.
struct Shared {
    connected: AtomicBool,
    /// Nothing was sent yet, or an access unit was dropped: only a keyframe may be sent next.
    broken: AtomicBool,
    /// [`Peer::ask_for_keyframe`] was called.
    keyframe: Notify,
    sound: sound::Queue,
    clocks: Clocks,
    estimate: Estimate,
    wishes: Wishes,
}

impl Peer {
    /// Starts a connection; it reports its SDP and candidates through `reports`. When it has failed it says so once
    /// and frees its sockets. `clocks` say what the RTP times of what is sent mean: the other side plays picture and
    /// sound in step by them.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(
        settings: &Settings,
        clocks: &Clocks,
        role: Role,
        reports: mpsc::Sender<Report>,
        sinks: Sinks,
    ) -> Self {
        let (commands, remote) = mpsc::channel(COMMANDS);
        let (access_units, outgoing) = mpsc::channel(ACCESS_UNITS);
        let (open, closed) = oneshot::channel();
        let shared = Arc::new(Shared {
            connected: AtomicBool::new(false),
            broken: AtomicBool::new(true),
            keyframe: Notify::new(),
            sound: sound::Queue::default(),
            clocks: clocks.clone(),
            estimate: Estimate::default(),
            wishes: Wishes::default(),
        });
        let inlet = Inlet { remote, outgoing, sinks };
        let task = tokio::spawn(own(settings.clone(), role, reports, inlet, shared.clone(), closed));
        Self { commands, access_units, shared, open, task }
    }

    /// Applies another offer of the other side, which restarts ICE (RFC 8839, section 4.4.1), and answers it; the
    /// call goes on. An unusable one fails the connection; one for the side that offers is ignored.
    pub fn offer(&self, sdp: String) {
        self.command(Remote::Offer(sdp));
    }

    /// Applies the other side's answer. An unusable one fails the connection; one to no offer is ignored.
    pub fn answer(&self, sdp: String) {
        self.command(Remote::Answer(sdp));
    }

    /// Adds one of the other side's candidates (JSON of `RTCIceCandidateInit`); those that come before the
    /// description wait for it (at most 64). An unusable one is ignored: others may do.
    pub fn candidate(&self, candidate: String) {
        self.command(Remote::Candidate(candidate));
    }

    /// Sends one access unit. Never waits: when the connection cannot keep up (or before it is connected), drops to
    /// the next keyframe. False if it dropped, and a keyframe is needed to go on.
    pub fn send(&self, packet: &Arc<Packet>) -> bool {
        let fits = self.shared.connected.load(Relaxed)
            && (packet.keyframe || !self.shared.broken.load(Relaxed))
            && self.access_units.try_send(packet.clone()).is_ok();
        self.shared.broken.store(!fits, Relaxed);
        fits
    }

    /// How many bits a second the way to the other side carries, sound and all; `None` until it has reported.
    pub fn estimate_bps(&self) -> Option<u32> {
        self.shared.estimate.get()
    }

    /// Tells the other side what is needed of its pictures, as soon as it can be told; the latest counts.
    pub fn wish(&self, wish: Wish) {
        self.shared.wishes.say(wish);
    }

    /// What the other side needs of our pictures; `None` until it says so: some never do.
    pub fn their_wish(&self) -> Option<Wish> {
        self.shared.wishes.theirs()
    }

    /// Sends a packet of sound, before any picture that waits. Never waits: when the connection cannot keep up, the
    /// oldest of ten packets gives way. False if this one was dropped: before the connection is connected, or when it
    /// does not fit into one RTP packet.
    pub fn send_sound(&self, packet: &Arc<SoundPacket>) -> bool {
        let fits = self.shared.connected.load(Relaxed) && (1..=PAYLOAD_LIMIT).contains(&packet.data.len());
        if fits {
            self.shared.sound.push(packet.clone());
        }
        fits
    }

    /// Asks the other side for a keyframe (PLI, RFC 4585 section 6.3.1), at most twice a second and until it comes.
    pub fn ask_for_keyframe(&self) {
        self.shared.keyframe.notify_one();
    }

    /// Closes the connection and waits until its sockets are gone, three seconds at most.
    pub async fn close(self) {
        drop(self.open);
        if timeout(CLOSE_LIMIT + Duration::from_secs(1), self.task).await.is_err() {
            warn!("a connection did not close in time; its task is left behind");
        }
    }

    fn command(&self, command: Remote) {
        if self.commands.try_send(command).is_err() {
            debug!("signal for a connection that has ended, or too many at once");
        }
    }
}

/// What flows into the task besides what webrtc says.
struct Inlet {
    remote: mpsc::Receiver<Remote>,
    outgoing: mpsc::Receiver<Arc<Packet>>,
    sinks: Sinks,
}

/// The task: opens the connection, lets it live, and closes it whatever happened; webrtc keeps sockets and driver of
/// a connection that is only dropped.
async fn own(
    settings: Settings,
    role: Role,
    reports: mpsc::Sender<Report>,
    inlet: Inlet,
    shared: Arc<Shared>,
    mut closed: oneshot::Receiver<Infallible>,
) {
    let (ears, listener, heard) = Ears::new();
    let mut connection = None;
    let reason = match connection::open(&settings, ears, listener, shared.estimate.clone()).await {
        Err(error) => short(&error),
        Ok(opened) => {
            connection = Some(opened.clone());
            let session = Session {
                connection: opened,
                reports: reports.clone(),
                shared: shared.clone(),
                offers: matches!(role, Role::Offer),
                restart: Notify::new(),
            };
            // A task of its own, so that a panic over hostile SDP inside webrtc ends this connection only.
            let mut life = tokio::spawn(session.live(role, heard, inlet));
            tokio::select! {
                end = &mut life => match end {
                    Ok(error) => short(&error),
                    Err(_) => "internal error of the connection".to_owned(),
                },
                _ = &mut closed => {
                    life.abort();
                    String::new()
                }
            }
        }
    };

    shared.connected.store(false, Relaxed);
    if !reason.is_empty() {
        tokio::select! {
            _ = reports.send(Report::State(PeerEvent::Failed(reason))) => {}
            _ = closed => {}
        }
    }
    if let Some(connection) = connection {
        match timeout(CLOSE_LIMIT, connection.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = short(&error.into()), "close a connection"),
            Err(_) => warn!("close a connection: no end within {CLOSE_LIMIT:?}"),
        }
    }
}

/// A connection while it lives.
struct Session {
    connection: Arc<dyn PeerConnection>,
    reports: mpsc::Sender<Report>,
    shared: Arc<Shared>,
    /// Whether every offer of this connection is ours.
    offers: bool,
    /// The way to the other side is lost: look for another one.
    restart: Notify,
}

/// A part of the session that ends only by an error.
type Endless = anyhow::Result<Infallible>;

impl Session {
    /// Lives until something fails, and says what.
    async fn live(self, role: Role, heard: Heard, inlet: Inlet) -> anyhow::Error {
        let (channels, wishes) = match timeout(DISCONNECTED_LIMIT, self.describe(role)).await {
            Ok(Ok(described)) => described,
            Ok(Err(error)) => return error,
            Err(_) => return anyhow::anyhow!("no description within {DISCONNECTED_LIMIT:?}"),
        };
        // None of them ends; the order is that in which they look whether there is something to do: sound first.
        let end = tokio::select! {
            biased;
            end = self.signal(heard.candidates, inlet.remote) => end,
            end = self.watch(heard.state.clone()) => end,
            end = self.feel(&heard.pulse) => end,
            end = self.measure(&heard.round_trip) => end,
            end = self.pass_on(heard.feedback) => end,
            end = self.agree(wishes, heard.channels) => end,
            end = self.send(channels, heard.state, inlet.outgoing) => end,
            end = self.receive_sound(heard.sound, inlet.sinks.sound) => end,
            end = self.receive_video(heard.video, &heard.round_trip, inlet.sinks.video) => end,
        };
        match end {
            Err(error) => error,
        }
    }

    /// Adds what we send and makes the offer, with a data channel in it, or the answer.
    async fn describe(&self, role: Role) -> anyhow::Result<(Vec<Channel>, Option<Arc<dyn DataChannel>>)> {
        let (mut channels, mut wishes) = (Vec::new(), None);
        match role {
            Role::Offer => {
                for kind in [Kind::Video, Kind::Sound] {
                    channels.push(self.channel(kind).await?);
                }
                wishes = Some(self.channel_for_wishes().await.context("add a data channel")?);
                self.offer(None).await?;
            }
            Role::Answer(sdp) => {
                ensure!(sdp.len() <= SDP_LIMIT, "an offer of {} bytes", sdp.len());
                let wanted = [Kind::Video, Kind::Sound].into_iter().filter(|kind| kind.is_wanted(&sdp));
                let wanted: Vec<_> = wanted.collect();
                self.name_foreign(&sdp);
                let offer = RTCSessionDescription::offer(sdp.clone()).context("read the offer")?;
                self.connection.set_remote_description(offer).await.context("apply the offer")?;
                // Only after the offer: webrtc then pairs it with the offered section.
                for kind in wanted {
                    channels.push(self.channel(kind).await?);
                }
                // By itself webrtc would want to receive there, which no answer may (RFC 3264, section 6.1).
                for transceiver in self.connection.get_transceivers().await {
                    let mid = transceiver.mid().await.ok().flatten();
                    if mid.is_some_and(|mid| kind::is_inactive(&sdp, &mid)) {
                        let inactive = transceiver.set_direction(RTCRtpTransceiverDirection::Inactive);
                        inactive.await.context("keep out of an inactive section")?;
                    }
                }
                self.answer().await?;
            }
        }
        Ok((channels, wishes))
    }

    /// Adds a track of ours.
    async fn channel(&self, kind: Kind) -> anyhow::Result<Channel> {
        let track = Arc::new(TrackLocalStaticRTP::new(connection::track(kind)));
        let sender =
            self.connection.add_track(track.clone()).await.with_context(|| format!("add our {kind:?}"))?;
        Ok(Channel { kind, track, sender })
    }

    /// Carries candidates out, and what the other side has signalled in.
    async fn signal(&self, mut local: mpsc::Receiver<String>, mut remote: mpsc::Receiver<Remote>) -> Endless {
        // An offer of ours waits for its answer until then.
        let mut described = !self.offers;
        let mut early = Vec::new();
        let mut taken = 0;
        loop {
            tokio::select! {
                Some(candidate) = local.recv() => self.report(PeerEvent::Candidate(candidate)).await,
                Some(message) = remote.recv() => match message {
                    Remote::Offer(_) if self.offers => debug!("an offer from who is to answer"),
                    Remote::Offer(sdp) => {
                        taken = 0;
                        self.renew(sdp).await?;
                    }
                    Remote::Answer(_) if described => debug!("a second answer"),
                    Remote::Answer(sdp) => {
                        ensure!(sdp.len() <= SDP_LIMIT, "an answer of {} bytes", sdp.len());
                        self.name_foreign(&sdp);
                        let answer = RTCSessionDescription::answer(sdp).context("read the answer")?;
                        self.connection.set_remote_description(answer).await.context("apply the answer")?;
                        described = true;
                        for candidate in early.drain(..) {
                            self.add(candidate).await;
                        }
                    }
                    Remote::Candidate(_) if taken == CANDIDATES => debug!("a candidate too many"),
                    Remote::Candidate(candidate) => {
                        taken += 1;
                        match described {
                            true => self.add(candidate).await,
                            false => early.push(candidate),
                        }
                    }
                },
                // Only one offer at a time: whose answer would it be?
                () = self.restart.notified(), if self.offers && described => {
                    debug!("ICE restart");
                    (described, taken) = (false, 0);
                    self.offer(Some(RTCOfferOptions { ice_restart: true })).await?;
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Makes an offer.
    async fn offer(&self, options: Option<RTCOfferOptions>) -> anyhow::Result<()> {
        let offer = self.connection.create_offer(options).await.context("make an offer")?;
        let sdp = offer.sdp.clone();
        self.connection.set_local_description(offer).await.context("apply our offer")?;
        self.report(PeerEvent::Offer(sdp)).await;
        Ok(())
    }

    /// Makes an answer.
    async fn answer(&self) -> anyhow::Result<()> {
        let answer = self.connection.create_answer(None).await.context("make an answer")?;
        let sdp = answer.sdp.clone();
        self.connection.set_local_description(answer).await.context("apply our answer")?;
        self.report(PeerEvent::Answer(sdp)).await;
        Ok(())
    }

    /// Answers an offer that changes the way and nothing else.
    async fn renew(&self, sdp: String) -> anyhow::Result<()> {
        ensure!(sdp.len() <= SDP_LIMIT, "an offer of {} bytes", sdp.len());
        let offer = RTCSessionDescription::offer(sdp).context("read the offer")?;
        self.connection.set_remote_description(offer).await.context("apply the offer")?;
        self.answer().await
    }

    /// Adds a remote candidate, if it is one.
    async fn add(&self, json: String) {
        let Some(candidate) = parse_candidate(&json) else {
            return debug!(bytes = json.len(), "not a candidate");
        };
        // Empty: there will be no more (RFC 8838, section 13).
        if candidate.candidate.is_empty() {
            return;
        }
        if let Err(error) = self.connection.add_ice_candidate(candidate).await {
            debug!(error = short(&error.into()), "unusable candidate");
        }
    }

    /// Follows the state of ICE and DTLS.
    async fn watch(&self, mut state: watch::Receiver<RTCPeerConnectionState>) -> Endless {
        let mut was_connected = false;
        let (mut restart, mut deadline) = (None, None);
        loop {
            let now = *state.borrow_and_update();
            match now {
                RTCPeerConnectionState::Connected => {
                    if !was_connected || deadline.is_some() {
                        self.shared.connected.store(true, Relaxed);
                        self.report(PeerEvent::Connected).await;
                        self.want_keyframe();
                    }
                    (was_connected, restart, deadline) = (true, None, None);
                }
                RTCPeerConnectionState::Closed => bail!("the other side has closed the connection"),
                RTCPeerConnectionState::Failed if !was_connected => {
                    bail!("no way to the other side (ICE or DTLS failed)")
                }
                _ if was_connected && deadline.is_none() => {
                    restart = Some(Instant::now() + RESTART_INTERVAL.0);
                    deadline = Some(Instant::now() + DISCONNECTED_LIMIT);
                    self.report(PeerEvent::Interrupted("the other side is not heard".to_owned())).await;
                }
                _ => {}
            }
            tokio::select! {
                changed = state.changed() => changed.context("webrtc's driver has stopped")?,
                () = at(deadline) => bail!("nothing heard from the other side any more"),
                () = at(restart) => {
                    self.restart.notify_one();
                    restart = Some(Instant::now() + RESTART_INTERVAL.1);
                }
            }
        }
    }

    /// Reports what the other side says about what it sends and receives.
    async fn pass_on(&self, mut feedback: mpsc::Receiver<Feedback>) -> Endless {
        while let Some(feedback) = feedback.recv().await {
            let report = match feedback {
                Feedback::KeyframeWanted => Report::KeyframeWanted,
                Feedback::SoundLoss(percent) => Report::SoundLoss(percent),
                Feedback::SenderTime { kind, ntp, rtp } => Report::SenderTime { kind, ntp, rtp },
            };
            // Full: the other side says it again.
            let _ = self.reports.try_send(report);
        }
        std::future::pending().await
    }

    async fn report(&self, event: PeerEvent) {
        // An error means that nobody listens any more; then this task is about to be closed.
        let _ = self.reports.send(Report::State(event)).await;
    }

    /// Says what the other side has instead of our video.
    fn name_foreign(&self, sdp: &str) {
        if let Some(why) = kind::foreign_video(sdp) {
            self.unseen(Code::CodecMismatch, why);
        }
    }

    fn unseen(&self, code: Code, why: String) {
        // Full: who holds the connection is far behind; the tile says that it waits.
        let _ = self.reports.try_send(Report::Unseen(code, why));
    }

    fn want_keyframe(&self) {
        // Full: the other side asks again.
        let _ = self.reports.try_send(Report::KeyframeWanted);
    }
}

fn parse_candidate(json: &str) -> Option<RTCIceCandidateInit> {
    (json.len() <= CANDIDATE_LIMIT).then(|| serde_json::from_str(json).ok())?
}

/// At that time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// An error in at most 200 characters: some of webrtc's print a whole packet.
fn short(error: &anyhow::Error) -> String {
    format!("{error:#}").chars().take(200).collect()
}
