//! Inputs to begin with: what the program itself says, and the examples of `docs/asyncapi.yaml`.

use super::{
    ANSWERED, CANDIDATE, DATAGRAM, END, FORMATS, JUMP, MARKER, NEW_TIME, RETAINED, RTCP, RTP, TOPICS,
};
use parlor::geometry::Size;
use parlor::media::frame::Frame;
use parlor::media::packetize::packetize;
use parlor::media::sound::{BLOCK, SILENCE, SLOT};
use parlor::media::{h264, opus};
use parlor::sim::speech::Speech;
use serde_json::Value;

const ASYNCAPI: &str = include_str!("../../docs/asyncapi.yaml");
const OFFER: &str = include_str!("../../tests/offers/chromium.sdp");

/// Seeds by target, each with its name.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let seeds = [
        ("room", rooms()),
        ("peer", peers()),
        ("picture", pictures()),
        ("voice", vec![("speech".into(), voice(false)), ("speech-with-gaps".into(), voice(true))]),
        ("camera", cameras()),
    ];
    let of = |(target, seeds): (&'static str, Vec<(String, Vec<u8>)>)| {
        seeds.into_iter().map(move |(name, seed)| (target, name, seed))
    };
    seeds.into_iter().flat_map(of).collect()
}

/// A call from beginning to end; and each example after a document.
fn rooms() -> Vec<(String, Vec<u8>)> {
    let session = "0".repeat(32);
    let document =
        r#"{"rev":1,"room":"r","members":["lobby","ward",{"openid":"amy","pin":true}],"layout":"speaker"}"#;
    let signal = |seq: u32, kind: &str, more: &str| {
        format!(r#"{{"room":"r","session":"{session}","seq":{seq},"kind":"{kind}"{more}}}"#)
    };
    let begin = message(0, RETAINED, 0, document);
    let call = [
        begin.clone(),
        message(9, 0, 1, "\0"),
        message(1, 0, 2, &signal(1, "hello", "")),
        message(10, 0, 1, "\0v=0"),
        message(1, 0, 2, &signal(2, "answer", r#","sdp":"v=0""#)),
        message(1, 0, 2, &signal(3, "candidate", r#","candidate":{"candidate":"c","sdpMid":"0"}"#)),
        message(2, 0, 1, &signal(1, "offer", r#","sdp":"v=0""#)),
        message(10, 0, 1, "\x04"),
        message(11, 0, 1, "\0"),
        message(11, 0, 9, "\x01"),
        message(3, ANSWERED, 9, r#"{"width":320}"#),
        message(12, 0, 9, "\x64\x40fb0"),
        message(13, 0, 1, "\0webcam"),
        message(13, 0, 1, "\x02USB Audio"),
        message(14, 0, 9, "\0\0\x02VIDIOC_DQBUF"),
        message(14, 0, 9, "\0\0\x01"),
        message(14, 0, 9, "\x07\x0a\x02heat"),
        message(14, 0, 9, "\x07\x0a\0"),
        message(7, RETAINED, 9, r#"{"state":"offline","boot":"9f3c000000000001"}"#),
        message(8, RETAINED, 9, r#"{"code":"CAMERA_GONE","boot":"9f3c000000000001"}"#),
        message(15, 0, 9, "lobby/cmd/dance\n{}"),
        message(1, 0, 9, &signal(4, "bye", "")),
        message(0, RETAINED, 60, ""),
    ];
    let api: Value = serde_yaml_ng::from_str(ASYNCAPI).expect("YAML");
    let messages = api["components"]["messages"].as_object().expect("messages");
    let lists = messages.values().flat_map(|message| [&message["examples"], &message["x-invalid-examples"]]);
    let examples =
        lists.filter_map(Value::as_array).flatten().filter(|example| example["x-repeat"].is_null());
    let example = |example: &Value| {
        let topic = example["x-topic"].as_str().unwrap_or_default();
        let raw = example["x-raw"].as_str().map(str::to_owned);
        let payload = raw.unwrap_or_else(|| example["payload"].to_string());
        match TOPICS.iter().position(|known| *known == topic) {
            Some(index) => message(index as u8, ANSWERED, 1, &payload),
            None => message(15, ANSWERED, 1, &format!("{topic}\n{payload}")),
        }
    };
    let after =
        |(index, seed): (usize, Vec<u8>)| (format!("example-{index:02}"), [begin.clone(), seed].concat());
    let mut all: Vec<_> = examples.map(example).enumerate().map(after).collect();
    all.push(("call".into(), call.concat()));
    all
}

fn message(topic: u8, flags: u8, wait: u8, payload: &str) -> Vec<u8> {
    [&[topic | flags, wait], payload.as_bytes(), &[END]].concat()
}

/// A browser's offer, with a candidate, a STUN request (RFC 8489), a ClientHello's beginning (RFC 6347), RTP and RTCP.
fn peers() -> Vec<(String, Vec<u8>)> {
    let candidate = r#"{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host generation 0 ufrag q+fO","sdpMid":"0","sdpMLineIndex":0}"#;
    let stun = [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], b"twelve bytes", &[0, 6, 0, 4], b"a:bc"].concat();
    let hello =
        [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4][..], b"1234"]
            .concat();
    let rtp =
        [&[0x90, 0xe6, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0][..], b"\x65\x88"]
            .concat();
    let receiver_report = [&[0x81, 201, 0, 7][..], &[7; 28]].concat();
    let keyframe_wanted = [0x81, 206, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
    let missing = [0x81, 205, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0x80, 1];
    let records = [
        record(&[CANDIDATE], candidate.as_bytes()),
        record(&[DATAGRAM], &stun),
        record(&[DATAGRAM], &hello),
        record(&[RTP], &rtp),
        record(&[RTCP], &[&receiver_report[..], &keyframe_wanted, &missing].concat()),
    ];
    let with =
        |role: u8, sdp: &str| [&[role, records.len() as u8], &records.concat()[..], sdp.as_bytes()].concat();
    let answer = OFFER.replace("a=setup:actpass", "a=setup:active");
    vec![("offer".into(), with(0, OFFER)), ("answer".into(), with(1, &answer))]
}

/// Some pictures of the encoder, in large packets, in small ones, and with one missing.
fn pictures() -> Vec<(String, Vec<u8>)> {
    let stream = |mtu: usize, lost: usize| {
        let mut encoder = h264::Encoder::new(Size::new(64, 48), 30.0, 200_000).expect("an encoder");
        let mut frame = Frame::new(Size::new(64, 48));
        let mut records = Vec::new();
        for time in 0..6_u8 {
            for (at, luma) in frame.planes_mut()[0].iter_mut().enumerate() {
                *luma = (at as u8).wrapping_mul(7).wrapping_add(time * 9);
            }
            let keyframe = time == 4;
            let coded = encoder.encode(&frame, 3_000 * u32::from(time), keyframe).expect("a picture");
            let Some(coded) = coded else { continue };
            for (index, payload) in packetize(&coded, mtu).into_iter().enumerate() {
                let flags = if index == 0 { NEW_TIME } else { 0 } | if payload.marker { MARKER } else { 0 };
                records.push(record(&[flags], &payload.data));
            }
        }
        if lost > 0 {
            records.remove(lost);
            let begin = jump(&records[lost], 1);
            records[lost].splice(..3, begin);
        }
        records.concat()
    };
    vec![
        ("large".into(), stream(1_200, 0)),
        ("small".into(), stream(100, 0)),
        ("lossy".into(), stream(100, 9)),
    ]
}

/// The beginning of a record with a jump added: one byte longer.
fn jump(record: &[u8], by: u8) -> [u8; 4] {
    let length = u16::from_le_bytes([record[1], record[2]]) + 1;
    let [low, high] = length.to_le_bytes();
    [record[0] | JUMP, low, high, by]
}

/// A second of a talker, coded.
fn voice(gaps: bool) -> Vec<u8> {
    let mut encoder = opus::Encoder::new().expect("an encoder");
    encoder.set_expected_loss(20).expect("a percentage");
    let mut talker = Speech::new(120.0);
    let mut records = Vec::new();
    for index in 0..50 {
        let mut slot = [0.0; SLOT];
        for half in slot.chunks_exact_mut(BLOCK) {
            let mut block = SILENCE;
            talker.talk(&mut block);
            half.copy_from_slice(&block);
        }
        let packet = encoder.encode(&slot).expect("sound").unwrap_or_default();
        if gaps && index % 7 == 3 {
            continue;
        }
        if gaps && index % 7 == 4 {
            records.push(record(&[JUMP, 40], &[&[1, 1], &packet[..]].concat()));
        } else {
            records.push(record(&[0, 20], &packet));
        }
    }
    records.concat()
}

/// A small picture in each format.
fn cameras() -> Vec<(String, Vec<u8>)> {
    let (width, height) = (32, 16);
    let rgb: Vec<u8> = (0..width * height * 3).map(|at| (at * 5 % 251) as u8).collect();
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, 60)
        .encode(&rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
        .expect("a JPEG");
    let with = |format: usize, buffer: &[u8]| {
        let name = String::from_utf8_lossy(FORMATS[format]).to_lowercase();
        (name, [&[format as u8, (width / 2) as u8, (height / 2) as u8, 0], buffer].concat())
    };
    let raw = [2 * width * height, width * height * 3 / 2, width * height * 3 / 2];
    let mut all: Vec<_> =
        (1..).zip(raw).map(|(format, length)| with(format, &rgb[..length.min(rgb.len())])).collect();
    all.push(with(0, &jpeg));
    all
}

/// A record: what stands before the length, the length in two bytes, the content.
fn record(before: &[u8], content: &[u8]) -> Vec<u8> {
    [before, &(content.len() as u16).to_le_bytes(), content].concat()
}
