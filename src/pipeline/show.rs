//! The screen thread: collects what is new, draws it, brings it to the glass, at its own pace.

use super::paint::{Painting, Shown};
use super::{Ready, Stage, Video, lock, screen_failure};
use crate::clock::Clock;
use crate::device::{MOST_PAGES, Screen};
use crate::geometry::Rotation;
use crate::media::canvas::{Canvas, Surface};
use crate::media::image::Image;
use crate::media::overlay::Overlay;
use crate::media::stamps::Stamps;
use crate::media::text::Fonts;
use crate::room::budget::Share;
use crate::room::message::MemberId;
use crate::room::{Event, Picture, Scene, ScreenInfo, Tile, TileState};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Picture,
    Veiled,
    Placeholder,
}

/// A tile with its last picture.
pub(super) struct Pane {
    pub tile: Tile,
    pub video: Arc<Video>,
    pub image: Option<Arc<dyn Image>>,
    /// When it came to this thread.
    since: Duration,
    /// `None`: it is to be drawn anew.
    pub look: Option<Look>,
    /// What lies over the picture; `None`: it is to be made anew.
    pub signs: Option<Overlay>,
    /// Changes with whatever is seen of it.
    pub version: u64,
    /// Whether its picture has not been drawn yet.
    pub fresh: bool,
    /// Whether the room was told that the tile is live, and the tile has been waiting for nothing since.
    told_live: bool,
    /// Whether the last picture was drawn, where every other one is.
    last_drawn: bool,
    /// Of the last picture; those of a picture that was drawn and is not on the glass yet.
    pub stamps: Stamps,
    pub on_its_way: bool,
}

impl Pane {
    pub fn new(tile: Tile, video: Arc<Video>, now: Duration) -> Self {
        Self {
            tile,
            video,
            image: None,
            since: now,
            look: None,
            signs: None,
            version: 0,
            fresh: false,
            told_live: false,
            last_drawn: false,
            stamps: Stamps::default(),
            on_its_way: false,
        }
    }

    /// How it is to look, and whether that is any news; `fresh` if there is a new picture.
    fn settle(&mut self, fresh: bool, now: Duration) -> bool {
        let off = matches!(self.tile.state, TileState::Off | TileState::Paused | TileState::Failed);
        let age = now.saturating_sub(self.since);
        // Its memory may be lent by a codec, who wants it back.
        self.image.take_if(|_| age > GONE);
        let look = match age {
            _ if self.image.is_none() || off => Look::Placeholder,
            age if age > STALE || !self.told_live => Look::Veiled,
            _ => Look::Picture,
        };
        self.fresh = fresh && look == Look::Picture;
        if self.look == Some(look) {
            return self.fresh;
        }
        self.look = Some(look);
        self.signs = None;
        true
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
    let (clock, rotation) = (glasswork.clock, glasswork.rotation);
    let size = rotation.size(mode.size);
    let bits_per_pixel = 8 * mode.layout.bytes_per_pixel as u32;
    let name = mode.name.clone();
    let info = ScreenInfo { name, width: size.width, height: size.height, bits_per_pixel, flip: mode.flip };
    tell(Event::ScreenOpened { info });

    let mut painting = Painting::new(&mut glasswork.fonts, mode.size, rotation);
    let mut set: Option<Arc<Picture>> = None;
    let mut panes: Vec<Pane> = Vec::new();
    // Of each of the screen's pages.
    let mut shown: [Shown; MOST_PAGES] = Default::default();
    let mut last = Duration::ZERO;
    while !stop.is_told() {
        let moves = panes.iter().any(|pane| pane.told_live || pane.look != Some(Look::Placeholder));
        if stage.bell.wait(if moves { IDLE } else { ASLEEP }) {
            let rest = (last + PERIOD).saturating_sub(clock.mono());
            stop.wait(rest.max(COLLECT));
        }
        last = clock.mono();
        stage.turns.fetch_add(1, Relaxed);

        let wanted = lock(&stage.picture).clone();
        let wanted = wanted.filter(|wanted| set.as_ref().is_none_or(|set| !Arc::ptr_eq(set, wanted)));
        let mut news = wanted.is_some();
        if let Some(wanted) = wanted {
            arrange(&mut panes, &wanted, stage, last);
            painting.set(wanted.clone());
            set = Some(wanted);
        }
        for pane in &mut panes {
            let fresh = collect(pane, last, tell);
            if pane.settle(fresh, last) {
                pane.version = painting.version();
                news = true;
            }
        }
        if news {
            let mut painted = last;
            let paint = &mut |page: usize, surface: Surface<'_>| {
                painting.paint(&mut surface.turned(rotation), &mut shown[page], &mut panes, clock);
                painted = clock.mono();
            };
            screen.present(paint).map_err(screen_failure)?;
            // A flip mostly waits for the panel.
            let worked = if mode.flip { painted } else { clock.mono() };
            stage.work.add(worked.saturating_sub(last));
            works();
            measure(&mut panes, clock.mono());
        } else {
            screen.check().map_err(screen_failure)?;
        }
        let snapshots = std::mem::take(&mut *lock(&stage.snapshots));
        if !snapshots.is_empty() {
            let mut canvas = Canvas::new(mode.size, mode.layout, rotation);
            painting.paint(&mut canvas.surface(), &mut Shown::default(), &mut panes, clock);
            for answer in snapshots {
                // Who does not wait any more gets nothing.
                let _ = answer.send(canvas.clone());
            }
        }
    }
    Ok(())
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
            if pane.tile != state_alone || pane.look != Some(Look::Picture) {
                pane.look = None;
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
        Some(Ready { decoded, image, .. }) => {
            pane.stamps = Stamps { received: image.captured(), decoded, ..Stamps::default() };
            // Said again as long as the tile waits: what was said before may have been of another camera, of another
            // connection, and the room's change from one to the other was too quick to be seen here.
            if !pane.told_live || pane.tile.state == TileState::Connecting {
                tell(Event::TileLive { member: member() });
            }
            (pane.image, pane.since, pane.told_live) = (Some(image), now, true);
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
pub(super) mod tests {
    use super::*;
    use crate::geometry::{Fit, Rect, Size};
    use crate::mailbox::Bell;
    use crate::media::frame::Frame;
    use crate::room::{Mode, Position};
    use std::cell::Cell;

    pub fn tile(state: TileState) -> Tile {
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

    #[test]
    fn a_picture_that_gives_way_to_the_placeholder_is_held_no_longer() {
        let mut pane = Pane::new(tile(TileState::Live), Arc::new(Video::new(Arc::default())), Duration::ZERO);
        let image: Arc<dyn Image> = Arc::new(Frame::new(Size::new(32, 18)));
        pane.image = Some(image.clone());
        let mut settle = |now| {
            pane.settle(false, now);
            (pane.look, Arc::strong_count(&image))
        };

        assert_eq!(settle(GONE), (Some(Look::Veiled), 2));
        assert_eq!(settle(GONE + Duration::from_millis(1)), (Some(Look::Placeholder), 1));
    }
}
