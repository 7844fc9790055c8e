//! Two connections in one process over real UDP on the loopback: pictures, keyframes, losses, hostile signals, ends.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use openh264::encoder::{BitRate, Encoder, EncoderConfig, FrameRate, FrameType, RateControlMode, UsageType};
use openh264::formats::YUVBuffer;
use parlor::link::peer::{Peer, Report, Settings};
use parlor::media::Packet;
use parlor::room::{PeerEvent, Role};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{interval, timeout};

/// Generous: only a hang fails by it.
const LIMIT: Duration = Duration::from_secs(30);
/// An offer of Chromium 156 with a microphone and a camera, as it was recorded.
const CHROMIUM: &str = include_str!("offers/chromium.sdp");
/// One test at a time: one of them counts the descriptors of the process.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn pictures_arrive_bit_exact_both_ways() {
    let _alone = ALONE.lock().await;
    let (mut left, mut right) = connect(None).await;
    let (mut camera_left, mut camera_right) = (Camera::new(1), Camera::new(2));

    for _ in 0..60 {
        let (to_right, to_left) = (camera_left.shoot(), camera_right.shoot());
        assert!(left.peer.send(&to_right));
        assert!(right.peer.send(&to_left));

        assert_eq!(right.unit().await, *to_right);
        assert_eq!(left.unit().await, *to_left);
    }
    left.peer.close().await;
    right.peer.close().await;
}

#[tokio::test]
async fn who_connects_is_given_a_keyframe_first() {
    let _alone = ALONE.lock().await;
    let (mut left, mut right) = connect(None).await;
    let mut camera = Camera::new(3);
    let (keyframe, delta, delta_after) = (camera.shoot(), camera.shoot(), camera.shoot());

    left.keyframe_wanted().await;
    assert!(!left.peer.send(&delta), "a delta picture alone cannot be decoded");
    assert!(left.peer.send(&keyframe));
    assert!(left.peer.send(&delta_after));

    assert_eq!(right.unit().await, *keyframe);
    assert_eq!(right.unit().await, *delta_after);
}

#[tokio::test]
async fn a_request_for_a_keyframe_reaches_the_sender() {
    let _alone = ALONE.lock().await;
    let (mut left, mut right) = connect(None).await;
    // Both sides have their first keyframe: nobody asks by himself any more.
    let keyframe = Camera::new(4).shoot();
    left.peer.send(&keyframe);
    right.unit().await;
    right.peer.send(&keyframe);
    left.unit().await;
    left.wants_keyframe();

    right.peer.ask_for_keyframe();

    left.keyframe_wanted().await;
}

#[tokio::test]
async fn a_sink_without_room_gets_nothing_until_the_next_keyframe() {
    let _alone = ALONE.lock().await;
    let (mut left, mut right) = connect(None).await;
    let mut camera = Camera::new(5);
    let units: Vec<_> = (0..=Side::ROOM).map(|_| camera.shoot()).collect();
    for unit in &units {
        while !left.peer.send(unit) {
            tokio::task::yield_now().await;
        }
        // One at a time, so that it is the sink that has no room.
        timeout(LIMIT, right.offered.acquire()).await.unwrap().unwrap().forget();
    }
    left.wants_keyframe();

    left.keyframe_wanted().await;
    for unit in &units[..Side::ROOM] {
        assert_eq!(right.unit().await, **unit);
    }
    let keyframe = camera.keyframe();
    left.peer.send(&keyframe);

    assert_eq!(right.unit().await, *keyframe);
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_to_the_next_keyframe() {
    let _alone = ALONE.lock().await;
    let (left, mut right) = connect(None).await;
    let mut camera = Camera::new(8);
    // This runtime has one thread: nothing is taken out of the queue between these lines.
    let fitting = (0..).take_while(|_| left.peer.send(&camera.shoot())).count();

    let delta = camera.shoot();
    assert!((1..=64).contains(&fitting), "a bound, and not none: {fitting}");
    assert!(!left.peer.send(&delta));
    for _ in 0..fitting {
        right.unit().await;
    }
    assert!(!left.peer.send(&delta), "there is room, but a picture is missing before this one");
    let keyframe = camera.keyframe();
    assert!(left.peer.send(&keyframe));

    assert_eq!(right.unit().await, *keyframe);
}

#[tokio::test]
async fn most_pictures_survive_a_network_that_loses_one_packet_in_twelve() {
    let _alone = ALONE.lock().await;
    let network = Network::new(12).await;
    let (mut left, mut right) = connect(Some(&network)).await;
    let mut camera = Camera::new(6);
    let mut arrived = 0;
    let mut sent = Vec::new();

    let mut pace = interval(Duration::from_millis(15));
    for _ in 0..200 {
        pace.tick().await;
        let unit = match left.wants_keyframe() {
            true => camera.keyframe(),
            false => camera.shoot(),
        };
        if left.peer.send(&unit) {
            sent.push(unit);
        }
        while let Ok(unit) = right.units.try_recv() {
            assert!(sent.iter().any(|sent| **sent == unit), "damaged");
            arrived += 1;
        }
    }
    while let Ok(Some(_)) = timeout(Duration::from_secs(1), right.units.recv()).await {
        arrived += 1;
    }

    let lost = network.lost.load(Ordering::Relaxed);
    println!("{} sent, {arrived} arrived, {lost} packets lost on the way", sent.len());
    assert!(lost >= 40, "the network was to be bad: {lost}");
    assert!(arrived * 10 >= sent.len() * 8, "{arrived} of {}", sent.len());
}

#[tokio::test]
async fn connections_leave_no_descriptor_behind() {
    let _alone = ALONE.lock().await;
    let (left, right) = connect(None).await;
    left.peer.close().await;
    right.peer.close().await;
    let before = descriptors();

    for _ in 0..30 {
        let (left, right) = connect(None).await;
        left.peer.close().await;
        drop(right); // closes in the background
    }

    timeout(LIMIT, async {
        while descriptors() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{before} descriptors before, {} after", descriptors()));
}

#[tokio::test]
async fn a_vanished_member_is_noticed() {
    let _alone = ALONE.lock().await;
    let (mut left, right) = connect(None).await;

    drop(right);

    let reason = left.failure().await;
    assert!(!reason.is_empty() && reason.len() <= 400, "{reason}");
}

#[tokio::test]
async fn a_handle_whose_connection_has_failed_is_harmless() {
    let _alone = ALONE.lock().await;
    let mut side = Side::new(Role::Answer("v=0".into()));
    side.failure().await;

    side.peer.answer("v=0".into());
    side.peer.candidate("{}".into());
    side.peer.ask_for_keyframe();

    assert!(!side.peer.send(&Camera::new(7).shoot()));
    side.peer.close().await;
}

#[tokio::test]
async fn an_endless_description_fails_the_connection_with_a_short_reason() {
    let _alone = ALONE.lock().await;

    let mut side = Side::new(Role::Answer("a".repeat(70_000)));

    let reason = side.failure().await;
    assert!(reason.len() <= 200, "{reason}");
}

#[tokio::test]
async fn useless_candidates_do_not_keep_two_members_apart() {
    let _alone = ALONE.lock().await;
    let mut left = Side::new(Role::Offer);
    let PeerEvent::Offer(offer) = left.state().await else { panic!("an offer first") };
    let mut right = Side::new(Role::Answer(offer));
    let garbage =
        ["", "{}", "[1]", r#"{"candidate":"candidate:no"}"#, r#"{"candidate":"","sdpMLineIndex":9999}"#];
    for text in garbage {
        left.peer.candidate(text.into());
        right.peer.candidate(text.into());
    }

    introduce(&mut left, &mut right, None).await;
}

#[tokio::test]
async fn a_connection_to_which_nobody_listens_still_closes() {
    let _alone = ALONE.lock().await;
    let (report, reports) = mpsc::channel(1);
    let peer = Peer::start(&settings(), Role::Offer, report, Box::new(|_| true));
    // The offer fills the channel; the candidates find no room.
    while reports.is_empty() {
        tokio::task::yield_now().await;
    }

    timeout(LIMIT, peer.close()).await.expect("closes");

    assert_eq!(reports.len(), 1);
}

#[tokio::test]
async fn a_browser_that_offers_sound_too_is_answered_with_the_picture_alone() {
    let _alone = ALONE.lock().await;

    let mut side = Side::new(Role::Answer(CHROMIUM.replace('\n', "\r\n")));

    let PeerEvent::Answer(answer) = side.state().await else { panic!("an answer first") };
    let media: Vec<_> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    assert!(media[0].starts_with("m=audio 0 "), "{media:?}");
    assert!(media[1].starts_with("m=video 9 "), "{media:?}");
    assert_eq!(media.len(), 2);
    assert!(answer.contains("packetization-mode=1;profile-level-id=42e01f"), "{answer}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_as_a_description_brings_a_connection_down(text in "(?s).{0,300}", answered in any::<bool>()) {
        runtime().block_on(async {
            let _alone = ALONE.lock().await;
            if answered {
                let mut side = Side::new(Role::Offer);
                side.peer.answer(text);
                side.failure().await;
            } else {
                Side::new(Role::Answer(text)).failure().await;
            }
        });
    }

    #[test]
    fn a_damaged_offer_is_answered_or_refused(line in 0_usize..300, damage in "[ -~]{0,20}", from in 0_usize..40) {
        runtime().block_on(async {
            let _alone = ALONE.lock().await;
            let mut lines: Vec<String> = CHROMIUM.lines().map(str::to_owned).collect();
            let count = lines.len();
            let spoiled = &mut lines[line % count];
            let start = from.min(spoiled.len());
            spoiled.replace_range(start.., &damage);

            let mut right = Side::new(Role::Answer(lines.join("\r\n") + "\r\n"));

            let first = right.state().await;
            assert!(matches!(first, PeerEvent::Answer(_) | PeerEvent::Failed(_)), "{first:?}");
        });
    }
}

/// One end of a connection as a test holds it.
struct Side {
    peer: Peer,
    reports: mpsc::Receiver<Report>,
    units: mpsc::Receiver<Packet>,
    /// A keyframe was wanted while the test waited for something else.
    wanted: bool,
    /// Access units the connection has offered to the sink.
    offered: Arc<tokio::sync::Semaphore>,
}

impl Side {
    /// Access units that a side takes before its test reads them.
    const ROOM: usize = 8;

    fn new(role: Role) -> Self {
        let (report, reports) = mpsc::channel(64);
        let (unit, units) = mpsc::channel(Self::ROOM);
        let offered = Arc::new(tokio::sync::Semaphore::new(0));
        let sink_offered = offered.clone();
        let sink = move |packet| {
            let room = unit.try_send(packet).is_ok();
            sink_offered.add_permits(1);
            room
        };
        Self {
            peer: Peer::start(&settings(), role, report, Box::new(sink)),
            reports,
            units,
            wanted: false,
            offered,
        }
    }

    async fn unit(&mut self) -> Packet {
        timeout(LIMIT, self.units.recv()).await.expect("an access unit in time").expect("connection lives")
    }

    async fn report(&mut self) -> Report {
        timeout(LIMIT, self.reports.recv()).await.expect("a report in time").expect("connection lives")
    }

    async fn state(&mut self) -> PeerEvent {
        loop {
            match self.report().await {
                Report::State(event) => return event,
                Report::KeyframeWanted => self.wanted = true,
            }
        }
    }

    async fn failure(&mut self) -> String {
        loop {
            if let PeerEvent::Failed(reason) = self.state().await {
                return reason;
            }
        }
    }

    async fn keyframe_wanted(&mut self) {
        while !self.wants_keyframe() {
            self.wanted = matches!(self.report().await, Report::KeyframeWanted);
        }
    }

    /// Whether one was asked for since the last time.
    fn wants_keyframe(&mut self) -> bool {
        while let Ok(report) = self.reports.try_recv() {
            self.wanted |= matches!(report, Report::KeyframeWanted);
        }
        std::mem::take(&mut self.wanted)
    }
}

/// Two connected sides, straight or through `network`.
async fn connect(network: Option<&Network>) -> (Side, Side) {
    let mut left = Side::new(Role::Offer);
    let PeerEvent::Offer(offer) = left.state().await else { panic!("an offer first") };
    let mut right = Side::new(Role::Answer(offer));
    introduce(&mut left, &mut right, network).await;
    (left, right)
}

/// Carries signals between two sides until both are connected.
async fn introduce(left: &mut Side, right: &mut Side, network: Option<&Network>) {
    let mut connected = [false; 2];
    while connected != [true; 2] {
        let (index, event, other) = tokio::select! {
            event = left.state() => (0, event, &right.peer),
            event = right.state() => (1, event, &left.peer),
        };
        match event {
            PeerEvent::Answer(sdp) => other.answer(sdp),
            PeerEvent::Candidate(candidate) => match network {
                Some(network) => other.candidate(network.redirect(index, &candidate)),
                None => other.candidate(candidate),
            },
            PeerEvent::Connected => connected[index] = true,
            PeerEvent::Offer(_) | PeerEvent::Failed(_) => panic!("{event:?}"),
        }
    }
}

/// A network that loses packets: all that passes between two sides goes through its two sockets.
struct Network {
    /// Where the left and the right side are reached.
    doors: [SocketAddr; 2],
    /// Where they really are.
    sides: Arc<std::sync::Mutex<[Option<SocketAddr>; 2]>>,
    lost: Arc<AtomicUsize>,
}

impl Network {
    /// Loses one packet of `one_in` of media.
    async fn new(one_in: u64) -> Self {
        let sockets = [bound().await, bound().await];
        let doors = [0, 1].map(|index: usize| sockets[index].local_addr().unwrap());
        let sides = Arc::new(std::sync::Mutex::new([None; 2]));
        let lost = Arc::new(AtomicUsize::new(0));
        for index in [0, 1] {
            // What comes in at one side's door is for that side, and leaves by the other's.
            let (inside, outside) = (sockets[index].clone(), sockets[1 - index].clone());
            let (sides, lost) = (sides.clone(), lost.clone());
            let mut chance = 0x9e37_79b9_7f4a_7c15_u64 + index as u64;
            tokio::spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = inside.recv_from(&mut buffer).await {
                    let Some(target) = sides.lock().unwrap()[index] else { continue };
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // RTP and RTCP only (RFC 7983), so that connecting does not take long.
                    if (128..192).contains(&buffer[0]) && (chance >> 33).is_multiple_of(one_in) {
                        lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let _ = outside.send_to(&buffer[..length], target).await;
                }
            });
        }
        Self { doors, sides, lost }
    }

    /// The candidate of side `index` as the other one is to see it.
    fn redirect(&self, index: usize, candidate: &str) -> String {
        let mut json: serde_json::Value = serde_json::from_str(candidate).unwrap();
        let line = json["candidate"].as_str().unwrap().to_owned();
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let port = words[5].parse().unwrap();
        self.sides.lock().unwrap()[index] = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        words[5] = self.doors[index].port().to_string();
        json["candidate"] = words.join(" ").into();
        json.to_string()
    }
}

async fn bound() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap())
}

/// Makes access units of a moving picture.
struct Camera {
    encoder: Encoder,
    count: u32,
    seed: u8,
}

impl Camera {
    fn new(seed: u8) -> Self {
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(3_000_000))
            .max_frame_rate(FrameRate::from_hz(30.0))
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate);
        let encoder = Encoder::with_api_config(openh264::OpenH264API::from_source(), config).unwrap();
        Self { encoder, count: 0, seed }
    }

    fn keyframe(&mut self) -> Arc<Packet> {
        self.encoder.force_intra_frame();
        self.shoot()
    }

    fn shoot(&mut self) -> Arc<Packet> {
        let (width, height) = (320, 240);
        let pixel = |index: usize| {
            let (x, y, t) = ((index % width) as u32, (index / width) as u32, self.count);
            ((x * 3 + t * 5) ^ (y * 7 + t * 2)) as u8 ^ self.seed
        };
        let picture = (0..width * height * 3 / 2).map(pixel).collect();
        self.count += 1;
        let stream = self.encoder.encode(&YUVBuffer::from_vec(picture, width, height)).unwrap();
        let keyframe = matches!(stream.frame_type(), FrameType::IDR);
        Arc::new(Packet {
            data: Bytes::from(stream.to_vec()),
            keyframe,
            time: self.count.wrapping_mul(3_000),
        })
    }
}

fn settings() -> Settings {
    Settings { bind: vec![SocketAddr::from(([127, 0, 0, 1], 0))], ice_servers: vec![] }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
