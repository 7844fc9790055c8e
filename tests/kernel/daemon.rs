//! The whole daemon on real devices: what the cameras see must be on the glass as the document demands.

use crate::bed::{
    self, COLOUR_BARS, COLOUR_SQUARES, HORIZONTAL_BARS, Picture, await_glass, control, display, pattern,
};
use crate::screen::text_is_shown;
use crate::support::{Client, LIMIT, Process, TempDir, text, within};
use parlor::device::Camera;
use parlor::device::camera::{Choice, open};
use parlor::geometry::{Fit, ONE_PIXEL, Rect, Size, place};
use parlor::media::canvas::Rgb;
use parlor::media::frame::Frame;
use parlor::sim::broker;
use serde_json::{Value, json};
use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::timeout;

type Source = (&'static str, &'static str, u32);

/// The front camera: position, node, and what it shows.
const FRONT: Source = ("front", "/dev/video0", COLOUR_SQUARES);
const FITS: [Fit; 3] = [Fit::Fill, Fit::Contain, Fit::Cover];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_cameras_are_on_the_glass_as_each_fit_demands() {
    let cameras = [FRONT, back()].map(|camera| (camera.0, reference(camera)));
    let mut kiosk = Kiosk::start().await;

    for (position, picture) in &cameras {
        for fit in FITS {
            // The front camera is seen as in a mirror, as people expect of it.
            let mirror = *position == "front";
            let area = kiosk.room(position, fit, mirror).await;

            let demand = Demand { picture, area, fit, mirror };
            await_glass(|glass| demand.judge(glass).map_err(|wrong| format!("{position}, {fit:?}: {wrong}")));
            // This test can fail: the same glass is wrong for the other fits and the other camera.
            let glass = Picture::of_glass();
            for other in FITS.into_iter().filter(|other| *other != fit) {
                Demand { fit: other, ..demand }.judge(&glass).expect_err("fits can be told apart");
            }
            for (_, other) in cameras.iter().filter(|(other, _)| other != position) {
                Demand { picture: other, ..demand }.judge(&glass).expect_err("cameras can be told apart");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unplugged_camera_is_said_and_back_without_help() {
    let picture = reference(FRONT);
    let mut kiosk = Kiosk::start().await;
    let area = kiosk.room("front", Fit::Cover, false).await;
    let demand = Demand { picture: &picture, area, fit: Fit::Cover, mirror: false };
    await_glass(|glass| demand.judge(glass));

    control(FRONT.1, "disconnect=1");

    let said = kiosk.message("lobby/fault/camera-front", |said| said["code"] == "CAMERA_GONE").await;
    assert_eq!(said["cause"]["op"].as_str().map(str::is_empty), Some(false), "{said}");
    kiosk.message("lobby/fault/camera-front", Value::is_null).await;
    await_glass(|glass| demand.judge(glass));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_is_open_in_a_room_and_at_no_other_time() {
    let mut kiosk = Kiosk::start().await;
    kiosk.message("lobby/reported", |reported| reported["tiles"] == json!([])).await;
    assert_eq!(kiosk.open_cameras(), [""; 0]);

    for document in [r#"{"room":"test","members":["ward"]}"#, ""] {
        kiosk.room("front", Fit::Fill, false).await;
        assert_eq!(kiosk.open_cameras(), [FRONT.1]);

        kiosk.controller.publish("lobby/desired", true, document).await;
        kiosk.message("lobby/reported", |reported| reported["tiles"] == json!([])).await;
        let start = Instant::now();
        while !kiosk.open_cameras().is_empty() {
            assert!(start.elapsed() < LIMIT, "{document:?}: {:?} is still open", kiosk.open_cameras());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_told_to_stop_gives_the_console_back() {
    let mut kiosk = Kiosk::start().await;
    kiosk.room("front", Fit::Fill, false).await;

    let id = kiosk.daemon.0.id().to_string();
    let told = Command::new("kill").arg(&id).status().expect("kill is there");
    assert!(told.success());

    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = kiosk.daemon.0.try_wait().expect("it is our child") {
            break status;
        }
        assert!(Instant::now() < deadline, "the daemon does not end");
        std::thread::yield_now();
    };
    assert!(status.success(), "{status}");
    text_is_shown();
}

/// A daemon on this machine's devices, and a controller that talks to it.
struct Kiosk {
    daemon: Process,
    controller: Client,
    _configuration: TempDir,
}

impl Kiosk {
    async fn start() -> Self {
        let broker = broker::start(0).expect("a broker");
        let mut controller = Client::connect(broker.port, "controller").await;
        for topic in ["lobby/reported", "lobby/fault/+"] {
            controller.subscribe(topic).await;
        }
        let configuration = TempDir::new("kiosk");
        let camera = |(position, device, _): Source| {
            let Size { width, height } = camera_size();
            format!(
                "camera.{position} = {{ device = '{device}', width = {width}, height = {height}, rate_hz = 10 }}\n"
            )
        };
        let text = format!(
            "id = 'lobby'\nbroker.address = '127.0.0.1:{}'\nlink.bind = ['127.0.0.1:0']\n\
             screen = {{ device = '/dev/fb0', flip = {} }}\n{}{}",
            broker.port,
            display() == "cirrusfb",
            camera(FRONT),
            camera(back()),
        );
        let file = configuration.write("kiosk.toml", &text);
        let program =
            std::env::var_os("PARLOR_DAEMON").expect("these tests are run by board/testbed/test-kernel");
        let log =
            File::options().create(true).append(true).open(bed::out().join("daemon.log")).expect("a log");
        let daemon = Process::start(Command::new(program).arg("run").arg("--config").arg(file).stderr(log));
        Self { daemon, controller, _configuration: configuration }
    }

    /// The camera nodes among the daemon's open files.
    fn open_cameras(&self) -> Vec<String> {
        let files =
            std::fs::read_dir(format!("/proc/{}/fd", self.daemon.0.id())).expect("its files").flatten();
        let files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let files = files.map(|file| file.to_string_lossy().into_owned());
        files.filter(|file| file.starts_with("/dev/video")).collect()
    }

    /// Makes a room of the kiosk alone, and answers where its tile lies once that is live.
    async fn room(&mut self, position: &str, fit: Fit, mirror: bool) -> Rect {
        let rev = format!("{position}-{fit:?}");
        let member =
            json!({"openid": "lobby", "device-position": position, "object-fit": fit, "mirror": mirror});
        let document = json!({"rev": rev, "room": "test", "members": [member]});
        self.controller.publish("lobby/desired", true, &document.to_string()).await;
        let reported = self
            .message("lobby/reported", |reported| {
                let tile = &reported["tiles"][0];
                reported["rev"] == *rev && tile["state"] == "live" && tile["device-position"] == position
            })
            .await;
        let area = &reported["tiles"][0]["area"];
        let [x, y, width, height] =
            [0, 1, 2, 3].map(|index| area[index].as_u64().expect("four numbers") as u32);
        Rect::new(x, y, width, height)
    }

    /// Waits for a message below the topic; an empty one is null.
    async fn message(&mut self, topic: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        within(topic, async {
            loop {
                let Ok(message) = timeout(Duration::from_secs(1), self.controller.next()).await else {
                    let ended = self.daemon.0.try_wait().expect("it is our child");
                    assert_eq!(ended, None, "the daemon ended; see daemon.log in {}", bed::out().display());
                    continue;
                };
                let message = text(&message);
                let (under, payload) = message.split_once(' ').expect("topic and payload");
                let payload = serde_json::from_str(payload).unwrap_or(Value::Null);
                if under == topic && wanted(&payload) {
                    return payload;
                }
            }
        })
        .await
    }
}

/// The back camera. Its bars lie across the direction in which `cover` cuts on this screen.
fn back() -> Source {
    let bars = if display() == "bochs" { HORIZONTAL_BARS } else { COLOUR_BARS };
    ("back", "/dev/video1", bars)
}

/// Another aspect ratio than the screen's, so that each fit looks different.
fn camera_size() -> Size {
    match display().as_str() {
        "bochs" => Size::new(640, 480),
        _ => Size::new(640, 360),
    }
}

/// A picture of the camera, taken before the daemon has it.
fn reference((_, node, shown): Source) -> Frame {
    pattern(node, shown);
    let mut camera = open(&Choice { device: node.into(), size: camera_size(), rate_hz: 10 }).expect(node);
    let mut frame = Frame::new(camera_size());
    // The first ones were filled before the pattern was set.
    for _ in 0..6 {
        camera.capture(&mut frame).expect("a picture");
    }
    assert_eq!(frame.size(), camera_size());
    frame
}

/// What a document demands of the glass: this picture in this area.
#[derive(Clone, Copy)]
struct Demand<'a> {
    picture: &'a Frame,
    area: Rect,
    fit: Fit,
    mirror: bool,
}

impl Demand<'_> {
    /// Compares the area on the glass with the picture placed as CSS `object-fit` says; one pixel in a hundred may be
    /// wrong. Not looked at are pixels near an edge of the picture's colours, where the filter decides, and the foot of
    /// the tile, where the name is.
    fn judge(&self, glass: &Picture) -> Result<(), String> {
        let placement = place(self.picture.size(), self.area, self.fit).expect("neither is empty");
        let (target, source) = (placement.target, placement.source);
        let name = self.area.height / 6;
        // In the corner stands that the camera is live.
        let corner = Rect::new(0, 0, self.area.height / 5, self.area.height / 8);
        let (mut seen, mut wrong, mut first) = (0, 0, None);
        for y in self.area.y..self.area.bottom() - name {
            for x in self.area.x..self.area.right() {
                if corner.contains(Rect::new(x, y, 1, 1)) {
                    continue;
                }
                let found = glass.at(x, y);
                let wanted = if target.contains(Rect::new(x, y, 1, 1)) {
                    let across = if self.mirror { target.right() - 1 - x } else { x - target.x };
                    let column = middle(source.x, source.width, across, target.width);
                    let row = middle(source.y, source.height, y - target.y, target.height);
                    flat_colour(self.picture, column, row)
                } else {
                    Some(if is_dark(found) { found } else { Rgb::BLACK })
                };
                let Some(wanted) = wanted else { continue };
                seen += 1;
                if !alike(found, wanted) {
                    wrong += 1;
                    first.get_or_insert((x, y, found, wanted));
                }
            }
        }
        assert!(seen as u64 > self.area.size().area() / 2, "too little can be judged: {seen} pixels");
        match first {
            Some((x, y, found, wanted)) if wrong * 100 > seen => Err(format!(
                "{wrong} of {seen} pixels are wrong, the first at {x},{y}: {found:?} and not {wanted:?}"
            )),
            _ => Ok(()),
        }
    }
}

/// The pixel of the picture under the middle of the `index`-th of `count` pixels that share a cut of it.
fn middle(start: u32, length: u32, index: u32, count: u32) -> usize {
    let at = start as u64 + length as u64 * (2 * index as u64 + 1) / (2 * count as u64);
    (at / ONE_PIXEL as u64) as usize
}

/// The colour of a picture where it is the same all around; BT.601, limited range, as vivid delivers.
fn flat_colour(frame: &Frame, column: usize, row: usize) -> Option<Rgb> {
    let (width, height) = (frame.size().width as usize, frame.size().height as usize);
    let [luma, blue, red] = frame.planes();
    let samples = |x: usize, y: usize| {
        let chroma = y / 2 * (width / 2) + x / 2;
        [luma[y * width + x], blue[chroma], red[chroma]]
    };
    let here = samples(column, row);
    let (left, right) = (column.saturating_sub(3), (column + 3).min(width - 1));
    let (top, bottom) = (row.saturating_sub(3), (row + 3).min(height - 1));
    let corners =
        [(left, top), (right, top), (left, bottom), (right, bottom), (column, top), (column, bottom)];
    let flat = corners.iter().all(|&(x, y)| samples(x, y).iter().zip(here).all(|(a, b)| a.abs_diff(b) <= 2));
    let [y, u, v] = here.map(f64::from);
    let (y, u, v) = (1.164 * (y - 16.0), u - 128.0, v - 128.0);
    let colour = Rgb::new((y + 1.596 * v) as u8, (y - 0.392 * u - 0.813 * v) as u8, (y + 2.017 * u) as u8);
    flat.then_some(colour)
}

/// Whether it may be the ground beside a picture, whichever dark colour the house has for it.
fn is_dark(colour: Rgb) -> bool {
    colour.red.max(colour.green).max(colour.blue) <= 40
}

fn alike(one: Rgb, other: Rgb) -> bool {
    let near = |one: u8, other: u8| one.abs_diff(other) <= 8;
    near(one.red, other.red) && near(one.green, other.green) && near(one.blue, other.blue)
}
