//! Two connections in one process over real UDP on the loopback: sound, its levels, its losses, and lip sync.

#![allow(clippy::unwrap_used)]

#[path = "peers/side.rs"]
mod side;

use bytes::Bytes;
use parlor::link::peer::Kind;
use parlor::media::Packet;
use parlor::media::sound::{Level, SLOT, SoundPacket};
use parlor::room::{PeerEvent, Role};
use side::{CHROMIUM, Camera, LIMIT, Network, Side, connect, connect_with};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{interval, timeout};

const OPUS: &str = "opus/48000/2";
const H264: &str = "H264/90000";
/// Payload type of the sound that we offer.
const OPUS_TYPE: u8 = 111;

#[tokio::test]
async fn sound_arrives_bit_exact_with_its_level_both_ways() {
    let (mut left, mut right) = connect(None).await;
    let (mut microphone_left, mut microphone_right) = (Microphone::new(1), Microphone::new(2));

    for _ in 0..100 {
        let (to_right, to_left) = (microphone_left.hear(), microphone_right.hear());
        assert!(left.peer.send_sound(&to_right));
        assert!(right.peer.send_sound(&to_left));

        assert_eq!(right.sound().await, *to_right);
        assert_eq!(left.sound().await, *to_left);
    }
    left.peer.close().await;
    right.peer.close().await;
}

#[tokio::test]
async fn picture_and_sound_of_one_connection_arrive_together() {
    let (left, mut right) = connect(None).await;
    let (mut camera, mut microphone) = (Camera::new(3), Microphone::new(3));

    for _ in 0..20 {
        let (unit, sound) = (camera.shoot(), microphone.hear());
        assert!(left.peer.send(&unit));
        assert!(left.peer.send_sound(&sound));

        assert_eq!(right.unit().await, *unit);
        assert_eq!(right.sound().await, *sound);
    }
    left.peer.close().await;
}

#[tokio::test]
async fn sound_overtakes_a_picture_that_waits() {
    let network = Network::new(u64::MAX).await;
    let (left, mut right) = connect(Some(&network)).await;
    let (picture, sound) = (Camera::new(4).shoot(), Microphone::new(4).hear());

    // This runtime has one thread: the connection sees both at once.
    assert!(left.peer.send(&picture));
    assert!(left.peer.send_sound(&sound));

    right.unit().await;
    right.sound().await;
    let carried = network.carried.lock().unwrap();
    assert!(carried.len() > 2, "a picture of several packets: {carried:?}");
    assert_eq!(carried[0], OPUS_TYPE, "{carried:?}");
    assert!(!carried[1..].contains(&OPUS_TYPE), "{carried:?}");
}

#[tokio::test]
async fn sound_passes_between_the_packets_of_a_picture() {
    let network = Network::new(u64::MAX).await;
    let (left, _right) = connect(Some(&network)).await;
    let mut microphone = Microphone::new(14);
    // More packets than webrtc takes at once: the connection waits in the middle of it.
    let data: Vec<u8> =
        [0, 0, 0, 1, 0x65].into_iter().chain((0..600_000).map(|byte| byte as u8 | 1)).collect();
    let picture = Packet { data: data.into(), keyframe: true, time: 0 };
    let picture_type = 102;
    let is_picture = |carried: &[u8]| carried.contains(&picture_type);

    assert!(left.peer.send(&Arc::new(picture)));

    let passed = timeout(LIMIT, async {
        loop {
            tokio::task::yield_now().await;
            let carried = network.carried.lock().unwrap().clone();
            let mut by_sound = carried.split(|payload_type| *payload_type == OPUS_TYPE);
            if is_picture(by_sound.next().unwrap()) {
                assert!(left.peer.send_sound(&microphone.hear()));
            }
            // A retransmission would be of another type.
            if by_sound.any(is_picture) {
                break;
            }
        }
    });
    assert!(passed.await.is_ok(), "the sound waited for the whole picture");
}

#[tokio::test]
async fn without_the_header_extension_sound_arrives_without_a_level() {
    let (mut left, mut right) = connect_with(None, without_level, |answer| answer).await;
    let (to_right, to_left) = (Microphone::new(5).hear(), Microphone::new(6).hear());

    left.peer.send_sound(&to_right);
    right.peer.send_sound(&to_left);

    assert_eq!(right.sound().await, SoundPacket { level: None, ..(*to_right).clone() });
    assert_eq!(left.sound().await, SoundPacket { level: None, ..(*to_left).clone() });
}

#[tokio::test]
async fn who_answers_without_the_header_extension_gets_and_gives_no_level() {
    let (mut left, mut right) = connect_with(None, |offer| offer, without_level).await;
    let (to_right, to_left) = (Microphone::new(5).hear(), Microphone::new(6).hear());

    left.peer.send_sound(&to_right);
    right.peer.send_sound(&to_left);

    assert_eq!(right.sound().await.level, None);
    assert_eq!(left.sound().await.level, None);
}

#[tokio::test]
async fn with_a_member_that_takes_no_sound_there_is_a_picture() {
    // The answer then rejects the section.
    let (left, right) = connect_with(None, |offer| offer.replace(OPUS, "unheard/48000/2"), same).await;

    picture_without_sound(left, right).await;
}

#[tokio::test]
async fn with_a_member_that_knows_of_no_sound_there_is_a_picture() {
    let offered = |offer: String| without_section(&offer, "audio");
    let answered = |answer: String| answer + &rejected("audio", 1);
    let (left, right) = connect_with(None, offered, answered).await;

    picture_without_sound(left, right).await;
}

#[tokio::test]
async fn with_a_member_that_takes_no_picture_there_is_sound() {
    let (left, right) = connect_with(None, |offer| offer.replace(H264, "unseen/90000"), same).await;

    sound_without_picture(left, right).await;
}

#[tokio::test]
async fn with_a_member_that_knows_of_no_picture_there_is_sound() {
    let offered = |offer: String| without_section(&offer, "video");
    // The sections of an answer are in the order of the offer.
    let answered = |answer: String| answer.replace("m=audio", &(rejected("video", 0) + "m=audio"));
    let (left, right) = connect_with(None, offered, answered).await;

    sound_without_picture(left, right).await;
}

#[tokio::test]
async fn in_a_full_queue_the_oldest_sound_gives_way() {
    let (left, mut right) = connect(None).await;
    let mut microphone = Microphone::new(7);
    let sounds: Vec<_> = (0..25).map(|_| microphone.hear()).collect();

    // This runtime has one thread: nothing is taken out of the queue between these lines.
    for sound in &sounds {
        assert!(left.peer.send_sound(sound));
    }

    for sound in &sounds[15..] {
        assert_eq!(right.sound().await, **sound);
    }
    assert!(right.sounds.is_empty());
}

#[tokio::test]
async fn sound_for_a_connection_that_is_not_there_is_dropped() {
    let mut side = Side::new(Role::Answer("v=0".into()));
    let sound = Microphone::new(8).hear();

    assert!(!side.peer.send_sound(&sound));
    side.failure().await;
    assert!(!side.peer.send_sound(&sound));
}

#[tokio::test]
async fn any_bytes_pass_as_sound() {
    let (left, mut right) = connect(None).await;
    let mut microphone = Microphone::new(9);

    for length in [1, 2, 3, 100, 1_000, 1_160] {
        let garbage = (0..length).map(|index| (index * 37 % 256) as u8).collect::<Vec<_>>();
        let sound = Arc::new(SoundPacket { data: garbage.into(), ..(*microphone.hear()).clone() });
        assert!(left.peer.send_sound(&sound));
        assert_eq!(right.sound().await, *sound);
    }
    for length in [0, 1_161, 100_000] {
        let sound = SoundPacket { data: vec![7; length].into(), ..(*microphone.hear()).clone() };
        assert!(!left.peer.send_sound(&Arc::new(sound)), "{length} bytes are no packet");
    }
}

#[tokio::test]
async fn who_sends_is_told_of_its_losses() {
    let network = Network::new(4).await;
    let (mut left, _right) = connect_with(Some(&network), same, same).await;
    let mut microphone = Microphone::new(10);

    let mut pace = interval(Duration::from_millis(5));
    let told = timeout(LIMIT, async {
        loop {
            tokio::select! {
                _ = pace.tick() => assert!(left.peer.send_sound(&microphone.hear())),
                loss = left.loss() => if loss > 0 { return loss },
            }
        }
    });

    let loss = told.await.expect("a report of the losses");
    // One in four is lost of some two hundred.
    assert!((5..=60).contains(&loss), "{loss} %");
}

#[tokio::test]
async fn on_a_good_network_no_loss_is_told() {
    let (mut left, mut right) = connect(None).await;
    let mut microphone = Microphone::new(11);

    let mut pace = interval(Duration::from_millis(5));
    let told = timeout(LIMIT, async {
        loop {
            tokio::select! {
                _ = pace.tick() => assert!(left.peer.send_sound(&microphone.hear())),
                _ = right.sounds.recv() => {}
                loss = left.loss() => return loss,
            }
        }
    });

    assert_eq!(told.await.expect("a report"), 0);
}

#[tokio::test]
async fn the_times_of_picture_and_sound_lead_to_one_clock_both_ways() {
    let (mut left, mut right) = connect(None).await;
    // The same moment has these RTP times; both soon wrap.
    let moment = Instant::now();
    let (video_then, sound_then) = (u32::MAX - 1_000, u32::MAX - 90_000);
    for side in [&left, &right] {
        side.clocks.video.set(moment, video_then);
        side.clocks.sound.set(moment, sound_then);
    }
    let (unit, sound) = (Camera::new(12).shoot(), Microphone::new(12).hear());
    for side in [&left, &right] {
        assert!(side.peer.send(&unit));
        assert!(side.peer.send_sound(&sound));
    }

    for side in [&mut left, &mut right] {
        let (mut video, mut heard) = (None, None);
        while video.is_none() || heard.is_none() {
            let time = side.time().await;
            let (moment, then, rate) = match time.kind {
                Kind::Video => (&mut video, video_then, 90_000.0),
                Kind::Sound => (&mut heard, sound_then, 48_000.0),
            };
            let since = f64::from(time.rtp.wrapping_sub(then)) / rate;
            *moment = Some(time.ntp as f64 / f64::from(u32::MAX) - since);
        }
        // Seconds since 1900; 64 bits of a float leave microseconds of them.
        let apart = video.unwrap() - heard.unwrap();
        assert!(apart.abs() < 0.001, "{apart} s");
    }
}

#[tokio::test]
async fn without_clocks_a_time_is_that_of_the_latest_packet() {
    let (left, mut right) = connect(None).await;
    let sound = Microphone::new(13).hear();
    let start = Instant::now();

    assert!(left.peer.send_sound(&sound));
    let time = right.time().await;

    assert_eq!(time.kind, Kind::Sound);
    let since = f64::from(time.rtp.wrapping_sub(sound.time)) / 48_000.0;
    assert!((0.0..=start.elapsed().as_secs_f64()).contains(&since), "{since} s");
}

#[tokio::test]
async fn lost_sound_is_not_asked_for_again() {
    let offer =
        CHROMIUM.replace("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack");
    let mut side = Side::new(Role::Answer(offer));

    let PeerEvent::Answer(answer) = side.state().await else { panic!("an answer first") };

    assert!(answer.contains("a=rtcp-fb:111 transport-cc"), "{answer}");
    assert!(!answer.contains("a=rtcp-fb:111 nack"), "{answer}");
    let fmtp = answer.lines().find(|line| line.starts_with("a=fmtp:111")).unwrap();
    assert!(fmtp.contains("useinbandfec=1"), "{fmtp}");
}

#[tokio::test]
async fn who_only_talks_or_only_listens_is_answered_in_kind() {
    for (offered, answered) in [
        ("sendrecv", "sendrecv"),
        ("sendonly", "recvonly"),
        ("recvonly", "sendonly"),
        ("inactive", "inactive"),
    ] {
        // The first section is the sound.
        let offer = CHROMIUM.replacen("a=sendrecv", &format!("a={offered}"), 1);
        let mut side = Side::new(Role::Answer(offer));

        let PeerEvent::Answer(answer) = side.state().await else { panic!("an answer first") };

        let sound = answer.split("m=").find(|section| section.starts_with("audio")).unwrap();
        assert!(sound.contains(&format!("a={answered}\r\n")), "{offered}: {sound}");
    }
}

async fn picture_without_sound(mut left: Side, mut right: Side) {
    let (mut camera, mut microphone) = (Camera::new(20), Microphone::new(20));
    for _ in 0..20 {
        let unit = camera.shoot();
        for (from, to) in [(&left, &mut right)] {
            from.peer.send_sound(&microphone.hear());
            assert!(from.peer.send(&unit));
            assert_eq!(to.unit().await, *unit);
        }
        right.peer.send_sound(&microphone.hear());
        assert!(right.peer.send(&unit));
        assert_eq!(left.unit().await, *unit);
    }
    assert!(left.sounds.is_empty() && right.sounds.is_empty());
}

async fn sound_without_picture(mut left: Side, mut right: Side) {
    let (mut camera, mut microphone) = (Camera::new(21), Microphone::new(21));
    for _ in 0..20 {
        let sound = microphone.hear();
        // Pictures for nobody do not stop the sound, and nobody is asked for keyframes on their account.
        assert!(left.peer.send(&camera.shoot()));
        assert!(left.peer.send_sound(&sound));
        assert_eq!(right.sound().await, *sound);
        assert!(right.peer.send_sound(&sound));
        assert_eq!(left.sound().await, *sound);
    }
    assert!(left.units.is_empty() && right.units.is_empty());
}

fn same(sdp: String) -> String {
    sdp
}

fn without_level(sdp: String) -> String {
    let lines = sdp.lines().filter(|line| !line.contains("ssrc-audio-level"));
    lines.map(|line| format!("{line}\r\n")).collect()
}

/// The description of somebody who has never heard of such a section.
fn without_section(sdp: &str, media: &str) -> String {
    let mut sections = sdp.split("m=");
    let head = sections.next().unwrap();
    let kept: Vec<_> = sections.filter(|section| !section.starts_with(media)).collect();
    let mid = kept[0].lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap();
    head.replace("BUNDLE 0 1", &format!("BUNDLE {mid}")) + "m=" + &kept.join("m=")
}

fn rejected(media: &str, mid: usize) -> String {
    format!("m={media} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:{mid}\r\n")
}

/// Makes packets that are told apart.
struct Microphone {
    seed: u8,
    sequence: u16,
    time: u32,
}

impl Microphone {
    fn new(seed: u8) -> Self {
        // Both soon wrap.
        Self { seed, sequence: u16::MAX - 3, time: u32::MAX - 2_000 }
    }

    fn hear(&mut self) -> Arc<SoundPacket> {
        self.sequence = self.sequence.wrapping_add(1);
        self.time = self.time.wrapping_add(SLOT as u32);
        let byte = self.sequence as u8;
        Arc::new(SoundPacket {
            data: Bytes::from(vec![self.seed, byte, byte.wrapping_mul(3)]),
            sequence: self.sequence,
            time: self.time,
            level: Some(Level { below_full_db: byte % 128, voice: byte.is_multiple_of(2) }),
        })
    }
}
