//! Two connections in one process: what a test holds of each, the network between them, and what they send.

// Each test crate uses its own part of this.
#![allow(dead_code)]

use bytes::Bytes;
use openh264::encoder::{BitRate, Encoder, EncoderConfig, FrameRate, FrameType, RateControlMode, UsageType};
use openh264::formats::YUVBuffer;
use parlor::link::peer::{Clocks, Kind, Peer, Report, Settings, Sinks};
use parlor::media::Packet;
use parlor::media::sound::SoundPacket;
use parlor::room::fault::Code;
use parlor::room::{PeerEvent, Role};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Generous: only a hang fails by it.
pub const LIMIT: Duration = Duration::from_secs(30);
/// An offer of Chromium 156 with a microphone and a camera, as it was recorded.
pub const CHROMIUM: &str = include_str!("../offers/chromium.sdp");

/// One end of a connection as a test holds it.
pub struct Side {
    pub peer: Peer,
    pub clocks: Clocks,
    reports: mpsc::Receiver<Report>,
    pub units: mpsc::Receiver<Packet>,
    pub sounds: mpsc::Receiver<SoundPacket>,
    /// A keyframe was wanted while the test waited for something else.
    wanted: bool,
    /// Why nothing is seen of the other side.
    unseen: Option<(Code, String)>,
    /// Losses of this side's sound that were reported, in percent, in the meantime.
    losses: VecDeque<u8>,
    /// Times that the other side has reported in the meantime.
    times: VecDeque<Time>,
    /// Access units the connection has offered to the sink.
    pub offered: Arc<tokio::sync::Semaphore>,
}

/// What a sender report said.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub kind: Kind,
    pub ntp: u64,
    pub rtp: u32,
}

impl Side {
    /// Access units that a side takes before its test reads them.
    pub const ROOM: usize = 8;

    pub fn new(role: Role) -> Self {
        Self::with(&settings(), role)
    }

    pub fn with(settings: &Settings, role: Role) -> Self {
        Self::with_room(settings, role, Self::ROOM)
    }

    /// One whose sink takes so many access units before its test reads them.
    pub fn with_room(settings: &Settings, role: Role, room: usize) -> Self {
        let (report, reports) = mpsc::channel(64);
        let (unit, units) = mpsc::channel(room);
        let (sound, sounds) = mpsc::channel(1024);
        let offered = Arc::new(tokio::sync::Semaphore::new(0));
        let sink_offered = offered.clone();
        let sinks = Sinks {
            video: Box::new(move |packet| {
                let room = unit.try_send(packet).is_ok();
                sink_offered.add_permits(1);
                room
            }),
            sound: Box::new(move |packet| sound.try_send(packet).unwrap()),
        };
        let clocks = Clocks::default();
        Self {
            peer: Peer::start(settings, &clocks, role, report, sinks),
            clocks,
            reports,
            units,
            sounds,
            wanted: false,
            unseen: None,
            losses: VecDeque::new(),
            times: VecDeque::new(),
            offered,
        }
    }

    pub async fn sound(&mut self) -> SoundPacket {
        timeout(LIMIT, self.sounds.recv()).await.expect("sound in time").expect("connection lives")
    }

    /// The next loss that is reported.
    pub async fn loss(&mut self) -> u8 {
        loop {
            match self.losses.pop_front() {
                Some(loss) => return loss,
                None => {
                    let report = self.report().await;
                    self.note(report);
                }
            }
        }
    }

    /// The next time that is reported.
    pub async fn time(&mut self) -> Time {
        loop {
            match self.times.pop_front() {
                Some(time) => return time,
                None => {
                    let report = self.report().await;
                    self.note(report);
                }
            }
        }
    }

    /// The losses that were reported and not asked for yet.
    pub fn told_losses(&mut self) -> Vec<u8> {
        self.listen();
        self.losses.drain(..).collect()
    }

    /// The times that were reported and not asked for yet.
    pub fn told_times(&mut self) -> Vec<Time> {
        self.listen();
        self.times.drain(..).collect()
    }

    /// Takes the reports that are there.
    fn listen(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
    }

    /// Keeps what a report says until the test asks for it.
    fn note(&mut self, report: Report) -> Option<PeerEvent> {
        match report {
            Report::State(event) => return Some(event),
            Report::KeyframeWanted => self.wanted = true,
            Report::Unseen(code, why) => self.unseen = Some((code, why)),
            Report::Seen => self.unseen = None,
            Report::SoundLoss(percent) => self.losses.push_back(percent),
            Report::SenderTime { kind, ntp, rtp } => self.times.push_back(Time { kind, ntp, rtp }),
        }
        None
    }

    pub async fn unit(&mut self) -> Packet {
        timeout(LIMIT, self.units.recv()).await.expect("an access unit in time").expect("connection lives")
    }

    pub async fn report(&mut self) -> Report {
        timeout(LIMIT, self.reports.recv()).await.expect("a report in time").expect("connection lives")
    }

    pub async fn state(&mut self) -> PeerEvent {
        loop {
            let report = self.report().await;
            if let Some(event) = self.note(report) {
                return event;
            }
        }
    }

    pub async fn failure(&mut self) -> String {
        loop {
            if let PeerEvent::Failed(reason) = self.state().await {
                return reason;
            }
        }
    }

    /// Waits until something is in the way of the other side's video, or until nothing is any more.
    pub async fn unseen(&mut self, is: bool) -> Option<(Code, String)> {
        while self.unseen.is_some() != is {
            let report = self.report().await;
            self.note(report);
        }
        self.unseen.clone()
    }

    pub async fn keyframe_wanted(&mut self) {
        while !self.wants_keyframe() {
            let report = self.report().await;
            self.note(report);
        }
    }

    /// Whether one was asked for since the last time.
    pub fn wants_keyframe(&mut self) -> bool {
        self.listen();
        std::mem::take(&mut self.wanted)
    }
}

/// Two connected sides, straight or through `network`.
pub async fn connect(network: Option<&Network>) -> (Side, Side) {
    connect_with(network, |offer| offer, |answer| answer).await
}

/// Two connected sides, whose descriptions are changed on their way.
pub async fn connect_with(
    network: Option<&Network>,
    offered: impl Fn(String) -> String,
    answered: impl Fn(String) -> String,
) -> (Side, Side) {
    let mut left = Side::new(Role::Offer);
    let PeerEvent::Offer(offer) = left.state().await else { panic!("an offer first") };
    let mut right = Side::new(Role::Answer(offered(offer)));
    introduce(&mut left, &mut right, network, answered).await;
    (left, right)
}

/// Carries signals between two sides until both are connected.
pub async fn introduce(
    left: &mut Side,
    right: &mut Side,
    network: Option<&Network>,
    answered: impl Fn(String) -> String,
) {
    let mut connected = [false; 2];
    while connected != [true; 2] {
        let (index, event, other) = tokio::select! {
            event = left.state() => (0, event, &right.peer),
            event = right.state() => (1, event, &left.peer),
        };
        match event {
            PeerEvent::Answer(sdp) => other.answer(answered(sdp)),
            PeerEvent::Candidate(candidate) => match network {
                Some(network) => other.candidate(network.redirect(index, &candidate)),
                None => other.candidate(candidate),
            },
            PeerEvent::Connected => connected[index] = true,
            PeerEvent::Offer(_) | PeerEvent::Interrupted(_) | PeerEvent::Failed(_) => panic!("{event:?}"),
        }
    }
}

/// A network that loses packets: all that passes between two sides goes through its two sockets.
pub struct Network {
    /// Where the left and the right side are reached.
    doors: [SocketAddr; 2],
    /// Where they really are.
    sides: Arc<Mutex<[Option<SocketAddr>; 2]>>,
    pub lost: Arc<AtomicUsize>,
    /// RTP packets on the way to the right side, as their payload types.
    pub carried: Arc<Mutex<Vec<u8>>>,
}

impl Network {
    /// Loses one packet of `one_in` of media.
    pub async fn new(one_in: u64) -> Self {
        let sockets = [bound().await, bound().await];
        let doors = [0, 1].map(|index: usize| sockets[index].local_addr().unwrap());
        let sides = Arc::new(Mutex::new([None; 2]));
        let lost = Arc::new(AtomicUsize::new(0));
        let carried = Arc::new(Mutex::new(Vec::new()));
        for index in [0, 1] {
            // What comes in at one side's door is for that side, and leaves by the other's.
            let (inside, outside) = (sockets[index].clone(), sockets[1 - index].clone());
            let (sides, lost, carried) = (sides.clone(), lost.clone(), carried.clone());
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
                    let payload_type = buffer[1] & 0x7f;
                    if index == 1 && (128..192).contains(&buffer[0]) && (96..128).contains(&payload_type) {
                        carried.lock().unwrap().push(payload_type);
                    }
                    let _ = outside.send_to(&buffer[..length], target).await;
                }
            });
        }
        Self { doors, sides, lost, carried }
    }

    /// The candidate of side `index` as the other one is to see it.
    pub fn redirect(&self, index: usize, candidate: &str) -> String {
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
pub struct Camera {
    encoder: Encoder,
    count: u32,
    seed: u8,
}

impl Camera {
    pub fn new(seed: u8) -> Self {
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(3_000_000))
            .max_frame_rate(FrameRate::from_hz(30.0))
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate);
        let encoder = Encoder::with_api_config(openh264::OpenH264API::from_source(), config).unwrap();
        Self { encoder, count: 0, seed }
    }

    pub fn keyframe(&mut self) -> Arc<Packet> {
        self.encoder.force_intra_frame();
        self.shoot()
    }

    pub fn shoot(&mut self) -> Arc<Packet> {
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

pub fn settings() -> Settings {
    Settings {
        bind: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        ice_servers: vec![],
        relay_only: false,
        runtime: None,
    }
}
