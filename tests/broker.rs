//! The link against a real mosquitto with the access control that is shipped (`board/mosquitto`), against the
//! embedded broker, and against one made of bytes for what these two do not do.

#![allow(clippy::unwrap_used)] // a test that fails may panic

mod support;

use bytes::Bytes;
use parlor::link::mqtt;
use parlor::room::Publication;
use parlor::room::fault::Code;
use parlor::secret::Secret;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};
use support::link::{Link, message, retained, settings, subscriptions};
use support::{Client, Mosquitto, PREFIX, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Every topic of the contract as `lobby` sees it, and whether `lobby` may write and read it.
const KIOSK_RIGHTS: &[(&str, bool, bool)] = &[
    // topic, write, read
    ("lobby/desired", false, true),
    ("lobby/reported", true, false),
    ("lobby/state", true, true),
    ("lobby/info", true, false),
    ("lobby/error", true, false),
    ("lobby/fault/camera-front", true, true),
    ("lobby/event", true, false),
    ("lobby/stats", true, false),
    ("lobby/cmd/restart", false, true),
    ("lobby/reply/ctl", true, false),
    ("lobby/signal/ward-3", false, true),
    ("lobby/unheard-of", false, false),
    ("ward-3/desired", false, false),
    ("ward-3/reported", false, false),
    ("ward-3/state", false, false),
    ("ward-3/info", false, false),
    ("ward-3/error", false, false),
    ("ward-3/fault/screen", false, false),
    ("ward-3/event", false, false),
    ("ward-3/stats", false, false),
    ("ward-3/cmd/restart", false, false),
    ("ward-3/reply/ctl", false, false),
    ("ward-3/signal/lobby", true, false),
    ("ward-3/signal/dr-wang", false, false),
];

#[tokio::test]
async fn a_kiosk_writes_what_the_contract_lets_it_write_and_nothing_else() {
    let broker = Mosquitto::start();
    let mut lobby = Client::connect(broker.port, "lobby").await;

    for &(topic, may_write, _) in KIOSK_RIGHTS {
        let answer = lobby.publish(topic, false, "x").await;

        assert_eq!(answer != PubAckReason::NotAuthorized, may_write, "write {topic}: {answer:?}");
    }
}

#[tokio::test]
async fn a_kiosk_reads_what_the_contract_lets_it_read_and_nothing_else() {
    let broker = Mosquitto::start();
    let mut admin = Client::connect(broker.port, "admin").await;
    let mut lobby = Client::connect(broker.port, "lobby").await;
    lobby.subscribe("#").await;

    for (topic, ..) in KIOSK_RIGHTS {
        admin.publish(topic, false, "x").await;
    }
    admin.publish("lobby/desired", false, "end").await;

    let readable = KIOSK_RIGHTS.iter().filter(|(.., may_read)| *may_read);
    for (topic, ..) in readable {
        assert_eq!(lobby.next_text().await, format!("{topic} x"));
    }
    assert_eq!(lobby.next_text().await, "lobby/desired end");
}

#[tokio::test]
async fn a_controller_reads_everything_and_writes_documents_and_commands_only() {
    let broker = Mosquitto::start();
    let mut admin = Client::connect(broker.port, "admin").await;
    let mut controller = Client::connect(broker.port, "controller").await;
    controller.subscribe("#").await;

    for (topic, ..) in KIOSK_RIGHTS {
        admin.publish(topic, false, "x").await;

        assert_eq!(controller.next_text().await, format!("{topic} x"));
    }
    for (topic, ..) in KIOSK_RIGHTS {
        let answer = controller.publish(topic, false, "x").await;

        let order = topic.ends_with("/desired") || topic.contains("/cmd/");
        assert_eq!(answer != PubAckReason::NotAuthorized, order, "write {topic}: {answer:?}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_take_a_session_over_by_its_client_id() {
    let broker = Mosquitto::start();
    let mut controller = Client::connect(broker.port, "controller").await;
    let mut link = Link::start(settings(broker.port, "lobby"));
    link.expect_up().await;

    let _stranger = Client::connect_as(broker.port, "ward-3", "lobby").await;

    controller.publish("lobby/desired", false, "still there").await;
    assert_eq!(link.expect_message().await.payload, "still there");
    link.close().await;
}

#[tokio::test]
async fn messages_go_both_ways_through_mosquitto() {
    let broker = Mosquitto::start();

    messages_go_both_ways(broker.port, "controller").await;
}

#[tokio::test]
async fn messages_go_both_ways_through_the_embedded_broker() {
    let broker = parlor::sim::broker::start(0).unwrap();

    messages_go_both_ways(broker.port, "controller").await;
}

async fn messages_go_both_ways(port: u16, controller: &str) {
    let mut controller = Client::connect(port, controller).await;
    controller.publish("lobby/desired", true, "document").await;
    controller.subscribe("lobby/reported").await;
    controller.subscribe("lobby/reply/+").await;
    let mut link = Link::start(settings(port, "lobby"));

    // The retained document comes, after Up.
    link.expect_up().await;
    let document = link.expect_message().await;
    assert_eq!((document.topic.as_str(), &document.payload[..]), ("lobby/desired", &b"document"[..]));
    assert!(document.retained);

    // A command, with where to answer; the answer.
    let properties = PublishProperties {
        response_topic: Some(format!("{PREFIX}/lobby/reply/ctl")),
        correlation_data: Some(Bytes::from_static(b"\x00\x01")),
        message_expiry_interval: Some(30),
        ..Default::default()
    };
    controller.publish_with("lobby/cmd/snapshot", false, "{}", properties).await;
    let command = link.expect_message().await;
    assert_eq!(command.response_topic.as_deref(), Some("lobby/reply/ctl"));
    assert_eq!(command.correlation.as_deref(), Some(&b"\x00\x01"[..]));
    link.send(Publication {
        correlation: command.correlation,
        expiry_s: Some(30),
        ..message("lobby/reply/ctl", "picture")
    })
    .await;
    let reply = controller.next().await;
    let properties = reply.properties.clone().unwrap();
    assert_eq!(support::text(&reply), "lobby/reply/ctl picture");
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"\x00\x01"[..]));
    assert!(
        properties.message_expiry_interval.is_some_and(|left| (1..=30).contains(&left)),
        "{properties:?}"
    );

    // A place to answer outside the prefix is none.
    let properties =
        PublishProperties { response_topic: Some("elsewhere/lobby/reply".into()), ..Default::default() };
    controller.publish_with("lobby/cmd/stats", false, "{}", properties).await;
    assert_eq!(link.expect_message().await.response_topic, None);

    // Many, more than the window; and a large one.
    for n in 0..100 {
        link.send(message("lobby/reply/ctl", &n.to_string())).await;
    }
    link.send(message("lobby/reply/ctl", &"x".repeat(192 << 10))).await;
    for n in 0..100 {
        assert_eq!(controller.next_text().await, format!("lobby/reply/ctl {n}"));
    }
    assert_eq!(controller.next().await.payload.len(), 192 << 10);
    link.close().await;
}

#[tokio::test]
async fn a_retained_command_is_not_delivered_and_a_retained_document_is() {
    let broker = Mosquitto::start();
    let mut controller = Client::connect(broker.port, "controller").await;
    controller.publish("lobby/cmd/restart", true, "{}").await;
    controller.publish("lobby/desired", true, "document").await;
    let mut link = Link::start(settings(broker.port, "lobby"));

    link.expect_up().await;
    assert_eq!(link.expect_message().await.topic, "lobby/desired");
    controller.publish("lobby/desired", false, "end").await;
    assert_eq!(link.expect_message().await.payload, "end");
}

#[tokio::test]
async fn a_denied_publication_is_told_once_and_the_session_stays() {
    let broker = Mosquitto::start();
    let mut link = Link::start(settings(broker.port, "lobby"));
    link.expect_up().await;

    link.send(message("ward-3/reported", "mine")).await;
    link.send(message("ward-3/reported", "mine again")).await;
    link.send(message("lobby/cmd/restart", "{}")).await;

    assert_eq!(link.expect_denied().await, "ward-3/reported");
    assert_eq!(link.expect_denied().await, "lobby/cmd/restart");
    link.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_an_authentication_failure() {
    let broker = Mosquitto::start();

    let mut link = Link::start(mqtt::Settings {
        password: Some(Secret::from("guess")),
        ..settings(broker.port, "lobby")
    });

    assert_eq!(link.expect_down().await, Code::BrokerAuth);
}

#[tokio::test]
async fn a_kiosk_that_dies_leaves_its_will_and_one_that_says_goodbye_does_not() {
    let broker = Mosquitto::start();
    let mut admin = Client::connect(broker.port, "admin").await;
    admin.subscribe("+/state").await;
    let mut polite = Link::start(settings(broker.port, "lobby"));
    let mut dying = Link::start(settings(broker.port, "ward-3"));
    polite.expect_up().await;
    dying.expect_up().await;

    polite.send(retained("lobby/state", "bye")).await;
    polite.close().await;
    assert_eq!(admin.next_text().await, "lobby/state bye");
    dying.task.abort(); // the socket closes without a DISCONNECT, as by SIGKILL

    // Had the first left a will it would come first: it left before, and both wills wait equally long.
    assert_eq!(admin.next_text().await, "ward-3/state offline");
    let mut late = Client::connect(broker.port, "controller").await;
    late.subscribe("ward-3/state").await;
    assert!(late.next().await.retain);
}

#[tokio::test]
async fn after_the_broker_was_killed_the_link_subscribes_again_and_sends_what_waited() {
    let mut broker = Mosquitto::start();
    // As admin it may read what it writes, so that nobody can subscribe too late.
    let subscriptions = subscriptions(&["+/error", "+/reported", "+/signal/+"]);
    let mut link = Link::start(mqtt::Settings { subscriptions, ..settings(broker.port, "admin") });
    link.expect_up().await;

    broker.kill();
    assert_eq!(link.expect_down().await, Code::BrokerUnreachable);
    link.send(retained("lobby/reported", "1")).await;
    link.send(message("lobby/error", "a")).await;
    link.send(message("ward-3/signal/lobby", "stale")).await;
    link.send(retained("lobby/reported", "2")).await;
    link.send(message("lobby/error", "b")).await;
    broker.restart();

    link.expect_up().await;
    for expected in ["lobby/reported 2", "lobby/error a", "lobby/error b"] {
        let message = link.expect_message().await;
        assert_eq!(format!("{} {}", message.topic, String::from_utf8_lossy(&message.payload)), expected);
    }
    link.close().await;
}

#[tokio::test]
async fn a_kiosk_that_does_not_listen_loses_no_message_and_is_not_kept_waiting() {
    const MESSAGES: usize = 600;
    let broker = Mosquitto::start();
    let mut controller = Client::connect(broker.port, "controller").await;
    let mut link = Link::start(settings(broker.port, "lobby"));
    link.expect_up().await;

    // 2.4 MB into a queue of one event and an inbox of 1 MiB.
    let filling = "x".repeat(4 << 10);
    for n in 0..MESSAGES {
        controller.publish("lobby/cmd/stats", false, &format!("{n} {filling}")).await;
    }
    for n in 0..100 {
        link.send(message("lobby/event", &n.to_string())).await;
    }

    for n in 0..MESSAGES {
        let payload = link.expect_message().await.payload;
        assert!(payload.starts_with(format!("{n} ").as_bytes()), "message {n}");
    }
    link.close().await;
}

#[tokio::test]
async fn who_is_taken_over_says_so() {
    // DISCONNECT, Session taken over, no properties.
    let bytes = Bytes::from_static(&[0xe0, 0x02, 0x8e, 0x00]);
    let port = broker_of_bytes(&[0x00, 0x00], Some(bytes)).await;

    let mut link = Link::start(settings(port, "lobby"));

    link.expect_up().await;
    assert_eq!(link.expect_down().await, Code::BrokerTakenOver);
}

#[tokio::test]
async fn a_refused_subscription_is_told_after_up() {
    let port = broker_of_bytes(&[0x01, 0x87], None).await;

    let mut link = Link::start(settings(port, "lobby"));

    link.expect_up().await;
    assert_eq!(link.expect_denied().await, "lobby/cmd/#");
}

#[tokio::test]
async fn without_a_broker_the_link_says_so_once_and_ends_when_asked() {
    let mut link = Link::start(settings(support::free_port(), "lobby"));

    assert_eq!(link.expect_down().await, Code::BrokerUnreachable);
    link.close().await;
}

#[tokio::test]
async fn who_waits_before_the_first_attempt_takes_publications_and_ends_when_asked() {
    let (outgoing, receiver) = mpsc::channel(1);
    let (sender, _events) = mpsc::channel(1);
    let an_hour = std::time::Duration::from_secs(3600);
    let task =
        tokio::spawn(mqtt::run_after(an_hour, settings(support::free_port(), "lobby"), receiver, sender));

    for n in 0..10 {
        within("a publication", outgoing.send(message("lobby/error", &n.to_string()))).await.unwrap();
    }
    drop(outgoing);

    within("the end", task).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_never_answers_the_subscription_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = Link::start(settings(listener.local_addr().unwrap().port(), "lobby"));
    let (mut stream, _) = within("CONNECT", listener.accept()).await.unwrap();
    read_packet(&mut stream).await;

    stream.write_all(&[0x20, 0x03, 0x00, 0x00, 0x00]).await.unwrap();

    assert_eq!(link.expect_down().await, Code::BrokerUnreachable);
}

/// A broker that accepts everyone, answers the first SUBSCRIBE with these reason codes and, if so told, says
/// something more; then it stays silent. Answers its port.
async fn broker_of_bytes(codes: &'static [u8], then: Option<Bytes>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(read_packet(&mut stream).await.0, 0x10, "CONNECT");
        stream.write_all(&[0x20, 0x03, 0x00, 0x00, 0x00]).await.unwrap();
        let (first, body) = read_packet(&mut stream).await;
        assert_eq!(first, 0x82, "SUBSCRIBE");
        let length = 3 + u8::try_from(codes.len()).unwrap();
        stream.write_all(&[0x90, length, body[0], body[1], 0x00]).await.unwrap();
        stream.write_all(codes).await.unwrap();
        stream.write_all(&then.unwrap_or_default()).await.unwrap();
        // Keeps the connection until the other side ends it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    port
}

/// One packet: first byte and what comes after the length.
async fn read_packet(stream: &mut tokio::net::TcpStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (first, body)
}
