//! Pictures from real V4L2 nodes, and the faults they have.

use crate::bed::{self, BLUE, COLOUR_BARS, PATIENCE, RED, control, pattern};
use jpeg_encoder::{ColorType, Encoder};
use parlor::device::camera::{Choice, FORMATS, V4l2Camera, list, open, open_among};
use parlor::device::{Camera, Kind};
use parlor::geometry::Size;
use parlor::media::frame::Frame;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use v4l::video::Output;

const FRONT: &str = "/dev/video0";
const BACK: &str = "/dev/video1";
/// The node of v4l2loopback: a camera fed by the test.
const LOOPBACK: &str = "/dev/video20";
const SIZE: Size = Size::new(320, 180);

#[test]
fn both_cameras_are_listed() {
    let found = list();

    for (path, bus) in [(FRONT, "platform:vivid-000"), (BACK, "platform:vivid-001")] {
        let camera = found.iter().find(|found| found.path.to_str() == Some(path)).expect(path);
        assert_eq!((camera.card.as_str(), camera.bus.as_str()), ("vivid", bus));
        assert_eq!(camera.name, format!("vivid ({bus})"));
        assert!(camera.formats.contains(b"YUYV") && camera.formats.contains(b"NV12"));
    }
}

#[test]
fn each_name_opens_its_own_camera() {
    pattern(FRONT, RED);
    pattern(BACK, BLUE);

    let names = [
        (FRONT, RED),
        (BACK, BLUE),
        ("video1", BLUE),
        ("vivid", RED),
        ("VIV", RED),
        ("vivid (platform:vivid-001)", BLUE),
    ];
    for (name, colour) in names {
        let mut camera = open(&choice(name)).expect(name);
        assert_colour(&next(&mut camera), colour);
    }
}

#[test]
fn every_raw_format_shows_front_and_back_as_they_are() {
    pattern(FRONT, RED);
    pattern(BACK, BLUE);

    for format in FORMATS.iter().filter(|format| *format != b"MJPG") {
        let mut front = open_among(&choice(FRONT), &[*format]).expect("front camera");
        let mut back = open_among(&choice(BACK), &[*format]).expect("back camera");

        assert_eq!((&front.mode().fourcc, front.mode().size), (format, SIZE));
        assert_colour(&next(&mut front), RED);
        assert_colour(&next(&mut back), BLUE);
    }
}

#[test]
fn every_row_of_colour_bars_is_like_the_first() {
    pattern(FRONT, COLOUR_BARS);

    for format in FORMATS.iter().filter(|format| *format != b"MJPG") {
        let frame = next(&mut open_among(&choice(FRONT), &[*format]).expect("front camera"));

        let width = SIZE.width as usize;
        let luma = frame.planes()[0];
        assert!(luma.chunks(width).all(|row| row == &luma[..width]));
        let bars = (0..8).map(|bar| luma[bar * width / 8 + width / 16]).collect::<Vec<_>>();
        assert!(bars.windows(2).all(|pair| pair[0] > pair[1]), "white to black: {bars:?}");
    }
}

#[test]
fn the_mode_says_what_the_kernel_granted() {
    let wanted = Choice { device: FRONT.into(), size: Size::new(600, 350), rate_hz: 25 };
    let mut camera = open(&wanted).expect("front camera");

    assert_eq!(camera.mode().size, Size::new(640, 360));
    assert!((camera.mode().rate_hz - 25.0).abs() < 0.1, "{}", camera.mode().rate_hz);
    assert_eq!(next(&mut camera).size(), Size::new(640, 360));
}

#[test]
fn a_camera_in_use_is_busy_until_it_is_dropped() {
    let camera = open(&choice(FRONT)).expect("front camera");

    assert_eq!(failure(open(&choice(FRONT))), Kind::Busy);
    drop(camera);
    open(&choice(FRONT)).expect("free again");
}

#[test]
fn a_node_that_is_no_camera_is_not_found() {
    for path in ["/dev/fb0", "/dev/null", "/dev/video7", "quick"] {
        assert_eq!(failure(open(&choice(path))), Kind::NotFound, "{path}");
    }
}

#[test]
fn an_unplugged_camera_is_gone_and_comes_back_while_the_other_goes_on() {
    pattern(FRONT, RED);
    pattern(BACK, BLUE);
    let mut front = open(&choice(FRONT)).expect("front camera");
    let mut back = open(&choice(BACK)).expect("back camera");
    next(&mut back);

    control(BACK, "disconnect=1");

    assert_eq!(end_of(&mut back), Kind::Gone);
    assert_colour(&next(&mut front), RED);
    assert_eq!(failure(open(&choice(BACK))), Kind::Gone, "as long as it is held");
    drop(back);
    let mut back = open(&choice(BACK)).expect("back again");
    assert_colour(&next(&mut back), BLUE);
}

#[test]
fn a_camera_that_fails_for_good_is_gone_and_can_be_opened_again() {
    let mut camera = open(&choice(FRONT)).expect("front camera");
    next(&mut camera);

    control(FRONT, "inject_fatal_streaming_error=1");

    assert_eq!(end_of(&mut camera), Kind::Gone);
    drop(camera);
    next(&mut open(&choice(FRONT)).expect("front again"));
}

#[test]
fn a_camera_that_delivers_nothing_stalls() {
    let mut camera = open(&choice(FRONT)).expect("front camera");
    next(&mut camera);

    control(FRONT, "percentage_of_dropped_buffers=100");

    let end = end_of(&mut camera);
    control(FRONT, "percentage_of_dropped_buffers=0");
    assert_eq!(end, Kind::Stalled);
    next(&mut camera);
}

#[test]
fn a_damaged_picture_is_passed_over() {
    let mut camera = open(&choice(FRONT)).expect("front camera");
    let mut frame = Frame::new(SIZE);
    let deadline = Instant::now() + PATIENCE;

    // The picture may be an older one that nobody wants any more: damage some until one is ours.
    let error = loop {
        assert!(Instant::now() < deadline, "no damaged picture arrives");
        control(FRONT, "inject_v4l2_buf_flag_error=1");
        if let Some(error) = (0..4).find_map(|_| camera.capture(&mut frame).err()) {
            break error;
        }
    };

    assert_eq!(error.kind, Kind::BadFrame);
    camera.capture(&mut frame).expect("the next one is whole");
}

#[test]
fn a_jpeg_camera_is_decoded_and_stalls_when_it_falls_silent() {
    let fed = AtomicBool::new(true);
    let mut loopback = v4l::Device::with_path(LOOPBACK).expect("v4l2loopback");
    let format = v4l::Format::new(SIZE.width, SIZE.height, v4l::FourCC::new(b"MJPG"));
    loopback.set_format(&format).expect("a camera of MJPG");
    let picture = jpeg_of([255, 0, 0]);
    loopback.write_all(&picture).expect("the first picture");

    std::thread::scope(|scope| {
        // As fast as it goes: pictures nobody takes are overwritten.
        let feeder = scope.spawn(|| {
            while fed.load(Ordering::Relaxed) {
                loopback.write_all(&picture).expect("a picture");
                std::thread::yield_now();
            }
            loopback
        });
        let outcome = std::panic::catch_unwind(|| {
            let mut camera = open(&choice("TestJpeg")).expect("the JPEG camera");
            assert_eq!(&camera.mode().fourcc, b"MJPG");
            let frame = next(&mut camera);
            assert!(frame.colour.full_range);
            assert_mean(&frame, [76, 85, 255]);
            camera
        });
        fed.store(false, Ordering::Relaxed);
        let _loopback = feeder.join().expect("the feeder ends");
        let mut camera = outcome.expect("the camera worked");
        assert_eq!(end_of(&mut camera), Kind::Stalled);
    });
}

fn choice(device: &str) -> Choice {
    Choice { device: device.into(), size: SIZE, rate_hz: 30 }
}

fn failure<T>(answer: Result<T, parlor::device::Error>) -> Kind {
    answer.err().expect("it fails").kind
}

fn next(camera: &mut V4l2Camera) -> Frame {
    let mut frame = Frame::new(SIZE);
    // The first ones were filled before the pattern was set.
    for _ in 0..6 {
        camera.capture(&mut frame).expect("a picture");
    }
    frame
}

/// The error that ends the pictures.
fn end_of(camera: &mut V4l2Camera) -> Kind {
    let deadline = Instant::now() + PATIENCE;
    let mut frame = Frame::new(SIZE);
    loop {
        assert!(Instant::now() < deadline, "it never ends");
        if let Err(error) = camera.capture(&mut frame) {
            return error.kind;
        }
    }
}

/// Limited range BT.601 of the pure colours.
fn assert_colour(frame: &Frame, colour: u32) {
    assert_mean(
        frame,
        match colour {
            bed::RED => [81, 90, 240],
            bed::BLUE => [41, 240, 110],
            other => panic!("no colour is known of pattern {other}"),
        },
    );
}

fn assert_mean(frame: &Frame, wanted: [u8; 3]) {
    let mean = frame.planes().map(|plane| {
        let sum = plane.iter().map(|&sample| u64::from(sample)).sum::<u64>();
        (sum / plane.len() as u64) as u8
    });
    let near = mean.iter().zip(wanted).all(|(mean, wanted)| mean.abs_diff(wanted) <= 4);
    assert!(near, "{mean:?} and not {wanted:?}");
}

/// A JPEG of one colour: red, green, blue.
pub fn jpeg_of(colour: [u8; 3]) -> Vec<u8> {
    let pixels = colour.repeat(SIZE.area() as usize);
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, 90)
        .encode(&pixels, SIZE.width as u16, SIZE.height as u16, ColorType::Rgb)
        .expect("it can be coded");
    jpeg
}
