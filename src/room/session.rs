//! Signalling with one member: hello, offer, answer, sessions and their order.
//!
//! ```text
//!            start, hello heard                        Connected
//!   Apart ───────────────────────► Opening ──────────────────────────► Connected
//!     ▲      offer heard          │   ▲  ▲                                │
//!     │ bye heard                 │   └──┴── not connected in time,       │ Failed,
//!     └───────────────────────────┘          hello heard: new session ◄───┘ hello of another session heard
//! ```
//! Of two members the one with the smaller id makes every offer, so two offers never cross.

use super::message::{MemberId, SessionId, Signal, SignalBody};
use super::{PeerEvent, Role};
use std::collections::VecDeque;
use std::time::Duration;

/// How long an offer may take to become a connection before the member counts as unreachable.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Between two attempts, growing twofold.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Sessions of the other side whose order is remembered; the oldest is forgotten.
const SESSIONS_SEEN: usize = 8;
/// Own candidates kept to be said again with the offer; further ones are said once.
const CANDIDATES_KEPT: usize = 32;
/// The member's candidates that are taken for one description; what comes after them is refused.
const CANDIDATES_TAKEN: usize = 64;

/// Makes session ids and sequence numbers without chance: the process's `boot` and two counters.
#[derive(Debug)]
pub struct Numbers {
    boot: String,
    sessions: u64,
    seq: u64,
}

impl Numbers {
    pub fn new(boot: &str) -> Self {
        Self { boot: boot.to_owned(), sessions: 0, seq: 0 }
    }

    fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId::numbered(&self.boot, self.sessions)
    }

    fn seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

/// What is to be done for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Send {
        session: SessionId,
        seq: u64,
        body: SignalBody,
    },
    Open {
        session: SessionId,
        role: Role,
    },
    RemoteAnswer {
        session: SessionId,
        sdp: String,
    },
    RemoteCandidate {
        session: SessionId,
        candidate: String,
    },
    Close,
    Connected,
    /// Was connected; now nothing passes, and why. Said once, until [`Step::Connected`].
    Lost(String),
    /// Could not be connected so far, and why.
    Unreachable(String),
    /// The member has left by itself.
    Left,
    /// A signal that the rules do not allow.
    Refused(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing is open: not yet, or the member said bye.
    Apart,
    Opening,
    Connected,
    /// Was connected and may be so again by itself.
    Interrupted,
}

/// The signalling with one member.
#[derive(Debug)]
pub struct Peer {
    /// Whether this kiosk makes the offers.
    offers: bool,
    link: Link,
    left: bool,
    session: Option<SessionId>,
    opened_at: Duration,
    /// Attempts since the last connection.
    attempts: u32,
    /// When the next step is due without anything being heard.
    deadline: Option<Duration>,
    answered: bool,
    /// The offer in flight and its candidates with their `seq`, to be said again to who has not heard them.
    said: Vec<(u64, SignalBody)>,
    /// The member's candidates since its last description.
    candidates: usize,
    /// The highest `seq` heard in each of the other side's sessions.
    heard: VecDeque<(SessionId, u64)>,
}

impl Peer {
    pub fn new(own: &MemberId, other: &MemberId) -> Self {
        Self {
            offers: own < other,
            link: Link::Apart,
            left: false,
            session: None,
            opened_at: Duration::ZERO,
            attempts: 0,
            deadline: None,
            answered: false,
            said: Vec::new(),
            candidates: 0,
            heard: VecDeque::new(),
        }
    }

    pub fn link(&self) -> Link {
        self.link
    }

    /// Whether there is a connection, interrupted or not.
    fn is_running(&self) -> bool {
        matches!(self.link, Link::Connected | Link::Interrupted)
    }

    /// The session that is open or being opened.
    pub fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// Whether the member said bye and has not come back.
    pub fn has_left(&self) -> bool {
        self.left
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Says hello, and offers if that is this side's part. To be called when the member is newly listed and when the
    /// broker is back; a running connection goes on.
    pub fn start(&mut self, numbers: &mut Numbers, now: Duration) -> Vec<Step> {
        if self.is_running() {
            let session = self.session.clone().unwrap_or_else(|| numbers.session());
            return vec![Step::Send { session, seq: numbers.seq(), body: SignalBody::Hello }];
        }
        self.left = false;
        let mut steps = vec![hello(numbers)];
        if self.offers {
            steps.extend(self.offer(numbers, now));
        } else {
            self.deadline = Some(now + CONNECT_TIME);
        }
        steps
    }

    /// Says bye and closes.
    pub fn stop(&mut self, numbers: &mut Numbers) -> Vec<Step> {
        let session = self.session.take().unwrap_or_else(|| numbers.session());
        self.rest();
        vec![Step::Send { session, seq: numbers.seq(), body: SignalBody::Bye }, Step::Close]
    }

    /// Takes one signal of the member.
    pub fn hear(&mut self, signal: &Signal, numbers: &mut Numbers, now: Duration) -> Vec<Step> {
        let known_session = self.heard.iter().any(|(session, _)| *session == signal.session);
        let current = self.session.as_ref() == Some(&signal.session);
        if !self.is_new(&signal.session, signal.seq) {
            return Vec::new();
        }
        match &signal.body {
            SignalBody::Hello => self.hear_hello(current, numbers, now),
            SignalBody::Offer(_) if self.offers => {
                vec![Step::Refused("an offer from the member whose part is to answer")]
            }
            SignalBody::Offer(_) if known_session && !current => Vec::new(),
            // ICE restart: the connection there is goes on.
            SignalBody::Offer(sdp) if current && self.is_running() => {
                self.candidates = 0;
                vec![Step::Open { session: signal.session.clone(), role: Role::Answer(sdp.clone()) }]
            }
            SignalBody::Offer(sdp) => {
                self.open(signal.session.clone(), now);
                self.deadline = Some(now + CONNECT_TIME);
                vec![Step::Open { session: signal.session.clone(), role: Role::Answer(sdp.clone()) }]
            }
            SignalBody::Answer(sdp) if current && self.offers && !self.answered => {
                self.answered = true;
                self.said.clear();
                vec![Step::RemoteAnswer { session: signal.session.clone(), sdp: sdp.clone() }]
            }
            SignalBody::Candidate(_) if current && self.candidates == CANDIDATES_TAKEN => {
                vec![Step::Refused("more candidates than any member has")]
            }
            SignalBody::Candidate(candidate) if current => {
                self.candidates += 1;
                vec![Step::RemoteCandidate { session: signal.session.clone(), candidate: candidate.clone() }]
            }
            SignalBody::Bye if current || !known_session => {
                self.session = None;
                self.rest();
                self.left = true;
                vec![Step::Close, Step::Left]
            }
            // Of a session that is no more.
            SignalBody::Answer(_) | SignalBody::Candidate(_) | SignalBody::Bye => Vec::new(),
        }
    }

    /// Takes what the connection of `session` says.
    pub fn report(
        &mut self,
        session: &SessionId,
        event: PeerEvent,
        numbers: &mut Numbers,
        now: Duration,
    ) -> Vec<Step> {
        if self.session.as_ref() != Some(session) {
            return Vec::new();
        }
        match event {
            PeerEvent::Offer(sdp) => {
                // A second one restarts ICE and has an answer of its own.
                self.answered = false;
                self.candidates = 0;
                self.said.clear();
                self.say(SignalBody::Offer(sdp), numbers)
            }
            PeerEvent::Answer(sdp) => self.say(SignalBody::Answer(sdp), numbers),
            PeerEvent::Candidate(candidate) => self.say(SignalBody::Candidate(candidate), numbers),
            PeerEvent::Connected => {
                self.link = Link::Connected;
                self.attempts = 0;
                self.deadline = None;
                self.said.clear();
                vec![Step::Connected]
            }
            PeerEvent::Interrupted(reason) => match std::mem::replace(&mut self.link, Link::Interrupted) {
                Link::Connected => vec![Step::Lost(reason)],
                before => {
                    self.link = before;
                    Vec::new()
                }
            },
            PeerEvent::Failed(reason) => {
                let before = self.link;
                self.rest();
                self.session = None;
                if self.offers {
                    self.deadline = Some(now + self.back_off());
                }
                let why = match before {
                    Link::Connected => Some(Step::Lost(reason)),
                    // It was said.
                    Link::Interrupted => None,
                    Link::Apart | Link::Opening => Some(Step::Unreachable(reason)),
                };
                [Some(Step::Close), why, Some(hello(numbers))].into_iter().flatten().collect()
            }
        }
    }

    /// To be called when [`Peer::deadline`] has come. Nothing is offered that nobody can hear (`online` is false);
    /// then [`Peer::start`] goes on.
    pub fn tick(&mut self, online: bool, numbers: &mut Numbers, now: Duration) -> Vec<Step> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.deadline = None;
        let silent = Step::Unreachable("no connection within 3 s".to_owned());
        if !self.offers || !online {
            return vec![silent];
        }
        let mut steps = Vec::new();
        if self.link == Link::Opening {
            if now < self.opened_at + CONNECT_TIME + self.back_off() {
                self.deadline = Some(self.opened_at + CONNECT_TIME + self.back_off());
                return vec![silent];
            }
            steps.push(silent);
        }
        steps.extend(self.offer(numbers, now));
        steps
    }

    fn hear_hello(&mut self, current: bool, numbers: &mut Numbers, now: Duration) -> Vec<Step> {
        if !self.offers || (current && self.is_running()) {
            return Vec::new();
        }
        let age = now.saturating_sub(self.opened_at);
        if self.link == Link::Opening && !self.answered && age < CONNECT_TIME {
            // The offer may have been said before the member listened. Said again with the same numbers, it is a
            // repeat to who has heard it; one that is not made yet is on its way.
            let session = self.session.clone();
            return self
                .said
                .iter()
                .filter_map(|(seq, body)| {
                    Some(Step::Send { session: session.clone()?, seq: *seq, body: body.clone() })
                })
                .collect();
        }
        if self.attempts > 0 && age < BACK_OFF.0 {
            self.deadline = Some(self.opened_at + BACK_OFF.0);
            return Vec::new();
        }
        self.offer(numbers, now)
    }

    fn offer(&mut self, numbers: &mut Numbers, now: Duration) -> Vec<Step> {
        let session = numbers.session();
        self.open(session.clone(), now);
        self.deadline = Some(now + CONNECT_TIME);
        vec![Step::Open { session, role: Role::Offer }]
    }

    fn open(&mut self, session: SessionId, now: Duration) {
        self.link = Link::Opening;
        self.left = false;
        self.session = Some(session);
        self.opened_at = now;
        self.attempts = self.attempts.saturating_add(1);
        self.answered = false;
        self.candidates = 0;
        self.said.clear();
    }

    fn rest(&mut self) {
        self.link = Link::Apart;
        self.deadline = None;
        self.answered = false;
        self.said.clear();
    }

    fn say(&mut self, body: SignalBody, numbers: &mut Numbers) -> Vec<Step> {
        let Some(session) = self.session.clone() else {
            return Vec::new();
        };
        let seq = numbers.seq();
        if self.offers && !self.answered && self.said.len() <= CANDIDATES_KEPT {
            self.said.push((seq, body.clone()));
        }
        vec![Step::Send { session, seq, body }]
    }

    /// Remembers `seq`; false for a repeat.
    fn is_new(&mut self, session: &SessionId, seq: u64) -> bool {
        if let Some((_, last)) = self.heard.iter_mut().find(|(known, _)| known == session) {
            let new = seq > *last;
            *last = seq.max(*last);
            return new;
        }
        if self.heard.len() == SESSIONS_SEEN {
            self.heard.pop_front();
        }
        self.heard.push_back((session.clone(), seq));
        true
    }

    fn back_off(&self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(10);
        (BACK_OFF.0 * 2_u32.pow(doublings)).min(BACK_OFF.1)
    }
}

fn hello(numbers: &mut Numbers) -> Step {
    Step::Send { session: numbers.session(), seq: numbers.seq(), body: SignalBody::Hello }
}

#[cfg(test)]
mod tests {
    use super::super::message::RoomId;
    use super::*;

    #[test]
    fn a_second_offer_of_a_connection_restarts_its_ice_on_both_sides() {
        let mut numbers = Numbers::new("0123456789abcdef");
        let (mut lobby, mut ward, session) = connected(&mut numbers);

        let offer = said(lobby.report(&session, PeerEvent::Offer("again".into()), &mut numbers, LATER));
        let heard = ward.hear(&offer, &mut numbers, LATER);

        let role = Role::Answer("again".into());
        assert_eq!(heard, [Step::Open { session: session.clone(), role }]);
        assert_eq!(ward.link(), Link::Connected);
        let answer = said(ward.report(&session, PeerEvent::Answer("anew".into()), &mut numbers, LATER));
        let heard = lobby.hear(&answer, &mut numbers, LATER);
        assert_eq!(heard, [Step::RemoteAnswer { session: session.clone(), sdp: "anew".into() }]);
        assert_eq!((lobby.link(), lobby.session()), (Link::Connected, Some(&session)));
        assert_eq!((lobby.deadline(), ward.deadline()), (None, None));
    }

    #[test]
    fn an_offer_that_is_said_twice_restarts_ice_once() {
        let mut numbers = Numbers::new("0123456789abcdef");
        let (mut lobby, mut ward, session) = connected(&mut numbers);
        let offer = said(lobby.report(&session, PeerEvent::Offer("again".into()), &mut numbers, LATER));
        ward.hear(&offer, &mut numbers, LATER);

        let heard = ward.hear(&offer, &mut numbers, LATER);

        assert_eq!(heard, []);
    }

    #[test]
    fn a_connection_that_is_interrupted_is_lost_once_and_stays_open() {
        let mut numbers = Numbers::new("0123456789abcdef");
        let (mut lobby, _, session) = connected(&mut numbers);
        let interrupted = || PeerEvent::Interrupted("silent".into());

        let said = [interrupted(), PeerEvent::Connected, interrupted(), interrupted()]
            .map(|event| lobby.report(&session, event, &mut numbers, LATER));
        let failed = lobby.report(&session, PeerEvent::Failed("for good".into()), &mut numbers, LATER);

        let lost = || vec![Step::Lost("silent".into())];
        assert_eq!(said, [lost(), vec![Step::Connected], lost(), vec![]]);
        assert!(
            matches!(&failed[..], [Step::Close, Step::Send { body: SignalBody::Hello, .. }]),
            "{failed:?}"
        );
    }

    #[test]
    fn a_flood_of_candidates_is_refused_and_a_restart_of_ice_may_bring_new_ones() {
        let mut numbers = Numbers::new("0123456789abcdef");
        let (mut lobby, mut ward, session) = connected(&mut numbers);
        let flood: Vec<Step> = (0..10_000)
            .flat_map(|_| {
                let seq = numbers.seq();
                let body = SignalBody::Candidate("{}".into());
                let room = RoomId::parse("r").expect("an id");
                let signal = Signal { room, session: session.clone(), seq, body };
                ward.hear(&signal, &mut numbers, LATER)
            })
            .collect();
        let taken = flood.iter().filter(|step| matches!(step, Step::RemoteCandidate { .. })).count();
        assert_eq!(taken, CANDIDATES_TAKEN);
        assert!(matches!(flood.last(), Some(Step::Refused(_))));

        let offer = said(lobby.report(&session, PeerEvent::Offer("again".into()), &mut numbers, LATER));
        ward.hear(&offer, &mut numbers, LATER);
        let candidate = said(lobby.report(&session, PeerEvent::Candidate("{}".into()), &mut numbers, LATER));

        assert!(matches!(ward.hear(&candidate, &mut numbers, LATER)[..], [Step::RemoteCandidate { .. }]));
    }

    const LATER: Duration = Duration::from_secs(60);

    /// Both sides of a connection, and its session.
    fn connected(numbers: &mut Numbers) -> (Peer, Peer, SessionId) {
        let ids = ["lobby", "ward"].map(|id| MemberId::parse(id).expect("an id"));
        let (mut lobby, mut ward) = (Peer::new(&ids[0], &ids[1]), Peer::new(&ids[1], &ids[0]));
        lobby.start(numbers, Duration::ZERO);
        let session = lobby.session().expect("it offers").clone();
        let offer = said(lobby.report(&session, PeerEvent::Offer("offer".into()), numbers, Duration::ZERO));
        ward.hear(&offer, numbers, Duration::ZERO);
        let answer = said(ward.report(&session, PeerEvent::Answer("answer".into()), numbers, Duration::ZERO));
        lobby.hear(&answer, numbers, Duration::ZERO);
        for side in [&mut lobby, &mut ward] {
            side.report(&session, PeerEvent::Connected, numbers, Duration::ZERO);
        }
        (lobby, ward, session)
    }

    /// The one signal that is to be sent.
    fn said(steps: Vec<Step>) -> Signal {
        match <[Step; 1]>::try_from(steps) {
            Ok([Step::Send { session, seq, body }]) => {
                Signal { room: RoomId::parse("r").expect("an id"), session, seq, body }
            }
            other => panic!("{other:?}"),
        }
    }
}
