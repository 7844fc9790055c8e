//! The connections to the other members: opened, answered and closed as the room says.

use crate::link::peer::{Clocks, Kind, Peer, Report, Settings, Sinks, SoundSink};
use crate::media::Packet;
use crate::media::lip_sync::{LipSync, SenderTime};
use crate::media::sound::SoundPacket;
use crate::pipeline::sound::Sound;
use crate::pipeline::{Decoders, Fanout, Outlet, Stage, Video};
use crate::room::fault::{Cause, Fault, Part};
use crate::room::layers::Demand;
use crate::room::message::{MemberId, SessionId};
use crate::room::wish::Wish;
use crate::room::{Event, PeerEvent, Picture, Role};
use crate::supervise::Failure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Reports of one connection that wait for the room. Full: the connection's task waits, its sockets do not.
const REPORTS: usize = 64;

pub struct Peers {
    settings: Settings,
    flows: Flows,
    tell: mpsc::Sender<Event>,
    open: BTreeMap<MemberId, Connection>,
    /// What the screen shows: new connections are told at once what is needed of them.
    shown: Option<Picture>,
    closing: JoinSet<()>,
}

/// Where a connection's pictures and sounds come from and go to.
pub struct Flows {
    pub stage: Arc<Stage>,
    pub fanout: Arc<Fanout>,
    pub decoders: Decoders,
    pub sound: Arc<Sound>,
    /// What the RTP times of pictures and sound mean.
    pub clocks: Clocks,
}

struct Connection {
    session: SessionId,
    peer: Arc<Peer>,
    /// Carries the connection's reports to the room.
    herald: JoinHandle<()>,
}

impl Peers {
    pub fn new(settings: Settings, flows: Flows, tell: mpsc::Sender<Event>) -> Self {
        Self { settings, flows, tell, open: BTreeMap::new(), shown: None, closing: JoinSet::new() }
    }

    /// Opens a connection in place of the one there is; an offer in the session of that one restarts its ICE.
    pub fn open(&mut self, member: MemberId, session: SessionId, role: Role) {
        let role = match (self.of(&member, &session), role) {
            (Some(connection), Role::Answer(offer)) => return connection.peer.offer(offer),
            (_, role) => role,
        };
        self.hang_up(&member);
        let video = self.flows.stage.video(&member);
        let (reports, heard) = mpsc::channel(REPORTS);
        let sinks = Sinks {
            video: self.flows.decoders.sink(&video, self.trouble(&member)),
            sound: self.sound_sink(&member, video.lip_sync.clone()),
        };
        let peer = Arc::new(Peer::start(&self.settings, &self.flows.clocks, role, reports, sinks));
        if let Some(picture) = &self.shown {
            peer.wish(Wish::of(picture, &member));
        }
        let herald = Herald {
            member: member.clone(),
            session: session.clone(),
            peer: peer.clone(),
            video,
            fanout: self.flows.fanout.clone(),
            sound: self.flows.sound.clone(),
            tell: self.tell.clone(),
        };
        let herald = tokio::spawn(herald.run(heard));
        self.open.insert(member, Connection { session, peer, herald });
    }

    /// Tells each member what this picture needs of it.
    pub fn show(&mut self, picture: &Picture) {
        for (member, connection) in &self.open {
            connection.peer.wish(Wish::of(picture, member));
        }
        self.shown = Some(picture.clone());
    }

    /// Says why a member's pictures cannot be decoded, or that they can again.
    fn trouble(&self, member: &MemberId) -> impl Fn(Option<Failure>) + Send + Sync + use<> {
        let (tell, part) = (self.tell.clone(), Part::Tile(member.clone()));
        // From a decoding thread; when the kiosk ends nobody listens.
        move |trouble| drop(tell.blocking_send(verdict(&part, trouble)))
    }

    fn sound_sink(&self, member: &MemberId, lip_sync: Arc<Mutex<LipSync>>) -> SoundSink {
        let voice = match self.flows.sound.voice(member, lip_sync) {
            Ok(voice) => voice,
            Err(error) => {
                tracing::error!(%member, %error, "no decoder for the sound");
                return Box::new(|_| {});
            }
        };
        let (tell, member) = (self.tell.clone(), member.clone());
        Box::new(move |packet| {
            if voice.put(packet) {
                // Full: it is said again soon.
                let _ = tell.try_send(Event::Speaks { member: member.clone() });
            }
        })
    }

    pub fn answer(&self, member: &MemberId, session: &SessionId, sdp: String) {
        if let Some(connection) = self.of(member, session) {
            connection.peer.answer(sdp);
        }
    }

    pub fn candidate(&self, member: &MemberId, session: &SessionId, candidate: String) {
        if let Some(connection) = self.of(member, session) {
            connection.peer.candidate(candidate);
        }
    }

    /// Closes the connection and forgets the member's picture.
    pub fn close(&mut self, member: &MemberId) {
        self.hang_up(member);
        self.flows.stage.forget(member);
        self.flows.sound.forget(member);
    }

    /// Closes every connection and waits until their sockets are gone.
    pub async fn close_all(mut self) {
        while let Some((member, _)) = self.open.first_key_value() {
            let member = member.clone();
            self.hang_up(&member);
        }
        while self.closing.join_next().await.is_some() {}
    }

    fn hang_up(&mut self, member: &MemberId) {
        while self.closing.try_join_next().is_some() {}
        let Some(connection) = self.open.remove(member) else { return };
        self.flows.fanout.remove(member);
        self.flows.sound.remove(member);
        connection.herald.abort();
        self.closing.spawn(async move {
            // The outlet is gone, and so is the herald after this: nobody else holds the connection.
            let _ = connection.herald.await;
            if let Some(peer) = Arc::into_inner(connection.peer) {
                peer.close().await;
            }
        });
    }

    fn of(&self, member: &MemberId, session: &SessionId) -> Option<&Connection> {
        self.open.get(member).filter(|connection| connection.session == *session)
    }
}

impl Outlet for Peer {
    fn demand(&self) -> Demand {
        Demand { wish: self.their_wish(), estimate_bps: self.estimate_bps() }
    }

    fn send(&self, packet: &Arc<Packet>) -> bool {
        Peer::send(self, packet)
    }
}

/// Between one connection and the rest of the house.
struct Herald {
    member: MemberId,
    session: SessionId,
    peer: Arc<Peer>,
    video: Arc<Video>,
    fanout: Arc<Fanout>,
    sound: Arc<Sound>,
    tell: mpsc::Sender<Event>,
}

impl Herald {
    async fn run(self, mut heard: mpsc::Receiver<Report>) {
        loop {
            let report = tokio::select! {
                report = heard.recv() => report,
                () = self.video.keyframe_needed.notified() => {
                    self.peer.ask_for_keyframe();
                    continue;
                }
            };
            match report {
                Some(Report::State(event)) => self.state(event).await,
                Some(Report::KeyframeWanted) => self.fanout.want_keyframe(&self.member),
                Some(Report::Unseen(code, why)) => {
                    let target = Some(self.member.to_string());
                    let cause = Cause { op: "receive".into(), errno: Some(why), target };
                    self.trouble(Some(Failure { code, cause })).await;
                }
                Some(Report::Seen) => self.trouble(None).await,
                Some(Report::SoundLoss(percent)) => self.sound.lost(&self.member, percent),
                Some(Report::SenderTime { kind, ntp, rtp }) => {
                    let mut lip_sync = self.video.lip_sync.lock().unwrap_or_else(PoisonError::into_inner);
                    match kind {
                        Kind::Video => lip_sync.picture(SenderTime { ntp, rtp }),
                        Kind::Sound => lip_sync.sound(SenderTime { ntp, rtp }),
                    }
                }
                None => return,
            }
        }
    }

    async fn trouble(&self, trouble: Option<Failure>) {
        // When the kiosk ends nobody listens.
        let _ = self.tell.send(verdict(&Part::Tile(self.member.clone()), trouble)).await;
    }

    async fn state(&self, event: PeerEvent) {
        match &event {
            PeerEvent::Connected => {
                tracing::info!(member = %self.member, "connected");
                self.fanout.add(self.member.clone(), self.peer.clone());
                let peer = self.peer.clone();
                let outlet = move |packet: &Arc<SoundPacket>| {
                    peer.send_sound(packet);
                };
                self.sound.add(self.member.clone(), Box::new(outlet));
            }
            PeerEvent::Failed(reason) => {
                tracing::info!(member = %self.member, reason, "connection lost");
                self.fanout.remove(&self.member);
                self.sound.remove(&self.member);
            }
            _ => {}
        }
        let (member, session) = (self.member.clone(), self.session.clone());
        if self.tell.send(Event::Peer { member, session, event }).await.is_err() {
            tracing::debug!("the kiosk has ended");
        }
    }
}

/// What the room is to know of this part.
fn verdict(part: &Part, trouble: Option<Failure>) -> Event {
    match trouble {
        Some(Failure { code, cause }) => {
            Event::Raised(Fault { part: part.clone(), code, cause: Some(cause), retry_in: None })
        }
        None => Event::Healed(part.clone()),
    }
}
