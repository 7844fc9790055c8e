//! A broker, kiosks in one room, and a controller that hears all they say.

use crate::bed::out;
use crate::support::{Client, Process, TempDir, text};
use parlor::sim::broker;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longer than anything takes: connections are made at a hundredth of their speed.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at something that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(20);

pub struct House {
    port: u16,
    pub controller: Client,
    pub kiosks: Vec<(&'static str, Process, TempDir)>,
    /// The newest message by its topic; an empty one is null.
    newest: BTreeMap<String, Value>,
    /// All that was said since a test cleared it, oldest first.
    pub said: Vec<Said>,
}

/// A message, and when it was heard.
pub struct Said {
    pub at: Instant,
    pub topic: String,
    /// Null if empty.
    pub payload: Value,
}

impl House {
    pub async fn start() -> Self {
        let port = broker::start(0).expect("a broker").port;
        let mut controller = Client::connect(port, "controller").await;
        controller.subscribe("#").await;
        Self { port, controller, kiosks: Vec::new(), newest: BTreeMap::new(), said: Vec::new() }
    }

    /// Starts a kiosk with these lines in its configuration.
    pub fn kiosk(&mut self, id: &'static str, lines: &str) {
        let directory = TempDir::new(id);
        let configuration = directory.write(
            "kiosk.toml",
            &format!(
                "id = '{id}'\nbroker.address = '127.0.0.1:{}'\nlink.bind = ['127.0.0.1:0']\n\
                 room.stats_interval_s = 1\n{lines}",
                self.port
            ),
        );
        let program =
            std::env::var_os("PARLOR_DAEMON").expect("these tests are run by board/testbed/test-kernel");
        let log = format!("daemon-{id}.log");
        let log = File::options().create(true).append(true).open(out().join(log)).expect("a log");
        let process =
            Process::start(Command::new(program).arg("run").arg("--config").arg(configuration).stderr(log));
        self.kiosks.push((id, process, directory));
    }

    /// Takes the next message.
    pub async fn hear(&mut self) {
        let message = text(&self.controller.next().await);
        let (topic, payload) = message.split_once(' ').expect("topic and payload");
        let payload: Value = serde_json::from_str(payload).unwrap_or(Value::Null);
        self.newest.insert(topic.to_owned(), payload.clone());
        self.said.push(Said { at: Instant::now(), topic: topic.to_owned(), payload });
    }

    /// The newest message under this topic; null if there is none.
    pub fn now(&self, topic: &str) -> &Value {
        self.newest.get(topic).unwrap_or(&Value::Null)
    }

    /// Waits until there is a message under this topic.
    pub async fn message(&mut self, topic: &str) -> Value {
        self.until(topic, |house| !house.now(topic).is_null()).await;
        self.now(topic).clone()
    }

    pub async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}; {}", self.situation());
            for (id, process, _) in &mut self.kiosks {
                let ended = process.0.try_wait().expect("it is our child");
                assert_eq!(ended, None, "{id} ended; see daemon-{id}.log in {}", out().display());
            }
            tokio::select! {
                () = self.hear() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Listens for a while.
    pub async fn listen(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        self.until("time passes", |_| Instant::now() >= deadline).await;
    }

    /// What is wrong now.
    pub fn faults(&self) -> Vec<&Value> {
        let of = |(topic, payload): (&String, _)| topic.contains("/fault/").then_some(payload);
        self.newest.iter().filter_map(of).filter(|fault: &&Value| !fault.is_null()).collect()
    }

    /// What the broker tells one who comes now.
    pub async fn retained(&self, topic: &str) -> Value {
        let mut late = Client::connect(self.port, "late").await;
        late.subscribe(topic).await;
        let message = late.next().await;
        serde_json::from_slice(&message.payload).expect("JSON")
    }

    /// For the message of a failure.
    pub fn situation(&self) -> String {
        let newest = |id: &str, word: &str| self.now(&format!("{id}/{word}")).clone();
        let of = |(id, ..): &(&str, _, _)| (newest(id, "reported"), newest(id, "stats"));
        format!("{:?}, wrong is {:?}", self.kiosks.iter().map(of).collect::<Vec<_>>(), self.faults())
    }
}

/// This member's entry of what has tiles.
pub fn tile<'a>(document: &'a Value, member: &str) -> &'a Value {
    let tiles = document["tiles"].as_array().map_or(&[][..], Vec::as_slice);
    tiles.iter().find(|tile| tile["openid"] == member).unwrap_or(&Value::Null)
}
