//! What waits to be sent to the broker, and what was sent but not acknowledged. Pure: the time is a parameter.
//!
//! Three kinds of messages, three answers to "the broker is away":
//!
//! | kind | while away | when its queue is full |
//! |---|---|---|
//! | retained (`reported`, `state`, `info`, `fault/…`) | the newest of each topic is kept | a new topic is refused |
//! | record (`…/error`) | the last [`RECORDS`] are kept | the oldest goes |
//! | passing (signals, replies, events, `stats`) | dropped: who waits for them starts anew | the oldest goes |

use crate::room::Publication;
use std::collections::VecDeque;
use std::time::Duration;

/// Error records kept.
const RECORDS: usize = 64;
/// Topics with a retained message waiting. A kiosk has about forty at most: four documents and its faults.
const RETAINED: usize = 256;
/// Passing messages waiting, and their bytes: a slow broker must not grow the process.
const PASSING: usize = 256;
const PASSING_BYTES: usize = 2 << 20;
/// Publications on the way at once; below the packet ids of the client, so that these never collide.
const WINDOW: usize = 16;

/// Publications on their way to the broker, in order.
#[derive(Debug)]
pub struct Outbox {
    online: bool,
    waiting: VecDeque<Entry>,
    in_flight: VecDeque<Flight>,
}

#[derive(Debug)]
struct Entry {
    publication: Publication,
    since: Duration,
}

/// Given to the client; `packet_id` is known once it has been written.
#[derive(Debug)]
struct Flight {
    entry: Entry,
    packet_id: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retained,
    Record,
    Passing,
}

impl Outbox {
    pub fn new() -> Self {
        Self { online: false, waiting: VecDeque::new(), in_flight: VecDeque::new() }
    }

    /// Takes a publication in. Answers how many are lost by it: itself, or the oldest of its kind.
    pub fn push(&mut self, publication: Publication, now: Duration) -> usize {
        let kind = kind(&publication);
        let entry = Entry { publication, since: now };
        match kind {
            Kind::Passing if !self.online => return 1,
            Kind::Retained => {
                // In place, so that a topic that changes all the time is not put off for ever.
                let older = self.waiting.iter_mut().find(|other| other.replaced_by(&entry));
                if let Some(older) = older {
                    *older = entry;
                    return 0;
                }
                if self.count(Kind::Retained) >= RETAINED {
                    return 1;
                }
            }
            Kind::Record | Kind::Passing => {}
        }
        self.waiting.push_back(entry);
        let mut lost = 0;
        while self.is_over(kind) {
            self.drop_oldest(kind);
            lost += 1;
        }
        lost
    }

    /// The next publication to send, with what is left of its Message Expiry. `None` if there is none, or too many
    /// are on their way. Those that have expired are dropped.
    pub fn next(&mut self, now: Duration) -> Option<Publication> {
        if !self.online || self.in_flight.len() >= WINDOW {
            return None;
        }
        loop {
            let entry = self.waiting.pop_front()?;
            let Some(expiry_s) = entry.left_s(now) else { continue };
            let publication = Publication { expiry_s, ..entry.publication.clone() };
            self.in_flight.push_back(Flight { entry, packet_id: None });
            return Some(publication);
        }
    }

    /// The oldest publication without a packet id was written with this one; 0 stands for QoS 0, which is done.
    pub fn written(&mut self, packet_id: u16) {
        let Some(index) = self.in_flight.iter().position(|flight| flight.packet_id.is_none()) else { return };
        if packet_id == 0 {
            self.in_flight.remove(index);
        } else {
            self.in_flight[index].packet_id = Some(packet_id);
        }
    }

    /// The broker has answered: this publication is done, whatever the answer was.
    pub fn acknowledged(&mut self, packet_id: u16) -> Option<Publication> {
        let index = self.in_flight.iter().position(|flight| flight.packet_id == Some(packet_id))?;
        self.in_flight.remove(index).map(|flight| flight.entry.publication)
    }

    /// The client would not take the last one that [`Outbox::next`] gave: it is gone.
    pub fn refused(&mut self) {
        self.in_flight.pop_back();
    }

    /// The session is up: what waits may be sent.
    pub fn up(&mut self) {
        self.online = true;
    }

    /// The session is gone: what was not acknowledged goes back to the front, unless a newer one of its topic waits;
    /// passing messages are dropped.
    pub fn down(&mut self) {
        self.online = false;
        while let Some(Flight { entry, .. }) = self.in_flight.pop_back() {
            if !self.waiting.iter().any(|newer| entry.replaced_by(newer)) {
                self.waiting.push_front(entry);
            }
        }
        self.waiting.retain(|entry| kind(&entry.publication) != Kind::Passing);
        while self.is_over(Kind::Record) {
            self.drop_oldest(Kind::Record);
        }
    }

    /// Nothing waits and everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    fn of(&self, wanted: Kind) -> impl Iterator<Item = &Entry> {
        self.waiting.iter().filter(move |entry| kind(&entry.publication) == wanted)
    }

    fn count(&self, kind: Kind) -> usize {
        self.of(kind).count()
    }

    fn is_over(&self, kind: Kind) -> bool {
        match kind {
            Kind::Retained => false,
            Kind::Record => self.count(kind) > RECORDS,
            Kind::Passing => {
                let bytes: usize = self.of(kind).map(|entry| entry.publication.payload.len()).sum();
                self.count(kind) > PASSING || bytes > PASSING_BYTES
            }
        }
    }

    fn drop_oldest(&mut self, wanted: Kind) {
        if let Some(index) = self.waiting.iter().position(|entry| kind(&entry.publication) == wanted) {
            self.waiting.remove(index);
        }
    }
}

impl Entry {
    /// Whether `newer` makes this one pointless: both retained, on one topic.
    fn replaced_by(&self, newer: &Entry) -> bool {
        let (old, new) = (&self.publication, &newer.publication);
        old.retained && new.retained && old.topic == new.topic
    }

    /// What is left of the expiry: `Some(None)` if it never expires, `None` if it has.
    fn left_s(&self, now: Duration) -> Option<Option<u32>> {
        let Some(expiry_s) = self.publication.expiry_s else { return Some(None) };
        let left = Duration::from_secs(expiry_s.into()).checked_sub(now.saturating_sub(self.since))?;
        // Rounded up; an interval of zero would mean "at once".
        let left_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        u32::try_from(left_s).ok().filter(|&left_s| left_s > 0).map(Some)
    }
}

fn kind(publication: &Publication) -> Kind {
    if publication.retained {
        Kind::Retained
    } else if publication.topic.ends_with("/error") && publication.qos > 0 {
        Kind::Record
    } else {
        Kind::Passing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const START: Duration = Duration::ZERO;

    #[test]
    fn of_a_retained_topic_only_the_newest_waits() {
        let mut outbox = Outbox::new();
        outbox.push(retained("lobby/reported", "1"), START);
        outbox.push(retained("lobby/state", "online"), START);
        outbox.push(retained("lobby/reported", "2"), START);
        outbox.up();

        assert_eq!(drain(&mut outbox, START), ["lobby/reported 2", "lobby/state online"]);
    }

    #[test]
    fn of_the_records_made_while_away_the_last_sixty_four_are_sent_in_order() {
        let mut outbox = Outbox::new();
        let lost: usize = (0..100).map(|n| outbox.push(message("lobby/error", &n.to_string()), START)).sum();
        outbox.up();

        let sent = drain(&mut outbox, Duration::from_secs(86_400));

        assert_eq!(lost, 36);
        assert_eq!(sent.len(), 64);
        assert_eq!((sent[0].as_str(), sent[63].as_str()), ("lobby/error 36", "lobby/error 99"));
    }

    #[test]
    fn signals_and_stats_are_dropped_while_away() {
        let mut outbox = Outbox::new();

        assert_eq!(outbox.push(signal("hello"), START), 1);
        assert_eq!(outbox.push(Publication { qos: 0, ..message("lobby/stats", "{}") }, START), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_signal_that_waited_too_long_is_not_sent_and_one_that_waited_less_carries_what_is_left() {
        let mut outbox = Outbox::new();
        outbox.up();
        outbox.push(signal("old"), START);
        outbox.push(signal("young"), Duration::from_secs(25));

        let next = outbox.next(Duration::from_millis(35_500)).unwrap();

        assert_eq!((&next.payload[..], next.expiry_s), (&b"young"[..], Some(20)));
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_before_what_came_later() {
        let mut outbox = Outbox::new();
        outbox.up();
        outbox.push(message("lobby/error", "1"), START);
        outbox.push(message("lobby/error", "2"), START);
        outbox.push(signal("offer"), START);
        for packet_id in 1..=3 {
            outbox.next(START).unwrap();
            outbox.written(packet_id);
        }
        assert_eq!(outbox.acknowledged(1).unwrap().payload, "1");

        outbox.down();
        outbox.push(message("lobby/error", "3"), START);
        outbox.up();

        assert_eq!(drain(&mut outbox, START), ["lobby/error 2", "lobby/error 3"]);
    }

    #[test]
    fn a_retained_message_in_flight_gives_way_to_a_newer_one() {
        let mut outbox = Outbox::new();
        outbox.up();
        outbox.push(retained("lobby/reported", "1"), START);
        outbox.next(START).unwrap();
        outbox.push(retained("lobby/reported", "2"), START);

        outbox.down();
        outbox.up();

        assert_eq!(drain(&mut outbox, START), ["lobby/reported 2"]);
    }

    #[test]
    fn no_more_are_on_their_way_than_the_window_and_an_answer_makes_room() {
        let mut outbox = Outbox::new();
        outbox.up();
        for n in 0..WINDOW + 1 {
            outbox.push(message("lobby/event", &n.to_string()), START);
        }
        for packet_id in 1..=WINDOW as u16 {
            outbox.next(START).unwrap();
            outbox.written(packet_id);
        }

        assert_eq!(outbox.next(START), None);
        outbox.acknowledged(7).unwrap();
        assert!(outbox.next(START).is_some());
    }

    #[test]
    fn a_message_of_qos_0_is_done_when_it_is_written() {
        let mut outbox = Outbox::new();
        outbox.up();
        outbox.push(Publication { qos: 0, ..message("lobby/stats", "{}") }, START);
        outbox.next(START).unwrap();

        outbox.written(0);

        assert!(outbox.is_empty());
    }

    #[test]
    fn a_broker_that_takes_nothing_does_not_grow_the_process() {
        let mut outbox = Outbox::new();
        outbox.up();
        let big = "x".repeat(200 << 10);

        for n in 0..1000 {
            outbox.push(message(&format!("{n}/signal/lobby"), &big), START);
            outbox.push(retained(&format!("lobby/fault/{n}"), ""), START);
            outbox.push(message("lobby/error", ""), START);
        }

        assert_eq!(outbox.count(Kind::Passing), PASSING_BYTES / big.len());
        assert_eq!(outbox.count(Kind::Retained), RETAINED);
        assert_eq!(outbox.count(Kind::Record), RECORDS);
    }

    fn message(topic: &str, payload: &str) -> Publication {
        Publication {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retained: false,
            qos: 1,
            expiry_s: None,
            correlation: None,
        }
    }

    fn retained(topic: &str, payload: &str) -> Publication {
        Publication { retained: true, ..message(topic, payload) }
    }

    fn signal(payload: &str) -> Publication {
        Publication { expiry_s: Some(30), ..message("ward-3/signal/lobby", payload) }
    }

    /// Sends and acknowledges all that waits.
    fn drain(outbox: &mut Outbox, now: Duration) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(publication) = outbox.next(now) {
            sent.push(format!("{} {}", publication.topic, String::from_utf8_lossy(&publication.payload)));
            outbox.written(1);
            outbox.acknowledged(1).unwrap();
        }
        sent
    }
}
