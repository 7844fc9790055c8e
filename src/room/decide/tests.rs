//! Stories of one kiosk and of two back to back, in virtual time.

use super::*;
use crate::room::document;
use crate::room::message::{Incoming, SessionId, SignalBody};
use crate::room::{PeerEvent, Role, Scene, Tile, TileState};
pub use ground::*;
use pair::*;
use proptest::prelude::*;

mod camera;
mod ground;
mod pair;
mod sound;
mod video;

const DAY: u64 = 1_800_000_000_000;
const TWO: &str = r#"{"rev":1,"room":"r","members":["lobby","ward"]}"#;

#[test]
fn before_the_first_document_the_kiosk_waits_with_its_camera_closed() {
    let mut room = kiosk("lobby");

    let mut commands = room.handle(Event::BrokerUp, at_ms(0));
    commands.extend(room.handle_timeout(at_ms(61_000)));

    let Some(Scene::Idle { title, line }) = scene(&commands) else { panic!("an idle screen") };
    assert_eq!((title.as_str(), line.as_str()), ("lobby", "Waiting for a room."));
    assert!(cameras(&commands).is_empty());
    assert!(published(&commands, "lobby/error").is_empty());
    assert_eq!(published(&commands, "lobby/reported")[0]["state"], "waiting");
}

#[test]
fn a_room_is_made_and_what_is_on_the_glass_is_reported() {
    let mut room = online("lobby");

    let commands = document_comes(&mut room, TWO, 10);

    let Some(Scene::Grid { tiles }) = scene(&commands) else { panic!("a grid") };
    assert_eq!(tiles.iter().map(|tile| tile.member.as_str()).collect::<Vec<_>>(), ["lobby", "ward"]);
    assert_eq!(cameras(&commands), [Some(Position::Front)]);
    assert_eq!(signals(&commands), ["ward hello"]);
    assert_eq!(opened(&commands), ["ward offer"]);
    assert_eq!(events(&commands), ["state-changed", "members-changed"]);
    // 10 ms after the last one: coalesced.
    assert!(published(&commands, "lobby/reported").is_empty());
    let later = room.handle_timeout(at_ms(200));
    let reported = &published(&later, "lobby/reported")[0];
    assert_eq!(reported["rev"], 1);
    assert_eq!(reported["tiles"][1]["area"], json!([960, 0, 960, 1080]));
    assert_eq!(reported["tiles"][1]["state"], "connecting");
    assert_eq!(
        reported["tiles"][0]["muted"],
        json!({ "microphone": false, "earphone": false, "camera": false })
    );
}

#[test]
fn a_member_for_whom_the_screen_has_no_room_is_named() {
    let mut room = online("lobby");
    let info = |width| ScreenInfo { name: "x".into(), width, height: 1, bits_per_pixel: 32, flip: false };
    room.handle(Event::ScreenOpened { info: info(1) }, at_ms(5));

    let crowded = document_comes(&mut room, TWO, 10);
    room.handle(Event::ScreenOpened { info: info(1_000) }, at_ms(20));
    let healed = room.handle_timeout(at_ms(2_100));

    let records = published(&crowded, "lobby/error");
    let record = records.iter().find(|record| record["code"] == "TILE_CREATE_FAILED").expect("said");
    assert_eq!(record["openid"], record["tile"]);
    assert!(
        raw(&healed, &format!("lobby/fault/{}", record["part"].as_str().expect("a part")))
            .contains(&String::new())
    );
}

#[test]
fn the_member_with_the_larger_id_says_hello_and_waits_for_the_offer() {
    let mut room = online("ward");

    let commands = document_comes(&mut room, TWO, 0);

    assert_eq!(signals(&commands), ["lobby hello"]);
    assert_eq!(opened(&commands), [""; 0]);
}

#[test]
fn a_member_joins_and_another_leaves() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let joined = document_comes(&mut room, r#"{"room":"r","members":["lobby","ward","zoe"]}"#, 100);
    let left = document_comes(&mut room, r#"{"room":"r","members":["lobby","zoe"]}"#, 200);

    assert_eq!(opened(&joined), ["zoe offer"]);
    assert_eq!(signals(&joined), ["zoe hello"]);
    assert_eq!(signals(&left), ["ward bye"]);
    assert!(left.contains(&Command::Close { member: id("ward") }));
    assert_eq!(opened(&left), [""; 0]);
    assert_eq!(events(&left), ["members-changed"]);
}

#[test]
fn an_empty_document_leaves_the_room() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let commands = room.handle(Event::DocumentCleared, at_ms(100));

    assert_eq!(cameras(&commands), [None]);
    assert_eq!(signals(&commands), ["ward bye"]);
    assert!(matches!(scene(&commands), Some(Scene::Idle { .. })));
    assert!(published(&commands, "lobby/error").is_empty());
}

#[test]
fn who_is_not_listed_takes_no_part() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let commands = document_comes(&mut room, r#"{"rev":2,"room":"r","members":["ward","zoe"]}"#, 300);

    assert_eq!(cameras(&commands), [None]);
    assert_eq!(signals(&commands), ["ward bye"]);
    assert_eq!(codes(&commands), ["NOT_A_MEMBER"]);
    assert!(matches!(scene(&commands), Some(Scene::Idle { .. })));
    let reported = &published(&commands, "lobby/reported")[0];
    assert_eq!((&reported["rev"], &reported["room"]), (&json!(2), &json!(null)));
}

#[test]
fn a_broken_root_leaves_the_last_good_document_standing() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let commands = document_comes(&mut room, "{", 300);

    assert_eq!(codes(&commands), ["DOCUMENT_INVALID"]);
    assert!(scene(&commands).is_none() && cameras(&commands).is_empty());
    let reported = &published(&commands, "lobby/reported")[0];
    assert_eq!(reported["tiles"].as_array().map(Vec::len), Some(2));
    assert_eq!(reported["rejected"], json!([{ "pointer": "", "code": "DOCUMENT_INVALID" }]));
    // Good again, and after two seconds it is healed.
    document_comes(&mut room, TWO, 400);
    let healed = room.handle_timeout(at_ms(2400));
    assert_eq!(raw(&healed, "lobby/fault/document"), [""]);
    assert_eq!(published(&healed, "lobby/state")[0]["state"], "online");
}

#[test]
fn a_document_broken_in_another_way_is_wrong_in_that_way_alone() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);
    let large = format!(r#"{{"room":"r","x":"{}"}}"#, "x".repeat(70_000));
    document_comes(&mut room, &large, 300);

    document_comes(&mut room, "{", 400);
    let later = room.handle_timeout(at_ms(2400));

    let levels = published(&later, "lobby/fault/document");
    assert_eq!(levels.last().expect("said")["code"], "DOCUMENT_INVALID");
}

#[test]
fn the_camera_switches_without_leaving_the_room() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let switched = document_comes(
        &mut room,
        r#"{"room":"r","members":[{"openid":"lobby","device-position":"back"},"ward"]}"#,
        500,
    );
    let opened_back = room.handle(camera_opened(Position::Back), at_ms(700));

    assert_eq!(cameras(&switched), [Some(Position::Back)]);
    assert_eq!(opened(&switched), [""; 0]);
    assert_eq!(events(&switched), [""; 0]);
    assert_eq!(events(&opened_back), ["camera-switched"]);
    assert_eq!(published(&opened_back, "lobby/event")[0]["device-position"], "back");
}

#[test]
fn a_muted_camera_is_closed() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let muted = document_comes(&mut room, r#"{"room":"r","members":["lobby"],"mute":{"camera":true}}"#, 1);

    assert_eq!(cameras(&muted), [None]);
    assert_eq!(tile(&muted, "lobby").state, TileState::Paused);
}

#[test]
fn a_camera_that_is_not_configured_is_not_found() {
    let mut room = Room::new(Settings { cameras: vec![Position::Back], ..settings("lobby") });
    room.handle(Event::BrokerUp, at_ms(0));

    let commands = document_comes(&mut room, TWO, 0);

    assert_eq!(codes(&commands), ["CAMERA_NOT_FOUND"]);
    assert!(cameras(&commands).is_empty());
}

#[test]
fn the_broker_goes_away_and_the_call_goes_on() {
    let mut room = online("lobby");
    let session = connected_to_ward(&mut room);

    let away = room.handle(Event::BrokerDown, at_ms(1000));
    let back = room.handle(Event::BrokerUp, at_ms(50_000));
    let same = document_comes(&mut room, TWO, 50_010);

    assert!(cameras(&away).is_empty() && opened(&away).is_empty());
    let Command::Publish(first) = &back[0] else { panic!("a publication first") };
    assert_eq!(first.topic, "lobby/state");
    assert_eq!(published(&back, "lobby/info").len(), 1);
    assert_eq!(published(&back, "lobby/reported").len(), 1);
    assert_eq!(opened(&back), [""; 0]);
    assert_eq!(published(&back, "ward/signal/lobby")[0]["session"], session.as_str());
    assert_eq!((opened(&same).len(), signals(&same).len()), (0, 0));
    assert_eq!(room.absent_at, None);
}

#[test]
fn a_document_that_does_not_come_back_closes_the_room() {
    let mut room = online("lobby");
    connected_to_ward(&mut room);
    room.handle(Event::BrokerDown, at_ms(1000));
    room.handle(Event::BrokerUp, at_ms(5000));

    let before = room.handle_timeout(at_ms(64_000));
    let after = room.handle_timeout(at_ms(65_000));

    assert!(cameras(&before).is_empty());
    assert_eq!(cameras(&after), [None]);
    assert_eq!(signals(&after), ["ward bye"]);
    assert_eq!(published(&after, "lobby/error")[0]["code"], "ROOM_CLOSED");
    assert_eq!(published(&after, "lobby/error")[0]["cause"]["op"], "document-absent");
    assert!(events(&after).contains(&"interrupted".to_owned()));
}

#[test]
fn records_wait_for_the_broker_with_their_true_times() {
    let mut room = online("lobby");
    room.handle(Event::BrokerDown, at_ms(1000));
    let camera = fault(Part::Camera(Position::Front), Code::CameraGone);
    document_comes(&mut room, TWO, 1500);
    let away = room.handle(Event::Raised(camera), at_ms(2000));

    let back = room.handle(Event::BrokerUp, at_ms(9000));

    assert!(published(&away, "lobby/error").is_empty());
    assert_eq!(published(&back, "lobby/error")[0]["up_ms"], 2000);
    assert_eq!(published(&back, "lobby/fault/camera-front")[0]["code"], "CAMERA_GONE");
    assert_eq!(published(&back, "lobby/state")[0]["state"], "degraded");
}

#[test]
fn with_a_document_that_is_gone_goes_what_was_wrong_with_it() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);
    document_comes(&mut room, "{", 300);
    room.handle(Event::BrokerDown, at_ms(1000));
    room.handle(Event::BrokerUp, at_ms(5000));

    room.handle_timeout(at_ms(65_000));
    let healed = room.handle_timeout(at_ms(67_000));

    let stands = published(&healed, "lobby/fault/document");
    assert_eq!(stands.last().expect("said")["code"], "ROOM_CLOSED");
    assert_eq!(published(&healed, "lobby/state").last().expect("said")["state"], "online");
}

#[test]
fn a_room_with_an_end_needs_a_clock_and_closes_by_it() {
    let mut room = online("lobby");
    let dated = r#"{"room":"r","members":["lobby"],"until":"2027-01-15T08:00:10Z"}"#;
    let unset = Now { wall: None, ..at_ms(0) };

    let without = deliver(&mut room, "lobby/desired", dated, unset);
    let with = room.handle_timeout(at_ms(1000));
    let over = room.handle_timeout(at_ms(10_000));

    assert_eq!(codes(&without), ["CLOCK_UNSYNCED"]);
    assert!(cameras(&without).is_empty());
    assert_eq!(cameras(&with), [Some(Position::Front)]);
    assert_eq!(cameras(&over), [None]);
    assert!(codes(&over).contains(&"ROOM_CLOSED".to_owned()));
}

#[test]
fn another_machine_with_this_id_is_left_alone_for_ten_minutes() {
    let mut room = online("lobby");
    let last_life = room.handle(Event::OwnState { boot: "other".into() }, at_ms(1));
    room.handle(Event::OwnState { boot: room.settings.boot.clone() }, at_ms(2));

    let taken = room.handle(Event::OwnState { boot: "other".into() }, at_ms(3));

    assert!(codes(&last_life).is_empty());
    assert_eq!(codes(&taken), ["BROKER_TAKEN_OVER"]);
    let at = taken.iter().position(|command| matches!(command, Command::Disconnect { .. })).expect("leaves");
    assert!(taken[at..].iter().all(|command| !matches!(command, Command::Publish(_))));
    assert!(matches!(taken.last(), Some(Command::Show(picture)) if picture.notice.is_some()));
}

#[test]
fn of_two_machines_with_one_id_the_one_with_the_larger_boot_stays() {
    let mut room = online("lobby");
    room.handle(Event::OwnState { boot: room.settings.boot.clone() }, at_ms(1));

    let seen = room.handle(Event::OwnState { boot: "0000000000000000".into() }, at_ms(2));

    assert_eq!(codes(&seen), ["BROKER_TAKEN_OVER"]);
    assert!(!seen.iter().any(|command| matches!(command, Command::Disconnect { .. })));
}

#[test]
fn another_machine_is_also_seen_by_what_the_broker_kept_while_this_one_was_away() {
    let mut room = online("lobby");
    room.handle(Event::OwnState { boot: room.settings.boot.clone() }, at_ms(1));
    room.handle(Event::BrokerDown, at_ms(2));
    room.handle(Event::OwnState { boot: "other".into() }, at_ms(3));

    let up = room.handle(Event::BrokerUp, at_ms(4));

    assert!(codes(&up).contains(&"BROKER_TAKEN_OVER".to_owned()));
    assert!(up.iter().any(|command| matches!(command, Command::Disconnect { .. })));
}

#[test]
fn a_camera_that_opens_but_sends_nothing_is_still_stalled() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);
    room.handle(Event::Raised(fault(Part::Camera(Position::Front), Code::CameraStalled)), at_ms(1000));

    let opened = room.handle(camera_opened(Position::Front), at_ms(2000));
    let later = room.handle_timeout(at_ms(6000));
    let live = room.handle(Event::TileLive { member: id("lobby") }, at_ms(7000));
    let healed = room.handle_timeout(at_ms(9000));

    assert!(scene(&opened).is_none() && raw(&later, "lobby/fault/camera-front").is_empty());
    assert_eq!(tile(&live, "lobby").state, TileState::Live);
    assert_eq!(raw(&healed, "lobby/fault/camera-front"), [""]);
}

#[test]
fn faults_of_an_earlier_life_are_cleared_but_not_those_that_last() {
    let mut room = kiosk("lobby");
    room.handle(Event::Raised(fault(Part::Screen, Code::ScreenOpen)), at_ms(0));
    for part in ["screen", "camera-back"] {
        room.handle(Event::OwnFault { part: part.into(), boot: "old".into() }, at_ms(1));
    }

    let up = room.handle(Event::BrokerUp, at_ms(2));

    assert_eq!(raw(&up, "lobby/fault/camera-back"), [""]);
    assert_eq!(published(&up, "lobby/fault/screen")[0]["code"], "SCREEN_OPEN");
}

#[test]
fn the_state_is_repeated_every_minute() {
    let mut room = online("lobby");

    let minute = room.handle_timeout(at_ms(60_000));

    assert_eq!(published(&minute, "lobby/state").len(), 1);
}

#[test]
fn identify_shows_the_id_for_half_a_minute() {
    let mut room = online("lobby");

    let shown = deliver(&mut room, "lobby/cmd/identify", "", at_ms(0));
    let over = room.handle_timeout(at_ms(30_000));

    assert!(matches!(&shown[..], [Command::Show(picture)] if picture.identify.as_deref() == Some("lobby")));
    assert!(
        over.iter().any(|command| matches!(command, Command::Show(picture) if picture.identify.is_none()))
    );
}

#[test]
fn a_stranger_is_held_for_five_seconds_and_heard_once_listed() {
    let mut room = online("ward");
    document_comes(&mut room, r#"{"room":"r","members":["ward"]}"#, 0);
    let offer = signal_text(1, "offer", r#","sdp":"v=0""#);

    let held = deliver(&mut room, "ward/signal/lobby", &offer, at_ms(100));
    let listed = document_comes(&mut room, TWO, 4000);

    assert!(codes(&held).is_empty() && opened(&held).is_empty());
    assert_eq!(opened(&listed), ["lobby answer"]);
    deliver(&mut room, "ward/signal/eve", &offer, at_ms(5000));
    let refused = room.handle_timeout(at_ms(10_000));
    assert!(codes(&refused).contains(&"SIGNAL_REFUSED".to_owned()));
}

#[test]
fn more_strangers_than_are_held_are_refused_at_once() {
    let mut room = online("ward");
    for number in 0..8 {
        deliver(&mut room, &format!("ward/signal/eve{number}"), &signal_text(1, "hello", ""), at_ms(0));
    }

    let ninth = deliver(&mut room, "ward/signal/eve8", &signal_text(1, "hello", ""), at_ms(0));

    assert_eq!(codes(&ninth), ["SIGNAL_REFUSED"]);
}

#[test]
fn two_kiosks_back_to_back_connect_whoever_starts_first() {
    for first in ["lobby", "ward"] {
        let mut pair = Pair::new();
        pair.start(first);
        pair.run(800);
        pair.start(if first == "lobby" { "ward" } else { "lobby" });
        pair.run(5000);

        assert_eq!(pair.answered, 1, "{first} first");
        assert!(pair.both_live(), "{first} first");
    }
}

#[test]
fn a_kiosk_that_is_restarted_is_connected_anew() {
    for restarted in ["lobby", "ward"] {
        let mut pair = Pair::new();
        pair.start("lobby");
        pair.start("ward");
        pair.run(1000);
        assert!(pair.both_live());

        pair.rooms.insert(restarted.to_owned(), kiosk_with_boot(restarted, "2222222222222222"));
        pair.start(restarted);
        pair.run(5000);

        assert!(pair.both_live(), "{restarted} restarted");
        assert_eq!(pair.answered, 2);
    }
}

#[test]
fn a_lost_connection_is_made_anew_and_told() {
    let mut room = online("lobby");
    let session = connected_to_ward(&mut room);

    let lost = peer_says(&mut room, &session, PeerEvent::Failed("ice".into()), 2000);
    let again = room.handle_timeout(at_ms(2500));

    assert_eq!(codes(&lost), ["PEER_LOST"]);
    assert!(events(&lost).contains(&"interrupted".to_owned()));
    assert_eq!(signals(&lost), ["ward hello"]);
    assert_eq!(tile(&lost, "ward").state, TileState::Failed);
    assert_eq!(opened(&again), ["ward offer"]);
}

#[test]
fn offers_to_an_absent_member_back_off() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let mut offers = 0;
    let mut codes_seen = Vec::new();
    for ms in (0..120_000).step_by(100) {
        let commands = room.handle_timeout(at_ms(ms));
        offers += opened(&commands).len();
        codes_seen.extend(codes(&commands));
    }

    assert!((5..=9).contains(&offers), "{offers}");
    assert_eq!(codes_seen[0], "PEER_UNREACHABLE");
    assert!(codes_seen.len() <= 3, "once, and once a minute");
}

#[test]
fn a_repeated_signal_is_dropped() {
    let mut room = online("ward");
    document_comes(&mut room, TWO, 0);
    let offer = signal_text(5, "offer", r#","sdp":"v=0""#);

    let first = deliver(&mut room, "ward/signal/lobby", &offer, at_ms(1));
    let repeat = deliver(&mut room, "ward/signal/lobby", &offer, at_ms(2));
    let restart =
        deliver(&mut room, "ward/signal/lobby", &signal_text(6, "offer", r#","sdp":"v=0""#), at_ms(3));

    assert_eq!(opened(&first), ["lobby answer"]);
    assert_eq!(opened(&repeat), [""; 0]);
    assert_eq!(opened(&restart), ["lobby answer"]);
}

#[test]
fn a_stalled_tile_is_told_and_taken_back() {
    let mut room = online("lobby");
    connected_to_ward(&mut room);

    let live = room.handle(Event::TileLive { member: id("ward") }, at_ms(1000));
    let stalled = room.handle(Event::TileStalled { member: id("ward") }, at_ms(2000));
    let again = room.handle(Event::TileLive { member: id("ward") }, at_ms(3000));

    assert_eq!(tile(&live, "ward").state, TileState::Live);
    assert_eq!(events(&live), ["video-members-changed"]);
    assert_eq!(
        (tile(&stalled, "ward").state, codes(&stalled)),
        (TileState::Stalled, vec!["TILE_STALLED".to_owned()])
    );
    assert_eq!(tile(&again, "ward").state, TileState::Live);
}

#[test]
fn reported_comes_at_most_five_times_a_second() {
    let mut room = online("lobby");
    connected_to_ward(&mut room);

    let mut reports = 0;
    for turn in 0..100 {
        let member = id("ward");
        let event = if turn % 2 == 0 { Event::TileLive { member } } else { Event::TileStalled { member } };
        reports += published(&room.handle(event, at_ms(1000 + turn * 10)), "lobby/reported").len();
    }

    assert!((4..=6).contains(&reports), "{reports}");
}

#[test]
fn goodbye_is_said_to_everyone() {
    let mut room = online("lobby");
    document_comes(&mut room, TWO, 0);

    let commands = room.goodbye(at_ms(100));

    assert_eq!(signals(&commands), ["ward bye"]);
    assert_eq!(cameras(&commands), [None]);
    assert_eq!(published(&commands, "lobby/state")[0]["state"], "offline");
}

proptest! {
    #[test]
    fn whichever_signals_are_lost_two_kiosks_connect_in_the_end(lost: [bool; 12], wait in 0..4000u64) {
        let mut pair = Pair::new();
        pair.lost = lost.to_vec();

        pair.start("ward");
        pair.run(wait);
        pair.start("lobby");
        pair.run(600_000);

        prop_assert!(pair.both_live());
    }

    #[test]
    fn whatever_happens_no_timeout_stays_due_and_the_glass_is_in_order(
        steps in proptest::collection::vec((0..12usize, 0..4000u64), 1..60),
    ) {
        let mut room = kiosk("lobby");
        let mut ms = 0;
        for (what, wait) in steps {
            ms += wait;
            let commands = happen(&mut room, what, ms);
            if let Some(Scene::Grid { tiles }) = scene(&commands) {
                for (index, tile) in tiles.iter().enumerate() {
                    prop_assert!(tiles[..index].iter().all(|other| !other.area.overlaps(tile.area)));
                }
            }
            room.handle_timeout(at_ms(ms));
            prop_assert!(room.next_timeout().is_none_or(|at| at > at_ms(ms).mono));
            prop_assert!(room.said.camera.is_none() || room.stage == Stage::Joined);
        }
    }
}

fn happen(room: &mut Room, what: usize, ms: u64) -> Vec<Command> {
    let member = id("ward");
    let session = room.peers.get(&member).and_then(Peer::session).cloned();
    let event = match (what, session) {
        (0, _) => Event::BrokerUp,
        (1, _) => Event::BrokerDown,
        (2, _) => return document_comes(room, TWO, ms),
        (3, _) => {
            return document_comes(room, r#"{"room":"q","members":["lobby","a","b"],"layout":"pip"}"#, ms);
        }
        (4, _) => return document_comes(room, r#"{"room":"r","members":["ward",7]}"#, ms),
        (5, _) => Event::DocumentCleared,
        (6, Some(session)) => Event::Peer { member, session, event: PeerEvent::Connected },
        (7, Some(session)) => Event::Peer { member, session, event: PeerEvent::Failed("x".into()) },
        (8, _) => return deliver(room, "lobby/signal/ward", &signal_text(ms, "hello", ""), at_ms(ms)),
        (9, _) => Event::TileStalled { member },
        (10, _) => Event::Raised(fault(Part::Screen, Code::ScreenOpen)),
        _ => Event::Healed(Part::Screen),
    };
    room.handle(event, at_ms(ms))
}
