//! What is opened, muted and said about sound.

use super::*;
use crate::room::{SoundUse, Use};

const OPEN: SoundUse = SoundUse { microphone: Use::Open, speaker: Use::Open };
const CLOSED: SoundUse = SoundUse { microphone: Use::Closed, speaker: Use::Closed };

/// What is asked for of the sound, in order.
fn sounds(commands: &[Command]) -> Vec<SoundUse> {
    let sound = |command: &Command| if let Command::Sound(sound) = command { Some(*sound) } else { None };
    commands.iter().filter_map(sound).collect()
}

/// Who speaks, as each event says.
fn speakers(commands: &[Command]) -> Vec<Value> {
    let events = published(commands, "lobby/event").into_iter();
    events
        .filter(|event| event["event"] == "speakers-changed")
        .map(|event| event["openIdList"].clone())
        .collect()
}

fn speaks(room: &mut Room, member: &str, ms: u64) -> Vec<Command> {
    room.handle(Event::Speaks { member: id(member) }, at_ms(ms))
}

#[test]
fn sound_is_open_in_a_room_muted_as_the_document_says_and_closed_outside() {
    let mut room = online("lobby");

    let joined = document_comes(&mut room, TWO, 10);
    let muted = document_comes(
        &mut room,
        r#"{"room":"r","members":["lobby","ward"],"mute":{"microphone":true,"earphone":true}}"#,
        20,
    );
    let left = room.handle(Event::DocumentCleared, at_ms(30));

    assert_eq!(sounds(&joined), [OPEN]);
    assert_eq!(sounds(&muted), [SoundUse { microphone: Use::Muted, speaker: Use::Muted }]);
    for (member, is_muted) in [("lobby", true), ("ward", false)] {
        let tile = tile(&muted, member);
        assert_eq!([tile.microphone_muted, tile.earphone_muted], [is_muted; 2], "{member}");
    }
    assert_eq!(sounds(&left), [CLOSED]);
}

#[test]
fn a_kiosk_that_may_not_listen_says_so_if_it_is_asked_to_and_never_does() {
    let mut room = Room::new(Settings { may_listen: false, ..settings("lobby") });
    room.handle(Event::BrokerUp, at_ms(0));

    let joined = document_comes(&mut room, TWO, 10);
    let muted =
        document_comes(&mut room, r#"{"room":"r","members":["lobby"],"mute":{"microphone":true}}"#, 20);
    let healed = room.handle_timeout(at_ms(2_030));

    assert_eq!(sounds(&joined), [SoundUse { microphone: Use::Closed, ..OPEN }]);
    assert_eq!(codes(&joined), ["MICROPHONE_NOT_AUTHORIZED"]);
    assert_eq!(sounds(&muted), []);
    assert_eq!(raw(&healed, "lobby/fault/microphone"), [""]);
}

#[test]
fn a_kiosk_without_a_microphone_never_shows_a_live_one() {
    for has_microphone in [true, false] {
        let mut room = Room::new(Settings { has_microphone, ..settings("lobby") });
        room.handle(Event::BrokerUp, at_ms(0));

        let joined = document_comes(&mut room, TWO, 10);

        assert_eq!(tile(&joined, "lobby").microphone_muted, !has_microphone);
        let picture = joined.iter().rev().find_map(|command| match command {
            Command::Show(picture) => Some(picture),
            _ => None,
        });
        assert_eq!(picture.map(|picture| picture.live.microphone), Some(has_microphone));
    }
}

#[test]
fn who_speaks_is_said_once_and_pauses_between_words_do_not_end_it() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let mut commands = speaks(&mut room, "ward", 1_000);
    assert!(tile(&commands, "ward").speaking);
    for ms in [1_400, 1_800, 2_900] {
        commands.extend(speaks(&mut room, "ward", ms));
    }
    commands.extend(speaks(&mut room, "lobby", 3_000));
    commands.extend(speaks(&mut room, "stranger", 3_100));
    commands.extend(room.handle_timeout(at_ms(4_100)));
    commands.extend(room.handle_timeout(at_ms(4_200)));

    assert_eq!(speakers(&commands), [json!(["ward"]), json!(["lobby", "ward"]), json!(["lobby"]), json!([])]);
}

#[test]
fn who_is_muted_does_not_speak() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);
    speaks(&mut room, "lobby", 100);

    let mute = r#"{"room":"r","members":["lobby","ward"],"mute":{"microphone":true}}"#;
    let mut commands = document_comes(&mut room, mute, 200);
    commands.extend(speaks(&mut room, "lobby", 300));

    assert_eq!(speakers(&commands), [json!([])]);
}

#[test]
fn who_began_to_speak_last_is_large_and_stays_so_in_silence_unless_somebody_is_pinned() {
    let order = |commands: &[Command]| -> Vec<String> {
        let Some(Scene::Grid { tiles }) = scene(commands) else { panic!("a grid") };
        tiles.iter().map(|tile| tile.member.to_string()).collect()
    };
    let mut room = online("lobby");
    document_comes(&mut room, r#"{"room":"r","members":["lobby","a","b"],"layout":"speaker"}"#, 0);

    assert_eq!(order(&speaks(&mut room, "b", 100)), ["b", "lobby", "a"]);
    assert_eq!(order(&speaks(&mut room, "a", 200)), ["a", "lobby", "b"]);
    assert_eq!(scene(&speaks(&mut room, "b", 300)), None, "both speak: nothing moves");
    assert_eq!(order(&speaks(&mut room, "lobby", 400)), ["a", "lobby", "b"], "the own voice moves nothing");
    assert_eq!(order(&room.handle_timeout(at_ms(9_000))), ["a", "lobby", "b"]);

    let pinned = r#"{"room":"r","members":["lobby","a",{"openid":"b","pin":true}],"layout":"pip"}"#;
    assert_eq!(order(&document_comes(&mut room, pinned, 9_500)), ["b", "a", "lobby"]);
}

#[test]
fn a_selftest_opens_the_sound_of_an_idle_kiosk_for_a_while() {
    let mut room = online("lobby");

    let asked = deliver(&mut room, "lobby/cmd/selftest", "", at_ms(100));
    let later = room.handle_timeout(at_ms(5_100));

    assert_eq!(sounds(&asked), [SoundUse { microphone: Use::Muted, speaker: Use::Muted }]);
    assert!(asked.iter().any(|command| matches!(command, Command::Selftest { .. })));
    assert_eq!(sounds(&later), [CLOSED]);
}

#[test]
fn a_board_without_a_sound_card_says_so_once_and_is_not_degraded() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);
    let none = |part| Event::Raised(fault(part, Code::SoundNone));

    let mut commands = room.handle(none(Part::Microphone), at_ms(100));
    for ms in [2_000, 4_000, 100_000] {
        commands.extend(room.handle(none(Part::Microphone), at_ms(ms)));
        commands.extend(room.handle_timeout(at_ms(ms + 1)));
    }

    let records = published(&commands, "lobby/error").into_iter();
    let said = records.filter(|record| record["code"] == "SOUND_NONE").count();
    assert_eq!(said, 1);
    assert!(published(&commands, "lobby/state").iter().all(|state| state["state"] == "online"));
}
