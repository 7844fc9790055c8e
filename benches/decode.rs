//! What receiving and capturing cost one picture: decoding H.264 beside the bare decoder, converting a camera's picture
//! beside a copy of its bytes, and both beside peers: Markdown tables.
//!
//! Everyone does the same work in turn, round by round, on one thread; times are that thread's CPU time, medians of the
//! rounds, and ratios are taken within a round. Peers, and streams of x264, need the feature `bench-peers` and Debian's
//! libavcodec-dev, libyuv-dev and ffmpeg. `ROUNDS` changes the 9.
#![allow(unsafe_code)]

use parlor::geometry::Size;
use parlor::media::Packet;
use parlor::media::codec::{Codecs, Software};
use parlor::media::convert::convert;
use parlor::media::frame::{Frame, FramePool};
use parlor::media::h264::Encoder;
use std::hint::black_box;
use std::time::Duration;

#[cfg(feature = "bench-peers")]
#[path = "decode/peers.rs"]
mod peers;

const SIZES: [(Size, u32); 2] = [(Size::new(640, 480), 800_000), (Size::new(1280, 720), 2_000_000)];
/// Pictures of a stream: four seconds.
const PICTURES: u32 = 120;

/// One who does the work once; the second comes after the first, which is ours.
struct Contender<'a> {
    name: &'static str,
    work: Box<dyn FnMut() + 'a>,
}

fn main() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    println!("Decoding, CPU milliseconds a picture.\n");
    println!("| stream | kbit/s | ours | beside | ours / each |\n| --- | --- | --- | --- | --- |");
    let mut paths = Vec::new();
    for (size, bitrate_bps) in SIZES {
        let pictures: Vec<Frame> = (0..PICTURES).map(|number| picture(size, number)).collect();
        paths.push(decoding(&format!("{size}, our encoder"), &own(&pictures, bitrate_bps), rounds));
        #[cfg(feature = "bench-peers")]
        for profile in ["baseline", "high"] {
            let stream = peers::x264(&pictures, bitrate_bps, profile);
            paths.push(decoding(&format!("{size}, x264 {profile}"), &stream, rounds));
        }
    }
    let worst = paths.into_iter().fold(0.0, f64::max);
    let verdict = if worst <= 1.10 { "within" } else { "MISSED" };
    println!("\nDecode path / bare decoder, worst: {worst:.3}; must be 1.10: {verdict}.");
    println!("\nA camera's picture into I420, CPU milliseconds.\n");
    println!("| picture | ours | beside | ours / each |\n| --- | --- | --- | --- |");
    for (size, _) in SIZES {
        for fourcc in [*b"YUYV", *b"NV12", *b"MJPG"] {
            converting(fourcc, &picture(size, 0), rounds);
        }
    }
}

/// What our encoder makes of these pictures.
fn own(pictures: &[Frame], bitrate_bps: u32) -> Vec<Packet> {
    let mut encoder = Encoder::new(pictures[0].size(), 30.0, bitrate_bps).expect("an encoder");
    let coded = pictures.iter().zip(0..).map(|(frame, number)| encoder.encode(frame, number * 3000, false));
    coded.filter_map(|packet| packet.expect("coded")).collect()
}

/// Decodes a stream with everyone; what our path costs to the bare decoder it uses.
fn decoding(name: &str, stream: &[Packet], rounds: usize) -> f64 {
    let mut decoder = Software.decoder().expect("a decoder");
    let mut pool = FramePool::default();
    let mut bare = openh264::decoder::Decoder::new().expect("a decoder");
    let mut contenders = vec![
        Contender {
            name: "ours",
            work: Box::new(|| {
                for packet in stream {
                    let frame = decoder.decode(packet, &mut pool, Duration::ZERO).expect("decoded");
                    black_box(frame.expect("a picture"));
                }
            }),
        },
        Contender {
            name: "bare OpenH264",
            work: Box::new(|| {
                for packet in stream {
                    black_box(bare.decode(&packet.data).expect("decoded").expect("a picture"));
                }
            }),
        },
    ];
    #[cfg(feature = "bench-peers")]
    contenders.push(peers::libavcodec(stream));
    let bytes: usize = stream.iter().map(|packet| packet.data.len()).sum();
    let times = times(&mut contenders, rounds, stream.len());
    let kbps = bytes * 8 * 30 / stream.len() / 1000;
    let (beside, ratios) = beside(&contenders, &times);
    println!("| {name} | {kbps} | {:.3} | {beside} | {ratios} |", median(times.iter().map(|round| round[0])));
    median(times.iter().map(|round| round[0] / round[1]))
}

fn converting(fourcc: [u8; 4], frame: &Frame, rounds: usize) {
    const REPEATS: usize = 20;
    let (size, data) = (frame.size(), as_camera(fourcc, frame));
    let (mut own, mut copy) = (Frame::new(size), vec![0; data.len()]);
    let mut contenders = vec![
        Contender {
            name: "ours",
            work: Box::new(|| {
                for _ in 0..REPEATS {
                    convert(fourcc, size, 0, &data, &mut own).expect("a whole picture");
                    black_box(&own);
                }
            }),
        },
        Contender {
            name: "copy",
            work: Box::new(|| {
                for _ in 0..REPEATS {
                    copy.copy_from_slice(&data);
                    black_box(&copy);
                }
            }),
        },
    ];
    #[cfg(feature = "bench-peers")]
    contenders.push(peers::libyuv(fourcc, size, &data, REPEATS));
    let times = times(&mut contenders, rounds, REPEATS);
    let (beside, ratios) = beside(&contenders, &times);
    println!(
        "| {} {size} | {:.3} | {beside} | {ratios} |",
        String::from_utf8_lossy(&fourcc),
        median(times.iter().map(|round| round[0]))
    );
}

/// CPU milliseconds of one of `pieces` of everyone's work, in every round; each has worked once before.
fn times(contenders: &mut [Contender], rounds: usize, pieces: usize) -> Vec<Vec<f64>> {
    let mut once = |contender: &mut Contender| {
        let begin = cpu_nanoseconds();
        (contender.work)();
        (cpu_nanoseconds() - begin) / 1e6 / pieces as f64
    };
    contenders.iter_mut().for_each(|contender| (contender.work)());
    (0..rounds).map(|_| contenders.iter_mut().map(&mut once).collect()).collect()
}

/// The times of all but us, and ours to theirs.
fn beside(contenders: &[Contender], times: &[Vec<f64>]) -> (String, String) {
    let each = |of: &dyn Fn(&[f64], usize) -> f64| {
        let one = |(who, other): (usize, &Contender)| {
            format!("{} {:.3}", other.name, median(times.iter().map(|round| of(round, who))))
        };
        contenders.iter().enumerate().skip(1).map(one).collect::<Vec<_>>().join(", ")
    };
    (each(&|round, who| round[who]), each(&|round, who| round[0] / round[who]))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn cpu_nanoseconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "every Linux has a clock of the thread's CPU time");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// A textured room that the camera pans over, somebody who moves before it, and a sensor's noise.
fn picture(size: Size, number: u32) -> Frame {
    let mut frame = Frame::new(size);
    let time = f64::from(number) / 30.0;
    let (pan, head) = (30.0 * time.sin(), 0.5 + 0.2 * (1.3 * time).sin());
    let mut seed = number.wrapping_mul(747_796_405) + 1;
    for (plane, samples) in frame.planes_mut().into_iter().enumerate() {
        let shrink = if plane == 0 { 1 } else { 2 };
        let width = size.width / shrink;
        for (index, sample) in samples.iter_mut().enumerate() {
            let (column, row) = (index as u32 % width * shrink, index as u32 / width * shrink);
            let (x, y) = (f64::from(column) + pan, f64::from(row));
            let (across, down) =
                (f64::from(column) / f64::from(size.width) - head, y / f64::from(size.height) - 0.5);
            let inside = across * across + down * down < 0.04;
            let wave = if inside {
                2.0 + (across * 60.0).sin() * (down * 50.0 + 4.0 * time).cos()
            } else {
                (x * 0.05).sin() + (y * 0.07 + x * 0.02).sin() + 0.5 * (x * 0.4 + y * 0.3).sin()
            };
            let edge = if !inside && (((x + 1000.0) / 40.0) as u32).is_multiple_of(3) { 0.8 } else { 0.0 };
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let amplitude = if plane == 0 { 30.0 } else { 15.0 };
            *sample = (115.0 + (wave + edge) * amplitude + f64::from(seed >> 30)) as u8;
        }
    }
    frame
}

/// The picture as a camera delivers it.
fn as_camera(fourcc: [u8; 4], frame: &Frame) -> Vec<u8> {
    let (width, [luma, u, v]) = (frame.size().width as usize, frame.planes());
    let pixel = |index: usize| {
        let chroma = index / width / 2 * (width / 2) + index % width / 2;
        [luma[index], u[chroma], v[chroma]]
    };
    match &fourcc {
        b"YUYV" => (0..luma.len()).flat_map(|index| [luma[index], pixel(index)[1 + index % 2]]).collect(),
        b"NV12" => {
            let chroma = u.iter().zip(v).flat_map(|(&u, &v)| [u, v]);
            luma.iter().copied().chain(chroma).collect()
        }
        _ => {
            let pixels: Vec<u8> = (0..luma.len()).flat_map(pixel).collect();
            let mut data = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut data, 80);
            encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_2);
            let (width, height) = (frame.size().width as u16, frame.size().height as u16);
            encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Ycbcr).expect("coded");
            data
        }
    }
}
