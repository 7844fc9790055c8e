//! Two whole kiosks in a call over a bad network: how many new pictures a second stay on the glass, and how soon they
//! are back. One case at a time: they measure.

#[path = "endpoint/house.rs"]
mod house;

use house::{House, Kiosk};
use parlor::config::{Camera, Config, SIMULATED};
use parlor::demo::place;
use parlor::demo::tally::{Key, Tally};
use parlor::geometry::Size;
use parlor::room::Position;
use parlor::sim::network::{Conditions, Network};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

const CAMERA: Size = Size { width: 640, height: 480 };
const MEMBERS: [&str; 2] = ["lobby", "ward"];
/// Far more than anything here takes; these machines are shared.
const LIMIT: Duration = Duration::from_secs(30);
/// So hard to code that a picture is of several packets.
const GRAIN: u8 = 16;
/// A picture counts as moving again when it has moved so fast for as long as [`MOVING_FOR`].
const MOVING_FPS: f64 = 20.0;
const MOVING_FOR: Duration = Duration::from_millis(500);

static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_go_on_while_packets_are_lost() {
    let call = Call::open(1).await;
    for (loss_percent, at_least) in [(0, 25.0), (2, 20.0), (5, 20.0), (10, 20.0), (20, 1.0)] {
        call.network.set(Conditions { loss_percent, ..Default::default() });

        let before = call.network.carried();
        let slowest = call.slowest(Duration::from_secs(10)).await;

        let carried = (call.network.carried() - before) / 20;
        eprintln!("{loss_percent} % lost: {slowest:.1} fps, {carried} datagrams a second each way");
        assert!(slowest >= at_least, "{loss_percent} % lost: {slowest} fps");
    }

    let healed = call.healed().await;
    eprintln!("20 % are lost no more: back after {:.1} s", healed.as_secs_f64());
    assert!(healed <= Duration::from_secs(3), "{healed:?}");
    call.close(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_overtaken_packets_cost_neither_pictures_nor_sound() {
    let mut call = Call::open(2).await;
    call.kiosks[1].hum(1000.0, 0.25);
    let late = Conditions {
        delay: Duration::from_millis(100),
        jitter: Duration::from_millis(30),
        reordered_percent: 2,
        ..Default::default()
    };
    call.network.set(late);
    // The jitter buffer learns how late sound comes.
    sleep(Duration::from_secs(2)).await;
    let before = call.sound().await;

    let slowest = call.slowest(Duration::from_secs(8)).await;

    let after = call.sound().await;
    let (received, concealed) = (after.0 - before.0, after.1 - before.1);
    eprintln!("100 ms ± 30 ms, 2 % overtaken: {slowest:.1} fps, {concealed} of {received} sounds concealed");
    assert!(slowest >= 25.0, "{slowest} fps");
    assert!(received >= 300 && concealed * 50 <= received, "{concealed} of {received}");

    // What is lost takes a fifth of a second to come again.
    call.network.set(Conditions { loss_percent: 5, ..late });
    let slowest = call.slowest(Duration::from_secs(8)).await;
    eprintln!("100 ms ± 30 ms, 2 % overtaken, 5 % lost: {slowest:.1} fps");
    assert!(slowest >= 20.0, "{slowest} fps");
    call.close(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_seconds_without_a_network_the_same_call_goes_on() {
    let call = Call::open(3).await;
    call.network.set(Conditions { cut: true, ..Default::default() });
    sleep(Duration::from_secs(5)).await;
    call.network.set(Conditions::default());

    let healed = call.healed().await;

    eprintln!("cut for 5 s: back after {:.1} s", healed.as_secs_f64());
    assert!(healed <= Duration::from_secs(3), "{healed:?}");
    call.close(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_address_in_the_middle_of_a_call_is_found() {
    let call = Call::open(4).await;

    call.network.change_address();

    call.stops().await;
    let healed = call.healed().await;
    eprintln!("another address: back after {:.1} s", healed.as_secs_f64());
    assert!(healed <= Duration::from_secs(5), "{healed:?}");
    call.close(1).await;
}

/// Lobby, on the bad network, and ward, on a good one.
struct Call {
    house: House,
    kiosks: [Kiosk; 2],
    network: Network,
    tally: Tally,
    _alone: MutexGuard<'static, ()>,
}

impl Call {
    /// Both tiles of both move.
    async fn open(seed: u64) -> Self {
        let alone = ALONE.lock().await;
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        }
        let mut house = House::open().await;
        let network = Network::new(seed);
        let (lobby, ward) = (configuration(&house, "lobby"), configuration(&house, "ward"));
        let lobby = house.kiosk_on(lobby, network.clone()).await;
        let ward = house.kiosk_on(ward, Network::new(seed + 1)).await;
        let kiosks = [lobby, ward];
        let tally = Tally::new(CAMERA);
        for (id, kiosk) in MEMBERS.iter().zip(&kiosks) {
            house.desire(id, json!({ "room": "r", "members": MEMBERS })).await;
            kiosk.simulation.front.set_grain(GRAIN);
            tally.watch(&configuration(&house, id).id, &kiosk.simulation.glass);
        }
        for id in MEMBERS {
            let live = |tile: &Value| tile["state"] == "live";
            let all = |tiles: &Vec<Value>| tiles.len() == 2 && tiles.iter().all(live);
            let reported = house
                .until(&format!("{id}/reported"), |reported| reported["tiles"].as_array().is_some_and(all))
                .await;
            for (member, area, fit) in reported["tiles"].as_array().into_iter().flatten().filter_map(place) {
                tally.place((id.to_owned(), member), (area, fit));
            }
        }
        let call = Self { house, kiosks, network, tally, _alone: alone };
        call.healed().await;
        call
    }

    /// New pictures a second on the slowest tile that shows somebody else, over the next `time`.
    async fn slowest(&self, time: Duration) -> f64 {
        sleep(time).await;
        self.now(time)
    }

    fn now(&self, time: Duration) -> f64 {
        far().map(|key| self.tally.fps(&key, time)).fold(f64::MAX, f64::min)
    }

    /// How long it takes from now on until all moves.
    async fn healed(&self) -> Duration {
        let start = Instant::now();
        loop {
            sleep(MOVING_FOR / 10).await;
            let passed = start.elapsed();
            if passed >= MOVING_FOR && self.now(MOVING_FOR) >= MOVING_FPS {
                return passed - MOVING_FOR;
            }
            assert!(passed < LIMIT, "{} fps", self.now(MOVING_FOR));
        }
    }

    /// Waits until a picture stands still.
    async fn stops(&self) {
        let start = Instant::now();
        while self.now(MOVING_FOR) > 0.0 {
            assert!(start.elapsed() < LIMIT, "it goes on");
            sleep(MOVING_FOR / 10).await;
        }
    }

    /// Packets of ward's sound that lobby has received, and moments that had to be guessed.
    async fn sound(&mut self) -> (u64, u64) {
        self.house.listen();
        let stats = self.house.next("lobby/stats").await;
        let sound = &stats["tiles"][1]["sound"];
        let count = |name: &str| sound[name].as_u64().expect("a count");
        (count("received"), count("concealed"))
    }

    /// Ends the kiosks; the call was to be of so many sessions.
    async fn close(mut self, sessions: usize) {
        let mut offers: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for offer in self.house.offers() {
            let session = offer["session"].as_str().expect("a session").to_owned();
            offers.entry(session).or_default().extend(offer["seq"].as_u64());
        }
        let restarts = offers.values().map(|offers| offers.len() - 1).sum::<usize>();
        eprintln!(
            "  {} sessions, {restarts} restarts of ICE, {} datagrams lost",
            offers.len(),
            self.network.lost()
        );
        assert_eq!(offers.len(), sessions, "{offers:?}");
        self.house.close().await;
    }
}

/// The tiles that show the other kiosk.
fn far() -> impl Iterator<Item = Key> {
    [("lobby", "ward"), ("ward", "lobby")].map(|(kiosk, member)| (kiosk.into(), member.into())).into_iter()
}

fn configuration(house: &House, id: &str) -> Config {
    let mut config = house.configuration(id);
    let camera = Camera::upright(SIMULATED, CAMERA, 30);
    config.cameras = BTreeMap::from([(Position::Front, camera)]);
    config.room.stats_interval = Duration::from_millis(500);
    config
}
