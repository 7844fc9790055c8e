//! What each message becomes, and what no bytes can do.

use super::*;
use crate::geometry::Fit;
use crate::room::{Mode, Position};
use proptest::prelude::*;

#[test]
fn a_document_is_read_as_voip_room_elements() {
    let document = document(
        r#"{ "rev": 7, "room": "consult-12", "members": [
            { "openid": "lobby", "device-position": "back", "object-fit": "cover", "mirror": true },
            "ward-3",
            { "openid": "dr-wang", "name": "王医生", "pin": true, "unheard-of": [1] } ],
          "object-fit": "contain", "mute": { "microphone": true }, "until": "2027-01-01T00:00:00Z" }"#,
    );

    assert_eq!(document.rev, Some(7.into()));
    assert_eq!(document.room.as_str(), "consult-12");
    assert!(document.rejected.is_empty());
    let [lobby, ward, doctor] = &document.members[..] else { panic!("three members") };
    assert_eq!((lobby.mode, lobby.position, lobby.fit), (Mode::Camera, Position::Back, Fit::Cover));
    assert_eq!((ward.mode, ward.position, ward.fit), (Mode::Video, Position::Front, Fit::Contain));
    assert_eq!((doctor.name.as_str(), doctor.pin, lobby.mirror), ("王医生", true, Some(true)));
    assert_eq!(document.mute, Mute { microphone: true, earphone: false, camera: false });
    assert!(document.until.is_some());
}

#[test]
fn a_broken_root_is_refused_with_code_and_pointer() {
    let deep = format!(r#"{{"room":"r","members":[],"x":{}{}}}"#, "[".repeat(6), "]".repeat(6));
    let large = format!(r#"{{"room":"r","members":[],"x":"{}"}}"#, "x".repeat(LARGEST_PAYLOAD));
    for (payload, code, pointer) in [
        ("not json", Code::DocumentInvalid, ""),
        ("[]", Code::DocumentInvalid, ""),
        ("{", Code::DocumentInvalid, ""),
        (r#"{"members":[]}"#, Code::DocumentInvalid, "/room"),
        (r#"{"room":"a b","members":[]}"#, Code::DocumentInvalid, "/room"),
        (r#"{"room":"r","members":{}}"#, Code::DocumentInvalid, "/members"),
        (&deep, Code::DocumentInvalid, ""),
        (&large, Code::DocumentTooLarge, ""),
    ] {
        let refusal = refusal("lobby/desired", payload);

        assert_eq!((refusal.code, refusal.pointer.as_deref()), (code, Some(pointer)), "{payload:.60}");
        assert_eq!(refusal.part, Part::Document);
    }
}

#[test]
fn six_levels_are_not_too_deep() {
    let payload = format!(r#"{{"room":"r","members":[],"x":{}"[[["{}}}"#, "[".repeat(5), "]".repeat(5));

    assert!(document(&payload).rejected.is_empty());
}

#[test]
fn a_broken_member_is_left_out_and_listed() {
    let long = "x".repeat(65);
    for (member, code, pointer) in [
        ("5".to_owned(), Code::MemberInvalid, "/members/1"),
        (r#""a b""#.to_owned(), Code::MemberInvalid, "/members/1"),
        (r#"{}"#.to_owned(), Code::MemberInvalid, "/members/1/openid"),
        (format!(r#"{{"openid":"{long}"}}"#), Code::MemberInvalid, "/members/1/openid"),
        (r#"{"openid":"a","mode":"camera"}"#.to_owned(), Code::MemberInvalid, "/members/1/mode"),
        (r#"{"openid":"lobby","mode":"video"}"#.to_owned(), Code::MemberInvalid, "/members/1/mode"),
        (r#"{"openid":"a","object-fit":"stretch"}"#.to_owned(), Code::MemberInvalid, "/members/1/object-fit"),
        (
            r#"{"openid":"a","device-position":"up"}"#.to_owned(),
            Code::MemberInvalid,
            "/members/1/device-position",
        ),
        (r#"{"openid":"a","mirror":"yes"}"#.to_owned(), Code::MemberInvalid, "/members/1/mirror"),
        (r#"{"openid":"a","pin":1}"#.to_owned(), Code::MemberInvalid, "/members/1/pin"),
        (format!(r#"{{"openid":"a","name":"{long}"}}"#), Code::MemberInvalid, "/members/1/name"),
        (r#"{"openid":"b"}"#.to_owned(), Code::MemberDuplicate, "/members/1"),
    ] {
        let document = document(&format!(r#"{{"room":"r","members":["b",{member},"c"]}}"#));

        assert_eq!(document.members.len(), 2, "{member}");
        assert_eq!(document.rejected[..], [Rejected { pointer: pointer.to_owned(), code }], "{member}");
    }
}

#[test]
fn the_seventeenth_valid_member_finds_the_room_full() {
    let members: Vec<String> = (0..17).map(|n| format!("\"m{n}\"")).collect();

    let document = document(&format!(r#"{{"room":"r","members":[5,{}]}}"#, members.join(",")));

    assert_eq!(document.members.len(), 16);
    assert_eq!(document.rejected[1], Rejected { pointer: "/members/17".into(), code: Code::RoomFull });
}

#[test]
fn what_guards_privacy_counts_as_muted_when_it_cannot_be_read() {
    let mute = document(r#"{"room":"r","members":[],"mute":{"camera":"true"}}"#);
    let until = document(r#"{"room":"r","members":[],"until":"tomorrow"}"#);

    assert!(mute.mute.camera && !mute.mute.microphone);
    assert_eq!(mute.rejected[0].pointer, "/mute/camera");
    assert!(until.mute.camera);
    assert_eq!(until.rejected[0], Rejected { pointer: "/until".into(), code: Code::DocumentInvalid });
}

#[test]
fn commands_are_checked_before_they_are_carried_out() {
    assert_eq!(refusal("lobby/cmd/dance", "").code, Code::CmdUnknown);
    assert_eq!(refusal("lobby/cmd/snapshot", "{").code, Code::CmdInvalid);
    assert_eq!(refusal("lobby/cmd/snapshot", r#"{"width":0}"#).pointer.as_deref(), Some("/width"));
    assert_eq!(refusal("lobby/cmd/snapshot", r#"{"width":99999999999}"#).code, Code::CmdInvalid);
    let retained = Incoming { retained: true, ..incoming("lobby/cmd/restart", "{}") };
    assert!(
        matches!(parse(&lobby(), &retained), Some(Event::Refused(refusal)) if refusal.code == Code::CmdRetained)
    );
}

#[test]
fn a_request_is_answered_only_under_the_kiosks_own_reply_topic() {
    let mut message = incoming("lobby/cmd/snapshot", r#"{"width":320}"#);
    message.correlation = Some(Bytes::from_static(b"7"));
    for (topic, answered) in [
        ("lobby/reply/me", true),
        ("lobby/reply/me/too", false),
        ("lobby/reply/", false),
        ("lobby/desired", false),
        ("ward/reply/me", false),
    ] {
        message.response_topic = Some(topic.to_owned());

        let Some(Event::Request(request)) = parse(&lobby(), &message) else { panic!("a request") };

        assert_eq!(request.verb, Verb::Snapshot { width: Some(320) });
        assert_eq!(
            reply(&request, Bytes::new()).map(|reply| reply.topic),
            answered.then(|| topic.to_owned())
        );
    }
}

#[test]
fn a_signal_is_read_as_it_was_written() {
    let own = MemberId::parse("dr-wang").expect("an id");
    for body in [
        SignalBody::Hello,
        SignalBody::Bye,
        SignalBody::Offer("v=0\r\n".into()),
        SignalBody::Answer("v=0\r\n".into()),
        SignalBody::Candidate(r#"{"candidate":"candidate:1","sdpMid":"0"}"#.into()),
    ] {
        let room = RoomId::parse("r").expect("an id");
        let sent = Signal { room, session: SessionId::numbered("0123456789abcdef", 7), seq: 3, body };

        let written = signal(&own, &lobby(), &sent);

        let text = std::str::from_utf8(&written.payload).expect("JSON").to_owned();
        let Some(Event::Signal { from, signal }) = parse(&lobby(), &incoming(&written.topic, &text)) else {
            panic!("a signal: {text}")
        };
        assert_eq!((from, *signal), (own.clone(), sent));
    }
}

#[test]
fn a_signal_that_is_written_wrong_is_refused_with_a_pointer() {
    let good =
        r#"{"room":"r","session":"00112233445566778899aabbccddeeff","seq":1,"kind":"offer","sdp":"v=0"}"#;
    for (from, to, pointer) in [
        (r#""r""#, "5", "/room"),
        ("0011", "zz11", "/session"),
        (r#""seq":1"#, r#""seq":-1"#, "/seq"),
        (r#""offer""#, r#""call""#, "/kind"),
        (r#""v=0""#, "null", "/sdp"),
        (r#""offer","sdp":"v=0""#, r#""candidate","candidate":"text""#, "/candidate"),
        (r#""offer","sdp":"v=0""#, r#""candidate","candidate":{}"#, "/candidate/candidate"),
        ("{", "[", ""),
    ] {
        let refusal = refusal("lobby/signal/ward", &good.replace(from, to));

        assert_eq!((refusal.code, refusal.pointer.as_deref()), (Code::SignalRefused, Some(pointer)));
    }
    let large = good.replace("v=0", &"v".repeat(LARGEST_PAYLOAD));
    assert_eq!(refusal("lobby/signal/ward", &large).code, Code::SignalRefused);
}

#[test]
fn only_a_living_machines_state_tells_of_another_machine() {
    let state = |word: &str| {
        let text = format!(r#"{{"state":"{word}","boot":"ff","version":"1"}}"#);
        parse(&lobby(), &incoming("lobby/state", &text))
    };

    assert!(matches!(state("degraded"), Some(Event::OwnState { boot }) if boot == "ff"));
    assert!(state("offline").is_none());
}

#[test]
fn topics_of_others_say_nothing() {
    for topic in [
        "ward/desired",
        "lobby",
        "lobbyx/desired",
        "lobby/desired/x",
        "lobby/reported",
        "",
        "lobby/fault/a/b",
    ] {
        assert!(parse(&lobby(), &incoming(topic, "{}")).is_none(), "{topic}");
    }
}

fn topics() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "lobby/desired",
        "lobby/cmd/snapshot",
        "lobby/cmd/identify",
        "lobby/signal/ward",
        "lobby/state",
        "lobby/fault/camera-front",
    ])
}

proptest! {
    #[test]
    fn no_bytes_panic(topic in topics(), payload: Vec<u8>, retained: bool) {
        let message = Incoming { payload: payload.into(), retained, ..incoming(topic, "") };

        let _ = parse(&lobby(), &message);
    }

    #[test]
    fn no_nesting_panics(topic in topics(), payload in r#"[\[\]{}",:\\0-9a-z]{0,200}"#, repeats in 1..400usize) {
        let _ = parse(&lobby(), &incoming(topic, &payload.repeat(repeats)));
    }

    #[test]
    fn no_mutation_of_a_valid_document_panics(at: proptest::sample::Index, byte: u8, cut in 0..4usize) {
        let mut payload = br#"{"rev":1,"room":"r","members":[{"openid":"lobby","mode":"camera","name":"x"},"b"],
            "mute":{"camera":false},"layout":"pip","until":"2027-01-01T00:00:00Z"}"#.to_vec();
        let at = at.index(payload.len());
        payload.splice(at..(at + cut).min(payload.len()), [byte]);

        let event = parse(&lobby(), &Incoming { payload: payload.into(), ..incoming("lobby/desired", "") });

        // Never silence: a document is followed or refused.
        prop_assert!(matches!(event, Some(Event::Document(_) | Event::Refused(_))));
    }

    #[test]
    fn the_room_takes_any_message_without_panic(
        messages in proptest::collection::vec((topics(), proptest::collection::vec(any::<u8>(), 0..64)), 0..8),
    ) {
        let mut room = crate::room::decide::tests::kiosk("lobby");
        for (topic, payload) in messages {
            let message = Incoming { payload: payload.into(), ..incoming(topic, "") };
            if let Some(event) = parse(&lobby(), &message) {
                room.handle(event, crate::room::decide::tests::at_ms(0));
            }
        }
    }
}

fn lobby() -> MemberId {
    MemberId::parse("lobby").expect("an id")
}

fn incoming(topic: &str, payload: &str) -> Incoming {
    Incoming {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        retained: false,
        response_topic: None,
        correlation: None,
    }
}

fn document(payload: &str) -> Document {
    match parse(&lobby(), &incoming("lobby/desired", payload)) {
        Some(Event::Document(document)) => *document,
        other => panic!("not a document: {other:?}"),
    }
}

fn refusal(topic: &str, payload: &str) -> Refusal {
    match parse(&lobby(), &incoming(topic, payload)) {
        Some(Event::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
