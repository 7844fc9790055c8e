//! Who writes the documents and hears all that the kiosks say.

use crate::demo::room::retained;
use crate::link::mqtt::{self, MqttEvent};
use crate::room::Publication;
use crate::room::message::{Incoming, Subscription};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Records that nobody has looked at yet; when full the oldest goes.
const RECORDS: usize = 1000;

/// A connection to the broker and what came over it.
pub struct Controller {
    publish: mpsc::Sender<Publication>,
    tasks: [JoinHandle<()>; 2],
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// The last retained document of each topic; what was cleared is not there. As many as the kiosks have.
    last: BTreeMap<String, Value>,
    /// Kiosk and record, as they came.
    records: VecDeque<(String, Value)>,
}

impl Controller {
    pub fn connect(port: u16) -> Self {
        // Full: who publishes waits.
        let (publish, publications) = mpsc::channel(64);
        // Full: the broker waits.
        let (told, mut events) = mpsc::channel(64);
        let all = ["+/reported", "+/state", "+/fault/+", "+/error"];
        let settings = mqtt::Settings {
            host: "127.0.0.1".into(),
            port,
            id: "soak-controller".into(),
            tls: None,
            password: None,
            prefix: "parlor/1".into(),
            will: retained("soak-controller/state", json!({ "state": "offline" })),
            subscriptions: all
                .map(|topic| Subscription { topic: topic.into(), retain_handling_never: false })
                .into(),
        };
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let hears = heard.clone();
        let link = tokio::spawn(mqtt::run(settings, publications, told));
        let ear = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let MqttEvent::Message(message) = event {
                    lock(&hears).hear(message);
                }
            }
        });
        Self { publish, tasks: [link, ear], heard }
    }

    /// Publishes below the prefix, at QoS 1.
    pub async fn publish(&self, topic: String, payload: String, retained: bool) {
        let payload = payload.into();
        let publication = Publication { topic, payload, retained, qos: 1, expiry_s: None, correlation: None };
        if self.publish.send(publication).await.is_err() {
            tracing::error!("the controller's connection has ended");
        }
    }

    /// The last retained document of a topic.
    pub fn last(&self, topic: &str) -> Option<Value> {
        lock(&self.heard).last.get(topic).cloned()
    }

    /// Forgets the last document of a topic: what comes now is new.
    pub fn forget(&self, topic: &str) {
        lock(&self.heard).last.remove(topic);
    }

    /// Part and record of the faults that stand on this kiosk.
    pub fn faults(&self, kiosk: &str) -> Vec<(String, Value)> {
        let prefix = format!("{kiosk}/fault/");
        let heard = lock(&self.heard);
        let faults = heard.last.iter().filter_map(|(topic, record)| {
            topic.strip_prefix(&prefix).map(|part| (part.to_owned(), record.clone()))
        });
        faults.collect()
    }

    /// The records since the last call: kiosk and record.
    pub fn records(&self) -> Vec<(String, Value)> {
        lock(&self.heard).records.drain(..).collect()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Heard {
    fn hear(&mut self, message: Incoming) {
        let value = serde_json::from_slice::<Value>(&message.payload).ok();
        match (message.topic.strip_suffix("/error"), value) {
            (Some(kiosk), Some(record)) => {
                if self.records.len() == RECORDS {
                    self.records.pop_front();
                }
                self.records.push_back((kiosk.to_owned(), record));
            }
            (None, Some(value)) => {
                self.last.insert(message.topic, value);
            }
            (_, None) => {
                self.last.remove(&message.topic);
            }
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
