//! Whole kiosks on simulated devices, controlled over a real broker, joined by real WebRTC: what the screen shows, as text.

#[path = "endpoint/house.rs"]
mod house;

use house::House;
use parlor::geometry::{Rotation, Size};
use parlor::media::canvas::PixelLayout;
use serde_json::json;

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

/// Whether exactly these members have tiles, and all of them are live; tiles of other states may follow.
fn live(reported: &serde_json::Value, members: &[&str]) -> bool {
    let tiles = reported["tiles"].as_array().into_iter().flatten();
    let live: Vec<_> =
        tiles.filter(|tile| tile["state"] == "live").map(|tile| tile["openid"].clone()).collect();
    live == members
}
