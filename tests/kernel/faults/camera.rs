//! Cameras: unplugged, taken by others, silent, broken, fed with rubbish, absent.

use super::case::{Case, row, seconds};
use super::{BACK, BACK_WITHIN, FRONT, WARDS, patterns};
use crate::bed::{BLUE, GREEN, PATIENCE, RED, control};
use crate::camera::jpeg_of;
use crate::house::{House, tile};
use parlor::device::camera::{Choice, open};
use parlor::geometry::Size;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use v4l::video::Output;

const CAMERA: &str = "camera-front";
const LOOPBACK: &str = "camera-back";
const SIZE: Size = Size::new(320, 180);
const CYCLES: usize = 20;
/// What memory may differ by without cause; a camera's buffers that stay mapped make 7 MiB of twenty.
const NOISE_KIB: u64 = 4 * 1024;
/// What is made once is made in these: arenas of the allocator, mostly.
const FIRST_CYCLES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_fails_is_said_with_its_cause_and_heals_while_the_others_go_on() {
    patterns();
    let mut house = House::start().await;
    house.lobby();
    house.ward();
    house.show("lobby", "front").await;
    house.show("ward", "front").await;
    house.all_well("front").await;

    let mut case = Case::new(&mut house, CAMERA, "camera unplugged", "vivid `disconnect`").await;
    control(FRONT, "disconnect=1");
    case.is_said("CAMERA_GONE").await;
    case.heals().await;

    let mut case =
        Case::new(&mut house, CAMERA, "camera breaks", "vivid `inject_fatal_streaming_error`").await;
    control(FRONT, "inject_fatal_streaming_error=1");
    case.is_said("CAMERA_GONE").await;
    case.heals().await;

    let mut case =
        Case::new(&mut house, CAMERA, "camera takes no buffer", "vivid `inject_vidioc_qbuf_error`").await;
    control(FRONT, "inject_vidioc_qbuf_error=1");
    case.is_said("CAMERA_GONE").await;
    case.heals().await;

    let how = "vivid `percentage_of_dropped_buffers` 100, then 0";
    let mut case = Case::new(&mut house, CAMERA, "camera open but silent", how).await;
    control(FRONT, "percentage_of_dropped_buffers=100");
    case.is_said("CAMERA_STALLED").await;
    control(FRONT, "percentage_of_dropped_buffers=0");
    case.can_heal();
    case.heals().await;

    house.desire("lobby", "front", json!({ "camera": true })).await;
    let paused = |house: &House| tile(house.now("lobby/reported"), "lobby")["state"] == "paused";
    house.until("lobby lets the camera go", paused).await;
    let mut other = open(&Choice { device: FRONT.into(), size: SIZE, rate_hz: 5 });
    house
        .until("the camera is free", |_| {
            if other.is_err() {
                other = open(&Choice { device: FRONT.into(), size: SIZE, rate_hz: 5 });
            }
            other.is_ok()
        })
        .await;
    let mut case = Case::new(&mut house, CAMERA, "camera busy", "another process streams").await;
    case.house().show("lobby", "front").await;
    case.is_said("CAMERA_BUSY").await;
    drop(other);
    case.can_heal();
    case.heals().await;
    assert!(house.shows("lobby", RED), "lobby's own picture is on the glass");

    // vivid's unbind takes both cameras, so ward shows the one that is not the kernel's.
    house.show("ward", "back").await;
    house.until("ward shows another", |house| !house.shows("ward", BLUE)).await;
    house.all_well("front").await;
    let mut case =
        Case::new(&mut house, CAMERA, "camera's driver taken away", "vivid unbound, then bound (sysfs)")
            .await;
    driver("unbind");
    case.is_said("CAMERA_GONE").await;
    case.is_said("CAMERA_NOT_FOUND").await;
    driver("bind");
    patterns();
    case.can_heal();
    case.heals().await;
    house.until("lobby's own picture is on the glass", |house| house.shows("lobby", RED)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_is_absent_or_sends_rubbish_is_said_and_shown_once_it_is_good() {
    patterns();
    let mut house = House::start().await;
    unplug(&mut house).await;
    house.lobby();
    house.ward();
    house
        .until("both have started", |house| {
            ["lobby", "ward"].iter().all(|id| house.now(&format!("{id}/state"))["state"] == "online")
        })
        .await;

    let good = jpeg_of([0, 255, 0]);
    let mut case = Case::new(&mut house, LOOPBACK, "camera absent at start", "v4l2loopback created later")
        .await
        .hits_all();
    case.house().show("ward", "front").await;
    case.house().show("lobby", "back").await;
    case.is_said("CAMERA_NOT_FOUND").await;
    plug();
    let feeder = Feeder::start(*b"MJPG", good.clone());
    case.can_heal();
    case.heals().await;
    house.all_well("back").await;
    house.until("it is on the glass", |house| house.shows("lobby", GREEN)).await;

    let mut case =
        Case::new(&mut house, LOOPBACK, "camera sends rubbish", "v4l2loopback fed with damaged MJPG").await;
    feeder.feed(vec![0xff; good.len()]);
    case.is_said("CAMERA_BAD_FRAME").await;
    feeder.feed(good.clone());
    case.can_heal();
    case.heals().await;

    let mut case =
        Case::new(&mut house, LOOPBACK, "camera deleted", "v4l2loopback silent, deleted, created again")
            .await;
    feeder.feed(Vec::new());
    case.is_said("CAMERA_STALLED").await;
    drop(feeder);
    unplug(case.house()).await;
    case.is_said("CAMERA_NOT_FOUND").await;
    plug();
    let feeder = Feeder::start(*b"MJPG", good.clone());
    case.can_heal();
    case.heals().await;
    drop(feeder);

    house.until("its end is said", |house| !house.faults().is_empty()).await;
    unplug(&mut house).await;
    house.show("lobby", "front").await;
    house.all_well("front").await;
    let mut case =
        Case::new(&mut house, LOOPBACK, "switch to a camera that is gone", "`device-position` back, no node")
            .await;
    case.house().show("lobby", "back").await;
    case.is_said("CAMERA_NOT_FOUND").await;
    let old = |house: &House| {
        let own = tile(house.now("lobby/reported"), "lobby");
        own["state"] == "live" && own["device-position"] == "front"
    };
    case.is_back_when(|house| old(house) && house.shows("lobby", RED)).await;
    case.house().show("lobby", "front").await;
    case.ends().await;

    plug();
    let feeder = Feeder::start(*b"GREY", vec![128; SIZE.area() as usize]);
    let mut case =
        Case::new(&mut house, LOOPBACK, "no usable format", "v4l2loopback fed with GREY, then MJPG").await;
    case.house().show("lobby", "back").await;
    case.is_said("CAMERA_FORMAT").await;
    drop(feeder);
    unplug(case.house()).await;
    plug();
    let _feeder = Feeder::start(*b"MJPG", good.clone());
    case.house().show("lobby", "front").await;
    case.house().show("lobby", "back").await;
    case.can_heal();
    case.heals().await;
    house.until("it is on the glass", |house| house.shows("lobby", GREEN)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_unplugged_cameras_leave_no_trace() {
    patterns();
    let mut house = House::start().await;
    house.lobby();
    house.show("lobby", "front").await;
    house.all_well("front").await;
    for _ in 0..FIRST_CYCLES {
        cycle(&mut house).await;
    }
    let before = Trace::of(&house);

    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..CYCLES {
        longest = longest.max(cycle(&mut house).await);
    }
    let each = began.elapsed() / CYCLES as u32;
    let settled = |house: &House| house.faults().is_empty() && Trace::of(house).ends == before.ends;
    house.until("files and threads are as before", settled).await;

    let after = Trace::of(&house);
    assert!(after.rss_kib <= before.rss_kib + NOISE_KIB, "{before:?}, then {after:?}");
    assert!(longest <= BACK_WITHIN, "back after {longest:?}");
    let ((files, threads), (more_files, more_threads)) = (before.ends, after.ends);
    let what = format!(
        "files {files} → {more_files}, threads {threads} → {more_threads}, RSS {} → {} KiB",
        before.rss_kib, after.rss_kib
    );
    let how = format!("vivid `disconnect` 20 times, one in {}", seconds(each));
    row(["camera unplugged 20 times", &how, &what, "–", &format!("at most {}", seconds(longest)), "–"]);
    house.until("lobby's own picture is on the glass", |house| house.shows("lobby", RED)).await;
}

/// Unplugs the camera and waits until it is live again; answers how long that took.
async fn cycle(house: &mut House) -> Duration {
    let began = Instant::now();
    control(FRONT, "disconnect=1");
    house.until("it is missed", |house| !house.is_live("lobby")).await;
    house.until("it is back", |house| house.is_live("lobby")).await;
    began.elapsed()
}

/// What a process holds.
#[derive(Debug)]
struct Trace {
    /// Open files, and threads.
    ends: (usize, usize),
    rss_kib: u64,
}

impl Trace {
    fn of(house: &House) -> Self {
        let (_, process, _) = house.kiosks.first().expect("lobby");
        let of_process = format!("/proc/{}", process.0.id());
        let count = |folder| fs::read_dir(format!("{of_process}/{folder}")).expect("it lives").count();
        let status = fs::read_to_string(format!("{of_process}/status")).expect("it lives");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let rss_kib = rss.trim().trim_end_matches(" kB").parse().expect("a number");
        Self { ends: (count("fd"), count("task")), rss_kib }
    }
}

/// Writes pictures into v4l2loopback, five a second, on a thread of its own.
struct Feeder {
    /// What is written; nothing if empty.
    picture: Arc<Mutex<Vec<u8>>>,
    /// Dropped, it ends the thread.
    alive: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Feeder {
    /// Makes the node a camera of this format. The first picture is there when it returns.
    fn start(fourcc: [u8; 4], picture: Vec<u8>) -> Self {
        let mut node = v4l::Device::with_path(BACK).expect("v4l2loopback");
        let format = v4l::Format::new(SIZE.width, SIZE.height, v4l::FourCC::new(&fourcc));
        let granted = node.set_format(&format).expect("a camera of this format");
        assert_eq!(granted.fourcc.repr, fourcc);
        node.write_all(&picture).expect("the first picture");
        let (alive, ended) = mpsc::channel();
        let picture = Arc::new(Mutex::new(picture));
        let fed = picture.clone();
        let thread = std::thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(200)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let picture = fed.lock().expect("nobody panics").clone();
                if !picture.is_empty() {
                    node.write_all(&picture).expect("a picture");
                }
            }
        });
        Self { picture, alive: Some(alive), thread: Some(thread) }
    }

    fn feed(&self, picture: Vec<u8>) {
        *self.picture.lock().expect("nobody panics") = picture;
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.alive = None;
        let ended = self.thread.take().expect("it is joined once").join();
        if !std::thread::panicking() {
            ended.expect("all was written");
        }
    }
}

/// Creates the node of v4l2loopback, as `board/testbed/test-kernel` does.
fn plug() {
    assert!(modprobe(&["v4l2loopback", "video_nr=20", "card_label=TestJpeg", "exclusive_caps=1"]));
    let deadline = Instant::now() + PATIENCE;
    while !fs::exists(BACK).expect("readable") {
        assert!(Instant::now() < deadline, "{BACK} does not appear");
        std::thread::yield_now();
    }
}

/// Deletes it as soon as nobody has it open: the kernel lets nobody delete it before.
async fn unplug(house: &mut House) {
    house.until("v4l2loopback is free", |_| modprobe(&["-r", "v4l2loopback"])).await;
}

fn modprobe(arguments: &[&str]) -> bool {
    Command::new("modprobe").args(arguments).output().expect("modprobe is there").status.success()
}

/// `unbind` or `bind`: both cameras of vivid are one device.
fn driver(act: &str) {
    fs::write(format!("/sys/bus/platform/drivers/vivid/{act}"), "vivid.0").expect(act);
    let there = act == "bind";
    assert_eq!([FRONT, WARDS].map(|node| fs::exists(node).expect("readable")), [there; 2]);
}
