//! What the broker knows of the kiosks, as an operator sees it: state, documents, what is on the glass. Pure.

use super::operator::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Every kiosk heard of, by id.
#[derive(Debug, Default)]
pub struct View {
    pub kiosks: BTreeMap<String, Kiosk>,
}

/// The newest documents of one kiosk; `None` where there is none or it is not JSON.
#[derive(Debug, Default)]
pub struct Kiosk {
    pub desired: Option<Value>,
    pub reported: Option<Value>,
    pub state: Option<Value>,
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing heard yet.
    Open,
    /// It is on the glass.
    Shown,
    /// It was read, but not all of it is shown: code and JSON pointer of each part.
    Rejected(String),
    Offline,
}

impl View {
    pub fn apply(&mut self, message: &Message) {
        let Some((id, part)) = message.topic.split_once('/') else { return };
        if !["desired", "reported", "state"].contains(&part) {
            return;
        }
        let kiosk = self.kiosks.entry(id.to_owned()).or_default();
        let value = serde_json::from_slice(&message.payload).ok();
        match part {
            "desired" => kiosk.desired = value,
            "reported" => kiosk.reported = value,
            _ => kiosk.state = value,
        }
    }

    /// The ids of all kiosks, for "known are …".
    pub fn known(&self) -> String {
        match self.kiosks.is_empty() {
            true => "none is known to this broker".into(),
            false => format!("known are {}", join(self.kiosks.keys())),
        }
    }

    /// The kiosks whose document is for this room.
    pub fn in_room(&self, room: &str) -> Vec<String> {
        let of_room = |kiosk: &Kiosk| kiosk.desired.as_ref().and_then(super::document::room) == Some(room);
        self.kiosks.iter().filter(|(_, kiosk)| of_room(kiosk)).map(|(id, _)| id.clone()).collect()
    }

    /// The rooms that some document is for.
    pub fn rooms(&self) -> String {
        let rooms = self.kiosks.values().filter_map(|kiosk| super::document::room(kiosk.desired.as_ref()?));
        match join(rooms.collect::<std::collections::BTreeSet<_>>()).as_str() {
            "" => "there are no rooms".into(),
            rooms => format!("rooms are {rooms}"),
        }
    }

    /// Whether a kiosk shows the document with this `rev` (`None`: has left its room).
    pub fn outcome(&self, id: &str, rev: Option<&Value>) -> Outcome {
        let Some(kiosk) = self.kiosks.get(id) else { return Outcome::Open };
        if text(kiosk.state.as_ref(), "state") == Some("offline") {
            return Outcome::Offline;
        }
        let Some(reported) = &kiosk.reported else { return Outcome::Open };
        match rev {
            None if text(Some(reported), "room").is_none_or(str::is_empty) => Outcome::Shown,
            Some(rev) if reported.get("rev") == Some(rev) => rejected(reported),
            _ => Outcome::Open,
        }
    }

    /// Who shows whom, a line a tile.
    pub fn table(&self, only: Option<&str>) -> String {
        let mut rows =
            vec![["KIOSK", "STATE", "ROOM", "TILE", "MODE", "FIT", "AREA", "PICTURE"].map(str::to_owned)];
        for (id, kiosk) in self.kiosks.iter().filter(|(id, _)| only.is_none_or(|only| only == *id)) {
            rows.extend(kiosk.rows(id));
        }
        align(&rows)
    }
}

impl Kiosk {
    fn rows(&self, id: &str) -> Vec<[String; 8]> {
        let owned = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let reported = self.reported.as_ref();
        let mut head =
            [id.to_owned(), owned(text(self.state.as_ref(), "state")), owned(text(reported, "room"))];
        let tiles = reported.and_then(|reported| reported.get("tiles")).and_then(Value::as_array);
        let mut rows = Vec::new();
        for tile in tiles.into_iter().flatten() {
            let tile = Some(tile);
            let [kiosk, state, room] = std::mem::take(&mut head);
            rows.push([
                kiosk,
                state,
                room,
                owned(text(tile, "openid")),
                owned(text(tile, "mode")),
                owned(text(tile, "object-fit")),
                area(tile),
                owned(text(tile, "state")),
            ]);
        }
        if rows.is_empty() {
            let [kiosk, state, room] = head;
            let [tile, mode, fit, area, picture] = [const { String::new() }; 5];
            rows.push([kiosk, state, room, tile, mode, fit, area, picture]);
        }
        rows
    }
}

/// One line about an error, a fault, an event or a state; `None` for what `watch` does not show.
pub fn describe(message: &Message) -> Option<String> {
    let (id, part) = message.topic.split_once('/')?;
    let value: Option<Value> = serde_json::from_slice(&message.payload).ok();
    let value = value.as_ref();
    let field = |name| text(value, name).unwrap_or_default();
    let line = match part.split_once('/').unwrap_or((part, "")) {
        ("error", "") => {
            let over = value.and_then(|value| value.get("active")) == Some(&Value::Bool(false));
            let what = if over { "healed" } else { field("severity") };
            format!("{what:<8} {} {} {}", field("code"), field("part"), cause(value))
        }
        ("fault", part) if message.payload.is_empty() => format!("{:<8} {part}", "healed"),
        ("fault", part) => format!("{:<8} {part}: {} {}", "fault", field("code"), field("hint")),
        ("event", "") => format!("{:<8} {}", "event", String::from_utf8_lossy(&message.payload)),
        ("state", "") => format!("{:<8} {}", "state", field("state")),
        _ => return None,
    };
    Some(format!("{id:<12} {}", line.trim_end()))
}

/// `op target: errno` and the hint, as far as there are any.
fn cause(value: Option<&Value>) -> String {
    let cause = value.and_then(|value| value.get("cause"));
    let words = ["op", "target", "errno"].into_iter().filter_map(|name| text(cause, name));
    let cause = words.collect::<Vec<_>>().join(" ");
    let hint = text(value, "hint").unwrap_or_default();
    match cause.as_str() {
        "" => hint.to_owned(),
        cause => format!("({cause}) {hint}"),
    }
}

/// The parts that were refused, or `Shown`.
fn rejected(reported: &Value) -> Outcome {
    let list = reported.get("rejected").and_then(Value::as_array);
    let part = |part: &Value| {
        let (code, pointer) = (text(Some(part), "code")?, text(Some(part), "pointer").unwrap_or_default());
        Some(format!("{pointer} {code}").trim_start().to_owned())
    };
    let parts: Vec<String> = list.into_iter().flatten().filter_map(part).collect();
    if parts.is_empty() { Outcome::Shown } else { Outcome::Rejected(parts.join(", ")) }
}

/// `640x360+0+0`, as X11 writes a geometry.
fn area(tile: Option<&Value>) -> String {
    let numbers = tile.and_then(|tile| tile.get("area")).and_then(Value::as_array);
    let numbers: Vec<i64> = numbers.into_iter().flatten().filter_map(Value::as_i64).collect();
    match numbers[..] {
        [x, y, width, height] => format!("{width}x{height}{x:+}{y:+}"),
        _ => "-".into(),
    }
}

fn align(rows: &[[String; 8]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            write!(line, "{cell:<width$}  ", width = width(column)).expect("a String takes everything");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

pub fn text<'a>(value: Option<&'a Value>, field: &str) -> Option<&'a str> {
    value?.get(field)?.as_str()
}

fn join(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    #[test]
    fn a_change_is_shown_when_reported_carries_its_rev() {
        let mut view = View::default();
        view.apply(&message("lobby/state", json!({ "state": "online" })));
        view.apply(&message("lobby/reported", json!({ "rev": 7, "room": "a" })));

        assert_eq!(view.outcome("lobby", Some(&json!(7))), Outcome::Shown);
        assert_eq!(view.outcome("lobby", Some(&json!(8))), Outcome::Open);
        assert_eq!(view.outcome("lobby", None), Outcome::Open);
        assert_eq!(view.outcome("ward-3", Some(&json!(7))), Outcome::Open);
    }

    #[test]
    fn what_was_refused_is_named_with_its_pointer() {
        let mut view = View::default();
        let rejected =
            json!([{ "pointer": "/members/3", "code": "MEMBER_INVALID" }, { "code": "NOT_A_MEMBER" }]);
        view.apply(&message("lobby/reported", json!({ "rev": 7, "rejected": rejected })));

        let outcome = view.outcome("lobby", Some(&json!(7)));

        assert_eq!(outcome, Outcome::Rejected("/members/3 MEMBER_INVALID, NOT_A_MEMBER".into()));
    }

    #[test]
    fn an_offline_kiosk_is_not_waited_for_whatever_it_reported_in_its_last_life() {
        let mut view = View::default();
        view.apply(&message("lobby/reported", json!({ "rev": 7 })));
        view.apply(&message("lobby/state", json!({ "state": "offline" })));

        assert_eq!(view.outcome("lobby", Some(&json!(7))), Outcome::Offline);
    }

    #[test]
    fn a_kiosk_has_left_when_it_reports_no_room() {
        for reported in [json!({ "rev": null, "room": null, "tiles": [] }), json!({}), json!({ "room": "" })]
        {
            let mut view = View::default();
            view.apply(&message("lobby/reported", reported));

            assert_eq!(view.outcome("lobby", None), Outcome::Shown);
        }
    }

    #[test]
    fn the_table_says_who_shows_whom() {
        let mut view = View::default();
        view.apply(&message("lobby/state", json!({ "state": "online" })));
        view.apply(&message("nurse/state", json!({ "state": "offline" })));
        view.apply(&message(
            "lobby/reported",
            json!({ "rev": 7, "room": "consult-12", "tiles": [
                { "openid": "lobby", "mode": "camera", "object-fit": "cover", "area": [0, 0, 640, 360], "state": "live" },
                { "openid": "dr-wang", "mode": "video", "object-fit": "fill", "area": [640, 0, 640, 360], "state": "stalled" },
            ] }),
        ));

        assert_eq!(
            view.table(None),
            "KIOSK  STATE    ROOM        TILE     MODE    FIT    AREA           PICTURE\n\
             lobby  online   consult-12  lobby    camera  cover  640x360+0+0    live\n\
             \u{20}                           dr-wang  video   fill   640x360+640+0  stalled\n\
             nurse  offline  -\n"
        );
        assert_eq!(view.table(Some("nurse")).lines().count(), 2);
    }

    #[test]
    fn errors_events_and_states_are_readable_lines() {
        let gone = json!({ "code": "CAMERA_GONE", "severity": "error", "part": "camera-front", "active": true,
            "cause": { "op": "VIDIOC_DQBUF", "errno": "ENODEV", "target": "/dev/video0" }, "hint": "Plug it in." });
        let healed =
            json!({ "code": "CAMERA_GONE", "severity": "error", "part": "camera-front", "active": false });
        let empty = Message { payload: Bytes::new(), ..message("lobby/fault/screen", json!(null)) };

        assert_eq!(
            describe(&message("lobby/error", gone)).unwrap(),
            "lobby        error    CAMERA_GONE camera-front (VIDIOC_DQBUF /dev/video0 ENODEV) Plug it in."
        );
        assert_eq!(
            describe(&message("lobby/error", healed)).unwrap(),
            "lobby        healed   CAMERA_GONE camera-front"
        );
        assert_eq!(describe(&empty).unwrap(), "lobby        healed   screen");
        assert_eq!(
            describe(&message("lobby/state", json!({ "state": "offline" }))).unwrap(),
            "lobby        state    offline"
        );
        assert_eq!(describe(&message("lobby/info", json!({}))), None);
    }

    fn message(topic: &str, payload: Value) -> Message {
        let payload = Bytes::from(payload.to_string());
        Message { topic: topic.into(), payload, correlation: None }
    }
}
