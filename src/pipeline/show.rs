//! The screen thread: collects what is new, draws it, brings it to the glass, at its own pace.

use super::{Ready, Stage, Video, lock, screen_failure};
use crate::clock::Clock;
use crate::device::Screen;
use crate::geometry::{Orientation, Rect, Rotation};
use crate::media::canvas::Canvas;
use crate::media::compose::{Compositor, fill, veil};
use crate::media::frame::Frame;
use crate::media::signs::{self, Badge, palette};
use crate::media::stamps::Stamps;
use crate::media::text::Fonts;
use crate::room::budget::Share;
use crate::room::message::MemberId;
use crate::room::{Event, Mode, Picture, Scene, ScreenInfo, Tile, TileState};
use crate::supervise::{Failure, Stop};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Without news the loop turns this often: fresh enough to see a picture grow old.
const IDLE: Duration = Duration::from_millis(200);
/// Without pictures there is none to grow old: only the screen is asked whether it is still there.
const ASLEEP: Duration = Duration::from_secs(1);
/// The shortest time between two pictures on the glass: 60 a second.
const PERIOD: Duration = Duration::from_micros(16_600);
/// What arrives within this time goes onto the glass together.
const COLLECT: Duration = Duration::from_millis(4);
/// A picture older than this is veiled, and its tile stalled.
const STALE: Duration = Duration::from_secs(1);
/// A picture older than this gives way to the placeholder.
const GONE: Duration = Duration::from_secs(3);

/// What the screen thread brings along.
pub struct Glasswork {
    pub fonts: Fonts,
    /// How the screen is mounted.
    pub rotation: Rotation,
    pub clock: Clock,
}

/// How a tile looks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    Picture,
    Veiled,
    Placeholder,
}

/// A tile with its last picture.
struct Pane {
    tile: Tile,
    video: Arc<Video>,
    frame: Option<Arc<Frame>>,
    /// When the frame came to this thread.
    since: Duration,
    /// What is on the canvas; `None` if nothing yet.
    drawn: Option<Look>,
    /// Whether the room was told that the tile is live, and the tile has been waiting for nothing since.
    told_live: bool,
    /// Whether the last picture was drawn, where every other one is.
    last_drawn: bool,
    /// Of the last picture; those of a picture that was drawn and is not on the glass yet.
    stamps: Stamps,
    on_its_way: bool,
}

impl Pane {
    fn new(tile: Tile, video: Arc<Video>, now: Duration) -> Self {
        Self {
            tile,
            video,
            frame: None,
            since: now,
            drawn: None,
            told_live: false,
            last_drawn: false,
            stamps: Stamps::default(),
            on_its_way: false,
        }
    }

    fn look(&self, now: Duration) -> Look {
        let off = matches!(self.tile.state, TileState::Off | TileState::Paused | TileState::Failed);
        match now.saturating_sub(self.since) {
            _ if self.frame.is_none() || off => Look::Placeholder,
            age if age > GONE => Look::Placeholder,
            age if age > STALE || !self.told_live => Look::Veiled,
            _ => Look::Picture,
        }
    }
}

/// Draws the stage onto `screen` until told to stop. Tells the room which tiles come to life and which stall.
///
/// # Errors
/// The screen's failure.
pub fn show(
    screen: &mut dyn Screen,
    stage: &Stage,
    glasswork: &mut Glasswork,
    tell: &dyn Fn(Event),
    works: &dyn Fn(),
    stop: &Stop,
) -> Result<(), Failure> {
    let mode = screen.mode().clone();
    let mut canvas = Canvas::new(mode.size, mode.layout, glasswork.rotation);
    let size = canvas.logical_size();
    let bits_per_pixel = 8 * mode.layout.bytes_per_pixel as u32;
    let name = mode.name.clone();
    let info = ScreenInfo { name, width: size.width, height: size.height, bits_per_pixel, flip: mode.flip };
    tell(Event::ScreenOpened { info });

    let clock = glasswork.clock;
    let mut compositor = Compositor::default();
    let mut set: Option<Arc<Picture>> = None;
    let mut panes: Vec<Pane> = Vec::new();
    // What this round changes on the canvas.
    let mut changed = Vec::new();
    let mut everything = true;
    let mut last = Duration::ZERO;
    while !stop.is_told() {
        let pause = if panes.iter().any(|pane| pane.told_live || pane.drawn != Some(Look::Placeholder)) {
            IDLE
        } else {
            ASLEEP
        };
        if stage.bell.wait(pause) {
            let rest = (last + PERIOD).saturating_sub(clock.mono());
            stop.wait(rest.max(COLLECT));
        }
        last = clock.mono();
        stage.turns.fetch_add(1, Relaxed);

        changed.clear();
        let wanted = lock(&stage.picture).clone();
        if let Some(wanted) = wanted.filter(|wanted| set.as_ref().is_none_or(|set| !Arc::ptr_eq(set, wanted)))
        {
            everything |= set.as_ref().is_none_or(|set| !same_ground(set, &wanted));
            for area in vacated(&panes, &wanted) {
                fill(&mut canvas, area, palette::GROUND);
                changed.push(canvas.physical(area));
            }
            arrange(&mut panes, &wanted, stage, last);
            set = Some(wanted);
        }
        let Some(picture) = &set else { continue };

        if everything {
            background(&mut canvas, picture, &mut glasswork.fonts);
            panes.iter_mut().for_each(|pane| pane.drawn = None);
            changed.push(Rect::of(canvas.physical_size()));
        }
        for pane in &mut panes {
            let fresh = collect(pane, last, tell);
            let look = pane.look(last);
            let drawn = !fresh && pane.drawn.as_ref() == Some(&look);
            if drawn || picture.identify.is_some() {
                continue;
            }
            draw(&mut canvas, &mut compositor, &mut glasswork.fonts, pane, &look);
            if fresh && look == Look::Picture {
                pane.video.meter.shown.fetch_add(1, Relaxed);
                (pane.stamps.composed, pane.on_its_way) = (clock.mono(), true);
            }
            pane.drawn = Some(look);
            if !everything {
                changed.push(canvas.physical(pane.tile.area));
            }
        }
        if !changed.is_empty() {
            overlay(&mut canvas, picture, &mut glasswork.fonts, &mut changed);
            // A flip mostly waits for the panel.
            let waits = mode.flip.then(|| clock.mono());
            screen.present(&canvas, &changed).map_err(screen_failure)?;
            stage.work.add(waits.unwrap_or_else(|| clock.mono()) - last);
            works();
            measure(&mut panes, clock.mono());
        } else {
            // It is asked even when nothing moves: it may have been taken away or changed.
            screen.present(&canvas, &[]).map_err(screen_failure)?;
        }
        everything = false;
        for answer in lock(&stage.snapshots).drain(..) {
            // Who does not wait any more gets nothing.
            let _ = answer.send(canvas.clone());
        }
    }
    Ok(())
}

/// Whether two pictures have the same behind and over their tiles: then only tiles are drawn.
fn same_ground(one: &Picture, other: &Picture) -> bool {
    let ground = match (&one.scene, &other.scene) {
        (Scene::Grid { .. }, Scene::Grid { .. }) => true,
        (one, other) => one == other,
    };
    ground && (&one.identify, &one.notice, one.live) == (&other.identify, &other.notice, other.live)
}

/// Where tiles were and the same tile is not any more. Tiles that stay do not lie there: tiles never overlap.
fn vacated(panes: &[Pane], picture: &Picture) -> Vec<Rect> {
    let stays = |pane: &&Pane| match &picture.scene {
        Scene::Grid { tiles } => {
            tiles.iter().any(|tile| tile.member == pane.tile.member && tile.area == pane.tile.area)
        }
        Scene::Idle { .. } => false,
    };
    panes.iter().filter(|pane| !stays(pane)).map(|pane| pane.tile.area).collect()
}

/// Makes one pane a tile, in the tiles' order; members who were there keep their picture.
fn arrange(panes: &mut Vec<Pane>, picture: &Picture, stage: &Stage, now: Duration) {
    let tiles: &[Tile] = match &picture.scene {
        Scene::Grid { tiles } => tiles,
        Scene::Idle { .. } => &[],
    };
    let mut before = std::mem::take(panes);
    for tile in tiles {
        let video = stage.video(&tile.member);
        let known = before.iter().position(|pane| pane.tile.member == tile.member);
        let mut pane = match known.map(|index| before.swap_remove(index)) {
            Some(pane) if Arc::ptr_eq(&pane.video, &video) => pane,
            _ => Pane::new(tile.clone(), video, now),
        };
        pane.video.paused.store(tile.share == Share::None, Relaxed);
        if pane.tile != *tile {
            // A new state alone may leave the picture as it is; anything else is drawn anew.
            let state_alone =
                Tile { state: pane.tile.state, reason: pane.tile.reason.clone(), ..tile.clone() };
            if pane.tile != state_alone || pane.drawn != Some(Look::Picture) {
                pane.drawn = None;
            }
            // It waits for a first picture again: of another camera, of a new connection.
            let waits = |state| state == TileState::Connecting;
            pane.told_live &= !waits(tile.state) || waits(pane.tile.state);
            pane.tile = tile.clone();
        }
        panes.push(pane);
    }
}

/// Takes the pane's newest picture; tells of first pictures and of pictures that stopped. True if there is a new one
/// that there is time for.
fn collect(pane: &mut Pane, now: Duration, tell: &dyn Fn(Event)) -> bool {
    let member = || -> MemberId { pane.tile.member.clone() };
    match pane.video.take(now) {
        Some(Ready { decoded, frame, .. }) => {
            pane.stamps = Stamps { received: frame.captured, decoded, ..Stamps::default() };
            // Said again as long as the tile waits: what was said before may have been of another camera, of another
            // connection, and the room's change from one to the other was too quick to be seen here.
            if !pane.told_live || pane.tile.state == TileState::Connecting {
                tell(Event::TileLive { member: member() });
            }
            (pane.frame, pane.since, pane.told_live) = (Some(frame), now, true);
            pane.last_drawn = pane.tile.share == Share::All || !pane.last_drawn;
            pane.last_drawn
        }
        None => {
            if pane.told_live && now.saturating_sub(pane.since) > STALE {
                tell(Event::TileStalled { member: member() });
                pane.told_live = false;
            }
            false
        }
    }
}

/// What lies behind the tiles, or instead of them.
fn background(canvas: &mut Canvas, picture: &Picture, fonts: &mut Fonts) {
    match (&picture.identify, &picture.scene) {
        (Some(id), _) => signs::identify(canvas, fonts, id, "This is the kiosk you asked for."),
        (None, Scene::Idle { title, line }) => signs::idle(canvas, fonts, title, line),
        (None, Scene::Grid { .. }) => fill(canvas, Rect::of(canvas.logical_size()), palette::GROUND),
    }
}

fn draw(canvas: &mut Canvas, compositor: &mut Compositor, fonts: &mut Fonts, pane: &Pane, look: &Look) {
    let tile = &pane.tile;
    let name: &str = if tile.name.is_empty() { tile.member.as_str() } else { &tile.name };
    match &pane.frame {
        Some(frame) if *look != Look::Placeholder => {
            let mirror = tile.mirror && tile.mode == Mode::Camera;
            let orientation = Orientation { mirror, rotation: Rotation::None };
            compositor.draw(canvas, tile.area, frame, tile.fit, orientation, palette::GROUND);
            if *look == Look::Veiled {
                veil(canvas, tile.area);
            }
            signs::label(canvas, fonts, tile.area, name);
        }
        _ => signs::placeholder(canvas, fonts, tile.area, name, &tile.reason),
    }
    if tile.speaking {
        signs::speaking(canvas, tile.area);
    }
    let off = [(tile.microphone_muted, Badge::MicrophoneOff), (tile.earphone_muted, Badge::EarphoneOff)];
    let badges: heapless::Vec<Badge, 2> =
        off.into_iter().filter_map(|(off, badge)| off.then_some(badge)).collect();
    signs::badges(canvas, tile.area, &badges);
}

/// What lies over the tiles: drawn again whenever something below it was.
fn overlay(canvas: &mut Canvas, picture: &Picture, fonts: &mut Fonts, changed: &mut Vec<Rect>) {
    if let Some(text) = &picture.notice {
        let area = Rect::of(canvas.logical_size());
        let strip = signs::notice(canvas, fonts, area, text);
        changed.push(canvas.physical(strip));
    }
    // Last: nothing lies over it.
    let area = signs::live(canvas, picture.live.camera, picture.live.microphone);
    changed.push(canvas.physical(area));
}

/// What was drawn is on the glass now.
fn measure(panes: &mut [Pane], now: Duration) {
    for pane in panes.iter_mut().filter(|pane| pane.on_its_way) {
        pane.on_its_way = false;
        pane.stamps.flipped = now;
        let (stamps, meter) = (&pane.stamps, &pane.video.meter);
        let micros = |duration: Duration| duration.as_micros() as u64;
        meter.shown_at_us.store(micros(now), Relaxed);
        meter.latency_us.store(micros(now.saturating_sub(stamps.received)), Relaxed);
        meter.passed(stamps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Fit, Size};
    use crate::mailbox::Bell;
    use crate::room::Position;
    use std::cell::Cell;

    fn tile(state: TileState) -> Tile {
        Tile {
            member: MemberId::parse("lobby").expect("an id"),
            mode: Mode::Camera,
            area: Rect::new(0, 0, 32, 18),
            fit: Fit::Fill,
            mirror: false,
            position: Position::Front,
            name: Default::default(),
            state,
            reason: String::new(),
            speaking: false,
            microphone_muted: false,
            earphone_muted: false,
            share: Share::All,
        }
    }

    #[test]
    fn a_tile_that_still_waits_is_told_of_each_picture_until_it_is_live() {
        let video = Arc::new(Video::new(Arc::new(Bell::default())));
        let mut pane = Pane::new(tile(TileState::Connecting), video.clone(), Duration::ZERO);
        let told = Cell::new(0);
        let picture = |pane: &mut Pane| {
            video.put(Arc::new(Frame::new(Size::new(32, 18))), Duration::ZERO, Duration::ZERO);
            assert!(collect(pane, Duration::ZERO, &|_| told.set(told.get() + 1)));
            told.get()
        };

        assert_eq!(picture(&mut pane), 1);
        // The room has gone from one camera to the other since: what it was told is forgotten.
        assert_eq!(picture(&mut pane), 2);
        pane.tile = tile(TileState::Live);
        assert_eq!(picture(&mut pane), 2);
    }
}
