//! `docs/asyncapi.yaml` is true: every example is taken by the room as the file says, and all that the room publishes is
//! as its schemas say.

use parlor::geometry::Size;
use parlor::room::fault::{Code, Fault, Part};
use parlor::room::message::{self, Incoming, MemberId};
use parlor::room::{
    CameraInfo, CodecInfo, Command, Event, Now, PeerEvent, Position, Room, ScreenInfo, Settings,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn every_example_fits_its_schema_and_is_taken() {
    let api = api();
    let mut taken = 0;
    for (name, message) in messages(&api) {
        for example in list(&message["examples"]) {
            let errors = misfits(&api, &message["payload"], &example["payload"], "");
            assert_eq!(errors, [""; 0], "{name}: {}", example["name"]);
            if !["desired", "command", "signal"].contains(&name.as_str()) {
                continue;
            }

            let event = parse(&incoming(example));

            let refused = match &event {
                Some(Event::Document(document)) => !document.rejected.is_empty(),
                Some(Event::Request(_) | Event::Signal { .. }) => false,
                _ => true,
            };
            assert!(!refused, "{name}: {}: {event:?}", example["name"]);
            taken += 1;
        }
    }
    assert!(taken >= 12, "{taken} examples");
}

#[test]
fn every_invalid_example_is_answered_with_its_code_and_pointer() {
    let api = api();
    let mut refused = 0;
    for (name, message) in messages(&api) {
        for example in list(&message["x-invalid-examples"]) {
            let mut room = kiosk();
            room.handle(Event::BrokerUp, at_ms(0));

            let event = parse(&incoming(example)).unwrap_or_else(|| panic!("{}: silence", example["name"]));
            let commands = room.handle(event, at_ms(1000));

            let expected = &example["x-expected"];
            let said = published(&commands, "lobby/error")
                .into_iter()
                .any(|record| record["code"] == expected["code"] && record["pointer"] == expected["pointer"]);
            assert!(said, "{name}: {}: {commands:?}", example["name"]);
            refused += 1;
        }
    }
    assert!(refused >= 25, "{refused} examples");
}

#[test]
fn all_that_a_room_publishes_fits_the_schemas() {
    let api = api();
    let mut room = kiosk();
    let mut channels = BTreeSet::new();

    for (ms, event) in story() {
        let mut commands = room.handle(event, at_ms(ms));
        commands.extend(room.handle_timeout(at_ms(ms + 2900)));
        commands.extend(if ms == 90_000 { room.goodbye(at_ms(ms)) } else { Vec::new() });
        for command in commands {
            let Command::Publish(publication) = command else { continue };
            if publication.payload.is_empty() {
                continue;
            }
            let channel = publication.topic.split('/').nth(1).expect("a topic below an id").to_owned();
            let schema = match channel.as_str() {
                "fault" => "error",
                other => other,
            };
            let content: Value = serde_json::from_slice(&publication.payload).expect("JSON");
            let errors = misfits(&api, &api["components"]["schemas"][schema], &content, "");
            assert_eq!(errors, [""; 0], "{}: {content}", publication.topic);
            channels.insert(channel);
        }
    }

    let seen: Vec<&str> = channels.iter().map(String::as_str).collect();
    assert_eq!(seen, ["error", "event", "fault", "info", "reply", "reported", "signal", "state"]);
}

#[test]
fn the_schema_check_itself_refuses_what_does_not_fit() {
    let api = api();
    let state = &api["components"]["schemas"]["state"];

    assert_eq!(misfits(&api, state, &json!({ "state": "online", "boot": "x", "version": "1" }), "").len(), 1);
    assert_eq!(misfits(&api, state, &json!({ "state": "on" }), "").len(), 3);
    assert_eq!(misfits(&api, state, &json!(5), "").len(), 1);
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(api: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("a reference within the file");
                    assert!(api.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|value| walk(api, value));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(api, value)),
            _ => {}
        }
    }
    let api = api();

    walk(&api, &api);

    assert_eq!(api["asyncapi"], "3.0.0");
}

/// A room with a bit of everything in it.
fn story() -> Vec<(u64, Event)> {
    let ward = MemberId::parse("ward").expect("an id");
    let camera = CameraInfo {
        position: Position::Back,
        name: "cam".into(),
        format: "YUYV".into(),
        width: 640,
        height: 480,
        rate_hz: 30.0,
    };
    let screen = ScreenInfo { name: "fb0".into(), width: 800, height: 600, bits_per_pixel: 32, flip: false };
    let codecs = CodecInfo { encoder: "codec (/dev/video11)".into(), decoder: "OpenH264".into() };
    let heard = |topic: &str, payload: Value| {
        let text = payload.to_string();
        let response_topic = Some("lobby/reply/ctl".to_owned());
        parse(&Incoming { response_topic, ..message_of(topic, text.into_bytes()) }).expect("an event")
    };
    let session = message::SessionId::numbered(BOOT, 2);
    let peer = |event| Event::Peer { member: ward.clone(), session: session.clone(), event };
    vec![
        (0, Event::BrokerUp),
        (1_000, Event::CodecsChosen { info: codecs }),
        (
            2_000,
            Event::Raised(Fault {
                part: Part::Codec,
                code: Code::CodecSoftware,
                cause: None,
                retry_in: None,
            }),
        ),
        (3_000, Event::ScreenOpened { info: screen }),
        (6_000, heard("lobby/desired", json!({ "rev": 1, "room": "r", "members": ["lobby", "ward", 5] }))),
        (6_001, peer(PeerEvent::Offer("v=0".into()))),
        (6_002, peer(PeerEvent::Candidate(r#"{"candidate":"c"}"#.into()))),
        (6_003, peer(PeerEvent::Connected)),
        (9_000, Event::TileLive { member: ward.clone() }),
        (12_000, Event::TileStalled { member: ward.clone() }),
        (15_000, peer(PeerEvent::Failed("ice".into()))),
        (
            20_000,
            heard(
                "lobby/desired",
                json!({ "room": "r", "members": [{ "openid": "lobby", "device-position": "back" }] }),
            ),
        ),
        (23_000, Event::CameraOpened { position: Position::Back, info: camera }),
        (26_000, heard("lobby/cmd/identify", json!({}))),
        (29_000, heard("lobby/cmd/dance", json!({}))),
        (60_000, heard("lobby/desired", json!({ "room": "r", "members": ["ward"] }))),
        (70_000, Event::DocumentCleared),
        (90_000, heard("lobby/desired", json!({ "room": "r", "members": ["ward", "lobby"] }))),
    ]
}

// ---- JSON Schema, as far as the file uses it -------------------------------------------------------------------------

/// Where a value does not fit a schema, with the reason.
fn misfits(api: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target =
            reference.strip_prefix('#').and_then(|pointer| api.pointer(pointer)).expect("a reference");
        return misfits(api, target, value, at);
    }
    let mut found = Vec::new();
    let mut expect = |fits: bool, what: &str| {
        if !fits {
            found.push(format!("{at}: {what}: {value}"));
        }
    };
    for keyword in schema.as_object().expect("a schema").keys() {
        let known = [
            "type",
            "enum",
            "pattern",
            "required",
            "properties",
            "items",
            "oneOf",
            "minimum",
            "maximum",
            "maxLength",
            "format",
            "description",
        ];
        assert!(known.contains(&keyword.as_str()), "{keyword} is not checked here");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        several => list(several).iter().filter_map(Value::as_str).collect(),
    };
    expect(types.is_empty() || types.iter().any(|name| is_type(value, name)), "type");
    expect(schema["enum"].is_null() || list(&schema["enum"]).contains(value), "enum");
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        expect(matches(pattern, text), pattern);
    }
    if let (Some(most), Some(text)) = (schema["maxLength"].as_u64(), value.as_str()) {
        expect(text.chars().count() as u64 <= most, "maxLength");
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64()) {
        expect(number >= least, "minimum");
    }
    if let (Some(most), Some(number)) = (schema["maximum"].as_f64(), value.as_f64()) {
        expect(number <= most, "maximum");
    }
    if !schema["oneOf"].is_null() {
        let fitting = list(&schema["oneOf"]).iter().filter(|one| misfits(api, one, value, at).is_empty());
        expect(fitting.count() == 1, "oneOf");
    }
    if let Some(fields) = value.as_object() {
        for name in list(&schema["required"]).iter().filter_map(Value::as_str) {
            expect(fields.contains_key(name), &format!("{name} is missing"));
        }
        for (name, part) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(field) = fields.get(name) {
                found.extend(misfits(api, part, field, &format!("{at}/{name}")));
            }
        }
    }
    if let (Some(values), false) = (value.as_array(), schema["items"].is_null()) {
        for (index, item) in values.iter().enumerate() {
            found.extend(misfits(api, &schema["items"], item, &format!("{at}/{index}")));
        }
    }
    found
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

/// The patterns of the file by hand: they are five.
fn matches(pattern: &str, text: &str) -> bool {
    let hex = |length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match pattern {
        "^[A-Za-z0-9_-]{1,64}$" => MemberId::parse(text).is_some(),
        "^[0-9a-f]{16}$" => hex(16),
        "^[0-9a-f]{32}$" => hex(32),
        part if part.starts_with("^(broker|") => {
            let of_member = text.strip_prefix("peer-").or(text.strip_prefix("tile-"));
            let parts = [
                "broker",
                "screen",
                "camera-front",
                "camera-back",
                "microphone",
                "speaker",
                "document",
                "codec",
                "system",
            ];
            of_member.map_or(parts.contains(&text), |member| MemberId::parse(member).is_some())
        }
        other => panic!("{other} is not checked here"),
    }
}

// ---- helpers ---------------------------------------------------------------------------------------------------------

const BOOT: &str = "9f3c000000000000";

fn api() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.yaml"));
    serde_yaml_ng::from_str(&text.expect("read docs/asyncapi.yaml")).expect("YAML")
}

fn messages(api: &Value) -> impl Iterator<Item = (&String, &Value)> {
    api["components"]["messages"].as_object().expect("messages").iter()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn incoming(example: &Value) -> Incoming {
    let payload = match example["x-raw"].as_str() {
        Some(raw) => raw.repeat(example["x-repeat"].as_u64().unwrap_or(1) as usize),
        None => example["payload"].to_string(),
    };
    let topic = example["x-topic"].as_str().expect("x-topic");
    Incoming { retained: example["x-retained"] == true, ..message_of(topic, payload.into_bytes()) }
}

fn message_of(topic: &str, payload: Vec<u8>) -> Incoming {
    let (topic, payload) = (topic.to_owned(), payload.into());
    Incoming { topic, payload, retained: false, response_topic: None, correlation: None }
}

fn parse(message: &Incoming) -> Option<Event> {
    message::parse(&MemberId::parse("lobby").expect("an id"), message)
}

fn kiosk() -> Room {
    Room::new(Settings {
        id: MemberId::parse("lobby").expect("an id"),
        boot: BOOT.into(),
        version: "0.1.0",
        screen: Size::new(1920, 1080),
        cameras: vec![Position::Front, Position::Back],
        wants_flip: false,
        mirror: true,
        may_look: true,
        may_listen: true,
        has_microphone: true,
        absent_grace: Duration::from_secs(60),
        stats_interval: Duration::from_secs(10),
        capacity: None,
    })
}

fn at_ms(ms: u64) -> Now {
    let wall = Some(Duration::from_millis(1_795_380_000_000 + ms));
    Now { mono: Duration::from_millis(ms), wall }
}

fn published(commands: &[Command], topic: &str) -> Vec<Value> {
    let content = |command: &Command| match command {
        Command::Publish(publication) if publication.topic == topic => {
            Some(serde_json::from_slice(&publication.payload).expect("JSON"))
        }
        _ => None,
    };
    commands.iter().filter_map(content).collect()
}
