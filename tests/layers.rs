//! Whole kiosks that tell one another what they show of each other: who gets which size of a picture, who gets none,
//! and what a narrow way makes of it. With `--nocapture` they say what they found.

#![allow(clippy::unwrap_used)]

#[path = "endpoint/house.rs"]
mod house;

use house::{House, Kiosk};
use parlor::config::{Camera, Config, SIMULATED};
use parlor::demo::room::place;
use parlor::demo::tally::Tally;
use parlor::geometry::Size;
use parlor::room::Position;
use parlor::sim::network::{Conditions, Network};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

const CAMERA: Size = Size { width: 640, height: 480 };
/// Pictures a second of [`CAMERA`].
const RATE_HZ: u32 = 30;
/// So hard to code that a picture is of several packets.
const GRAIN: u8 = 16;

/// One at a time: they measure.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_tile_gets_the_quarter_and_a_large_one_the_full_picture() {
    let _alone = ALONE.lock().await;
    let members = ["lobby", "ward", "clinic", "desk"];
    let mut house = House::open().await;
    for id in members {
        let config = configuration(&house, id);
        house.kiosk_with(config, parlor::media::canvas::PixelLayout::XRGB8888).await;
    }

    // Everybody shows the ward large, the ward shows the lobby large.
    for id in members {
        spotlight(&house, id, if id == "ward" { "lobby" } else { "ward" }).await;
    }

    shows(&mut house, "lobby", [("ward", CAMERA), ("clinic", half()), ("desk", half())]).await;
    shows(&mut house, "ward", [("lobby", CAMERA), ("clinic", half()), ("desk", half())]).await;
    // Who is shown large by one and small by others codes twice, everybody else once.
    codes(&mut house, "lobby", json!([[640, 480], [320, 240]])).await;
    codes(&mut house, "ward", json!([[640, 480]])).await;
    codes(&mut house, "clinic", json!([[320, 240]])).await;

    // Another one in the light: it changes its layer in the middle of the call, and so does the one before.
    spotlight(&house, "lobby", "clinic").await;
    shows(&mut house, "lobby", [("ward", half()), ("clinic", CAMERA), ("desk", half())]).await;
    codes(&mut house, "clinic", json!([[640, 480], [320, 240]])).await;
    codes(&mut house, "ward", json!([[640, 480], [320, 240]])).await;
    for id in members {
        let (raised, _) = house.raised_and_healed(id, "DECODE_FAILED");
        assert_eq!(raised, 0, "{id} decodes all of it");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_show_a_picture_gets_its_sound_only() {
    let _alone = ALONE.lock().await;
    let mut house = House::open().await;
    let mut kiosks = Vec::new();
    for id in ["lobby", "ward"] {
        let config = configuration(&house, id);
        kiosks.push(house.kiosk_with(config, parlor::media::canvas::PixelLayout::XRGB8888).await);
        house.desire(id, json!({ "room": "r", "members": ["lobby", "ward"] })).await;
    }
    let [lobby, ward] = &kiosks[..] else { unreachable!() };
    house.until("ward/stats", |stats| stats["layers"][0]["size"] == json!([640, 480])).await;
    let ear = lobby.ear();

    // A screen that takes its time: the video is cut.
    lobby.simulation.glass.watch(|_| std::thread::sleep(Duration::from_millis(150)));
    house.until("lobby/reported", |reported| tile(reported, "ward")["state"] == "paused").await;

    // Nobody else is there, so nothing is coded.
    house.until("ward/stats", |stats| stats["layers"] == json!([])).await;
    // One that was on its way may be of before.
    house.next("lobby/stats").await;
    let before = house.next("lobby/stats").await;
    // Not loud enough for speech: who speaks is shown again.
    ward.hum(1000.0, 0.003);
    ear.until(|hertz, level| (hertz - 1000.0).abs() < 20.0 && level > -65.0).await;
    let sent = house.next("ward/stats").await;
    let after = house.next("lobby/stats").await;
    assert_eq!(tile(&sent, "lobby")["sent"]["layer"], Value::Null, "{sent}");
    assert_eq!(tile(&after, "ward")["received"], tile(&before, "ward")["received"]);
    let voice = |stats: &Value| tile(stats, "ward")["sound"]["received"].as_u64().unwrap();
    assert!(voice(&after) > voice(&before));

    lobby.simulation.glass.watch(|_| {});
    house.until("lobby/reported", |reported| tile(reported, "ward")["state"] == "live").await;
    house.until("ward/stats", |stats| tile(stats, "lobby")["sent"]["layer"] == "full").await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_narrow_way_pictures_go_on_without_growing_late_and_it_heals() {
    let _alone = ALONE.lock().await;
    let mut house = House::open().await;
    let network = Network::new(11);
    let config = configuration(&house, "lobby");
    let lobby = house.kiosk_on(config, network.clone()).await;
    let config = configuration(&house, "ward");
    let ward = house.kiosk_with(config, parlor::media::canvas::PixelLayout::XRGB8888).await;
    ward.simulation.front.set_grain(GRAIN);
    let tally = Tally::new(CAMERA);
    for id in ["lobby", "ward"] {
        house.desire(id, json!({ "room": "r", "members": ["lobby", "ward"] })).await;
    }
    watch(&mut house, &tally, "lobby", &lobby).await;
    watch(&mut house, &tally, "ward", &ward).await;
    let kbps = |stats: &Value| stats["layers"][0]["kbps"].as_u64().unwrap_or_default();
    house.until("ward/stats", |stats| kbps(stats) == 800).await;

    let narrow = Conditions { limit_kbps: 300, queue: Duration::from_millis(400), ..Default::default() };
    network.set_each(Conditions::default(), narrow);
    let start = Instant::now();
    house.until("ward/stats", |stats| (1..=290).contains(&kbps(stats))).await;
    let followed = start.elapsed();
    sleep(Duration::from_secs(4)).await;

    const LOOKED: Duration = Duration::from_secs(12);
    let start = Instant::now();
    let key = ("lobby".into(), "ward".into());
    let before = tally.counts()[&key].shown;
    let mut lates = Vec::new();
    while start.elapsed() < LOOKED {
        sleep(Duration::from_millis(50)).await;
        let shown = |kiosk: &str| tally.number(&(kiosk.into(), "ward".into())).unwrap();
        lates.push(Duration::from_secs(1) * u32::from(shown("ward").wrapping_sub(shown("lobby"))) / RATE_HZ);
    }
    lates.sort();
    let fps = (tally.counts()[&key].shown - before) as f64 / start.elapsed().as_secs_f64();
    let stats = house.next("ward/stats").await;

    let (middle, latest) = (lates[lates.len() / 2], lates[lates.len() - 1]);
    eprintln!(
        "300 kbit/s: followed after {:.1} s; {fps:.1} fps, {} ms late in the middle, {} ms at most; {}",
        followed.as_secs_f64(),
        middle.as_millis(),
        latest.as_millis(),
        stats["layers"]
    );
    assert!(fps >= 5.0, "{fps} fps");
    assert!(middle <= Duration::from_millis(600), "{middle:?}");

    network.set(Conditions::default());
    let start = Instant::now();
    house.until("ward/stats", |stats| kbps(stats) == 800).await;
    eprintln!("the limit is gone: the full picture is back after {:.1} s", start.elapsed().as_secs_f64());
    house.close().await;
}

/// The layout with one large tile, and this member in it.
async fn spotlight(house: &House, id: &str, large: &str) {
    let members =
        ["lobby", "ward", "clinic", "desk"].map(|member| json!({ "openid": member, "pin": member == large }));
    house.desire(id, json!({ "room": "r", "members": members, "layout": "speaker" })).await;
}

/// Waits until the pictures that this kiosk gets are of these sizes.
async fn shows(house: &mut House, id: &str, wanted: [(&str, Size); 3]) {
    let size = |size: Size| json!([size.width, size.height]);
    let all =
        |stats: &Value| wanted.iter().all(|(member, wanted)| tile(stats, member)["size"] == size(*wanted));
    house.until(&format!("{id}/stats"), all).await;
}

/// Waits until this kiosk codes its picture in these sizes and no others.
async fn codes(house: &mut House, id: &str, sizes: Value) {
    let coded = |stats: &Value| -> Value {
        stats["layers"].as_array().into_iter().flatten().map(|layer| layer["size"].clone()).collect()
    };
    house.until(&format!("{id}/stats"), |stats| coded(stats) == sizes).await;
}

/// Counts what moves on the tiles of this kiosk.
async fn watch(house: &mut House, tally: &Tally, id: &str, kiosk: &Kiosk) {
    tally.watch(&parlor::room::message::MemberId::parse(id).unwrap(), &kiosk.simulation.glass);
    let live = |reported: &Value| {
        let tiles = reported["tiles"].as_array().into_iter().flatten();
        tiles.filter(|tile| tile["state"] == "live").count() == 2
    };
    let reported = house.until(&format!("{id}/reported"), live).await;
    for (member, area, fit) in reported["tiles"].as_array().into_iter().flatten().filter_map(place) {
        tally.place((id.to_owned(), member), (area, fit));
    }
}

fn tile<'a>(document: &'a Value, member: &str) -> &'a Value {
    let tiles = document["tiles"].as_array().into_iter().flatten();
    tiles.into_iter().find(|tile| tile["openid"] == member).unwrap_or(&Value::Null)
}

fn half() -> Size {
    Size::new(CAMERA.width / 2, CAMERA.height / 2)
}

fn configuration(house: &House, id: &str) -> Config {
    let mut config = house.configuration(id);
    let camera = Camera::upright(SIMULATED, CAMERA, RATE_HZ);
    config.cameras = BTreeMap::from([(Position::Front, camera)]);
    config.room.stats_interval = Duration::from_millis(500);
    config
}
