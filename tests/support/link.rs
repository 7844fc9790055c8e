//! The link to the broker as a test drives it.

use super::{PREFIX, within};
use bytes::Bytes;
use parlor::link::mqtt::{self, MqttEvent};
use parlor::room::Publication;
use parlor::room::fault::{Cause, Code};
use parlor::room::message::{Incoming, Subscription};
use parlor::secret::Secret;
use tokio::sync::mpsc;

/// The link under test, its events read one at a time.
pub struct Link {
    outgoing: mpsc::Sender<Publication>,
    events: mpsc::Receiver<MqttEvent>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Link {
    pub fn start(settings: mqtt::Settings) -> Self {
        let (outgoing, receiver) = mpsc::channel(4);
        let (sender, events) = mpsc::channel(1);
        let task = tokio::spawn(mqtt::run(settings, receiver, sender));
        Self { outgoing, events, task }
    }

    pub async fn send(&self, publication: Publication) {
        within("the link takes a publication", self.outgoing.send(publication)).await.expect("the link runs");
    }

    pub async fn next(&mut self) -> MqttEvent {
        within("event of the link", self.events.recv()).await.expect("the link runs")
    }

    pub async fn expect_up(&mut self) {
        match self.next().await {
            MqttEvent::Up => {}
            other => panic!("expected Up, got {other:?}"),
        }
    }

    /// [`Self::expect_up`] after any number of failures.
    pub async fn expect_up_at_last(&mut self) {
        loop {
            match self.next().await {
                MqttEvent::Up => return,
                MqttEvent::Down { .. } => {}
                other => panic!("expected Up, got {other:?}"),
            }
        }
    }

    pub async fn expect_down(&mut self) -> Code {
        self.expect_down_by().await.0
    }

    pub async fn expect_down_by(&mut self) -> (Code, Cause) {
        match self.next().await {
            MqttEvent::Down { code, cause } => (code, cause),
            other => panic!("expected Down, got {other:?}"),
        }
    }

    pub async fn expect_denied(&mut self) -> String {
        match self.next().await {
            MqttEvent::Denied { topic } => topic,
            other => panic!("expected Denied, got {other:?}"),
        }
    }

    pub async fn expect_message(&mut self) -> Incoming {
        match self.next().await {
            MqttEvent::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// Closes `outgoing`, waits for the goodbye, and that nothing was said before it.
    pub async fn close(mut self) {
        drop(self.outgoing);
        within("the goodbye", self.task).await.expect("the link runs");
        if let Some(event) = self.events.recv().await {
            panic!("nothing was expected, got {event:?}");
        }
    }
}

pub fn settings(port: u16, id: &str) -> mqtt::Settings {
    let mut subscriptions = subscriptions(&[&format!("{id}/desired")]);
    subscriptions.push(Subscription { topic: format!("{id}/cmd/#"), retain_handling_never: true });
    mqtt::Settings {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        id: id.into(),
        password: Some(Secret::from(id)),
        prefix: PREFIX.into(),
        will: retained(&format!("{id}/state"), "offline"),
        subscriptions,
    }
}

pub fn subscriptions(topics: &[&str]) -> Vec<Subscription> {
    let subscription = |topic: &&str| Subscription { topic: (*topic).into(), retain_handling_never: false };
    topics.iter().map(subscription).collect()
}

pub fn message(topic: &str, payload: &str) -> Publication {
    Publication {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        retained: false,
        qos: 1,
        expiry_s: None,
        correlation: None,
    }
}

pub fn retained(topic: &str, payload: &str) -> Publication {
    Publication { retained: true, ..message(topic, payload) }
}
