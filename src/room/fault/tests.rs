//! When a fault is said, when it is said again, and when it is over.

use super::*;

#[test]
fn a_fault_is_said_at_once_and_once() {
    let mut faults = faults();

    faults.raise(gone(), None, None, at(0));
    faults.raise(gone(), None, None, at(100));

    let sayings = faults.sayings();
    assert_eq!(edges(&sayings).len(), 1);
    assert_eq!(levels(&sayings), [("camera-front".to_owned(), true)]);
}

#[test]
fn a_lasting_fault_is_reported_once_a_minute() {
    let mut faults = faults();
    faults.raise(gone(), None, None, at(0));
    faults.sayings();

    for second in 1..=300 {
        faults.raise(gone(), None, None, at(second * 1000));
        faults.handle_timeout(at(second * 1000));
    }

    let sayings = faults.sayings();
    assert_eq!(edges(&sayings).len(), 5);
    assert_eq!(edges(&sayings)[4]["count"], 301);
}

#[test]
fn a_flapping_fault_is_one_fault_with_a_count() {
    let mut faults = faults();
    for turn in 0..10 {
        faults.raise(gone(), None, None, at(turn * 2000));
        faults.heal(&gone().part, at(turn * 2000 + 500));
        faults.handle_timeout(at(turn * 2000 + 1900));
    }
    let flapping = faults.sayings();

    faults.handle_timeout(at(30_000));

    assert_eq!(edges(&flapping).len(), 1);
    let over = faults.sayings();
    assert_eq!(edges(&over)[0]["active"], false);
    assert_eq!(edges(&over)[0]["count"], 10);
    assert_eq!(levels(&over), [("camera-front".to_owned(), false)]);
    assert_eq!(faults.next_timeout(), None);
}

#[test]
fn the_worst_fault_of_a_part_is_the_retained_one() {
    let mut faults = faults();
    let bad_frame = Fault { code: Code::CameraBadFrame, ..gone() };
    faults.raise(gone(), None, None, at(0));
    faults.raise(bad_frame, None, None, at(1));

    faults.heal_if(|fault| fault.code == Code::CameraGone, at(2));
    faults.handle_timeout(at(2002));

    let retained: Vec<Value> = faults
        .sayings()
        .into_iter()
        .filter_map(|saying| match saying {
            Saying::Level { record, .. } => record.map(|record| record["code"].clone()),
            Saying::Edge(_) => None,
        })
        .collect();
    assert_eq!(retained, ["CAMERA_GONE", "CAMERA_GONE", "CAMERA_BAD_FRAME"]);
    assert!(!faults.degraded());
}

#[test]
fn a_storm_of_records_is_cut_and_counted() {
    let mut faults = faults();
    for _ in 0..100 {
        faults.once(
            Fault { part: Part::System, code: Code::CmdUnknown, cause: None, retry_in: None },
            None,
            None,
            at(0),
        );
    }

    faults.once(gone(), None, None, at(1000));

    let sayings = faults.sayings();
    assert_eq!(edges(&sayings).len(), 21);
    assert_eq!(edges(&sayings)[20]["dropped"], 80);
    assert_eq!(levels(&sayings), []);
}

#[test]
fn the_record_is_the_contracts() {
    let mut faults = faults();
    let cause =
        Cause { op: "VIDIOC_DQBUF".into(), errno: Some("ENODEV".into()), target: Some("C920".into()) };
    let fault = Fault { cause: Some(cause), retry_in: Some(Duration::from_secs(2)), ..gone() };
    let wall = Some(Duration::from_millis(1_795_380_067_312));

    faults.raise(fault, None, Some("consult-12"), Now { mono: Duration::from_millis(912_334), wall });

    assert_eq!(
        *edges(&faults.sayings())[0],
        json!({ "code":"CAMERA_GONE", "severity":"error", "part":"camera-front", "tile":"lobby", "openid":"lobby",
            "room":"consult-12", "boot":"9f3c", "active":true, "retryable":true, "retry_in_ms":2000, "count":1,
            "at":"2026-11-22T20:41:07.312Z", "clock":"synced", "up_ms":912334,
            "cause":{"op":"VIDIOC_DQBUF","errno":"ENODEV","target":"C920"},
            "pointer":null, "wx_err_code":null,
            "hint":"The camera was unplugged. It is opened again when it returns." })
    );
}

#[test]
fn more_faults_than_are_kept_are_dropped() {
    let mut faults = faults();
    for number in 0..1000 {
        let member = MemberId::parse(&format!("m{number}")).expect("an id");
        let part = Part::Peer(member);
        faults.raise(Fault { part, code: Code::PeerLost, cause: None, retry_in: None }, None, None, at(0));
    }

    assert_eq!(faults.levels().len(), MOST_FAULTS);
}

fn faults() -> Faults {
    Faults::new(Reporter { id: MemberId::parse("lobby").expect("an id"), boot: "9f3c".into() })
}

fn gone() -> Fault {
    Fault { part: Part::Camera(Position::Front), code: Code::CameraGone, cause: None, retry_in: None }
}

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: None }
}

fn edges(sayings: &[Saying]) -> Vec<&Value> {
    let mut edges = Vec::new();
    for saying in sayings {
        if let Saying::Edge(record) = saying {
            edges.push(record);
        }
    }
    edges
}

fn levels(sayings: &[Saying]) -> Vec<(String, bool)> {
    let level = |saying: &Saying| match saying {
        Saying::Level { part, record } => Some((part.to_string(), record.is_some())),
        Saying::Edge(_) => None,
    };
    sayings.iter().filter_map(level).collect()
}
