//! The network: pictures that are lost and late, and none at all.

use super::case::{row, seconds};
use super::{WARDS, patterns};
use crate::bed::{BLUE, GREEN, RED, pattern};
use crate::house::{House, Said};
use std::process::Command;
use std::time::{Duration, Instant};

const BAD: &[&str] = &["loss", "10%", "delay", "100ms"];
const BAD_FOR: Duration = Duration::from_secs(20);
const CUT: &[&str] = &["loss", "100%"];
const CUT_FOR: Duration = Duration::from_secs(5);
/// How soon a tile says that nothing comes, and how soon a picture is back: 3 s, five times.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_keep_coming_over_a_bad_network_and_come_back_after_none() {
    patterns();
    let mut house = House::start().await;
    house.lobby();
    house.ward();
    house.show("lobby", "front").await;
    house.show("ward", "front").await;
    house.all_well("front").await;
    house.until("ward is seen", |house| house.shows("ward", BLUE)).await;

    let network = Netem::start(BAD);
    house.said.clear();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for colour in [GREEN, RED, BLUE].into_iter().cycle() {
        let changed = Instant::now();
        pattern(WARDS, colour);
        house.until("ward's new colour", |house| house.shows("ward", colour)).await;
        longest = longest.max(changed.elapsed());
        house.listen(Duration::from_secs(1)).await;
        if began.elapsed() >= BAD_FOR {
            break;
        }
    }
    assert!(longest <= LIMIT, "a new colour is seen after {longest:?}");
    let lost = house.said.iter().filter(|said| is_error(said, "PEER_LOST")).count();
    assert_eq!(lost, 0, "the call goes on");
    let seen = format!("each new picture seen within {}", seconds(longest));
    row(["pictures lost and late", "netem on UDP: 10 % loss, 100 ms delay, 20 s", "–", "–", &seen, "–"]);
    network.set(&["loss", "0%"]);
    pattern(WARDS, BLUE);
    house.until("ward's own colour", |house| house.shows("ward", BLUE)).await;
    // What stalled under way is heard of by then.
    house.listen(Duration::from_secs(2)).await;
    house.all_well("front").await;

    house.said.clear();
    let began = Instant::now();
    network.set(CUT);
    house.until("the tile says so", |house| !house.is_live("ward")).await;
    let said = began.elapsed();
    pattern(WARDS, GREEN);
    house.listen(CUT_FOR.saturating_sub(began.elapsed())).await;
    network.set(&["loss", "0%"]);
    let healed = Instant::now();
    house.until("ward is seen again", |house| house.is_live("ward") && house.shows("ward", GREEN)).await;
    let healed = healed.elapsed();

    assert!(said <= LIMIT, "said after {said:?}");
    assert!(healed <= LIMIT, "back after {healed:?}");
    house.all_well("front").await;
    let mut codes: Vec<_> = house.said.iter().filter(|said| said.topic == "lobby/error").collect();
    codes.retain(|said| said.payload["active"] == true);
    let codes: Vec<_> = codes.iter().filter_map(|said| said.payload["code"].as_str()).collect();
    assert!(codes.iter().any(|code| ["TILE_STALLED", "PEER_LOST"].contains(code)), "{codes:?}");
    let how = "netem on UDP: all lost for 5 s";
    row(["network cut", how, &codes.join(", "), &seconds(said), &seconds(healed), "–"]);
}

fn is_error(said: &Said, code: &str) -> bool {
    said.topic.ends_with("/error") && said.payload["code"] == code
}

/// What the kernel does to UDP on lo; nothing to TCP, and so to the broker. Dropped, all is as before.
struct Netem;

impl Netem {
    fn start(what: &[&str]) -> Self {
        // All goes to the first band but UDP, which a filter sends to the fourth.
        let bands = "qdisc add dev lo root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
        tc(&bands.split(' ').collect::<Vec<_>>());
        let netem = Self;
        tc(&[&["qdisc", "add", "dev", "lo", "parent", "1:4", "handle", "40:", "netem"], what].concat());
        let udp = "filter add dev lo parent 1: protocol ip u32 match ip protocol 17 0xff flowid 1:4";
        tc(&udp.split(' ').collect::<Vec<_>>());
        netem
    }

    fn set(&self, what: &[&str]) {
        tc(&[&["qdisc", "change", "dev", "lo", "parent", "1:4", "handle", "40:", "netem"], what].concat());
    }
}

impl Drop for Netem {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "root"]).status();
    }
}

fn tc(arguments: &[&str]) {
    let done = Command::new("tc").args(arguments).output().expect("tc is there (iproute2)");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
