//! Looks whether what must be true is true: what the kiosks say, what is on their glass, which devices are open.

use super::ground::{CAMERA, Ground};
use super::step::Device;
use super::world::{IDS, Standing, World};
use crate::demo::room::place;
use crate::geometry::{self, Fit, Rect};
use crate::machine;
use crate::media::canvas::Canvas;
use crate::room::Position;
use crate::room::document::Layout;
use crate::sim::number;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A tile moves if it showed this many new pictures in this time (5 a second, of 15), and stands still if none.
const MOVES: usize = 5;
const WHILE: Duration = Duration::from_secs(1);

/// What was seen of the tiles on the glass.
#[derive(Default)]
pub struct Eyes {
    /// By kiosk and member; as many as there are tiles.
    tiles: BTreeMap<(usize, usize), Tile>,
}

struct Tile {
    area: Rect,
    fit: Fit,
    since: Instant,
    number: Option<u16>,
    /// When there was a new number, within [`WHILE`].
    news: VecDeque<Instant>,
    /// Whose camera it was last.
    whose: Option<(usize, Position)>,
}

impl Eyes {
    /// Looks at every glass; to be called at least as often as there are pictures.
    pub fn look(&mut self, ground: &Ground, count: usize) {
        let now = Instant::now();
        let mut there = BTreeSet::new();
        for (kiosk, seat) in ground.seats.iter().enumerate() {
            let Some(reported) = ground.controller.last(&format!("{}/reported", IDS[kiosk])) else {
                continue;
            };
            let tiles = reported["tiles"].as_array().into_iter().flatten().filter_map(place);
            for (member, area, fit) in tiles {
                let Some(member) = IDS.iter().position(|id| *id == member) else { continue };
                there.insert((kiosk, member));
                let new = Tile { area, fit, since: now, number: None, news: VecDeque::new(), whose: None };
                let tile = self.tiles.entry((kiosk, member)).or_insert(new);
                if (tile.area, tile.fit) != (area, fit) {
                    (tile.area, tile.fit, tile.since) = (area, fit, now);
                    (tile.number, tile.whose) = (None, None);
                    tile.news.clear();
                }
                seat.simulation.glass.look(|canvas| tile.look(canvas, count, now));
            }
        }
        self.tiles.retain(|key, _| there.contains(key));
    }
}

impl Tile {
    fn look(&mut self, canvas: &Canvas, count: usize, now: Instant) {
        if let Some(number) = number::read(canvas, CAMERA, self.area, self.fit) {
            if self.number.replace(number).is_some_and(|before| before != number) {
                self.news.push_back(now);
            }
            let picture = geometry::place(CAMERA, self.area, self.fit).map(|placement| placement.target);
            self.whose = picture.and_then(|picture| whose(canvas, picture, count));
        }
        while self.news.front().is_some_and(|at| now - *at > WHILE) {
            self.news.pop_front();
        }
    }
}

/// Whose picture lies here, by its colour.
fn whose(canvas: &Canvas, area: Rect, count: usize) -> Option<(usize, Position)> {
    let pixel = canvas.pixel(area.x + area.width / 2, area.y + area.height / 6);
    let [red, green, blue] = [pixel.red, pixel.green, pixel.blue].map(f32::from);
    let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
    let (cb, cr) = (0.564 * (blue - luma), 0.713 * (red - luma));
    let turn = cr.atan2(cb) / std::f32::consts::TAU;
    let off = |(of, position): &(usize, Position)| {
        let hue = f32::from(machine::hue(IDS[*of], *position)) / 256.0;
        (turn - hue).rem_euclid(1.0).min((hue - turn).rem_euclid(1.0))
    };
    let cameras = (0..count).flat_map(|of| [Position::Front, Position::Back].map(|position| (of, position)));
    cameras.min_by(|one, other| off(one).total_cmp(&off(other)))
}

/// What the kiosks say that is not so, or do not say that is.
pub fn unsaid(world: &World, ground: &Ground) -> Vec<String> {
    let mut broken = Vec::new();
    for (of, place) in world.places.iter().enumerate().filter(|(of, _)| world.online(*of)) {
        let id = place.id;
        let state = ground.controller.last(&format!("{id}/state")).unwrap_or_default();
        let word = if world.degraded(of) { "degraded" } else { "online" };
        if state["state"] != word {
            broken.push(format!("{id}/state: {word} expected, it is {state}"));
        }
        let reported = ground.controller.last(&format!("{id}/reported")).unwrap_or_default();
        broken.extend(
            misreported(world, of, &reported)
                .into_iter()
                .map(|what| format!("{id}/reported: {what} expected, it is {reported}")),
        );
        broken.extend(
            wrong_faults(&world.faults(of), ground.controller.faults(id))
                .into_iter()
                .map(|what| format!("{id}/fault: {what}")),
        );
    }
    broken
}

fn misreported(world: &World, of: usize, reported: &Value) -> Vec<String> {
    let place = &world.places[of];
    let mut wrong = Vec::new();
    let mut want = |what: String, holds: bool| {
        if !holds {
            wrong.push(what);
        }
    };
    want(
        format!("state {}", world.words(of).join(" or ")),
        world.words(of).iter().any(|word| reported["state"] == *word),
    );
    let shown = world.shown_on(of);
    let tiles = reported["tiles"].as_array().map(Vec::as_slice).unwrap_or_default();
    want(format!("{} tiles", shown.len()), tiles.len() == shown.len());
    if !shown.is_empty() {
        want(format!("rev {}", place.rev), reported["rev"] == json!(place.rev));
        want("layout and rejected".into(), {
            let rejected = reported["rejected"].as_array().map_or(0, Vec::len);
            rejected == usize::from(place.spoilt.is_some())
        });
    }
    for member in shown {
        let states = world.tile_states(of, member);
        let id = IDS[member];
        let tile = tiles.iter().find(|tile| tile["openid"] == id);
        let holds = tile.is_some_and(|tile| states.iter().any(|state| tile["state"] == *state));
        want(format!("tile {id} {}", states.join(" or ")), holds);
        if member == of
            && let Some(tile) = tile
        {
            want(format!("camera {:?}", place.position), tile["device-position"] == json!(place.position));
            want(format!("{:?}", place.mute), tile["muted"] == json!(place.mute));
        }
    }
    wrong
}

fn wrong_faults(expected: &[Standing], stand: Vec<(String, Value)>) -> Vec<String> {
    let fits = |standing: &Standing, (part, record): &(String, Value)| {
        standing.part == *part && standing.codes.iter().any(|code| record["code"] == json!(code))
    };
    let missing =
        expected.iter().filter(|standing| standing.certain && !stand.iter().any(|one| fits(standing, one)));
    let surplus = stand.iter().filter(|one| !expected.iter().any(|standing| fits(standing, one)));
    let missing = missing.map(|standing| format!("{:?} on {} expected", standing.codes, standing.part));
    missing.chain(surplus.map(|(part, record)| format!("{part} not expected: {record}"))).collect()
}

/// What is on the glass that is not to be there, or the other way round; devices that are open and are not to be.
pub fn unseen(world: &World, ground: &Ground, eyes: &Eyes) -> Vec<String> {
    let now = Instant::now();
    let mut broken = Vec::new();
    for (kiosk, seat) in ground.seats.iter().enumerate() {
        let id = IDS[kiosk];
        for device in Device::ALL {
            let (open, wanted) = (seat.cable(device).is_in_use(), world.wants(kiosk, device));
            if open && !wanted {
                broken.push(format!("{id}: {} is open and is not to be", device.part()));
            } else if wanted && !open && !world.places[kiosk].unplugged.contains(&device) {
                broken.push(format!("{id}: {} is not open and is to be", device.part()));
            }
        }
        // Who speaks moves to the large tile, and without the broker nobody hears where the tiles are.
        let known = world.online(kiosk) || world.layout == Layout::Grid;
        for member in world.shown_on(kiosk).into_iter().filter(|_| known) {
            let name = format!("tile {} on the glass of {id}", IDS[member]);
            let Some(tile) = eyes.tiles.get(&(kiosk, member)) else {
                broken.push(format!("{name}: nobody knows where it is"));
                continue;
            };
            let news = tile.news.len();
            let place = &world.places[member];
            if now - tile.since < WHILE {
                broken.push(format!("{name}: it has just moved"));
            } else if !world.sends(member) && news > 0 {
                broken.push(format!("{name}: {news} new pictures, and its camera is not to be seen"));
            } else if world.sends(member) && news < MOVES {
                broken.push(format!("{name}: {news} new pictures in the last second"));
            } else if world.sends(member) && tile.whose != Some((member, place.position)) {
                let whose = tile.whose.map(|(of, position)| (IDS[of], position));
                broken.push(format!("{name}: {:?} expected, {whose:?} is seen", place.position));
            }
        }
    }
    broken
}
