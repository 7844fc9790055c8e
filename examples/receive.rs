//! Receives streams from a page that signals over HTTP, and shows them beside the own camera on a screen in memory:
//! a receiver that can be measured beside a browser. Arguments: port of the signalling, number of streams, and 1 if
//! the own camera is also coded and sent to all (0: it is only shown). `benches/room_peers/run` starts it.

use parlor::clock::Clock;
use parlor::device::Screen as _;
use parlor::geometry::{Fit, Rotation, Size};
use parlor::link::peer::{Clocks, Peer, Report, Settings, Sinks};
use parlor::media::canvas::PixelLayout;
use parlor::media::text::Fonts;
use parlor::pipeline::{
    CodecChoice, Decoders, Fanout, Glasswork, Inbox, Stage, Video, capture, decode, encode, show,
};
use parlor::room::budget::Share;
use parlor::room::document::Layout;
use parlor::room::message::MemberId;
use parlor::room::{Event, Live, Mode, PeerEvent, Picture, Position, Role, Scene, Tile, TileState, layout};
use parlor::sim::{camera, screen};
use parlor::supervise::Stop;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

#[path = "receive/bare.rs"]
mod bare;
use bare::{Sink, Tape};

const SCREEN: Size = Size::new(1920, 1080);
const CAMERA: Size = Size::new(640, 480);
const RATE_HZ: u32 = 30;
/// The most that is sent to each, as the page allows itself.
const BITRATE_BPS: u32 = 1_000_000;

/// With one worker, as the daemon has it.
#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<u16> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let &[port, count, sends] = &arguments[..] else { anyhow::bail!("want PORT, COUNT and 0 or 1") };
    let (clock, stop, stage) = (Clock::start(), Stop::default(), Arc::new(Stage::default()));
    let name = |index: u16| match index {
        0 => "self".to_owned(),
        index => format!("peer-{}", index - 1),
    };
    let members: Vec<MemberId> =
        (0..=count).map(|index| MemberId::parse(&name(index)).expect("the names are ids")).collect();
    let videos: Vec<Arc<Video>> = members.iter().map(|member| stage.video(member)).collect();
    stage.set(grid(&members));
    start_screen(clock, stop.clone(), stage.clone(), port);
    let (inbox, fanout) = (Arc::new(Inbox::default()), Arc::new(Fanout::new(BITRATE_BPS)));
    start_camera(clock, stop.clone(), videos[0].clone(), inbox.clone());
    if sends == 1 {
        let (fanout, stop) = (fanout.clone(), stop.clone());
        std::thread::spawn(move || {
            let rates = (RATE_HZ as f32, BITRATE_BPS);
            encode(&inbox, &fanout, &CodecChoice::software(), rates, &|| {}, &stop)
        });
    }
    let clocks = Clocks::default();
    clocks.video.set(clock.instant(Duration::ZERO), 0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (decoders, jobs) = Decoders::new(cores.min(4), clock);
    for jobs in jobs {
        let stop = stop.clone();
        thread("decode", move || decode(&jobs, clock, &stop));
    }
    let tapes: Vec<Tape> = (0..count).map(|_| Tape::default()).collect();
    let receivers = (0..count).zip(&videos[1..]).map(|(index, video)| {
        let sink = tapes[usize::from(index)]
            .record(decoders.sink(video, |trouble| eprintln!("decode: {trouble:?}")));
        let outlets = (fanout.clone(), members[usize::from(index) + 1].clone());
        tokio::spawn(converse(port, index, (video.clone(), sink), outlets, clocks.clone()))
    });
    let _receivers: Vec<_> = receivers.collect();

    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let shown: Vec<u64> = videos[1..].iter().map(|video| video.meter.shown.load(Relaxed)).collect();
        let answer = say(port, json!({ "event": "second", "decoded": shown }));
        if answer["take"] == true {
            let stages: Vec<_> = videos.iter().map(|video| video.meter.take_stages()).collect();
            say(port, json!({ "event": "second", "decoded": shown, "stages": stages }));
        }
        if answer["bare"] == true {
            tapes.iter().for_each(Tape::start);
            videos[1..].iter().for_each(|video| video.keyframe_needed.notify_one());
            tokio::time::sleep(Duration::from_secs(5)).await;
            let tapes = tapes.clone();
            let [decode, paced, limit] =
                tokio::task::spawn_blocking(move || bare::measure(&tapes, CAMERA, SCREEN, RATE_HZ)).await??;
            say(port, json!({ "event": "bare", "decode": decode, "paced": paced, "limit": limit }));
        }
    }
}

fn grid(members: &[MemberId]) -> Picture {
    let areas = layout::arrange(Layout::Grid, SCREEN, members.len());
    let tiles = members.iter().zip(areas).enumerate().map(|(index, (member, area))| Tile {
        member: member.clone(),
        mode: if index == 0 { Mode::Camera } else { Mode::Video },
        area,
        fit: Fit::Cover,
        mirror: index == 0,
        position: Position::Front,
        name: Default::default(),
        state: TileState::Live,
        reason: String::new(),
        speaking: false,
        microphone_muted: false,
        earphone_muted: false,
        share: Share::All,
    });
    Picture {
        scene: Scene::Grid { tiles: tiles.collect() },
        identify: None,
        notice: None,
        live: Live { camera: true, microphone: false },
    }
}

/// Named, so that it can be seen what each costs.
fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(work).expect("a few threads can be started");
}

fn start_screen(clock: Clock, stop: Stop, stage: Arc<Stage>, port: u16) {
    let glass = screen::Glass::new(SCREEN, PixelLayout::XRGB8888, Rotation::None);
    thread("screen", move || {
        let mut screen = screen::Screen::open(glass);
        eprintln!("{:?}", screen.mode());
        let mut glasswork = Glasswork { fonts: Fonts::built_in(), rotation: Rotation::None, clock };
        let told = |event| {
            if let Event::TileLive { member } = event {
                let first = json!({ "event": "first", "tile": member });
                std::thread::spawn(move || say(port, first));
            }
        };
        show(&mut screen, &stage, &mut glasswork, &told, &|| {}, &stop)
    });
}

fn start_camera(clock: Clock, stop: Stop, own: Arc<Video>, inbox: Arc<Inbox>) {
    thread("camera", move || {
        let opened = camera::Camera::open("receive", CAMERA, RATE_HZ, 90, camera::Cable::default());
        let mut camera = opened.expect("its cable is plugged in");
        capture(&mut camera, Rotation::None, clock, (&own, &inbox), &|| {}, &stop)
    });
}

/// One member: takes the page's offer, answers with the one candidate that loopback has, and asks for keyframes.
async fn converse(
    port: u16,
    index: u16,
    (video, sink): (Arc<Video>, Sink),
    (fanout, member): (Arc<Fanout>, MemberId),
    clocks: Clocks,
) -> anyhow::Result<()> {
    let offer = loop {
        let offer = http(port, &format!("/get?key=offer{index}"), None)?;
        match offer["sdp"].as_str() {
            Some(sdp) => break sdp.to_owned(),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let settings = Settings { bind: vec![([127, 0, 0, 1], 0).into()], ..Default::default() };
    let (reports, mut heard) = mpsc::channel(64);
    let sinks = Sinks { video: sink, sound: Box::new(|_| {}) };
    let peer = Arc::new(Peer::start(&settings, &clocks, Role::Answer(offer), reports, sinks));
    let (mut answer, mut candidate) = (None::<String>, None::<String>);
    loop {
        let report = tokio::select! {
            report = heard.recv() => report,
            () = video.keyframe_needed.notified() => {
                peer.ask_for_keyframe();
                continue;
            }
        };
        match report {
            Some(Report::State(PeerEvent::Answer(sdp))) => answer = Some(sdp),
            Some(Report::State(PeerEvent::Candidate(json))) => {
                let init: Value = serde_json::from_str(&json)?;
                candidate = init["candidate"]
                    .as_str()
                    .map(str::to_owned)
                    .filter(|text| !text.is_empty())
                    .or(candidate);
            }
            Some(Report::State(PeerEvent::Connected)) => fanout.add(member.clone(), peer.clone()),
            Some(Report::KeyframeWanted) => fanout.want_keyframe(&member),
            Some(Report::SenderTime { .. }) => {}
            Some(report) => eprintln!("{index}: {report:?}"),
            None => anyhow::bail!("the connection has ended"),
        }
        if let (Some(sdp), Some(found)) = (&answer, &candidate) {
            let line = found.strip_prefix("a=").unwrap_or(found);
            let end = if sdp.ends_with('\n') { "" } else { "\r\n" };
            let sdp =
                if sdp.contains("a=candidate") { sdp.clone() } else { format!("{sdp}{end}a={line}\r\n") };
            http(port, &format!("/put?key=answer{index}"), Some(&json!({ "type": "answer", "sdp": sdp })))?;
            (answer, candidate) = (None, None);
        }
    }
}

/// Tells the bench of an event; what it answers.
fn say(port: u16, mut event: Value) -> Value {
    event["role"] = "recv".into();
    http(port, "/event", Some(&event)).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        Value::Null
    })
}

/// One request to the page's server on loopback, and the JSON of its answer.
fn http(port: u16, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let (method, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, json) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(serde_json::from_str(json)?)
}
