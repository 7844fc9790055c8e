//! A room to begin with, and what to look for in its commands.

use super::*;

pub(in crate::room) fn kiosk(name: &str) -> Room {
    kiosk_with_boot(name, "1111111111111111")
}

pub(in crate::room) fn at_ms(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: Some(Duration::from_millis(DAY + ms)) }
}

pub fn kiosk_with_boot(name: &str, boot: &str) -> Room {
    Room::new(Settings { boot: format!("{:0>4}{}", name.len(), &boot[4..]), ..settings(name) })
}

pub fn settings(name: &str) -> Settings {
    Settings {
        id: id(name),
        boot: "9f3c000000000000".into(),
        version: "0.1.0",
        screen: Size::new(1920, 1080),
        cameras: vec![Position::Front, Position::Back],
        wants_flip: false,
        mirror: true,
        may_look: true,
        may_listen: true,
        has_microphone: true,
        absent_grace: Duration::from_secs(60),
        stats_interval: Duration::ZERO,
        capacity: None,
    }
}

pub fn online(name: &str) -> Room {
    let mut room = kiosk(name);
    room.handle(Event::BrokerUp, at_ms(0));
    room
}

pub fn id(name: &str) -> MemberId {
    MemberId::parse(name).expect("an id")
}

pub fn read(own: &str, topic: &str, payload: &str) -> Option<Event> {
    let payload = payload.to_owned().into();
    let topic = topic.to_owned();
    message::parse(
        &id(own),
        &Incoming { topic, payload, retained: false, response_topic: None, correlation: None },
    )
}

pub fn deliver(room: &mut Room, topic: &str, payload: &str, now: Now) -> Vec<Command> {
    let own = room.settings.id.to_string();
    room.handle(read(&own, topic, payload).expect("an event"), now)
}

pub fn document_comes(room: &mut Room, payload: &str, ms: u64) -> Vec<Command> {
    let topic = format!("{}/desired", room.settings.id);
    deliver(room, &topic, payload, at_ms(ms))
}

pub fn signal_text(seq: u64, kind: &str, more: &str) -> String {
    format!(r#"{{"room":"r","session":"{:032x}","seq":{seq},"kind":"{kind}"{more}}}"#, 7)
}

pub fn connected_to_ward(room: &mut Room) -> SessionId {
    let commands = document_comes(room, TWO, 0);
    let session = commands.iter().find_map(|command| match command {
        Command::Open { session, .. } => Some(session.clone()),
        _ => None,
    });
    let session = session.expect("an offer");
    peer_says(room, &session, PeerEvent::Offer("v=0".into()), 10);
    let answer = Signal {
        room: message::RoomId::parse("r").expect("an id"),
        session: session.clone(),
        seq: 1,
        body: SignalBody::Answer("v=0".into()),
    };
    room.handle(Event::Signal { from: id("ward"), signal: Box::new(answer) }, at_ms(20));
    peer_says(room, &session, PeerEvent::Connected, 100);
    session
}

pub fn peer_says(room: &mut Room, session: &SessionId, event: PeerEvent, ms: u64) -> Vec<Command> {
    room.handle(Event::Peer { member: id("ward"), session: session.clone(), event }, at_ms(ms))
}

pub fn camera_opened(position: Position) -> Event {
    let info = CameraInfo {
        position,
        name: "cam".into(),
        format: "YUYV".into(),
        width: 640,
        height: 480,
        rate_hz: 30.0,
    };
    Event::CameraOpened { position, info }
}

pub fn scene(commands: &[Command]) -> Option<&Scene> {
    commands.iter().rev().find_map(|command| match command {
        Command::Show(picture) => Some(&picture.scene),
        _ => None,
    })
}

pub fn tile(commands: &[Command], member: &str) -> Tile {
    match scene(commands) {
        Some(Scene::Grid { tiles }) => {
            tiles.iter().find(|tile| tile.member == id(member)).expect("a tile").clone()
        }
        other => panic!("no grid: {other:?}"),
    }
}

pub fn cameras(commands: &[Command]) -> Vec<Option<Position>> {
    let camera = |command: &Command| match command {
        Command::Camera(position) => Some(*position),
        _ => None,
    };
    commands.iter().filter_map(camera).collect()
}

pub fn raw(commands: &[Command], topic: &str) -> Vec<String> {
    let payload = |command: &Command| match command {
        Command::Publish(publication) if publication.topic == topic => {
            Some(String::from_utf8(publication.payload.to_vec()).expect("text"))
        }
        _ => None,
    };
    commands.iter().filter_map(payload).collect()
}

pub fn published(commands: &[Command], topic: &str) -> Vec<Value> {
    raw(commands, topic).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

pub fn codes(commands: &[Command]) -> Vec<String> {
    published(commands, "lobby/error")
        .iter()
        .chain(&published(commands, "ward/error"))
        .filter_map(|record| record["code"].as_str().map(str::to_owned))
        .collect()
}

pub fn events(commands: &[Command]) -> Vec<String> {
    let name = |event: &Value| event["event"].as_str().map(str::to_owned);
    published(commands, "lobby/event").iter().filter_map(name).collect()
}

pub fn signals(commands: &[Command]) -> Vec<String> {
    let signal = |command: &Command| match command {
        Command::Publish(publication) => {
            let (to, _) = publication.topic.split_once("/signal/")?;
            let content: Value = serde_json::from_slice(&publication.payload).ok()?;
            Some(format!("{to} {}", content["kind"].as_str()?))
        }
        _ => None,
    };
    commands.iter().filter_map(signal).collect()
}

pub fn opened(commands: &[Command]) -> Vec<String> {
    let open = |command: &Command| match command {
        Command::Open { member, role: Role::Offer, .. } => Some(format!("{member} offer")),
        Command::Open { member, role: Role::Answer(_), .. } => Some(format!("{member} answer")),
        _ => None,
    };
    commands.iter().filter_map(open).collect()
}
