//! The room itself: each event changes what it knows; then everything that follows from that is compared with what was
//! asked for last, and the difference is asked for.

mod camera;
mod say;
mod settle;
mod sound;
mod video;

use super::budget::Budget;
use super::document::{Document, Rejected};
use super::fault::{Cause, Code, Fault, Faults, Part, Reporter, Saying, Severity};
use super::held::Held;
use super::message::{self, MemberId, Refusal, ReplyTo, Request, Signal, Verb};
use super::session::{Link, Numbers, Peer, Step};
use super::{
    CameraInfo, CodecInfo, Command, Event, Now, Picture, Position, Publication, ScreenInfo, Settings,
    SoundInfo, SoundUse, Use, report,
};
use crate::geometry::Size;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_secs(60);
const IDENTIFY_FOR: Duration = Duration::from_secs(30);
/// Long enough for devices to open and a chirp to come back.
const SELFTEST_FOR: Duration = Duration::from_secs(5);
/// `reported` is published at most once in this time.
const REPORT_PAUSE: Duration = Duration::from_millis(200);
/// How long another machine with this kiosk's id is left alone.
const TAKEN_OVER_PAUSE: Duration = Duration::from_secs(600);
/// How often a missing clock is looked at again.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// Records kept while the broker is away; when full the oldest goes.
const BACKLOG: usize = 64;
/// Names of retained faults of an earlier life, kept until they are cleared; more are cleared at the next connection.
const STALE_FAULTS: usize = 64;
const SNAPSHOT_WIDTH: u32 = 640;

/// Where the kiosk stands with its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No document has come yet.
    Waiting,
    /// The document was cleared.
    Idle,
    Joined,
    NotAMember,
    /// The document is gone or its time is over.
    Closed,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Joined => "joined",
            Self::NotAMember => "not-a-member",
            Self::Closed => "closed",
        }
    }
}

/// What the pipeline last said of a tile's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Live,
    Stalled,
}

/// The room. No device, socket, thread, clock or random number in it.
#[derive(Debug)]
pub struct Room {
    pub(super) settings: Settings,
    pub(super) stage: Stage,
    pub(super) document: Option<Document>,
    /// The last document, if its root was broken.
    broken: Option<Rejected>,
    pub(super) peers: BTreeMap<MemberId, Peer>,
    pub(super) flows: BTreeMap<MemberId, Flow>,
    /// Who speaks, and until when that is so if nothing more is heard.
    pub(super) speakers: BTreeMap<MemberId, Duration>,
    /// The other member who began to speak last.
    pub(super) spoke_last: Option<MemberId>,
    pub(super) budget: Budget,
    pub(super) faults: Faults,
    held: Held,
    numbers: Numbers,

    pub(super) online: bool,
    pub(super) was_online: bool,
    /// Whether the broker has said anything about the document in this connection.
    document_heard: bool,
    /// Whether the broker has given back a state that this process wrote: a foreign one after it is another machine's.
    own_state_heard: bool,
    foreign_boot: Option<String>,
    disconnect: bool,

    pub(super) screen: Size,
    screen_info: Option<ScreenInfo>,
    cameras: BTreeMap<Position, CameraInfo>,
    sounds: BTreeMap<Part, SoundInfo>,
    codecs: Option<CodecInfo>,
    /// The camera in use instead of the document's, which was switched to and failed; until the next document.
    pub(super) fallback: Option<Position>,
    /// The document has an end and there is no clock to tell it by.
    pub(super) clock_missing: bool,

    absent_at: Option<Duration>,
    until_at: Option<Duration>,
    heartbeat_at: Option<Duration>,
    stats_at: Option<Duration>,
    pub(super) identify_until: Option<Duration>,
    /// Until when the sound devices are open for a test.
    pub(super) selftest_until: Option<Duration>,
    report_at: Option<Duration>,

    stale_faults: BTreeSet<String>,
    backlog: VecDeque<Publication>,
    said: Said,
    out: Vec<Command>,
}

/// What was asked for or published last.
#[derive(Debug, Default)]
struct Said {
    camera: Option<Position>,
    /// The camera that was switched from, and the one that was switched to and has not opened yet.
    switching: Option<(Position, Position)>,
    sound: SoundUse,
    picture: Option<Picture>,
    state: &'static str,
    stage: Option<Stage>,
    members: Vec<String>,
    video_members: Vec<String>,
    speakers: Vec<MemberId>,
    reported: Option<Value>,
    reported_at: Option<Duration>,
}

impl Room {
    pub fn new(settings: Settings) -> Self {
        let reporter = Reporter { id: settings.id.clone(), boot: settings.boot.clone() };
        Self {
            stage: Stage::Waiting,
            document: None,
            broken: None,
            peers: BTreeMap::new(),
            flows: BTreeMap::new(),
            speakers: BTreeMap::new(),
            spoke_last: None,
            budget: Budget::default(),
            faults: Faults::new(reporter),
            held: Held::default(),
            numbers: Numbers::new(&settings.boot),
            online: false,
            was_online: false,
            document_heard: false,
            own_state_heard: false,
            foreign_boot: None,
            disconnect: false,
            screen: settings.screen,
            screen_info: None,
            cameras: BTreeMap::new(),
            sounds: BTreeMap::new(),
            codecs: None,
            fallback: None,
            clock_missing: false,
            absent_at: None,
            until_at: None,
            heartbeat_at: None,
            stats_at: None,
            identify_until: None,
            selftest_until: None,
            report_at: None,
            stale_faults: BTreeSet::new(),
            backlog: VecDeque::new(),
            said: Said { stage: Some(Stage::Waiting), ..Said::default() },
            out: Vec::new(),
            settings,
        }
    }

    /// Takes one event and says what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Command> {
        match event {
            Event::BrokerUp => self.broker_up(now),
            Event::BrokerDown => self.broker_down(),
            Event::Document(document) => self.take_document(*document, now),
            Event::DocumentCleared => self.clear_document(now),
            Event::Refused(refusal) => self.refused(refusal, now),
            Event::Signal { from, signal } => self.signal(&from, *signal, now),
            Event::Request(request) => self.request(request, now),
            Event::OwnState { boot } => self.own_state(&boot, now),
            Event::OwnFault { part, .. } => self.own_fault(part),
            Event::Peer { member, session, event } => {
                if let Some(peer) = self.peers.get_mut(&member) {
                    let steps = peer.report(&session, event, &mut self.numbers, now.mono);
                    self.carry_out(&member, steps, now);
                }
            }
            Event::TileLive { member } => self.flow(member, Flow::Live, now),
            Event::TileStalled { member } => self.flow(member, Flow::Stalled, now),
            Event::Speaks { member } => self.speaks(member, now),
            Event::Busy(busy) => self.busy(busy, now),
            Event::CodecsChosen { info } => self.codecs_chosen(info),
            Event::SoundOpened { info } => self.sound_opened(info),
            Event::CameraOpened { position, info } => self.camera_opened(position, info, now),
            Event::ScreenOpened { info } => self.screen_opened(info, now),
            Event::Raised(fault) => {
                self.fall_back(&fault);
                self.raise(fault, None, now);
            }
            Event::Over(code) => self.faults.heal_if(|fault| fault.code == code, now),
            Event::Healed(part) => self.faults.heal(&part, now),
        }
        self.settle(now)
    }

    /// When [`Room::handle_timeout`] must be called at the latest, on the clock of [`Now::mono`].
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.said.picture.is_none() {
            return Some(Duration::ZERO);
        }
        [
            self.absent_at,
            self.until_at,
            self.heartbeat_at,
            self.stats_at,
            self.identify_until,
            self.selftest_until,
            self.report_at,
            self.held.next_timeout(),
            self.faults.next_timeout(),
        ]
        .into_iter()
        .chain(self.speakers.values().copied().map(Some))
        .chain(self.peers.values().map(Peer::deadline))
        .flatten()
        .min()
    }

    pub fn handle_timeout(&mut self, now: Now) -> Vec<Command> {
        self.settle(now)
    }

    /// The clean end: says bye to everyone and `offline` to the broker. Nothing is to be handled after it.
    pub fn goodbye(&mut self, now: Now) -> Vec<Command> {
        self.stop_peers(|_| true, now);
        self.out.push(Command::Camera(None));
        self.out.push(Command::Sound(SoundUse::default()));
        self.publish(report::state(&self.settings, "offline"));
        std::mem::take(&mut self.out)
    }

    /// One line for who looks at the service itself: whether the broker hears it, what its screen is, what goes on.
    pub fn summary(&self) -> String {
        let broker = if self.online { "online" } else { "offline" };
        let screen = match self.fault(&Part::Screen).filter(|code| code.severity() > Severity::Info) {
            Some(_) => "no screen".to_owned(),
            None => format!("screen {}", self.screen),
        };
        let room = self.joined_document().map(|document| format!("in room {}", document.room));
        format!("{broker}; {screen}; {}", room.as_deref().unwrap_or("in no room"))
    }

    /// What is wrong with this part now, if anything.
    pub fn fault(&self, part: &Part) -> Option<Code> {
        self.faults.of(part).map(|fault| fault.code)
    }

    pub(super) fn joined_document(&self) -> Option<&Document> {
        self.document.as_ref().filter(|_| self.stage == Stage::Joined)
    }

    // ---- what is heard -------------------------------------------------------------------------------------------

    fn broker_up(&mut self, now: Now) {
        self.online = true;
        self.was_online = true;
        self.faults.heal(&Part::Broker, now);
        if !self.document_heard {
            self.absent_at = Some(now.mono + self.settings.absent_grace);
        }
        // Everything retained is said again: the broker may have forgotten. State first, reported by `settle`.
        self.said.state = "";
        self.publish_state(now);
        self.publish_info();
        self.said.reported = None;
        self.said.reported_at = None;
        for saying in self.faults.levels() {
            self.say(saying);
        }
        for part in std::mem::take(&mut self.stale_faults) {
            self.clear_unless_active(&part);
        }
        for publication in std::mem::take(&mut self.backlog) {
            self.publish(publication);
        }
        self.stats_at = self.next_stats(now);
        let members: Vec<MemberId> = self.peers.keys().cloned().collect();
        for member in members {
            self.start_peer(&member, now);
        }
        if let Some(boot) = self.foreign_boot.take() {
            self.own_state(&boot, now);
        }
    }

    fn broker_down(&mut self) {
        self.online = false;
        self.foreign_boot = None;
        self.document_heard = false;
        self.absent_at = None;
        self.heartbeat_at = None;
        self.stats_at = None;
    }

    fn take_document(&mut self, document: Document, now: Now) {
        self.heard_of_document(now);
        let room_changed = self.document.as_ref().is_some_and(|old| old.room != document.room);
        let takes_part = document.member(&self.settings.id).is_some();
        self.stop_peers(|member| !takes_part || room_changed || document.member(member).is_none(), now);
        self.flows.retain(|member, _| document.member(member).is_some());
        self.speakers.retain(|member, _| document.member(member).is_some());
        let own = self.settings.id.clone();
        let others = document.members.iter().map(|member| member.id.clone()).filter(|member| *member != own);
        let newcomers: Vec<MemberId> =
            others.filter(|member| takes_part && !self.peers.contains_key(member)).collect();
        self.document = Some(document);
        self.fallback = None;
        self.raise_rejected(now);
        if self.is_over(now) {
            return self.close("until", now);
        }
        self.stage = if takes_part { Stage::Joined } else { Stage::NotAMember };
        if !takes_part {
            self.raise(fault(Part::Document, Code::NotAMember), None, now);
        }
        for member in newcomers {
            self.peers.insert(member.clone(), Peer::new(&own, &member));
            self.start_peer(&member, now);
            self.hear_held(&member, now);
        }
    }

    /// What was wrong with the last document is over, but for what is wrong with this one too.
    fn raise_rejected(&mut self, now: Now) {
        let Some(document) = &self.document else {
            return;
        };
        let mut firsts: BTreeMap<Code, String> = BTreeMap::new();
        for rejected in &document.rejected {
            firsts.entry(rejected.code).or_insert_with(|| rejected.pointer.clone());
        }
        for (code, pointer) in firsts {
            self.raise(fault(Part::Document, code), Some(pointer), now);
        }
    }

    fn clear_document(&mut self, now: Now) {
        self.heard_of_document(now);
        self.leave(Stage::Idle, now);
        self.document = None;
    }

    fn heard_of_document(&mut self, now: Now) {
        self.document_heard = true;
        self.absent_at = None;
        self.broken = None;
        self.faults.heal(&Part::Document, now);
    }

    fn refused(&mut self, refusal: Refusal, now: Now) {
        let cause = Cause { op: refusal.reason.clone(), ..Cause::default() };
        let found = Fault { cause: Some(cause), ..fault(refusal.part.clone(), refusal.code) };
        if refusal.part == Part::Document {
            // There is a document, only no readable one: the last good one stands.
            self.document_heard = true;
            self.absent_at = None;
            let pointer = refusal.pointer.clone().unwrap_or_default();
            let before = self.broken.replace(Rejected { pointer, code: refusal.code });
            if let Some(before) = before.filter(|before| before.code != refusal.code) {
                self.heal_document(before.code, now);
            }
            return self.raise(found, refusal.pointer, now);
        }
        let room = self.room_name();
        self.faults.once(found, refusal.pointer.clone(), room.as_deref(), now);
        if let Some(to) = &refusal.reply_to {
            let answer = json!({
                "ok": false, "code": refusal.code, "pointer": refusal.pointer, "reason": refusal.reason,
            });
            self.answer(to, &answer);
        }
    }

    fn signal(&mut self, from: &MemberId, signal: Signal, now: Now) {
        let of_this_room = self.joined_document().is_some_and(|document| document.room == signal.room);
        match self.peers.get_mut(from) {
            Some(peer) if of_this_room => {
                let steps = peer.hear(&signal, &mut self.numbers, now.mono);
                self.carry_out(from, steps, now);
            }
            _ => {
                if !self.held.hold(from, signal, now.mono) {
                    self.refuse_signal(from, "more than is kept of somebody who is not listed", now);
                }
            }
        }
    }

    fn hear_held(&mut self, member: &MemberId, now: Now) {
        let Some(room) = self.joined_document().map(|document| document.room.clone()) else {
            return;
        };
        for signal in self.held.take(member, &room) {
            self.signal(member, signal, now);
        }
    }

    fn request(&mut self, request: Request, now: Now) {
        match request.verb {
            Verb::Snapshot { width } => {
                let width = width.unwrap_or(SNAPSHOT_WIDTH).min(self.screen.width.max(1));
                self.out.push(Command::Snapshot { request, width });
            }
            Verb::Stats => self.out.push(Command::Stats { request: Some(request) }),
            Verb::Selftest => {
                self.selftest_until = Some(now.mono + SELFTEST_FOR);
                self.out.push(Command::Selftest { request });
            }
            Verb::Identify => {
                self.identify_until = Some(now.mono + IDENTIFY_FOR);
                self.agree(&request);
            }
            Verb::Restart => {
                self.agree(&request);
                self.out.push(Command::Restart);
            }
        }
    }

    fn own_state(&mut self, boot: &str, now: Now) {
        if boot == self.settings.boot {
            self.own_state_heard = true;
            return;
        }
        if !self.own_state_heard {
            return;
        }
        if !self.online {
            // Retained, and heard before the last subscription was accepted: `broker_up` comes here again.
            self.foreign_boot = Some(boot.to_owned());
            return;
        }
        let cause = Cause { op: "state".into(), errno: None, target: Some(boot.to_owned()) };
        let found = Fault { cause: Some(cause), ..fault(Part::Broker, Code::BrokerTakenOver) };
        // Both machines see each other: one must stay, and both know which.
        if boot < self.settings.boot.as_str() {
            let room = self.room_name();
            self.faults.once(found, None, room.as_deref(), now);
            return;
        }
        self.raise(Fault { retry_in: Some(TAKEN_OVER_PAUSE), ..found }, None, now);
        self.disconnect = true;
    }

    fn own_fault(&mut self, part: String) {
        if self.online {
            self.clear_unless_active(&part);
        } else if self.stale_faults.len() < STALE_FAULTS {
            self.stale_faults.insert(part);
        }
    }

    fn screen_opened(&mut self, info: ScreenInfo, now: Now) {
        self.faults.heal(&Part::Screen, now);
        self.screen = Size::new(info.width, info.height);
        self.screen_info = Some(info);
        self.publish_info();
    }

    // ---- the room and its members --------------------------------------------------------------------------------

    fn start_peer(&mut self, member: &MemberId, now: Now) {
        // What is said while the broker is away is not heard; `broker_up` comes here again.
        if let Some(peer) = self.peers.get_mut(member).filter(|_| self.online) {
            let steps = peer.start(&mut self.numbers, now.mono);
            self.carry_out(member, steps, now);
        }
    }

    fn stop_peers(&mut self, leaves: impl Fn(&MemberId) -> bool, now: Now) {
        let leaving: Vec<MemberId> = self.peers.keys().filter(|member| leaves(member)).cloned().collect();
        for member in leaving {
            if let Some(mut peer) = self.peers.remove(&member) {
                let steps = peer.stop(&mut self.numbers);
                self.carry_out(&member, steps, now);
            }
            self.flows.remove(&member);
            self.faults.heal(&Part::Peer(member.clone()), now);
            self.faults.heal(&Part::Tile(member), now);
        }
    }

    fn leave(&mut self, stage: Stage, now: Now) {
        self.stop_peers(|_| true, now);
        self.flows.clear();
        self.speakers.clear();
        self.spoke_last = None;
        self.stage = stage;
    }

    fn close(&mut self, why: &str, now: Now) {
        if self.stage == Stage::Joined {
            let interrupted = json!({ "code": Code::RoomClosed, "reason": why, "openid": null });
            self.event("interrupted", interrupted, now);
        }
        let cause = Cause { op: why.to_owned(), ..Cause::default() };
        let closed = Fault { cause: Some(cause), ..fault(Part::Document, Code::RoomClosed) };
        self.raise(closed, None, now);
        self.leave(Stage::Closed, now);
    }

    fn carry_out(&mut self, member: &MemberId, steps: Vec<Step>, now: Now) {
        let peer_part = Part::Peer(member.clone());
        for step in steps {
            match step {
                Step::Send { session, seq, body } => {
                    if let Some(room) = self.document.as_ref().map(|document| document.room.clone()) {
                        let signal = Signal { room, session, seq, body };
                        self.publish(message::signal(&self.settings.id, member, &signal));
                    }
                }
                Step::Open { session, role } => {
                    self.out.push(Command::Open { member: member.clone(), session, role });
                }
                Step::RemoteAnswer { session, sdp } => {
                    self.out.push(Command::RemoteAnswer { member: member.clone(), session, sdp });
                }
                Step::RemoteCandidate { session, candidate } => {
                    self.out.push(Command::RemoteCandidate { member: member.clone(), session, candidate });
                }
                Step::Close => self.out.push(Command::Close { member: member.clone() }),
                Step::Connected | Step::Left => {
                    self.faults.heal(&peer_part, now);
                    self.forget_stall(member, now);
                }
                Step::Lost(reason) => {
                    self.forget_stall(member, now);
                    let interrupted = json!({ "code": Code::PeerLost, "reason": reason, "openid": member });
                    self.event("interrupted", interrupted, now);
                    self.raise(peer_fault(member, Code::PeerLost, reason), None, now);
                }
                Step::Unreachable(reason) => {
                    self.raise(peer_fault(member, Code::PeerUnreachable, reason), None, now);
                }
                Step::Refused(reason) => self.refuse_signal(member, reason, now),
            }
        }
    }

    fn refuse_signal(&mut self, from: &MemberId, reason: &str, now: Now) {
        let room = self.room_name();
        let refused = peer_fault(from, Code::SignalRefused, reason.to_owned());
        self.faults.once(refused, None, room.as_deref(), now);
    }

    fn is_over(&self, now: Now) -> bool {
        let until = self.document.as_ref().and_then(|document| document.until);
        matches!((until, now.wall), (Some(until), Some(wall)) if wall >= until)
    }
}

fn fault(part: Part, code: Code) -> Fault {
    Fault { part, code, cause: None, retry_in: None }
}

fn peer_fault(member: &MemberId, code: Code, reason: String) -> Fault {
    let cause = Cause { op: reason, errno: None, target: Some(member.to_string()) };
    Fault { cause: Some(cause), ..fault(Part::Peer(member.clone()), code) }
}

#[cfg(test)]
pub(in crate::room) mod tests;
