//! Whole kiosks on simulated devices, controlled over a real broker, joined by real WebRTC: what the screen shows, as text.

#[path = "endpoint/house.rs"]
mod house;

use house::House;
use parlor::geometry::{Rotation, Size};
use parlor::media::canvas::PixelLayout;
use parlor::media::signs::palette;
use parlor::media::sound::RATE_HZ;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_made_changed_and_left() {
    let mut house = House::open().await;
    let (lobby, ward) = (house.kiosk("lobby").await, house.kiosk("ward").await);
    house.until("lobby/state", |state| state["state"] == "online").await;
    house.until("lobby/info", |info| info["screen"]["width"] == 640).await;

    // A room of two: the own picture beside the other's, each filling its half.
    let members = json!(["lobby", { "openid": "ward", "name": "Ward 3" }]);
    house.desire("lobby", json!({ "rev": 1, "room": "r", "members": members })).await;
    house.desire("ward", json!({ "rev": 1, "room": "r", "members": members })).await;
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;
    house.until("ward/reported", |reported| live(reported, &["lobby", "ward"])).await;
    house.shows(&lobby, &["llllllllllwwwwwwwwww", "llllllllllwwwwwwwwww"]).await;
    house
        .until_event("lobby", |event| {
            event["event"] == "members-changed" && event["openIdList"] == json!(["lobby", "ward"])
        })
        .await;

    // The back camera, without leaving the room: both screens show it.
    let back = json!([{ "openid": "lobby", "device-position": "back" }, "ward"]);
    house.desire("lobby", json!({ "rev": 2, "room": "r", "members": back })).await;
    house.until_event("lobby", |event| event["event"] == "camera-switched").await;
    house.shows(&lobby, &["LLLLLLLLLLwwwwwwwwww", "LLLLLLLLLLwwwwwwwwww"]).await;
    house.shows(&ward, &["LLLLLLLLLLwwwwwwwwww", "LLLLLLLLLLwwwwwwwwww"]).await;

    // The other leaves the document: its tile is gone.
    house.desire("lobby", json!({ "rev": 3, "room": "r", "members": ["lobby"] })).await;
    house.until("lobby/reported", |reported| reported["rev"] == 3 && live(reported, &["lobby"])).await;
    house.shows(&lobby, &["llllllllllllllllllll", "llllllllllllllllllll"]).await;

    // The document is cleared: the room is left, the camera closed, the screen waits.
    house.clear("lobby").await;
    house.until("lobby/reported", |reported| reported["tiles"] == json!([])).await;
    house.shows(&lobby, &["....................", "...................."]).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unplugged_camera_is_reported_shown_and_healed() {
    let mut house = House::open().await;
    let lobby = house.kiosk("lobby").await;
    house.desire("lobby", json!({ "room": "r", "members": ["lobby"] })).await;
    house.until("lobby/reported", |reported| live(reported, &["lobby"])).await;

    lobby.simulation.front.set_plugged(false);
    let fault = house.until("lobby/fault/camera-front", |fault| fault["active"] == true).await;
    assert_eq!(fault["code"], "CAMERA_GONE", "{fault}");
    house.shows(&lobby, &["....................", "...................."]).await;

    lobby.simulation.front.set_plugged(true);
    house.shows(&lobby, &["llllllllllllllllllll", "llllllllllllllllllll"]).await;
    house.until_cleared("lobby/fault/camera-front").await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_a_camera_that_is_not_there_ends_with_the_one_before_and_is_never_dark() {
    let mut house = House::open().await;
    let lobby = house.kiosk("lobby").await;
    lobby.simulation.back.set_plugged(false);
    house.desire("lobby", json!({ "rev": 1, "room": "r", "members": ["lobby"] })).await;
    house.until("lobby/reported", |reported| live(reported, &["lobby"])).await;
    let dark = Arc::new(AtomicBool::new(false));
    let seen = dark.clone();
    lobby.simulation.glass.watch(move |canvas| {
        seen.fetch_or([palette::GROUND, palette::TILE].contains(&canvas.pixel(320, 60)), Relaxed);
    });

    let back = json!([{ "openid": "lobby", "device-position": "back" }]);
    house.desire("lobby", json!({ "rev": 2, "room": "r", "members": back })).await;

    let fault = house.until("lobby/fault/camera-back", |fault| fault["active"] == true).await;
    assert_eq!(fault["code"], "CAMERA_NOT_FOUND", "{fault}");
    let reported =
        house.until("lobby/reported", |reported| reported["rev"] == 2 && live(reported, &["lobby"])).await;
    assert_eq!(reported["tiles"][0]["device-position"], "front", "{reported}");
    house.shows(&lobby, &["llllllllllllllllllll", "llllllllllllllllllll"]).await;
    assert!(!dark.load(Relaxed));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_document_leaves_the_last_good_one_standing() {
    let mut house = House::open().await;
    let lobby = house.kiosk("lobby").await;
    house.desire("lobby", json!({ "rev": 1, "room": "r", "members": ["lobby"] })).await;
    house.until("lobby/reported", |reported| live(reported, &["lobby"])).await;

    for wrong in ["{", "[]", r#"{"room":5,"members":[]}"#, &"[".repeat(100)] {
        house.publish_raw("lobby/desired", wrong, true).await;
        house.until_error("lobby", |error| error["code"] == "DOCUMENT_INVALID").await;
    }
    house
        .publish_raw("lobby/desired", &format!(r#"{{"room":"r","x":"{}"}}"#, "x".repeat(70_000)), true)
        .await;
    house.until_error("lobby", |error| error["code"] == "DOCUMENT_TOO_LARGE").await;
    house.shows(&lobby, &["llllllllllllllllllll", "llllllllllllllllllll"]).await;

    // A wrong member is left out and listed; the others are shown.
    let members = json!(["lobby", { "openid": "a b" }, "lobby"]);
    house.desire("lobby", json!({ "rev": 2, "room": "r", "members": members })).await;
    let reported = house.until("lobby/reported", |reported| reported["rev"] == 2).await;
    let rejected: Vec<_> = reported["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["pointer"].clone(), one["code"].clone()))
        .collect();
    assert_eq!(
        rejected,
        [
            (json!("/members/1/openid"), json!("MEMBER_INVALID")),
            (json!("/members/2"), json!("MEMBER_DUPLICATE"))
        ],
        "{reported}"
    );

    house.publish_raw("lobby/cmd/dance", "", false).await;
    house.until_error("lobby", |error| error["code"] == "CMD_UNKNOWN").await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_used_are_said_on_the_screen_and_to_the_broker() {
    let mut house = House::open().await;
    let mut config = house.configuration("lobby");
    config.problem = Some("kiosk.toml: line 4: unknown field `rotate`".into());
    let lobby = house.kiosk_with(config, PixelLayout::XRGB8888).await;

    let fault = house.until("lobby/fault/system", |fault| fault["code"] == "CONFIG_INVALID").await;
    assert_eq!(fault["cause"]["op"], "kiosk.toml: line 4: unknown field `rotate`");
    house.frames(&lobby, (0, 359), palette::ALERT).await;

    // The kiosk works none the less.
    house.desire("lobby", json!({ "room": "r", "members": ["lobby"] })).await;
    house.until("lobby/reported", |reported| live(reported, &["lobby"])).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upright_screen_of_sixteen_bits_shows_the_same_room() {
    let mut house = House::open().await;
    let mut config = house.configuration("lobby");
    config.screen.rotation = Rotation::Quarter;
    let lobby = house.kiosk_with(config, PixelLayout::RGB565).await;
    house
        .desire("lobby", json!({ "room": "r", "members": ["lobby", "nobody"], "object-fit": "cover" }))
        .await;
    house.until("lobby/reported", |reported| live(reported, &["lobby"])).await;

    // 360 across and 640 down for the viewer: one tile above the other.
    assert_eq!(lobby.simulation.glass.look(|canvas| canvas.logical_size()), Size::new(360, 640));
    house.shows(&lobby, &["llllllllllllllllllll", "...................."]).await;

    let picture = house.snapshot("lobby").await;
    let info = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG").info().clone();
    assert_eq!((info.width, info.height), (360, 640));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_is_heard_shown_and_muted() {
    let mut house = House::open().await;
    let mut config = house.configuration("lobby");
    config.room.stats_interval = Duration::from_millis(500);
    let ward = house.kiosk("ward").await;
    let lobby = house.kiosk_with(config, PixelLayout::XRGB8888).await;
    let ear = lobby.ear();
    for kiosk in ["lobby", "ward"] {
        house.desire(kiosk, json!({ "rev": 1, "room": "r", "members": ["lobby", "ward"] })).await;
    }
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;

    // A quarter of full scale is 15 dB below it.
    ward.hum(1000.0, 0.25);
    ear.until(|hertz, level| (hertz - 1000.0).abs() <= 5.0 && (level + 15.05).abs() <= 1.0).await;
    let speaks =
        |event: &Value| event["event"] == "speakers-changed" && event["openIdList"] == json!(["ward"]);
    house.until_event("lobby", speaks).await;
    house.until_event("ward", speaks).await;
    house.frames(&lobby, (321, 180), palette::SPEAKING).await;

    // The microphone is muted: the other end receives not a packet more, and the own tile says so.
    let muted =
        json!({ "rev": 2, "room": "r", "members": ["lobby", "ward"], "mute": { "microphone": true } });
    house.desire("ward", muted).await;
    house.until("ward/reported", |reported| reported["tiles"][1]["muted"]["microphone"] == true).await;
    let received = |stats: &Value| stats["tiles"][1]["sound"]["received"].as_u64().expect("a count");
    // What was on its way has come.
    house.next("lobby/stats").await;
    let before = received(&house.next("lobby/stats").await);
    assert!(before > 10, "{before}");
    // Stations are passed in order: no stage takes longer than the whole way, but for the steps of rounding.
    let stages = house.until("lobby/stats", |stats| stats["tiles"][1]["stages_ms"].is_object()).await;
    let times = |stage: &str| stages["tiles"][1]["stages_ms"][stage]["p99"].as_f64().expect("milliseconds");
    for stage in ["received_decoded", "decoded_composed", "composed_flipped"] {
        assert!(times(stage) > 0.0 && times(stage) <= times("total"), "{stage}: {stages}");
    }
    house.next("lobby/stats").await;
    assert_eq!(received(&house.next("lobby/stats").await), before);
    ear.until(|_, level| level < -90.0).await;
    let quiet = |event: &Value| event["event"] == "speakers-changed" && event["openIdList"] == json!([]);
    house.until_event("lobby", quiet).await;

    // Muted where it is heard: it arrives and is not played.
    house.desire("ward", json!({ "rev": 3, "room": "r", "members": ["lobby", "ward"] })).await;
    ear.until(|_, level| level > -20.0).await;
    let deaf = json!({ "rev": 2, "room": "r", "members": ["lobby", "ward"], "mute": { "earphone": true } });
    house.desire("lobby", deaf).await;
    ear.until(|_, level| level < -90.0).await;
    let then = received(&house.next("lobby/stats").await);
    assert!(received(&house.next("lobby/stats").await) > then);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_card_that_is_pulled_out_comes_back_by_itself() {
    let mut house = House::open().await;
    let (lobby, ward) = (house.kiosk("lobby").await, house.kiosk("ward").await);
    let ear = lobby.ear();
    ward.hum(500.0, 0.25);
    for kiosk in ["lobby", "ward"] {
        house.desire(kiosk, json!({ "room": "r", "members": ["lobby", "ward"] })).await;
    }
    ear.until(|hertz, _| (hertz - 500.0).abs() <= 5.0).await;

    lobby.simulation.air.speaker.set_plugged(false);
    let fault = house.until("lobby/fault/speaker", |fault| fault["active"] == true).await;
    assert_eq!(fault["code"], "SPEAKER_GONE", "{fault}");
    ward.simulation.air.microphone.set_plugged(false);
    let fault = house.until("ward/fault/microphone", |fault| fault["active"] == true).await;
    assert_eq!(fault["code"], "MICROPHONE_GONE", "{fault}");
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;

    lobby.simulation.air.speaker.set_plugged(true);
    ward.simulation.air.microphone.set_plugged(true);
    house.until_cleared("lobby/fault/speaker").await;
    house.until_cleared("ward/fault/microphone").await;
    ear.until(|hertz, _| (hertz - 500.0).abs() <= 5.0).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microphone_that_is_not_authorized_is_never_opened() {
    let mut house = House::open().await;
    let mut config = house.configuration("lobby");
    config.authorize.microphone = false;
    let lobby = house.kiosk_with(config, PixelLayout::XRGB8888).await;
    let asked = Arc::new(AtomicBool::new(false));
    let recorded = asked.clone();
    lobby.simulation.air.speak(move |_, _| recorded.store(true, Relaxed));

    house.desire("lobby", json!({ "room": "r", "members": ["lobby"] })).await;

    let fault = house.until("lobby/fault/microphone", |fault| fault["active"] == true).await;
    assert_eq!(fault["code"], "MICROPHONE_NOT_AUTHORIZED", "{fault}");
    house.until("lobby/info", |info| info["speaker"]["name"] == "sim-speaker").await;
    let info = house.until("lobby/info", |info| info["screen"]["width"] == 640).await;
    assert!(info["microphone"].is_null() && !asked.load(Relaxed));
    let muted = json!({ "room": "r", "members": ["lobby"], "mute": { "microphone": true } });
    house.desire("lobby", muted).await;
    house.until_cleared("lobby/fault/microphone").await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selftest_hears_its_own_chirp_or_says_why_not() {
    let mut house = House::open().await;
    let lobby = house.kiosk("lobby").await;
    house.until("lobby/state", |state| state["state"] == "online").await;
    // The air between speaker and microphone: half the sound comes back, 50 ms later.
    let air = Arc::new(Mutex::new(VecDeque::from(vec![0.0; RATE_HZ as usize / 20])));
    let back = air.clone();
    lobby.simulation.air.listen(move |block, _| {
        back.lock().expect("no panic").extend(block.iter().map(|sample| sample / 2.0));
    });
    lobby.simulation.air.speak(move |block, _| {
        let mut air = air.lock().expect("no panic");
        block.iter_mut().for_each(|sample| *sample = air.pop_front().unwrap_or(0.0));
    });

    let said = house.ctl(&["selftest", "lobby"]).await.expect("the chirp comes back");
    assert!(said.contains("-6") && said.contains("dB of what was played"), "{said}");

    lobby.simulation.air.speak(|_, _| {});
    let said = house.ctl(&["selftest", "lobby"]).await.expect_err("nothing comes back");
    assert!(said.contains("did not come back"), "{said}");
    lobby.simulation.air.microphone.set_plugged(false);
    let said = house.ctl(&["selftest", "lobby"]).await.expect_err("no microphone");
    assert!(said.contains("MICROPHONE_GONE"), "{said}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_is_large_and_the_change_is_never_dark() {
    let mut house = House::open().await;
    let (lobby, ward) = (house.kiosk("lobby").await, house.kiosk("ward").await);
    let members = json!(["lobby", "ward"]);
    for kiosk in ["lobby", "ward"] {
        house.desire(kiosk, json!({ "rev": 1, "room": "r", "members": members, "layout": "speaker" })).await;
    }
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;
    house.shows(&lobby, &["lllllllllllllllwwwww", "lllllllllllllllwwwww"]).await;
    let dark = Arc::new(AtomicBool::new(false));
    let seen = dark.clone();
    lobby.simulation.glass.watch(move |canvas| {
        let black = [40, 500].iter().any(|x| canvas.pixel(*x, 60) == palette::GROUND);
        seen.fetch_or(black, Relaxed);
    });

    ward.hum(1000.0, 0.25);

    house.shows(&lobby, &["wwwwwwwwwwwwwwwlllll", "wwwwwwwwwwwwwwwlllll"]).await;
    assert!(!dark.load(Relaxed));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_machine_that_is_too_busy_a_video_is_cut_by_name_and_comes_back() {
    let mut house = House::open().await;
    let (lobby, _ward) = (house.kiosk("lobby").await, house.kiosk("ward").await);
    let members = json!(["lobby", "ward"]);
    for kiosk in ["lobby", "ward"] {
        house.desire(kiosk, json!({ "rev": 1, "room": "r", "members": members })).await;
    }
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;

    // A screen that takes its time.
    lobby.simulation.glass.watch(|_| std::thread::sleep(Duration::from_millis(150)));
    let fault = house.until("lobby/fault/tile-ward", |fault| fault["active"] == true).await;
    assert_eq!((&fault["code"], &fault["openid"]), (&json!("TILE_OVER_BUDGET"), &json!("ward")));
    house.until("lobby/reported", |reported| reported["tiles"][1]["state"] == "paused").await;
    house.shows(&lobby, &["llllllllll..........", "llllllllll.........."]).await;

    lobby.simulation.glass.watch(|_| {});
    house.until("lobby/reported", |reported| live(reported, &["lobby", "ward"])).await;
    house.shows(&lobby, &["llllllllllwwwwwwwwww", "llllllllllwwwwwwwwww"]).await;
    house.until_cleared("lobby/fault/tile-ward").await;
    house.close().await;
}

/// Whether exactly these members have tiles, and all of them are live; tiles of other states may follow.
fn live(reported: &serde_json::Value, members: &[&str]) -> bool {
    let tiles = reported["tiles"].as_array().into_iter().flatten();
    let live: Vec<_> =
        tiles.filter(|tile| tile["state"] == "live").map(|tile| tile["openid"].clone()).collect();
    live == members
}
