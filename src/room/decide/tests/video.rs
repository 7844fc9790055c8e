//! Members' pictures: on a machine that is too busy, and over a connection that is interrupted.

use super::*;
use crate::room::budget::Share;

const THREE: &str = r#"{"room":"r","members":["lobby","amy",{"openid":"bob","pin":true},"cleo"]}"#;

/// Seconds in which a thread works nearly all the time; who is cut, in order.
fn overload(room: &mut Room, from_s: u64, to_s: u64) -> (Vec<(String, Share)>, Vec<Command>) {
    let (mut cuts, mut all) = (Vec::new(), Vec::new());
    for second in from_s..to_s {
        let commands = room.handle(Event::Busy(0.97), at_ms(1000 * second));
        if let Some(Scene::Grid { tiles }) = scene(&commands) {
            let cut = tiles.iter().filter(|tile| tile.share > Share::All);
            let cut = cut.map(|tile| (tile.member.to_string(), tile.share));
            let known: Vec<_> = cut.filter(|cut| !cuts.contains(cut)).collect();
            cuts.extend(known);
        }
        all.extend(commands);
    }
    (cuts, all)
}

#[test]
fn the_silent_are_cut_first_and_the_pinned_and_the_speaking_last_and_each_is_named() {
    let mut room = online("lobby");
    document_comes(&mut room, THREE, 0);
    for ms in [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000] {
        room.handle(Event::Speaks { member: id("cleo") }, at_ms(ms));
    }

    let (cuts, commands) = overload(&mut room, 8, 40);

    let names: Vec<&str> = cuts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["amy", "cleo", "bob", "amy", "cleo", "bob"]);
    assert_eq!(cuts[2].1, Share::Half);
    assert_eq!(cuts[5].1, Share::None);
    assert_eq!(codes(&commands), ["TILE_OVER_BUDGET"; 3]);
    let said = published(&commands, "lobby/fault/tile-amy");
    assert_eq!((&said[0]["openid"], &said[0]["severity"]), (&json!("amy"), &json!("warning")));
}

#[test]
fn who_begins_to_speak_is_seen_whole_at_once() {
    let mut room = online("lobby");
    document_comes(&mut room, THREE, 0);
    let (cuts, _) = overload(&mut room, 0, 3);
    assert_eq!(cuts, [("cleo".to_owned(), Share::Half)]);

    let commands = room.handle(Event::Speaks { member: id("cleo") }, at_ms(3_500));

    assert_eq!(tile(&commands, "cleo").share, Share::All);
}

#[test]
fn time_that_is_there_again_is_given_back_and_said() {
    let mut room = online("lobby");
    document_comes(&mut room, THREE, 0);
    overload(&mut room, 0, 3);

    let mut commands = Vec::new();
    for second in 3..12 {
        commands.extend(room.handle(Event::Busy(0.2), at_ms(1000 * second)));
        commands.extend(room.handle_timeout(at_ms(1000 * second + 500)));
    }

    assert_eq!(tile(&commands, "cleo").share, Share::All);
    assert_eq!(raw(&commands, "lobby/fault/tile-cleo"), [""]);
}

#[test]
fn an_interrupted_connection_is_told_once_and_waited_for() {
    let mut room = online("lobby");
    let session = connected_to_ward(&mut room);
    room.handle(Event::TileLive { member: id("ward") }, at_ms(200));

    let stalled = room.handle(Event::TileStalled { member: id("ward") }, at_ms(1_500));
    let lost = peer_says(&mut room, &session, PeerEvent::Interrupted("silence".into()), 2_000);
    let meanwhile = room.handle_timeout(at_ms(4_900));
    let back = peer_says(&mut room, &session, PeerEvent::Connected, 5_000);
    let live = room.handle(Event::TileLive { member: id("ward") }, at_ms(5_100));
    let healed = room.handle_timeout(at_ms(8_000));

    assert_eq!([codes(&stalled), codes(&lost)].concat(), ["TILE_STALLED", "PEER_LOST"]);
    assert_eq!(tile(&lost, "ward").state, TileState::Stalled);
    assert_eq!(tile(&live, "ward").state, TileState::Live);
    assert_eq!(raw(&healed, "lobby/fault/peer-ward"), [""]);
    for commands in [&lost, &meanwhile, &back, &live, &healed] {
        assert!(opened(commands).is_empty() && signals(commands).is_empty(), "{commands:?}");
    }
}

#[test]
fn what_codes_pictures_is_said_when_it_changes_and_a_failed_codec_degrades_nothing() {
    let mut room = online("lobby");
    let chosen = |encoder: &str| {
        let info = CodecInfo { encoder: encoder.into(), decoder: "OpenH264".into() };
        Event::CodecsChosen { info }
    };

    let mut commands = room.handle(chosen("codec (/dev/video11)"), at_ms(10));
    commands.extend(room.handle(chosen("codec (/dev/video11)"), at_ms(20)));
    commands.extend(room.handle(Event::Raised(fault(Part::Codec, Code::CodecSoftware)), at_ms(30)));
    commands.extend(room.handle(chosen("OpenH264"), at_ms(31)));

    let infos = published(&commands, "lobby/info");
    let encoders = infos.iter().map(|info| info["codecs"]["encoder"].as_str()).collect::<Vec<_>>();
    assert_eq!(encoders, [Some("codec (/dev/video11)"), Some("OpenH264")]);
    assert_eq!(codes(&commands), ["CODEC_SOFTWARE"]);
    assert_eq!(published(&commands, "lobby/fault/codec")[0]["severity"], "info");
    assert!(published(&commands, "lobby/state").iter().all(|state| state["state"] == "online"));
}
