//! Two connections in one process over real UDP on the loopback: pictures, keyframes, losses, hostile signals, ends.

#![allow(clippy::unwrap_used)]

#[path = "peers/side.rs"]
mod side;

use parlor::geometry::{Fit, Size};
use parlor::link::peer::{Clocks, Peer, Sinks};
use parlor::room::fault::Code;
use parlor::room::wish::Wish;
use parlor::room::{PeerEvent, Role};
use proptest::prelude::*;
use side::{CHROMIUM, Camera, LIMIT, Network, Side, connect, connect_with, introduce, settings};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{interval, timeout};

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
async fn each_side_hears_the_latest_of_what_the_other_needs() {
    let _alone = ALONE.lock().await;
    let (left, right) = connect(None).await;
    let shown = |width| Wish::Shown { size: Size::new(width, 90), fit: Fit::Cover };
    let heard = async |side: &Side, wish| {
        let heard = timeout(LIMIT, async {
            while side.peer.their_wish() != Some(wish) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        heard.await.unwrap_or_else(|_| panic!("{wish:?}, not {:?}", side.peer.their_wish()));
    };

    left.peer.wish(Wish::Hidden);
    for width in 1..=1000 {
        right.peer.wish(shown(width));
    }
    heard(&right, Wish::Hidden).await;
    heard(&left, shown(1000)).await;
    left.peer.wish(shown(7));

    heard(&right, shown(7)).await;
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
async fn pictures_without_a_keyframe_are_said_and_so_is_the_first_one() {
    let _alone = ALONE.lock().await;
    let (left, mut right) = connect(None).await;
    let mut camera = Camera::new(5);
    left.peer.send(&camera.keyframe());
    right.unit().await;

    // What follows is of another stream, whose beginning nobody has.
    right.peer.ask_for_keyframe();
    let sender = async {
        loop {
            // The encoder makes one by itself where much has changed.
            let unit = camera.shoot();
            assert!(unit.keyframe || left.peer.send(&unit));
            tokio::time::sleep(Duration::from_millis(33)).await;
        }
    };
    tokio::select! {
        () = sender => {}
        unseen = right.unseen(true) => assert_eq!(unseen.unwrap().0, Code::NoKeyframe),
    }
    // The encoder may have spent its bits, and leave one out.
    while !left.peer.send(&camera.keyframe()) || right.units.is_empty() {
        while right.units.try_recv().is_ok() {}
        tokio::time::sleep(Duration::from_millis(33)).await;
    }
    right.unseen(false).await;
}

#[tokio::test]
async fn video_of_another_codec_is_named() {
    let _alone = ALONE.lock().await;
    let foreign = |offer: String| offer.replace("H264/90000", "H265/90000");
    let (_left, mut right) = connect_with(None, foreign, |answer| answer).await;

    assert_eq!(right.unseen(true).await, Some((Code::CodecMismatch, "only H265 is offered".into())));
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

    introduce(&mut left, &mut right, None, |answer| answer).await;
}

#[tokio::test]
async fn a_connection_to_which_nobody_listens_still_closes() {
    let _alone = ALONE.lock().await;
    let (report, reports) = mpsc::channel(1);
    let peer = {
        let sinks = Sinks { video: Box::new(|_| true), sound: Box::new(|_| {}) };
        Peer::start(&settings(), &Clocks::default(), Role::Offer, report, sinks)
    };
    // The offer fills the channel; the candidates find no room.
    while reports.is_empty() {
        tokio::task::yield_now().await;
    }

    timeout(LIMIT, peer.close()).await.expect("closes");

    assert_eq!(reports.len(), 1);
}

#[tokio::test]
async fn a_browser_that_offers_sound_and_picture_is_answered_with_both() {
    let _alone = ALONE.lock().await;

    let mut side = Side::new(Role::Answer(CHROMIUM.into()));

    let PeerEvent::Answer(answer) = side.state().await else { panic!("an answer first") };
    let media: Vec<_> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    assert!(media[0].starts_with("m=audio 9 "), "{media:?}");
    assert!(media[1].starts_with("m=video 9 "), "{media:?}");
    assert_eq!(media.len(), 2);
    assert!(answer.contains("packetization-mode=1;profile-level-id=42e01f"), "{answer}");
    assert!(answer.contains("a=rtpmap:111 opus/48000/2"), "{answer}");
    assert!(answer.contains("urn:ietf:params:rtp-hdrext:ssrc-audio-level"), "{answer}");
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

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
