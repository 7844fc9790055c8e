//! Everything of Parlor that reads what others wrote, each as a function of any bytes.
//!
//! Pure and in virtual time, so that an input does the same again. `make fuzz` looks for inputs that break them;
//! `tests/hostile.rs` runs them on the [`seeds`] and on all that ever broke one, with every `make test`.
//!
//! | target | reads | who can send it |
//! |---|---|---|
//! | [`room`] | MQTT topics and payloads, in sequence | whoever the broker lets publish |
//! | [`peer`] | SDP, ICE candidates, RTP, RTCP, datagrams before a handshake | members; datagrams: the network |
//! | [`picture`] | RTP payloads of H.264, up to the decoded picture | members |
//! | [`voice`] | RTP payloads of Opus, up to the sound that is played | members |
//! | [`camera`] | what a camera delivers | a broken cable |

pub mod seeds;

use bytes::{Bytes, BytesMut};
use parlor::geometry::Size;
use parlor::media::assemble::Assembler;
use parlor::media::convert::convert;
use parlor::media::frame::{Frame, FramePool};
use parlor::media::h264;
use parlor::media::jitter::Jitter;
use parlor::media::opus;
use parlor::media::sound::{SILENCE, SoundPacket};
use parlor::room::fault::{Cause, Code, Fault, Part};
use parlor::room::message::{self, Incoming, MemberId, SessionId};
use parlor::room::{
    CameraInfo, Command, Event, Now, PeerEvent, Position, Room, ScreenInfo, Settings, SoundInfo,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::sansio::Protocol;
use rtc::shared::marshal::Unmarshal;
use rtc::shared::{TaggedBytesMut, TransportContext};
use std::time::{Duration, Instant};

/// Takes any bytes; answers how many things in them were understood.
pub type Target = fn(&[u8]) -> usize;
/// All targets, by the names of their folders of seeds and regressions.
pub const TARGETS: [(&str, Target); 5] =
    [("room", room), ("peer", peer), ("picture", picture), ("voice", voice), ("camera", camera)];

/// Separates the messages of [`room`]: no UTF-8 has this byte.
pub const END: u8 = 0xff;
/// What the first byte of a message of [`room`] stands for; its upper bits are [`RETAINED`] and [`ANSWERED`].
pub const TOPICS: [&str; 16] = [
    "lobby/desired",
    "lobby/signal/ward",
    "lobby/signal/amy",
    "lobby/cmd/snapshot",
    "lobby/cmd/identify",
    "lobby/cmd/selftest",
    "lobby/cmd/stats",
    "lobby/state",
    "lobby/fault/camera-front",
    // Not from the wire: what the kiosk itself says between the messages, the payload says what.
    "(broker)",
    "(peer)",
    "(tile)",
    "(screen)",
    "(device)",
    "(fault)",
    // The topic is the payload's first line.
    "",
];
pub const RETAINED: u8 = 0x80;
pub const ANSWERED: u8 = 0x40;
/// How long a [`room`] is looked at: longer than it waits for anything.
const LONGEST: Duration = Duration::from_secs(900);

/// MQTT messages and what the kiosk says between them, into a [`Room`]. Answers how many documents, requests and signals
/// were understood.
///
/// A message: topic and flags, then tenths of a second (squared) that pass before it, then the payload, [`END`].
pub fn room(bytes: &[u8]) -> usize {
    let own = MemberId::parse("lobby").expect("an id");
    let mut room = Room::new(Settings {
        id: own.clone(),
        boot: "9f3c000000000000".into(),
        version: "0",
        screen: Size::new(1920, 1080),
        cameras: vec![Position::Front, Position::Back],
        wants_flip: true,
        mirror: true,
        may_look: true,
        may_listen: true,
        has_microphone: true,
        absent_grace: Duration::from_secs(60),
        stats_interval: Duration::from_secs(300),
        capacity: None,
    });
    let mut time = Duration::ZERO;
    let mut sessions: Vec<(MemberId, SessionId)> = Vec::new();
    let mut understood = 0;
    for message in bytes.split(|&byte| byte == END).take(64) {
        let [kind, wait, payload @ ..] = message else { continue };
        let until = time + Duration::from_millis(100) * u32::from(*wait) * u32::from(*wait);
        let until = until.min(LONGEST);
        let mut turns = 0;
        while let Some(due) = room.next_timeout().filter(|&due| due <= until) {
            time = time.max(due);
            let commands = room.handle_timeout(at(time));
            look_at(&commands, &mut sessions);
            turns += 1;
            assert!(turns < 100_000, "the room's timeouts come without end");
        }
        time = until;

        let mut topic = TOPICS[usize::from(kind & 0x3f) % TOPICS.len()].to_owned();
        let mut payload = payload;
        if topic.is_empty() {
            let line = payload.split(|&byte| byte == b'\n').next().unwrap_or_default();
            topic = String::from_utf8_lossy(line).into_owned();
            payload = payload.get(line.len() + 1..).unwrap_or_default();
        }
        let event = between(&topic, payload, &sessions).or_else(|| {
            message::parse(
                &own,
                &Incoming {
                    topic,
                    payload: Bytes::copy_from_slice(payload),
                    retained: kind & RETAINED != 0,
                    response_topic: (kind & ANSWERED != 0).then(|| "lobby/reply/ctl".into()),
                    correlation: (kind & ANSWERED != 0).then(|| Bytes::copy_from_slice(&[*wait])),
                },
            )
        });
        let Some(event) = event else { continue };
        understood +=
            usize::from(matches!(event, Event::Document(_) | Event::Request(_) | Event::Signal { .. }));
        let commands = room.handle(event, at(time));
        look_at(&commands, &mut sessions);
    }
    look_at(&room.goodbye(at(time)), &mut sessions);
    understood
}

/// What can be wrong as far as the room treats it on its own: each kind of severity, and what a part does not get over.
const FAULTS: [Code; 12] = [
    Code::CameraGone,
    Code::CameraNotAuthorized,
    Code::CameraBadFrame,
    Code::ScreenNoFlip,
    Code::TileCreateFailed,
    Code::TileStalled,
    Code::DecodeFailed,
    Code::BrokerTakenOver,
    Code::SoundNone,
    Code::ClockUnsynced,
    Code::MemoryHigh,
    Code::WatchdogRestart,
];

/// What the kiosk itself says to the room.
fn between(topic: &str, payload: &[u8], sessions: &[(MemberId, SessionId)]) -> Option<Event> {
    let (&first, rest) = payload.split_first().unwrap_or((&0, &[]));
    let (member, session) = sessions.get(usize::from(first >> 3) % sessions.len().max(1)).cloned().unzip();
    let text = String::from_utf8_lossy(rest).into_owned();
    let position = if first & 1 == 0 { Position::Front } else { Position::Back };
    Some(match topic {
        "(broker)" if first & 1 == 0 => Event::BrokerUp,
        "(broker)" => Event::BrokerDown,
        "(peer)" => {
            let event = match first & 7 {
                0 => PeerEvent::Offer(text),
                1 => PeerEvent::Answer(text),
                2 => PeerEvent::Candidate(text),
                3 => PeerEvent::Failed(text),
                4 => PeerEvent::Interrupted(text),
                _ => PeerEvent::Connected,
            };
            Event::Peer { member: member?, session: session?, event }
        }
        "(tile)" => match first & 3 {
            0 => Event::TileLive { member: member? },
            1 => Event::TileStalled { member: member? },
            _ => Event::Speaks { member: member? },
        },
        "(screen)" => {
            let (width, height) = (u32::from(first) * 8, u32::from(*rest.first()?) * 8);
            Event::ScreenOpened {
                info: ScreenInfo { name: text, width, height, bits_per_pixel: 32, flip: first & 1 == 0 },
            }
        }
        "(device)" if first & 2 == 0 => {
            let info = CameraInfo {
                position,
                name: text,
                format: "MJPG".into(),
                width: u32::from(first) * 8,
                height: 360,
                rate_hz: 30.0,
            };
            Event::CameraOpened { position, info }
        }
        "(device)" => {
            let part = if first & 1 == 0 { Part::Microphone } else { Part::Speaker };
            Event::SoundOpened { info: SoundInfo { part, name: text, channels: 2, period: 480, buffer: 960 } }
        }
        "(fault)" => {
            let code = FAULTS[usize::from(*rest.first()?) % FAULTS.len()];
            let part = match first & 7 {
                0 | 1 => Part::Camera(position),
                2 => Part::Screen,
                3 => Part::Microphone,
                4 => Part::Speaker,
                5 => Part::Tile(member?),
                6 => Part::Peer(member?),
                _ => Part::System,
            };
            match rest.get(1)? % 4 {
                0 => Event::Over(code),
                1 => Event::Healed(part),
                _ => {
                    let cause = Some(Cause { op: text, errno: None, target: None });
                    Event::Raised(Fault { part, code, cause, retry_in: None })
                }
            }
        }
        _ => return None,
    })
}

/// What the room says must be JSON or nothing. Remembers the sessions it opened.
fn look_at(commands: &[Command], sessions: &mut Vec<(MemberId, SessionId)>) {
    for command in commands {
        match command {
            Command::Publish(said) if !said.payload.is_empty() => {
                let json: Result<serde_json::Value, _> = serde_json::from_slice(&said.payload);
                assert!(json.is_ok(), "not JSON on {}: {:?}", said.topic, said.payload);
            }
            Command::Open { member, session, .. } => {
                sessions.retain(|(known, _)| known != member);
                sessions.push((member.clone(), session.clone()));
            }
            _ => {}
        }
    }
}

fn at(mono: Duration) -> Now {
    Now { mono, wall: Some(Duration::from_secs(1_800_000_000) + mono) }
}

/// What [`peer`] takes besides the description.
pub const CANDIDATE: u8 = 0;
pub const DATAGRAM: u8 = 1;
pub const RTP: u8 = 2;
pub const RTCP: u8 = 3;

/// What comes over signalling and the network, into the library that reads it: the one part of this that is not
/// ours. Answers how many things were understood.
///
/// First role (even: the description is an offer, odd: an answer) and number of records; a record: kind, length (two
/// bytes, the lower first), content; all the rest is the description.
pub fn peer(bytes: &[u8]) -> usize {
    let mut rest = Reader(bytes);
    let (offered, count) = (rest.byte() & 1 == 0, rest.byte() % 16);
    let records: Vec<(u8, &[u8])> = (0..count).map(|_| (rest.byte() % 4, rest.record())).collect();
    let sdp = String::from_utf8_lossy(rest.0).into_owned();
    let start = Instant::now();
    let mut connection = described(offered, sdp, start);
    let mut understood = usize::from(connection.is_some());
    for (index, (kind, content)) in (1..).zip(records) {
        understood += usize::from(match (kind, &mut connection) {
            (CANDIDATE, Some(connection)) => serde_json::from_slice(content)
                .is_ok_and(|candidate| connection.add_remote_candidate(candidate).is_ok()),
            (DATAGRAM, Some(connection)) => {
                let now = start + Duration::from_millis(100 * index);
                let transport = TransportContext {
                    local_addr: ([127, 0, 0, 1], 4_000).into(),
                    peer_addr: ([127, 0, 0, 1], 5_000).into(),
                    ..TransportContext::default()
                };
                let read = TaggedBytesMut { now, transport, message: BytesMut::from(content) };
                let taken = connection.handle_read(read).is_ok() && connection.handle_timeout(now).is_ok();
                // As many as can come of one datagram; a test must end.
                for _ in 0..64 {
                    connection.poll_event();
                    connection.poll_read();
                    connection.poll_write();
                }
                taken
            }
            (RTP, _) => rtc::rtp::Packet::unmarshal(&mut Bytes::copy_from_slice(content)).is_ok(),
            (RTCP, _) => rtc::rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(content)).is_ok(),
            _ => false,
        });
    }
    understood
}

/// A connection that took this description; `None` if there is something wrong with it.
fn described(offered: bool, sdp: String, now: Instant) -> Option<RTCPeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().expect("known codecs");
    let mut connection =
        RTCPeerConnectionBuilder::new().with_media_engine(engine).build(now).expect("a connection");
    let local = r#"{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 4000 typ host","sdpMLineIndex":0}"#;
    let local = serde_json::from_str(local).expect("a candidate");
    if offered {
        connection.set_remote_description(now, RTCSessionDescription::offer(sdp).ok()?).ok()?;
        let answer = connection.create_answer(None).ok()?;
        connection.set_local_description(now, answer).ok()?;
        connection.add_local_candidate(local).ok()?;
    } else {
        for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
            connection.add_transceiver_from_kind(kind, None).expect("a transceiver");
        }
        let offer = connection.create_offer(None).expect("an offer");
        connection.set_local_description(now, offer).expect("our own offer");
        connection.add_local_candidate(local).expect("our own candidate");
        connection.set_remote_description(now, RTCSessionDescription::answer(sdp).ok()?).ok()?;
    }
    Some(connection)
}

/// Flags of a record of [`picture`].
pub const MARKER: u8 = 1;
pub const NEW_TIME: u8 = 2;
pub const JUMP: u8 = 4;

/// RTP payloads through [`Assembler`] and [`h264::Decoder`]. Answers how many pictures came out.
///
/// A record: flags, length (two bytes, the lower first), payload; with [`JUMP`] its first byte moves the sequence number.
pub fn picture(bytes: &[u8]) -> usize {
    let mut rest = Reader(bytes);
    let mut assembler = Assembler::new(Duration::from_millis(100));
    let mut decoder = h264::Decoder::new().expect("a decoder");
    let mut pool = FramePool::default();
    let (mut sequence, mut timestamp, mut now) = (0_u16, 0_u32, Duration::ZERO);
    let mut pictures = 0;
    while !rest.0.is_empty() {
        let flags = rest.byte();
        let mut payload = rest.record();
        sequence = sequence.wrapping_add(1);
        if let (true, Some((&by, tail))) = (flags & JUMP != 0, payload.split_first()) {
            sequence = sequence.wrapping_add_signed(i16::from(by as i8));
            payload = tail;
        }
        timestamp = timestamp.wrapping_add(if flags & NEW_TIME != 0 { 3_000 } else { 0 });
        now += Duration::from_millis(10);
        let payload = Bytes::copy_from_slice(payload);
        assembler.push(sequence, timestamp, flags & MARKER != 0, payload, now);
        while let Some(packet) = assembler.pop(now) {
            let decoded = decoder.decode(&packet, &mut pool, now);
            pictures += usize::from(decoded.is_ok_and(|frame| frame.is_some()));
        }
    }
    pictures
}

/// RTP payloads through [`Jitter`]. Answers how many packets were played.
///
/// A record: flags, milliseconds that pass before it, length (two bytes, the lower first), payload; with [`JUMP`] the
/// payload's first byte moves the sequence number, its second the time by slots.
pub fn voice(bytes: &[u8]) -> usize {
    let mut rest = Reader(bytes);
    let mut jitter = Jitter::new(opus::Decoder::new().expect("a decoder"));
    let (mut sequence, mut time) = (0_u16, 0_u32);
    let (mut now, mut pulled) = (Duration::ZERO, Duration::ZERO);
    let mut block = SILENCE;
    while !rest.0.is_empty() {
        let flags = rest.byte();
        now += Duration::from_millis(u64::from(rest.byte()));
        let mut payload = rest.record();
        (sequence, time) = (sequence.wrapping_add(1), time.wrapping_add(960));
        if let (true, [by, slots, tail @ ..]) = (flags & JUMP != 0, payload) {
            sequence = sequence.wrapping_add_signed(i16::from(*by as i8));
            time = time.wrapping_add_signed(960 * i32::from(*slots as i8));
            payload = tail;
        }
        let data = Bytes::copy_from_slice(payload);
        jitter.put(SoundPacket { data, sequence, time, level: None }, now);
        while pulled < now {
            jitter.pull(pulled, &mut block);
            pulled += Duration::from_millis(10);
            assert!(block.iter().all(|sample| sample.is_finite()), "a sample is no number");
        }
    }
    jitter.stats().decoded as usize
}

/// The formats that [`camera`] chooses from by its first byte.
pub const FORMATS: [&[u8; 4]; 5] = [b"MJPG", b"YUYV", b"NV12", b"YU12", b"H264"];

/// A camera's buffer through [`convert`]. Answers 1 if it became a frame.
///
/// Format, width, height (the sides in steps of 2), bytes that the rows are longer, the buffer.
pub fn camera(bytes: &[u8]) -> usize {
    let mut rest = Reader(bytes);
    let fourcc = *FORMATS[usize::from(rest.byte()) % FORMATS.len()];
    let size = Size::new(2 * u32::from(rest.byte()), 2 * u32::from(rest.byte()));
    let padding = usize::from(rest.byte());
    let row = size.width as usize * if &fourcc == b"YUYV" { 2 } else { 1 };
    let stride = if padding == 0 { 0 } else { (row + padding).saturating_sub(4) };
    let mut frame = Frame::new(Size::new(16, 16));
    usize::from(convert(fourcc, size, stride, rest.0, &mut frame).is_ok())
}

/// What is left of an input; beyond its end there are zeros.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A length of two bytes, the lower first, and as many bytes or what is left.
    fn record(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (record, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        record
    }
}
