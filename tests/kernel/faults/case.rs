//! One fault, from its cause until it is forgotten: what was said, in which order, how soon, and what others lost by it.

use super::{BACK_WITHIN, SAID_WITHIN};
use crate::bed::out;
use crate::house::{House, Said, tile};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Pictures that a member may have sent and lobby not yet shown, or the other way round, where two counts of a second
/// each begin and end at different moments; at five a second.
const IN_FLIGHT: u64 = 12;

/// One picture in so many may be displaced by the next one before an emulated processor has drawn it.
const LATE: u64 = 4;

/// A fault of lobby's.
pub struct Case<'a> {
    house: &'a mut House,
    part: &'static str,
    what: &'static str,
    how: &'static str,
    began: Instant,
    /// From when on it can heal.
    curable: Option<Instant>,
    said: Duration,
    back: Duration,
    /// Whether ward's tile is watched.
    watched: bool,
    /// Whether it is older than the connection to the broker.
    early: bool,
}

impl<'a> Case<'a> {
    /// Waits until nothing is wrong anywhere. The fault's cause follows.
    pub async fn new(
        house: &'a mut House,
        part: &'static str,
        what: &'static str,
        how: &'static str,
    ) -> Self {
        house.until(&format!("all is well before {what}"), |house| house.faults().is_empty()).await;
        house.said.clear();
        let watched = house.kiosks.iter().any(|(id, ..)| *id == "ward");
        let began = Instant::now();
        Self {
            house,
            part,
            what,
            how,
            began,
            curable: None,
            said: Duration::MAX,
            back: Duration::MAX,
            watched,
            early: false,
        }
    }

    /// Ward loses by it, too.
    pub fn hits_all(mut self) -> Self {
        self.watched = false;
        self
    }

    /// It is there before the kiosk reaches the broker.
    pub fn at_start(mut self) -> Self {
        self.early = true;
        self
    }

    pub fn house(&mut self) -> &mut House {
        self.house
    }

    /// Waits until this is said of the part.
    pub async fn is_said(&mut self, code: &str) {
        let (part, began) = (self.part, self.began);
        let is_it = |said: &&Said| is_edge(said, part) && said.payload["code"] == code;
        self.house.until(code, |house| house.said.iter().any(|said| is_it(&said))).await;
        let first = self.house.said.iter().find(is_it).expect("it was said");
        if self.said == Duration::MAX {
            self.said = first.at - began;
        }
        self.curable = Some(first.at);
        let level = format!("lobby/fault/{part}");
        self.house.until("it is retained", |house| house.now(&level)["code"] == code).await;
        assert!(self.said <= SAID_WITHIN, "{}: said after {:?}", self.what, self.said);
    }

    /// From now on it can heal; otherwise that is since it was said.
    pub fn can_heal(&mut self) {
        self.curable = Some(Instant::now());
    }

    /// Waits until the camera's tile was not live and is again, and the fault is over.
    pub async fn heals(self) {
        let position = self.part.trim_start_matches("camera-");
        let is_live = |reported: &Value| {
            let own = tile(reported, "lobby");
            own["state"] == "live" && own["device-position"] == position
        };
        self.heals_when(|house| {
            let reported = house.said.iter().filter(|said| said.topic == "lobby/reported");
            let was_not = reported.map(|said| &said.payload).any(|reported| !is_live(reported));
            was_not && is_live(house.now("lobby/reported"))
        })
        .await;
    }

    /// Waits until it is as before, then until the fault is over.
    pub async fn heals_when(mut self, is_as_before: impl FnMut(&House) -> bool) {
        self.is_back_when(is_as_before).await;
        self.ends().await;
    }

    /// Waits until it is as before.
    pub async fn is_back_when(&mut self, is_as_before: impl FnMut(&House) -> bool) {
        self.house.until(&format!("{}: as before", self.what), is_as_before).await;
        self.back = self.curable.expect("it was said").elapsed();
        assert!(self.back <= BACK_WITHIN, "{}: back after {:?}", self.what, self.back);
    }

    /// Waits until the fault is over.
    pub async fn ends(self) {
        let (part, what) = (self.part, self.what);
        let level = format!("lobby/fault/{part}");
        self.house.until(&format!("{what}: over"), |house| house.now(&level).is_null()).await;

        let codes = in_order(&self.house.said, part, self.early);
        let lost = if self.watched { self.lost_elsewhere() } else { "–".to_owned() };
        row([what, self.how, &codes, &seconds(self.said), &seconds(self.back), &lost]);
    }

    /// Compares the pictures ward took with those lobby showed of it, since the beginning.
    fn lost_elsewhere(&self) -> String {
        let said = |topic: &str, count: &str| -> Vec<u64> {
            let stats = self.house.said.iter().filter(|said| said.topic == topic);
            stats.map(|said| tile(&said.payload, "ward")[count].as_u64().unwrap_or(0)).collect()
        };
        let (shown, dropped) = (said("lobby/stats", "shown"), said("lobby/stats", "dropped"));
        let taken: u64 = said("ward/stats", "shown").iter().sum();
        let (shown, dropped): (u64, u64) = (shown.iter().sum(), dropped.iter().sum());
        // On a whole processor it is none.
        assert!(dropped * LATE <= shown, "{}: {dropped} of ward's pictures came too late", self.what);
        assert!(shown > 0 && shown + IN_FLIGHT >= taken, "{}: {shown} of ward's {taken}", self.what);
        format!("{dropped} of {}", shown + dropped)
    }
}

/// Whether it is said that something is wrong with the part.
fn is_edge(said: &Said, part: &str) -> bool {
    said.topic == "lobby/error" && said.payload["part"] == part && said.payload["active"] == true
}

/// Checks that each fault of the part was said once, then retained, then said to be over, and the topic emptied last.
/// What was wrong before the broker was reached may be retained first. Answers the codes.
fn in_order(said: &[Said], part: &str, early: bool) -> String {
    let level = format!("lobby/fault/{part}");
    let of_part = said
        .iter()
        .filter(|said| said.topic == level || (said.topic == "lobby/error" && said.payload["part"] == part));
    let mut codes: Vec<String> = Vec::new();
    let mut open = BTreeSet::new();
    let mut retained = Value::Null;
    for Said { topic, payload, .. } in of_part {
        let code = payload["code"].as_str().unwrap_or_default().to_owned();
        match (topic == &level, payload["active"] == true) {
            (true, _) if payload.is_null() => {
                assert!(open.is_empty(), "{part} is well while {open:?}");
                retained = Value::Null;
            }
            (true, _) => {
                assert!(early || open.contains(&code), "{code} is retained before it is said");
                retained = payload["code"].clone();
            }
            (false, true) => {
                assert!(open.insert(code.clone()), "{code} is said twice");
                if !codes.contains(&code) {
                    codes.push(code);
                }
            }
            (false, false) => assert!(open.remove(&code), "{code} is over before it is said"),
        }
    }
    assert!(retained.is_null() && !codes.is_empty() && open.is_empty(), "{part}: {codes:?}, {open:?}");
    codes.join(", ")
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}

/// Adds a row to the table: fault, how it was made, what was said, time to report, time to heal, frames lost elsewhere.
pub fn row(cells: [&str; 6]) {
    let row = format!("| {} |\n", cells.join(" | "));
    let table = File::options().create(true).append(true).open(out().join("faults.md"));
    table.and_then(|mut table| table.write_all(row.as_bytes())).expect("the table can be written");
}
