//! How the room says something to the broker: nothing while it is away, records afterwards.

use super::*;
use crate::room::clock;

impl Room {
    pub(super) fn raise(&mut self, fault: Fault, pointer: Option<String>, now: Now) {
        let room = self.room_name();
        self.faults.raise(fault, pointer, room.as_deref(), now);
    }

    pub(super) fn room_name(&self) -> Option<String> {
        self.document.as_ref().map(|document| document.room.to_string())
    }

    pub(super) fn say(&mut self, saying: Saying) {
        match saying {
            Saying::Edge(record) => self.record(report::unretained(&self.settings, "error", &record)),
            Saying::Level { part, record: Some(record) } => {
                self.publish(report::retained(&self.settings, &format!("fault/{part}"), record));
            }
            Saying::Level { part, record: None } => self.clear_fault(&part.to_string()),
        }
    }

    pub(super) fn clear_unless_active(&mut self, part: &str) {
        if !self.faults.has_part_named(part) {
            self.clear_fault(part);
        }
    }

    pub(super) fn clear_fault(&mut self, part: &str) {
        let empty = report::retained(&self.settings, &format!("fault/{part}"), Value::Null);
        self.publish(Publication { payload: bytes::Bytes::new(), ..empty });
    }

    pub(super) fn event(&mut self, name: &str, mut content: Value, now: Now) {
        content["event"] = name.into();
        content["room"] = self.room_name().into();
        content["boot"] = self.settings.boot.as_str().into();
        content["at"] = now.wall.map(clock::to_text).into();
        content["up_ms"] = (now.mono.as_millis() as u64).into();
        self.record(report::unretained(&self.settings, "event", &content));
    }

    pub(super) fn agree(&mut self, request: &Request) {
        self.out
            .extend(message::reply(request, json!({ "ok": true }).to_string().into()).map(Command::Publish));
    }

    pub(super) fn answer(&mut self, to: &ReplyTo, content: &Value) {
        self.publish(message::answer(to, content.to_string().into()));
    }

    /// A record is kept while the broker is away; it has its own time in it.
    pub(super) fn record(&mut self, publication: Publication) {
        if self.online {
            return self.publish(publication);
        }
        if self.backlog.len() == BACKLOG {
            self.backlog.pop_front();
        }
        self.backlog.push_back(publication);
    }

    pub(super) fn publish(&mut self, publication: Publication) {
        if self.online {
            self.out.push(Command::Publish(publication));
        }
    }

    pub(super) fn next_stats(&self, now: Now) -> Option<Duration> {
        let interval = self.settings.stats_interval;
        (!interval.is_zero()).then(|| now.mono + interval)
    }
}
