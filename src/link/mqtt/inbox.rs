//! What came from the broker and the kiosk has no room for yet.

use super::MqttEvent;
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// The inbox is full at either of these; the ten packets that rumqttc reads at once may come on top.
const EVENTS: usize = 256;
const BYTES: usize = 1 << 20;

/// Events on their way to the kiosk. When it is full the socket is not read.
pub struct Inbox {
    events: mpsc::Sender<MqttEvent>,
    waiting: VecDeque<MqttEvent>,
    bytes: usize,
}

impl Inbox {
    pub fn new(events: mpsc::Sender<MqttEvent>) -> Self {
        Self { events, waiting: VecDeque::new(), bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes an event in, always: who calls stops reading when [`Inbox::is_full`].
    pub fn push(&mut self, event: MqttEvent) {
        self.bytes += size(&event);
        self.waiting.push_back(event);
    }

    fn pop(&mut self) -> Option<MqttEvent> {
        let event = self.waiting.pop_front()?;
        self.bytes -= size(&event);
        Some(event)
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= EVENTS || self.bytes >= BYTES
    }

    /// Hands over what the kiosk has room for.
    pub fn deliver(&mut self) {
        while !self.waiting.is_empty() {
            let events = self.events.clone();
            match events.try_reserve() {
                Ok(permit) => {
                    let Some(event) = self.pop() else { return };
                    permit.send(event);
                }
                Err(mpsc::error::TrySendError::Full(())) => return,
                Err(mpsc::error::TrySendError::Closed(())) => return self.clear(),
            }
        }
    }

    /// Waits for room and hands one event over. Can be cancelled without a loss.
    pub async fn hand_over(&mut self) {
        let events = self.events.clone();
        match events.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.pop() {
                    permit.send(event);
                }
            }
            Err(_) => self.clear(),
        }
    }

    /// Nobody listens any more.
    fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}

fn size(event: &MqttEvent) -> usize {
    match event {
        MqttEvent::Message(message) => message.payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::message::Incoming;
    use bytes::Bytes;

    #[test]
    fn it_is_full_by_number_and_by_bytes_and_empties_in_order() {
        let (sender, mut events) = mpsc::channel(2 * EVENTS);
        let mut inbox = Inbox::new(sender);

        for n in 0..EVENTS {
            assert!(!inbox.is_full());
            inbox.push(message(n, 1));
        }
        assert!(inbox.is_full());
        inbox.deliver();
        assert!(inbox.is_empty());
        inbox.push(message(EVENTS, BYTES));
        assert!(inbox.is_full());
        inbox.deliver();

        assert!(!inbox.is_full());
        for n in 0..=EVENTS {
            let Ok(MqttEvent::Message(message)) = events.try_recv() else { panic!("message {n} is missing") };
            assert_eq!(message.topic, n.to_string());
        }
    }

    #[test]
    fn when_nobody_listens_nothing_is_kept() {
        let (sender, events) = mpsc::channel(1);
        let mut inbox = Inbox::new(sender);
        inbox.push(message(0, BYTES));
        drop(events);

        inbox.deliver();

        assert!(inbox.is_empty() && !inbox.is_full());
    }

    fn message(n: usize, size: usize) -> MqttEvent {
        MqttEvent::Message(Incoming {
            topic: n.to_string(),
            payload: Bytes::from(vec![0; size]),
            retained: false,
            response_topic: None,
            correlation: None,
        })
    }
}
