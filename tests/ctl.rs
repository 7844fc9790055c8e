//! `parlor ctl` as an operator uses it, against mosquitto with the shipped access control and kiosks that only know
//! how to report what they were told.
#![allow(clippy::unwrap_used)] // a test that fails may panic

mod support;

use clap::Parser;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};
use support::{Client, Mosquitto, PREFIX, TempDir, within};

#[tokio::test]
async fn a_room_is_made_changed_and_closed() {
    let broker = Mosquitto::start();

    a_room_from_its_first_word_to_its_last(broker.port).await;
}

#[tokio::test]
async fn a_room_is_made_changed_and_closed_on_the_embedded_broker() {
    let broker = parlor::sim::broker::start(0).unwrap();

    a_room_from_its_first_word_to_its_last(broker.port).await;
}

async fn a_room_from_its_first_word_to_its_last(port: u16) {
    for kiosk in ["lobby", "ward-3", "dr-wang"] {
        Kiosk::start(port, kiosk).await;
    }

    let made = ctl(port, "room consult lobby ward-3=Ward").await.unwrap();
    assert_eq!(made, "lobby: done\nward-3: done\n");
    let added = ctl(port, "add consult dr-wang").await.unwrap();
    assert_eq!(added, "dr-wang: done\nlobby: done\nward-3: done\n");
    ctl(port, "camera lobby back").await.unwrap();
    ctl(port, "fit lobby cover").await.unwrap();
    ctl(port, "fit lobby contain ward-3").await.unwrap();
    ctl(port, "mute lobby microphone").await.unwrap();

    let [lobby, dr_wang] = [desired(port, "lobby").await, desired(port, "dr-wang").await];
    let first = lobby["rev"].as_u64().unwrap() - 5;
    assert_eq!(
        lobby,
        json!({ "rev": first + 5, "room": "consult", "object-fit": "cover", "mute": { "microphone": true },
                "members": [{ "openid": "lobby", "device-position": "back" },
                            { "openid": "ward-3", "name": "Ward", "object-fit": "contain" }, "dr-wang"] })
    );
    assert_eq!(dr_wang["members"], json!(["lobby", { "openid": "ward-3", "name": "Ward" }, "dr-wang"]));

    let removed = ctl(port, "remove consult ward-3").await.unwrap();
    assert_eq!(removed, "dr-wang: done\nlobby: done\nward-3: has left\n");
    assert_eq!(ctl(port, "leave lobby").await.unwrap(), "lobby: has left\n");
    let table = ctl(port, "show").await.unwrap();
    assert!(table.contains("dr-wang  online  consult"), "{table}");
    assert!(table.contains("lobby    online  -"), "{table}");
}

#[tokio::test]
async fn what_a_kiosk_rejects_is_told_and_fails() {
    let broker = Mosquitto::start();
    Kiosk::start(broker.port, "lobby").await;
    let mut controller = Client::connect(broker.port, "controller").await;
    let document = json!({ "rev": 7, "room": "a", "members": ["lobby", { "openid": "bad id" }] });
    controller.publish("lobby/desired", true, &document.to_string()).await;
    drop(controller);

    let (said, error) = ctl(broker.port, "mute lobby camera").await.unwrap_err();

    assert_eq!(said, "lobby: rejected /members/1 MEMBER_INVALID\n");
    assert_eq!(error, "one kiosk does not show what it was told");
    assert_eq!(desired(broker.port, "lobby").await["members"][1], json!({ "openid": "bad id" }));
}

#[tokio::test]
async fn an_absent_kiosk_and_a_silent_one_are_told_apart() {
    let broker = Mosquitto::start();
    let mut admin = Client::connect(broker.port, "admin").await;
    admin.publish("lobby/state", true, r#"{"state":"offline"}"#).await;
    admin.publish("ward-3/state", true, r#"{"state":"online"}"#).await;

    let (said, error) = ctl(broker.port, "--timeout 1 room a lobby ward-3 nobody").await.unwrap_err();

    assert_eq!(
        said,
        "lobby: offline; the document waits for it\n\
         nobody: no answer within 1 s (never seen; the document waits for it)\n\
         ward-3: no answer within 1 s\n"
    );
    assert_eq!(error, "3 kiosks do not show what they were told");
}

#[tokio::test]
async fn a_snapshot_is_saved_and_the_kiosk_identified() {
    let broker = Mosquitto::start();
    Kiosk::start(broker.port, "lobby").await;
    let directory = TempDir::new("snapshot");
    let file = directory.path().join("room.png");

    ctl(broker.port, &format!("snapshot lobby {} --width 320", file.display())).await.unwrap();
    ctl(broker.port, "identify lobby").await.unwrap();

    assert_eq!(std::fs::read(file).unwrap(), b"\x89PNG\r\n\x1a\n{\"width\":320}");
}

#[tokio::test]
async fn wrong_input_is_a_sentence() {
    let broker = Mosquitto::start();
    Kiosk::start(broker.port, "lobby").await;
    ctl(broker.port, "room a lobby").await.unwrap();

    for (line, sentence) in [
        ("camera nobody back", "there is no kiosk nobody; known are lobby"),
        ("fit lobby fill nobody", "lobby shows no nobody: lobby"),
        ("add b ward-3", "nobody is in the room b; rooms are a"),
        ("remove a nobody", "nobody is not in the room a; its members are lobby"),
        ("room a lobby lobby", "lobby is named twice"),
    ] {
        assert_eq!(ctl(broker.port, line).await.unwrap_err().1, sentence, "{line}");
    }
    for (line, part) in [
        ("leave a/b", "an id is 1 to 64 of"),
        ("camera lobby up", "front, back"),
        ("room a lobby=", "a name is 1 to 64 bytes"),
    ] {
        let error = Line::try_parse_from(line.split(' ')).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    let unreachable = ctl(support::free_port(), "show").await.unwrap_err().1;
    assert!(unreachable.starts_with("connect to the broker at 127.0.0.1:"), "{unreachable}");
}

/// As `main.rs` embeds it.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: parlor::ctl::Args,
}

/// Runs one command line; what it said, or that and why it failed.
async fn ctl(port: u16, line: &str) -> Result<String, (String, String)> {
    let broker = format!("127.0.0.1:{port}");
    let login = ["--broker", &broker, "--username", "controller", "--password", "controller"];
    let args = Line::try_parse_from(login.into_iter().chain(line.split(' '))).unwrap().args;
    let mut said = Vec::new();
    let result = within(line, parlor::ctl::run_into(args, &mut said)).await;
    let said = in_order(&String::from_utf8(said).unwrap());
    result.map(|()| said.clone()).map_err(|error| (said, error.to_string()))
}

/// Kiosks answer in any order.
fn in_order(lines: &str) -> String {
    let mut lines: Vec<&str> = lines.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines.concat()
}

/// The retained document of a kiosk.
async fn desired(port: u16, kiosk: &str) -> Value {
    let mut admin = Client::connect(port, "admin").await;
    admin.subscribe(&format!("{kiosk}/desired")).await;
    serde_json::from_slice(&admin.next().await.payload).unwrap()
}

/// Reports what it is told, refuses members with a space in their id, answers commands. Ends with the test.
struct Kiosk {
    client: Client,
    id: String,
}

impl Kiosk {
    async fn start(port: u16, id: &str) {
        let mut client = Client::connect(port, id).await;
        client.subscribe(&format!("{id}/desired")).await;
        client.subscribe(&format!("{id}/cmd/#")).await;
        client.publish(&format!("{id}/state"), true, r#"{"state":"online"}"#).await;
        let mut kiosk = Self { client, id: id.to_owned() };
        tokio::spawn(async move {
            loop {
                kiosk.turn().await;
            }
        });
    }

    async fn turn(&mut self) {
        let message = self.client.next().await;
        if let Some(properties) = message.properties.filter(|properties| properties.response_topic.is_some())
        {
            let topic = properties.response_topic.unwrap();
            let topic = topic.strip_prefix(PREFIX).unwrap().trim_start_matches('/').to_owned();
            let answer = [b"\x89PNG\r\n\x1a\n", &message.payload[..]].concat();
            let echo =
                PublishProperties { correlation_data: properties.correlation_data, ..Default::default() };
            self.client.publish_with(&topic, false, answer, echo).await;
            return;
        }
        let desired: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let members = desired["members"].as_array().cloned().unwrap_or_default();
        let bad = |member: &Value| member["openid"].as_str().is_some_and(|id| id.contains(' '));
        let rejected = members.iter().enumerate().filter(|(_, member)| bad(member));
        let rejected: Vec<Value> = rejected
            .map(|(index, _)| json!({ "pointer": format!("/members/{index}"), "code": "MEMBER_INVALID" }))
            .collect();
        let reported = json!({ "rev": desired["rev"], "room": desired["room"], "rejected": rejected });
        let topic = format!("{}/reported", self.id);
        self.client.publish(&topic, true, &reported.to_string()).await;
    }
}
