//! Hardware codecs on a real V4L2 memory-to-memory driver: vicodec, which codes FWHT where boards code H.264. The state
//! machine, the calls and the buffers are the same.

use crate::bed::PATIENCE;
use crate::simulated;
use parlor::config::{Camera, Config, SIMULATED, Screen};
use parlor::device::codec::{Found, Hardware, V4l2Decoder, V4l2Encoder};
use parlor::device::{Error, Kind};
use parlor::geometry::{Rect, Rotation, Size};
use parlor::kiosk;
use parlor::machine::{self, Simulation};
use parlor::media::Packet;
use parlor::media::canvas::{Canvas, PixelLayout};
use parlor::media::codec::{Codecs, Decode, Encode};
use parlor::media::compose::{Compositor, Shot};
use parlor::media::frame::{Colour, Frame, FramePool, Matrix};
use parlor::media::h264::{DecodeError, EncodeError};
use parlor::media::image::{Chroma, Image};
use parlor::pipeline::CodecChoice;
use parlor::room::fault::{Code, Part};
use parlor::room::{Event, Position};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FWHT: [u8; 4] = *b"FWHT";
const RAW: [[u8; 4]; 2] = [*b"YU12", *b"NV12"];
/// The smallest that vicodec takes.
const SIZE: Size = Size::new(640, 360);

#[test]
fn encoder_and_decoder_are_found_by_their_formats_and_those_of_another_coding_are_not() {
    let found = Hardware::find(FWHT);

    assert!(found.encoder_name().expect("an encoder").contains("vicodec"), "{found:?}");
    assert!(found.decoder_name().expect("a decoder").contains("vicodec"), "{found:?}");
    assert_ne!(found.encoder, found.decoder);
    assert!(Hardware::find(*b"H264").is_empty());
}

#[test]
fn pictures_survive_coding_and_decoding_with_their_size_and_time_in_both_raw_formats() {
    let found = Hardware::find(FWHT);
    let (encodes, decodes) = (found.encoder.expect("an encoder"), found.decoder.expect("a decoder"));
    assert_eq!((encodes.raw, decodes.raw), (*b"YU12", *b"YU12"));
    let mut pool = FramePool::default();

    // The last size is none that the codec's blocks of eight fill.
    for size in [SIZE, Size::new(1280, 720), Size::new(642, 366)] {
        for raw in RAW {
            let encoder = V4l2Encoder::open(&Found { raw, ..encodes.clone() }, size, 30.0, 1_000_000);
            let decoder = V4l2Decoder::open(&Found { raw, ..decodes.clone() });
            let (mut encoder, mut decoder) = (encoder.expect("an encoder"), decoder.expect("a decoder"));
            for number in 0..5 {
                let sent = picture(size, number);
                let packet = code(&mut encoder, &sent, number * 3000, false);
                let captured = Duration::from_millis(u64::from(number) + 7);
                let seen = decoder.decode(&packet, &mut pool, captured).expect("decoded").expect("a picture");

                assert_eq!((packet.time, packet.keyframe), (number * 3000, number == 0));
                assert_eq!((seen.size(), seen.captured()), (size, captured));
                let likeness = likeness_db(&sent, &seen);
                assert!(likeness > 30.0, "{size}, {}: {likeness} dB", String::from_utf8_lossy(&raw));
            }
        }
    }
}

#[test]
fn decoding_can_begin_at_each_keyframe_that_was_asked_for_and_nowhere_else() {
    let mut encoder = encoder(SIZE);
    let mut pool = FramePool::default();

    let coded = (0..9).map(|number| {
        let sent = picture(SIZE, number);
        let packet = code(&mut encoder, &sent, number, number % 4 == 2);
        (sent, packet)
    });
    let coded = coded.collect::<Vec<_>>();

    let keyframes = coded.iter().map(|(_, packet)| packet.keyframe).collect::<Vec<_>>();
    assert_eq!(keyframes, [true, false, true, false, false, false, true, false, false]);
    for (sent, packet) in &coded {
        let mut decoder = decoder();
        match decoder.decode(packet, &mut pool, Duration::ZERO) {
            Ok(seen) => {
                assert!(packet.keyframe);
                assert!(likeness_db(sent, &seen.expect("a picture")) > 30.0);
            }
            Err(DecodeError::NeedsKeyframe) => assert!(!packet.keyframe),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_changed_size_is_followed_by_both_without_a_lost_picture() {
    let (mut encoder, mut decoder) = (encoder(SIZE), decoder());
    let mut pool = FramePool::default();

    for size in [SIZE, Size::new(1280, 720), Size::new(720, 400), SIZE] {
        for number in 0..3 {
            let sent = picture(size, number);
            let packet = code(&mut encoder, &sent, 0, false);
            let seen = decoder.decode(&packet, &mut pool, Duration::ZERO).expect("decoded");
            let seen = seen.expect("a picture");

            assert_eq!((packet.keyframe, seen.size()), (number == 0, size));
            assert!(likeness_db(&sent, &seen) > 30.0, "{size}: {} dB", likeness_db(&sent, &seen));
        }
    }
}

#[test]
fn pictures_are_shown_from_the_drivers_own_buffers_in_both_raw_formats() {
    for raw in RAW {
        // What is coded is larger than what is seen.
        let size = Size::new(642, 366);
        let mut stream = Stream::new(size, raw);
        let mut compositor = Compositor::default();
        let mut shown = Vec::new();

        for _ in 0..20 {
            let (sent, seen) = stream.next();
            let interleaved = matches!(seen.view().chroma(), Chroma::Interleaved(_));
            assert_eq!((is_lent(&seen), interleaved), (true, &raw == b"NV12"), "{raw:?}");
            assert!(likeness_db(&sent, &seen) > 30.0);

            let draw = |compositor: &mut Compositor, image: &dyn Image| {
                let mut canvas = Canvas::new(Size::new(400, 300), PixelLayout::XRGB8888, Rotation::None);
                let area = Rect::new(0, 0, 400, 300);
                compositor.draw(&mut canvas.surface(), area, &Shot::of(image), &[]);
                canvas
            };
            let canvas = draw(&mut compositor, &*seen);
            assert!(canvas.data() == draw(&mut compositor, &copy(&seen)).data());
            // The screen holds one, and two wait for their sound.
            shown.push(seen);
            if shown.len() > 3 {
                shown.remove(0);
            }
        }
    }
}

#[test]
fn a_picture_that_is_held_does_not_change_while_later_ones_are_decoded() {
    for raw in RAW {
        let mut stream = Stream::new(SIZE, raw);
        let held = Held::new(stream.next().1);
        assert!(held.is_lent());

        for _ in 0..20 {
            assert!(is_lent(&stream.next().1), "{raw:?}");
        }

        held.check();
    }
}

#[test]
fn holding_many_pictures_costs_copies_and_stalls_nothing() {
    for raw in RAW {
        let mut stream = Stream::new(SIZE, raw);

        let start = Instant::now();
        let held = (0..20).map(|_| Held::new(stream.next().1)).collect::<Vec<_>>();

        assert!(start.elapsed() < PATIENCE);
        let lent = held.iter().take_while(|held| held.is_lent()).count();
        assert!((3..10).contains(&lent) && held[lent..].iter().all(|held| !held.is_lent()), "{lent}");
        held.iter().for_each(Held::check);
        drop(held);
        assert!(is_lent(&stream.next().1));
    }
}

#[test]
fn pictures_that_are_held_survive_a_changed_size_a_drain_and_their_decoder() {
    for raw in RAW {
        let mut stream = Stream::new(SIZE, raw);
        let mut held = Vec::new();

        for size in [SIZE, Size::new(1280, 720), Size::new(720, 400), SIZE] {
            stream.size = size;
            for _ in 0..3 {
                let (sent, seen) = stream.next();
                assert!(is_lent(&seen) && seen.size() == size);
                assert!(likeness_db(&sent, &seen) > 30.0);
                held.push(Held::new(seen));
            }
            held.iter().for_each(Held::check);
        }
        assert!(stream.decoder.drain(&mut stream.pool).expect("drained").is_empty());
        held.iter().for_each(Held::check);
        stream = Stream::new(SIZE, raw);
        assert!(is_lent(&stream.next().1));

        drop(stream);
        held.iter().for_each(Held::check);
        assert!(held.iter().all(Held::is_lent));
    }
}

#[test]
fn pictures_that_are_held_survive_their_device() {
    for raw in RAW {
        let mut stream = Stream::new(SIZE, raw);
        let held = (0..3).map(|_| Held::new(stream.next().1)).collect::<Vec<_>>();
        let packet = code(&mut stream.encoder, &picture(SIZE, 3), 0, true);

        let unplugged = Unplugged::new();
        let seen = stream.decoder.decode(&packet, &mut stream.pool, Duration::ZERO);

        let Err(DecodeError::Device(error)) = seen else { panic!("decoded by nothing") };
        assert_eq!(device_error(error).kind, Kind::Gone);
        held.iter().for_each(Held::check);
        drop(stream);
        held.iter().for_each(Held::check);
        drop(unplugged);
        // Also beside those of the device that came back.
        assert!(is_lent(&Stream::new(SIZE, raw).next().1));
        held.iter().for_each(Held::check);
    }
}

#[test]
fn the_colour_of_a_stream_is_told_to_the_other_end() {
    let mut encoder = encoder(SIZE);
    for colour in [Colour { matrix: Matrix::Bt709, full_range: true }, Colour::default()] {
        let mut decoder = decoder();
        let mut sent = picture(SIZE, 1);
        sent.colour = colour;

        let packet = code(&mut encoder, &sent, 0, false);
        let seen = decoder.decode(&packet, &mut FramePool::default(), Duration::ZERO).expect("decoded");

        assert_eq!(seen.expect("a picture").colour(), colour);
    }
}

#[test]
fn after_a_loss_all_is_refused_until_a_keyframe() {
    let (mut encoder, mut decoder) = (encoder(SIZE), decoder());
    let mut pool = FramePool::default();
    let packets = (0..4).map(|number| code(&mut encoder, &picture(SIZE, number), 0, number == 3));
    let packets = packets.collect::<Vec<_>>();
    let mut decode = |decoder: &mut V4l2Decoder, packet: &Packet| {
        decoder.decode(packet, &mut pool, Duration::ZERO).map(|frame| frame.is_some())
    };

    assert!(decode(&mut decoder, &packets[0]).expect("decoded"));
    decoder.lose();
    assert!(matches!(decode(&mut decoder, &packets[2]), Err(DecodeError::NeedsKeyframe)));
    assert!(decode(&mut decoder, &packets[3]).expect("decoded"));
}

#[test]
fn a_drained_decoder_holds_nothing_and_goes_on_with_the_next_keyframe() {
    let (mut encoder, mut decoder) = (encoder(SIZE), decoder());
    let mut pool = FramePool::default();
    let first = code(&mut encoder, &picture(SIZE, 1), 0, false);
    decoder.decode(&first, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");

    let left = decoder.drain(&mut pool).expect("drained");

    assert!(left.is_empty(), "each picture came with its packet");
    let inter = code(&mut encoder, &picture(SIZE, 2), 0, false);
    let refused = decoder.decode(&inter, &mut pool, Duration::ZERO);
    assert!(matches!(refused, Err(DecodeError::NeedsKeyframe)));
    let sent = picture(SIZE, 3);
    let key = code(&mut encoder, &sent, 0, true);
    let seen = decoder.decode(&key, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");
    assert!(likeness_db(&sent, &seen) > 30.0);
}

#[test]
fn what_is_no_coded_picture_is_an_error_in_time_and_not_the_end() {
    let (mut encoder, mut decoder) = (encoder(SIZE), decoder());
    let mut pool = FramePool::default();
    let sent = picture(SIZE, 1);
    let good = code(&mut encoder, &sent, 0, true);
    let bad = Packet { data: vec![7; 5000].into(), ..good.clone() };
    decoder.decode(&good, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");

    let start = Instant::now();
    let seen = decoder.decode(&bad, &mut pool, Duration::ZERO);

    assert!(!matches!(seen, Ok(Some(_))));
    assert!(start.elapsed() < PATIENCE);
    let again = decoder.decode(&good, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");
    assert!(likeness_db(&sent, &again) > 30.0);
}

#[test]
fn a_stream_that_never_begins_is_an_error_in_time() {
    let mut decoder = decoder();
    let bad = Packet { data: vec![7; 5000].into(), keyframe: true, time: 0 };

    let start = Instant::now();
    let seen = decoder.decode(&bad, &mut FramePool::default(), Duration::ZERO);

    assert!(start.elapsed() < PATIENCE);
    let Err(DecodeError::Device(error)) = seen else { panic!("not an error") };
    assert_eq!(device_error(error).kind, Kind::Stalled);
}

#[test]
fn a_size_it_cannot_code_is_refused_as_its_format() {
    let found = Hardware::find(FWHT);

    // Smaller than it takes: it would code more than there is.
    let refused = found.encoder(Size::new(320, 180), 30.0, 500_000);

    let Err(EncodeError::Device(error)) = refused else { panic!("not refused") };
    assert_eq!(device_error(error).kind, Kind::Format);
}

#[test]
fn a_codec_that_is_taken_away_is_gone_in_time_and_can_be_opened_when_it_returns() {
    let (mut encoder, mut decoder) = (encoder(SIZE), decoder());
    let mut pool = FramePool::default();
    let packet = code(&mut encoder, &picture(SIZE, 1), 0, true);
    decoder.decode(&packet, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");

    let unplugged = Unplugged::new();
    let start = Instant::now();
    let coded = encoder.encode(&picture(SIZE, 2), 0, false);
    let seen = decoder.decode(&packet, &mut pool, Duration::ZERO);

    assert!(start.elapsed() < PATIENCE);
    let Err(EncodeError::Device(error)) = coded else { panic!("coded by nothing") };
    assert_eq!(device_error(error).kind, Kind::Gone);
    let Err(DecodeError::Device(error)) = seen else { panic!("decoded by nothing") };
    assert_eq!(device_error(error).kind, Kind::Gone);
    assert!(Hardware::find(FWHT).is_empty());
    drop((encoder, decoder, unplugged));

    let (mut encoder, mut decoder) = (self::encoder(SIZE), self::decoder());
    let sent = picture(SIZE, 3);
    let packet = code(&mut encoder, &sent, 0, false);
    let seen = decoder.decode(&packet, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");
    assert!(likeness_db(&sent, &seen) > 30.0);
}

#[test]
fn a_call_goes_on_in_software_when_the_codec_is_taken_away_and_says_so() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let hardware: Arc<dyn Codecs> = Arc::new(Hardware::find(FWHT));
    let choice = CodecChoice::new(Some(hardware), move |event| heard.lock().expect("no panic").push(event));
    let mut encoder = choice.encoder(SIZE, 30.0, 2_000_000).expect("an encoder");
    let mut decoder = choice.decoder().expect("a decoder");
    let mut pool = FramePool::default();

    let mut unplugged = None;
    for number in 0..6 {
        if number == 3 {
            unplugged = Some(Unplugged::new());
        }
        let sent = picture(SIZE, number);
        let packet = code(encoder.as_mut(), &sent, 0, false);
        let seen = decoder.decode(&packet, &mut pool, Duration::ZERO).expect("decoded").expect("a picture");

        let h264 = packet.data.starts_with(&[0, 0, 0, 1]);
        assert_eq!((packet.keyframe, h264), (number % 3 == 0, number >= 3));
        assert!(likeness_db(&sent, &seen) > 25.0, "{number}: {} dB", likeness_db(&sent, &seen));
    }

    let told = told.lock().expect("no panic");
    let chosen = told.iter().filter_map(|event| match event {
        Event::CodecsChosen { info } => {
            Some([&info.encoder, &info.decoder].map(|name| name.contains("vicodec")))
        }
        _ => None,
    });
    assert_eq!(chosen.collect::<Vec<_>>(), [[true, true], [false, true], [false, false]]);
    let faults = told.iter().filter_map(|event| match event {
        Event::Raised(fault) => Some((&fault.part, fault.code, fault.cause.as_ref()?.target.clone()?)),
        _ => None,
    });
    let faults = faults.collect::<Vec<_>>();
    assert_eq!(faults.len(), 2, "{faults:?}");
    for (part, code, target) in faults {
        assert_eq!((part, code), (&Part::Codec, Code::CodecSoftware));
        assert!(target.starts_with("/dev/video"), "{target}");
    }
    drop((encoder, decoder, unplugged));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kiosk_whose_codec_is_taken_away_in_mid_call_says_so_and_is_seen_in_software() {
    let mut house = simulated::House::open().await;
    let configuration = |id: &str, size| {
        let camera = Camera::upright(SIMULATED, size, 5);
        // Each tile is as large as the codec's smallest picture, so that nobody asks for a smaller one.
        let screen = Screen { width: 2 * SIZE.width, height: SIZE.height, ..house.configuration(id).screen };
        Config { cameras: BTreeMap::from([(Position::Front, camera)]), screen, ..house.configuration(id) }
    };
    let (lobby, ward) = (configuration("lobby", SIZE), configuration("ward", Size::new(160, 90)));
    let hardware = Hardware { decoder: None, ..Hardware::find(FWHT) };
    let devices = |simulation: &Simulation| {
        let codecs: Arc<dyn Codecs> = Arc::new(hardware);
        kiosk::Devices { codecs: Some(codecs), ..machine::devices(&lobby, simulation) }
    };
    house.kiosk_of(lobby.clone(), PixelLayout::XRGB8888, devices).await;
    house.kiosk_with(ward, PixelLayout::XRGB8888).await;
    let encoder = |word: &'static str| {
        move |info: &Value| info["codecs"]["encoder"].as_str().is_some_and(|name| name.contains(word))
    };
    house.until("lobby/info", encoder("vicodec")).await;
    for id in ["lobby", "ward"] {
        house.desire(id, json!({ "room": "r", "members": ["lobby", "ward"] })).await;
    }
    let live = |member: &'static str| {
        move |reported: &Value| {
            let tiles = reported["tiles"].as_array();
            tiles.is_some_and(|tiles| {
                tiles.iter().any(|tile| tile["openid"] == member && tile["state"] == "live")
            })
        }
    };
    // What the codec makes is nothing that ward can show.
    house.until("lobby/reported", live("ward")).await;
    house.until("ward/reported", |reported| !live("lobby")(reported)).await;

    let unplugged = Unplugged::new();

    let fault = house.until("lobby/fault/codec", |fault| fault["code"] == "CODEC_SOFTWARE").await;
    assert_eq!(fault["severity"], "info");
    // It was at work: what failed is no opening.
    assert_ne!(fault["cause"]["op"], "open", "{fault}");
    house.until("lobby/info", encoder("OpenH264")).await;
    house.until("ward/reported", live("lobby")).await;
    house.until("lobby/state", |state| state["state"] == "online").await;
    house.close().await;
    drop(unplugged);
}

/// The driver is off its device until this is dropped, whatever becomes of the test.
struct Unplugged;

impl Unplugged {
    fn new() -> Self {
        driver("unbind");
        let unplugged = Self;
        await_codec(false);
        unplugged
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        driver("bind");
        if !std::thread::panicking() {
            await_codec(true);
        }
    }
}

fn driver(verb: &str) {
    let place = format!("/sys/bus/platform/drivers/vicodec/{verb}");
    fs::write(&place, "vicodec.0").expect(&place);
}

/// Waits until there is a codec, or none.
fn await_codec(there: bool) {
    let deadline = Instant::now() + PATIENCE;
    while Hardware::find(FWHT).is_empty() == there {
        assert!(Instant::now() < deadline, "the codec does not come or go");
        std::thread::yield_now();
    }
}

/// Pictures that are coded and decoded again, one after the other.
struct Stream {
    encoder: V4l2Encoder,
    decoder: V4l2Decoder,
    pool: FramePool,
    size: Size,
    number: u32,
}

impl Stream {
    /// Decodes into this format.
    fn new(size: Size, raw: [u8; 4]) -> Self {
        let found = Hardware::find(FWHT).decoder.expect("vicodec decodes");
        let decoder = V4l2Decoder::open(&Found { raw, ..found }).expect("it can be opened");
        Self { encoder: encoder(size), decoder, pool: FramePool::default(), size, number: 0 }
    }

    /// What was sent, and what came of it.
    fn next(&mut self) -> (Frame, Arc<dyn Image>) {
        self.number += 1;
        let sent = picture(self.size, self.number);
        let packet = code(&mut self.encoder, &sent, 0, false);
        let seen = self.decoder.decode(&packet, &mut self.pool, Duration::ZERO);
        (sent, seen.expect("decoded").expect("a picture"))
    }
}

/// A picture that somebody looks at, and what it was when it came.
struct Held {
    image: Arc<dyn Image>,
    before: Frame,
}

impl Held {
    fn new(image: Arc<dyn Image>) -> Self {
        Self { before: copy(&image), image }
    }

    fn is_lent(&self) -> bool {
        is_lent(&self.image)
    }

    fn check(&self) {
        assert!(copy(&self.image).planes() == self.before.planes(), "it has changed");
    }
}

/// Whether the samples lie in what was mapped from a codec, as the kernel sees it.
fn is_lent(image: &Arc<dyn Image>) -> bool {
    let at = image.view().luma().row(0).as_ptr().addr();
    let maps = fs::read_to_string("/proc/self/maps").expect("the kernel lists mappings");
    let mut mapped = maps.lines().filter(|line| line.contains("/dev/video")).filter_map(|line| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let address = |hex| usize::from_str_radix(hex, 16).expect("an address");
        Some(address(from)..address(to))
    });
    mapped.any(|mapping| mapping.contains(&at))
}

fn copy(image: &Arc<dyn Image>) -> Frame {
    let mut frame = Frame::new(image.size());
    frame.copy(&image.view());
    (frame.colour, frame.captured) = (image.colour(), image.captured());
    frame
}

fn encoder(size: Size) -> V4l2Encoder {
    let found = Hardware::find(FWHT).encoder.expect("vicodec encodes");
    V4l2Encoder::open(&found, size, 30.0, 1_000_000).expect("it can be opened")
}

fn decoder() -> V4l2Decoder {
    let found = Hardware::find(FWHT).decoder.expect("vicodec decodes");
    V4l2Decoder::open(&found).expect("it can be opened")
}

fn code(encoder: &mut dyn Encode, frame: &Frame, time: u32, keyframe: bool) -> Packet {
    encoder.encode(frame, time, keyframe).expect("coded").expect("not skipped")
}

fn device_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    *error.downcast().expect("a device's error")
}

/// Slopes and a box that moves with the number: in all planes, in both directions.
fn picture(size: Size, number: u32) -> Frame {
    let mut frame = Frame::new(size);
    let width = frame.size().width;
    for (plane, samples) in frame.planes_mut().into_iter().enumerate() {
        let width = if plane == 0 { width } else { width / 2 };
        for (place, sample) in samples.iter_mut().enumerate() {
            let (x, y) = (place as u32 % width, place as u32 / width);
            let boxed = (x / 32 + y / 32) % 7 == number % 7;
            *sample = (60 + (x + 2 * y + 11 * number) / 16 % 100 + if boxed { 60 } else { 0 }) as u8;
        }
    }
    frame
}

/// Peak signal-to-noise ratio over all planes.
fn likeness_db(sent: &Frame, seen: &Arc<dyn Image>) -> f64 {
    assert_eq!(sent.size(), seen.size());
    let seen = copy(seen);
    let (mut sum, mut count) = (0.0, 0.0);
    for (sent, seen) in sent.planes().into_iter().zip(seen.planes()) {
        for (sent, seen) in sent.iter().zip(seen) {
            sum += f64::from(sent.abs_diff(*seen)).powi(2);
            count += 1.0;
        }
    }
    10.0 * (255.0_f64.powi(2) / (sum / count).max(1e-9)).log10()
}
