//! Two rooms back to back in virtual time: what one publishes the other hears.

use super::ground::*;
use super::*;

/// Two rooms, a broker without delay, and connections that come to be 50 ms after the answer.
pub struct Pair {
    pub rooms: BTreeMap<String, Room>,
    up: BTreeSet<String>,
    ms: u64,
    /// Sessions that were answered and are to be connected.
    connecting: Vec<(u64, SessionId)>,
    pub answered: usize,
    /// Which of the first signals never arrive.
    pub lost: Vec<bool>,
    sent: usize,
}

impl Pair {
    pub fn new() -> Self {
        let rooms = ["lobby", "ward"].map(|name| (name.to_owned(), kiosk(name))).into();
        Self {
            rooms,
            up: BTreeSet::new(),
            ms: 0,
            connecting: Vec::new(),
            answered: 0,
            lost: Vec::new(),
            sent: 0,
        }
    }

    pub fn start(&mut self, name: &str) {
        self.up.insert(name.to_owned());
        self.tell(name, Event::BrokerUp);
        let document = document::read(&id(name), TWO.as_bytes()).expect("a document");
        self.tell(name, Event::Document(Box::new(document)));
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            let timeouts = self.up.iter().filter_map(|name| self.rooms[name].next_timeout());
            let timeouts = timeouts.map(|at| at.as_nanos().div_ceil(1_000_000) as u64);
            let next = timeouts.chain(self.connecting.iter().map(|(at, _)| *at)).min().unwrap_or(end);
            self.ms = next.clamp(self.ms + 1, end);
            let due: Vec<_> = self.connecting.extract_if(.., |(at, _)| *at <= self.ms).collect();
            for (_, session) in due {
                let both = self.holds("lobby", &session) && self.holds("ward", &session);
                for (name, other) in [("lobby", "ward"), ("ward", "lobby")] {
                    let (session, member) = (session.clone(), id(other));
                    let event = if both { PeerEvent::Connected } else { PeerEvent::Failed("alone".into()) };
                    self.tell(name, Event::Peer { member, session, event });
                    if both {
                        self.tell(name, Event::TileLive { member: id(other) });
                    }
                }
            }
            for name in self.up.clone() {
                let commands = self.rooms.get_mut(&name).expect("a room").handle_timeout(at_ms(self.ms));
                self.carry_out(&name, commands);
            }
        }
    }

    pub fn tell(&mut self, name: &str, event: Event) {
        let commands = self.rooms.get_mut(name).expect("a room").handle(event, at_ms(self.ms));
        self.carry_out(name, commands);
    }

    pub fn carry_out(&mut self, name: &str, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Publish(publication) => {
                    let to = publication.topic.split('/').next().unwrap_or_default().to_owned();
                    let signal = to != name;
                    let lost = signal && self.lost.get(self.sent).copied().unwrap_or(false);
                    self.sent += usize::from(signal);
                    if signal && !lost && self.up.contains(&to) {
                        let text = String::from_utf8(publication.payload.to_vec()).expect("JSON");
                        let event = read(&to, &publication.topic, &text).expect("a signal");
                        self.tell(&to, event);
                    }
                }
                Command::Open { member, session, role } => {
                    let event = match role {
                        Role::Offer => PeerEvent::Offer("v=0 offer".into()),
                        Role::Answer(_) => PeerEvent::Answer("v=0 answer".into()),
                    };
                    self.tell(name, Event::Peer { member, session, event });
                }
                Command::RemoteAnswer { session, .. } => {
                    self.answered += 1;
                    self.connecting.push((self.ms + 50, session));
                }
                _ => {}
            }
        }
    }

    pub fn holds(&self, name: &str, session: &SessionId) -> bool {
        self.rooms[name].peers.values().any(|peer| peer.session() == Some(session))
    }

    pub fn both_live(&self) -> bool {
        [("lobby", "ward"), ("ward", "lobby")].iter().all(|(name, other)| {
            self.rooms[*name]
                .tiles()
                .iter()
                .any(|tile| tile.member == id(other) && tile.state == TileState::Live)
        })
    }
}
