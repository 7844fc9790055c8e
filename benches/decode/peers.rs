//! The peers of the decode bench: libavcodec's H.264 decoder, streams of x264, and libyuv's conversions. Declarations
//! follow libavcodec/avcodec.h, packet.h, libavutil/frame.h and libyuv/convert.h.

use super::Contender;
use parlor::geometry::Size;
use parlor::media::Packet;
use parlor::media::frame::Frame;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Stdio};
use std::ptr::null_mut;

/// Slack that libavcodec may read behind a packet (libavcodec/defs.h).
const PADDING: usize = 64;

/// The first fields of `AVPacket`, the same in libavcodec 58 to 62.
#[repr(C)]
struct AvPacket {
    buffer: *mut c_void,
    pts: i64,
    dts: i64,
    data: *const u8,
    size: c_int,
}

#[rustfmt::skip]
#[link(name = "avcodec")]
unsafe extern "C" {
    fn avcodec_find_decoder_by_name(name: *const c_char) -> *const c_void;
    fn avcodec_alloc_context3(codec: *const c_void) -> *mut c_void;
    fn avcodec_free_context(context: *mut *mut c_void);
    fn avcodec_open2(context: *mut c_void, codec: *const c_void, options: *mut *mut c_void) -> c_int;
    fn avcodec_send_packet(context: *mut c_void, packet: *const AvPacket) -> c_int;
    fn avcodec_receive_frame(context: *mut c_void, frame: *mut c_void) -> c_int;
    fn av_packet_alloc() -> *mut AvPacket;
    fn av_packet_free(packet: *mut *mut AvPacket);
}

#[link(name = "avutil")]
unsafe extern "C" {
    fn av_dict_set(
        options: *mut *mut c_void,
        key: *const c_char,
        value: *const c_char,
        flags: c_int,
    ) -> c_int;
    fn av_dict_free(options: *mut *mut c_void);
    fn av_frame_alloc() -> *mut c_void;
    fn av_frame_free(frame: *mut *mut c_void);
}

struct Decoder {
    context: *mut c_void,
    packet: *mut AvPacket,
    frame: *mut c_void,
}

impl Decoder {
    /// One thread, no added delay: as a daemon with a thread for each stream has it.
    fn new() -> Self {
        let options: [(&CStr, &CStr); 2] = [(c"threads", c"1"), (c"flags", c"low_delay")];
        // SAFETY: strings end in zero, what is allocated is freed once, and no failure is passed over.
        unsafe {
            let codec = avcodec_find_decoder_by_name(c"h264".as_ptr());
            assert!(!codec.is_null(), "libavcodec has an H.264 decoder");
            let context = avcodec_alloc_context3(codec);
            let mut dictionary = null_mut();
            for (key, value) in options {
                assert!(av_dict_set(&mut dictionary, key.as_ptr(), value.as_ptr(), 0) >= 0);
            }
            assert_eq!(avcodec_open2(context, codec, &mut dictionary), 0);
            av_dict_free(&mut dictionary);
            let decoder = Self { context, packet: av_packet_alloc(), frame: av_frame_alloc() };
            assert!(!decoder.packet.is_null() && !decoder.frame.is_null());
            decoder
        }
    }

    /// Decodes an access unit that is followed by [`PADDING`] zeros.
    fn decode(&mut self, padded: &[u8]) {
        // SAFETY: the packet has no buffer of its own, so libavcodec copies what it keeps; the padding is there.
        unsafe {
            (*self.packet).data = padded.as_ptr();
            (*self.packet).size = (padded.len() - PADDING) as c_int;
            assert_eq!(avcodec_send_packet(self.context, self.packet), 0);
            assert_eq!(avcodec_receive_frame(self.context, self.frame), 0);
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: all three were allocated by `new`, and are freed once.
        unsafe {
            (*self.packet).data = null_mut();
            av_packet_free(&mut self.packet);
            av_frame_free(&mut self.frame);
            avcodec_free_context(&mut self.context);
        }
    }
}

/// libavcodec, bare: its picture is looked at by nobody.
pub fn libavcodec<'a>(stream: &[Packet]) -> Contender<'a> {
    let padded: Vec<Vec<u8>> =
        stream.iter().map(|packet| [&packet.data[..], &[0; PADDING]].concat()).collect();
    let mut decoder = Decoder::new();
    Contender {
        name: "bare libavcodec",
        work: Box::new(move || padded.iter().for_each(|unit| decoder.decode(unit))),
    }
}

/// What x264 makes of these pictures, set as for a call: one slice a picture, no B pictures.
pub fn x264(pictures: &[Frame], bitrate_bps: u32, profile: &str) -> Vec<Packet> {
    let (size, rate) = (pictures[0].size().to_string(), bitrate_bps.to_string());
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-r", "30", "-s", &size, "-i", "-"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-profile:v", profile])
        .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-bf", "0", "-g", "9999"])
        .args(["-threads", "1", "-x264-params", "aud=1:sliced-threads=0", "-f", "h264", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run ffmpeg (Debian: ffmpeg)");
    let mut input = ffmpeg.stdin.take().expect("it was asked for");
    let output = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            for plane in pictures.iter().flat_map(|picture| picture.planes()) {
                input.write_all(plane).expect("ffmpeg reads its input");
            }
        });
        let output = ffmpeg.wait_with_output().expect("ffmpeg ends");
        feeder.join().expect("no panic");
        output
    });
    assert!(output.status.success(), "ffmpeg codes with libx264");
    // Each access unit begins with a delimiter (H.264, 7.3.2.4).
    let delimiter = [0, 0, 0, 1, 9];
    let starts: Vec<usize> = output
        .stdout
        .windows(5)
        .enumerate()
        .filter(|(_, bytes)| *bytes == delimiter)
        .map(|(at, _)| at)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([output.stdout.len()]);
    let units = starts.iter().zip(ends).zip(0..);
    let packet = |((&start, end), number): ((&usize, usize), u32)| Packet {
        data: output.stdout[start..end].to_vec().into(),
        keyframe: number == 0,
        time: number * 3000,
    };
    units.map(packet).collect()
}

#[rustfmt::skip]
#[link(name = "yuv")]
unsafe extern "C" {
    fn YUY2ToI420(from: *const u8, stride: c_int, y: *mut u8, ys: c_int, u: *mut u8, us: c_int, v: *mut u8, vs: c_int, width: c_int, height: c_int) -> c_int;
    fn NV12ToI420(y: *const u8, ys: c_int, uv: *const u8, uvs: c_int, to_y: *mut u8, to_ys: c_int, to_u: *mut u8, to_us: c_int, to_v: *mut u8, to_vs: c_int, width: c_int, height: c_int) -> c_int;
    fn MJPGToI420(from: *const u8, bytes: usize, y: *mut u8, ys: c_int, u: *mut u8, us: c_int, v: *mut u8, vs: c_int, width: c_int, height: c_int, to_width: c_int, to_height: c_int) -> c_int;
}

/// libyuv's conversion of the same picture; of MJPG with libjpeg-turbo.
pub fn libyuv<'a>(fourcc: [u8; 4], size: Size, data: &'a [u8], repeats: usize) -> Contender<'a> {
    let mut frame = Frame::new(size);
    let (width, height) = (size.width as c_int, size.height as c_int);
    let convert = move || {
        let [y, u, v] = frame.planes_mut().map(|plane| plane.as_mut_ptr());
        let (half, from) = (width / 2, data.as_ptr());
        // SAFETY: `data` is a whole picture of that format and size without padding, and so is `frame`.
        let result = unsafe {
            match &fourcc {
                b"YUYV" => YUY2ToI420(from, 2 * width, y, width, u, half, v, half, width, height),
                b"NV12" => {
                    let chroma = from.add((width * height) as usize);
                    NV12ToI420(from, width, chroma, width, y, width, u, half, v, half, width, height)
                }
                _ => MJPGToI420(from, data.len(), y, width, u, half, v, half, width, height, width, height),
            }
        };
        assert_eq!(result, 0, "libyuv converts {}", String::from_utf8_lossy(&fourcc));
        black_box(&frame);
    };
    let mut convert = convert;
    Contender { name: "libyuv", work: Box::new(move || (0..repeats).for_each(|_| convert())) }
}
