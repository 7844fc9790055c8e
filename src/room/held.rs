//! Signals of members who are not listed yet: documents reach the members of a room at different moments.

use super::message::{MemberId, RoomId, Signal, SignalBody};
use std::time::Duration;

const HELD_FOR: Duration = Duration::from_secs(5);
const MOST_STRANGERS: usize = 8;
const MOST_CANDIDATES: usize = 32;

/// At most 8 strangers with a hello, an offer and 32 candidates each; what does not fit is refused.
#[derive(Debug, Default)]
pub struct Held {
    strangers: Vec<Stranger>,
}

#[derive(Debug)]
struct Stranger {
    id: MemberId,
    until: Duration,
    hello: Option<Signal>,
    /// The newest offer and its candidates.
    offer: Option<Signal>,
    candidates: Vec<Signal>,
}

impl Held {
    /// Keeps a signal; false if there is no room for it.
    pub fn hold(&mut self, from: &MemberId, signal: Signal, now: Duration) -> bool {
        if signal.body == SignalBody::Bye {
            self.strangers.retain(|stranger| stranger.id != *from);
            return true;
        }
        let index = match self.strangers.iter().position(|stranger| stranger.id == *from) {
            Some(index) => index,
            None if self.strangers.len() >= MOST_STRANGERS => return false,
            None => {
                self.strangers.push(Stranger {
                    id: from.clone(),
                    until: now + HELD_FOR,
                    hello: None,
                    offer: None,
                    candidates: Vec::new(),
                });
                self.strangers.len() - 1
            }
        };
        let stranger = &mut self.strangers[index];
        match signal.body {
            SignalBody::Hello => stranger.hello = Some(signal),
            SignalBody::Offer(_) => {
                stranger.candidates.retain(|candidate| candidate.session == signal.session);
                stranger.offer = Some(signal);
            }
            SignalBody::Candidate(_) if stranger.candidates.len() < MOST_CANDIDATES => {
                stranger.candidates.push(signal);
            }
            // Nothing was asked of a stranger, so there is nothing to answer.
            SignalBody::Candidate(_) | SignalBody::Answer(_) | SignalBody::Bye => return false,
        }
        true
    }

    /// What this member said about this room, in the order it is to be heard.
    pub fn take(&mut self, from: &MemberId, room: &RoomId) -> Vec<Signal> {
        let Some(index) = self.strangers.iter().position(|stranger| stranger.id == *from) else {
            return Vec::new();
        };
        let stranger = self.strangers.swap_remove(index);
        let all = stranger.hello.into_iter().chain(stranger.offer).chain(stranger.candidates);
        all.filter(|signal| signal.room == *room).collect()
    }

    /// Who has waited too long; their signals are gone.
    pub fn expire(&mut self, now: Duration) -> Vec<MemberId> {
        let expired = self.strangers.extract_if(.., |stranger| now >= stranger.until);
        expired.map(|stranger| stranger.id).collect()
    }

    pub fn next_timeout(&self) -> Option<Duration> {
        self.strangers.iter().map(|stranger| stranger.until).min()
    }
}
