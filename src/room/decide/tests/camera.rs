//! Which camera is opened, and what is said about it.

use super::*;

#[test]
fn a_kiosk_that_may_not_look_says_so_if_it_is_asked_to_and_never_does() {
    let mut room = Room::new(Settings { may_look: false, ..settings("lobby") });
    room.handle(Event::BrokerUp, at_ms(0));

    let joined = document_comes(&mut room, TWO, 10);
    let muted = document_comes(&mut room, r#"{"room":"r","members":["lobby"],"mute":{"camera":true}}"#, 20);
    let healed = room.handle_timeout(at_ms(2_030));

    assert!(cameras(&joined).is_empty());
    assert_eq!(codes(&joined), ["CAMERA_NOT_AUTHORIZED"]);
    assert_eq!(tile(&joined, "lobby").state, TileState::Off);
    assert!(cameras(&muted).is_empty());
    assert_eq!(raw(&healed, "lobby/fault/camera-front"), [""]);
}

#[test]
fn a_switch_to_a_camera_that_fails_ends_with_the_one_before() {
    let switched = r#"{"rev":2,"room":"r","members":[{"openid":"lobby","device-position":"back"}]}"#;
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 10);
    room.handle(camera_opened(Position::Front), at_ms(20));
    room.handle(Event::TileLive { member: id("lobby") }, at_ms(30));

    let mut commands = document_comes(&mut room, switched, 1_000);
    assert_eq!(
        tile(&commands, "lobby").state,
        TileState::Connecting,
        "the last picture is of the other camera"
    );
    commands.extend(
        room.handle(Event::Raised(fault(Part::Camera(Position::Back), Code::CameraNotFound)), at_ms(1_100)),
    );
    commands.extend(room.handle(camera_opened(Position::Front), at_ms(1_200)));
    commands.extend(room.handle(Event::TileLive { member: id("lobby") }, at_ms(1_300)));
    commands.extend(room.handle_timeout(at_ms(9_000)));

    assert_eq!(cameras(&commands), [Some(Position::Back), Some(Position::Front)]);
    assert_eq!(codes(&commands), ["CAMERA_NOT_FOUND"], "said once, and not healed by giving up");
    assert!(!events(&commands).contains(&"camera-switched".to_owned()));
    let now = tile(&commands, "lobby");
    assert_eq!((now.position, now.state), (Position::Front, TileState::Live));
    // The next document is tried anew.
    assert_eq!(cameras(&document_comes(&mut room, switched, 9_100)), [Some(Position::Back)]);
}

#[test]
fn what_is_live_is_on_the_glass() {
    let shown = |commands: &[Command]| {
        let picture = commands.iter().rev().find_map(|command| match command {
            Command::Show(picture) => Some(picture.live),
            _ => None,
        });
        picture.map(|live| (live.camera, live.microphone))
    };
    let mut room = online("lobby");

    assert_eq!(shown(&document_comes(&mut room, TWO, 10)), Some((true, true)));
    let muted = r#"{"room":"r","members":["lobby"],"mute":{"camera":true}}"#;
    assert_eq!(shown(&document_comes(&mut room, muted, 20)), Some((false, true)));
    assert_eq!(shown(&room.handle(Event::DocumentCleared, at_ms(30))), Some((false, false)));
}
