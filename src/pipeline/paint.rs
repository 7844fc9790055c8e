//! What a page of the screen lacks is drawn on it, and nothing else; each byte once.

use super::show::{Look, Pane};
use crate::clock::Clock;
use crate::geometry::{Orientation, Rect, Rotation, Size};
use crate::media::canvas::{Canvas, Surface};
use crate::media::compose::{Compositor, Shot};
use crate::media::glazing;
use crate::media::overlay::Overlay;
use crate::media::signs::{self, Badge, palette};
use crate::media::text::Fonts;
use crate::room::{Mode, Picture, Scene, Tile};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What is on a page: which version of the ground, and in which areas which versions of tiles. Nothing by default.
#[derive(Debug, Default)]
pub struct Shown {
    ground: u64,
    tiles: Vec<(Rect, u64)>,
}

/// Draws the picture of the room.
pub struct Painting<'a> {
    fonts: &'a mut Fonts,
    compositor: Compositor,
    /// Physical.
    screen: Size,
    rotation: Rotation,
    picture: Option<Arc<Picture>>,
    /// Of what lies behind the tiles and over them.
    ground: u64,
    /// The notice, and last, for nothing lies over it, what is live.
    over: [Overlay; 2],
    versions: u64,
}

impl<'a> Painting<'a> {
    pub fn new(fonts: &'a mut Fonts, screen: Size, rotation: Rotation) -> Self {
        let nothing = || Overlay::of(screen, rotation, Rect::new(0, 0, 0, 0), |_| {});
        let over = [nothing(), nothing()];
        let compositor = Compositor::default();
        Self { fonts, compositor, screen, rotation, picture: None, ground: 0, over, versions: 0 }
    }

    /// A version nothing had before.
    pub fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Shows `picture` from now on.
    pub fn set(&mut self, picture: Arc<Picture>) {
        if !self.picture.as_ref().is_some_and(|before| same_ground(before, &picture)) {
            let Self { fonts, rotation, screen, .. } = self;
            let size = rotation.size(*screen);
            let notice = picture.notice.as_deref();
            let area = notice.map_or(Rect::new(0, 0, 0, 0), |_| signs::notice_area(size));
            let notice = Overlay::of(*screen, *rotation, area, |canvas| {
                signs::notice(canvas, fonts, notice.unwrap_or_default());
            });
            let (camera, microphone) = (picture.live.camera, picture.live.microphone);
            let area = signs::live_area(size, camera, microphone);
            let live =
                Overlay::of(*screen, *rotation, area, |canvas| signs::live(canvas, camera, microphone));
            self.over = [notice, live];
            self.ground = self.version();
        }
        self.picture = Some(picture);
    }

    /// Draws on `surface` what it lacks, which until now shows what `shown` says.
    pub fn paint(&mut self, surface: &mut Surface<'_>, shown: &mut Shown, panes: &mut [Pane], clock: Clock) {
        let Some(picture) = self.picture.clone() else { return };
        // Who is asked who they are shows nothing else.
        let panes = if picture.identify.is_some() { &mut [] } else { panes };
        let stays = |area: Rect| panes.iter().any(|pane| pane.tile.area == area);
        let mut bare: Vec<Rect> = match shown.ground == self.ground {
            true => shown.tiles.iter().map(|(area, _)| *area).filter(|area| !stays(*area)).collect(),
            false => {
                shown.tiles.clear();
                vec![Rect::of(surface.logical_size())]
            }
        };
        if !bare.is_empty() {
            shown.tiles.retain(|(area, _)| stays(*area));
            for pane in panes.iter() {
                bare = bare.into_iter().flat_map(|area| area.without(pane.tile.area)).collect();
            }
            self.ground(surface, &picture, &bare);
            shown.ground = self.ground;
        }
        for pane in panes {
            let known = shown.tiles.iter_mut().find(|(area, _)| *area == pane.tile.area);
            if known.as_ref().is_some_and(|(_, version)| *version == pane.version) {
                continue;
            }
            self.tile(surface, pane);
            match known {
                Some((_, version)) => *version = pane.version,
                None => shown.tiles.push((pane.tile.area, pane.version)),
            }
            if std::mem::take(&mut pane.fresh) {
                pane.video.meter.shown.fetch_add(1, Relaxed);
                (pane.stamps.composed, pane.on_its_way) = (clock.mono(), true);
            }
        }
    }

    /// What lies behind the tiles, or instead of them.
    fn ground(&mut self, surface: &mut Surface<'_>, picture: &Picture, areas: &[Rect]) {
        let [notice, live] = &self.over;
        let over = [notice, live];
        let sign: &dyn Fn(&mut Canvas, &mut Fonts) = match (&picture.identify, &picture.scene) {
            (Some(id), _) => {
                &|canvas, fonts| signs::identify(canvas, fonts, id, "This is the kiosk you asked for.")
            }
            (None, Scene::Idle { title, line }) => &|canvas, fonts| signs::idle(canvas, fonts, title, line),
            (None, Scene::Grid { .. }) => {
                return areas.iter().for_each(|area| glazing::fill(surface, *area, palette::GROUND, &over));
            }
        };
        let mut canvas = Canvas::new(self.screen, surface.layout(), self.rotation);
        sign(&mut canvas, self.fonts);
        let whole = Rect::of(surface.logical_size());
        areas.iter().for_each(|area| glazing::copy(surface, whole, &canvas, *area, &over));
    }

    fn tile(&mut self, surface: &mut Surface<'_>, pane: &mut Pane) {
        let (fonts, rotation) = (&mut *self.fonts, self.rotation);
        let (tile, picture) =
            (&pane.tile, pane.image.as_deref().filter(|_| pane.look != Some(Look::Placeholder)));
        let name: &str = if tile.name.is_empty() { tile.member.as_str() } else { &tile.name };
        let own = pane.signs.get_or_insert_with(|| {
            Overlay::of(self.screen, rotation, tile.area, |canvas| {
                lay_signs(canvas, fonts, tile, picture.is_some().then_some(name));
            })
        });
        let [notice, live] = &self.over;
        let over = [&*own, notice, live];
        match picture {
            Some(image) => {
                let mirror = tile.mirror && tile.mode == Mode::Camera;
                let orientation = Orientation { mirror, rotation: Rotation::None };
                let veiled = pane.look == Some(Look::Veiled);
                let shot = Shot { image, fit: tile.fit, orientation, background: palette::GROUND, veiled };
                self.compositor.draw(surface, tile.area, &shot, &over);
            }
            None => {
                let size = tile.area.size();
                let mut canvas = Canvas::new(rotation.size(size), surface.layout(), rotation);
                signs::placeholder(&mut canvas, fonts, Rect::of(size), name, &tile.reason);
                glazing::copy(surface, tile.area, &canvas, tile.area, &over);
            }
        }
    }
}

/// What lies over a tile: the name, if it shows a picture, who speaks, and what is off.
fn lay_signs(canvas: &mut Canvas, fonts: &mut Fonts, tile: &Tile, name: Option<&str>) {
    let area = Rect::of(tile.area.size());
    if let Some(name) = name {
        signs::label(canvas, fonts, area, name);
    }
    if tile.speaking {
        signs::speaking(canvas, area);
    }
    let off = [(tile.microphone_muted, Badge::MicrophoneOff), (tile.earphone_muted, Badge::EarphoneOff)];
    let badges: heapless::Vec<Badge, 2> =
        off.into_iter().filter_map(|(off, badge)| off.then_some(badge)).collect();
    signs::badges(canvas, area, &badges);
}

/// Whether two pictures have the same behind and over their tiles: then only tiles are drawn.
fn same_ground(one: &Picture, other: &Picture) -> bool {
    let ground = match (&one.scene, &other.scene) {
        (Scene::Grid { .. }, Scene::Grid { .. }) => true,
        (one, other) => one == other,
    };
    ground && (&one.identify, &one.notice, one.live) == (&other.identify, &other.notice, other.live)
}

#[cfg(test)]
mod tests {
    use super::super::Video;
    use super::super::show::tests::tile;
    use super::*;
    use crate::geometry::Fit;
    use crate::mailbox::Bell;
    use crate::media::canvas::{PixelLayout, Rgb};
    use crate::media::frame::Frame;
    use crate::media::image::Image;
    use crate::room::message::MemberId;
    use crate::room::{Live, TileState};
    use proptest::prelude::*;
    use std::time::Duration;

    const SCREEN: Size = Size::new(120, 160);
    /// On the glass before anything is drawn, and nowhere in what is drawn.
    const UNTOUCHED: Rgb = Rgb::new(255, 0, 254);

    fn pane(index: usize, area: Rect, painting: &mut Painting<'_>) -> Pane {
        let member = MemberId::parse(["lobby", "ward", "gate"][index]).expect("an id");
        let tile = Tile { member, area, ..tile(TileState::Live) };
        let mut pane = Pane::new(tile, Arc::new(Video::new(Arc::new(Bell::default()))), Duration::ZERO);
        pane.version = painting.version();
        pane
    }

    fn picture(tiles: &[Pane], live: bool, notice: Option<&str>) -> Arc<Picture> {
        let tiles = tiles.iter().map(|pane| pane.tile.clone()).collect();
        let notice = notice.map(Into::into);
        let live = Live { camera: live, microphone: false };
        Arc::new(Picture { scene: Scene::Grid { tiles }, identify: None, notice, live })
    }

    fn frame(shade: u8) -> Arc<dyn Image> {
        let mut frame = Frame::new(Size::new(32, 18));
        frame.planes_mut()[0].fill(shade);
        Arc::new(frame)
    }

    fn canvas(rotation: Rotation) -> Canvas {
        let mut canvas = Canvas::new(rotation.size(SCREEN), PixelLayout::XRGB8888, rotation);
        canvas.fill(Rect::of(SCREEN), UNTOUCHED);
        canvas
    }

    /// What happens to the second of three tiles, or to all of the screen.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Frame(u8),
        Move(u32),
        Placeholder,
        Speaks(bool),
        Notice(bool),
        Live(bool),
        Leaves,
        Comes,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            any::<u8>().prop_map(Step::Frame),
            (0..30u32).prop_map(Step::Move),
            Just(Step::Placeholder),
            any::<bool>().prop_map(Step::Speaks),
            any::<bool>().prop_map(Step::Notice),
            any::<bool>().prop_map(Step::Live),
            Just(Step::Leaves),
            Just(Step::Comes),
        ];
        proptest::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_page_shows_the_same_whatever_was_on_it_before(steps in steps(), turned: bool, pages in 1..3usize) {
            let rotation = if turned { Rotation::Quarter } else { Rotation::None };
            let mut fonts = Fonts::built_in();
            let mut painting = Painting::new(&mut fonts, rotation.size(SCREEN), rotation);
            let clock = Clock::start();
            let mut panes: Vec<Pane> =
                (0..3).map(|index| pane(index, Rect::new(4, 4 + 40 * index as u32, 70, 36), &mut painting)).collect();
            let mut kept = [(canvas(rotation), Shown::default()), (canvas(rotation), Shown::default())];
            let (mut live, mut notice) = (false, false);

            for (turn, step) in steps.into_iter().enumerate() {
                let version = painting.version();
                match step {
                    Step::Notice(on) => notice = on,
                    Step::Live(on) => live = on,
                    Step::Leaves => panes.truncate(1),
                    Step::Comes if panes.len() < 3 => {
                        let index = panes.len();
                        panes.push(pane(index, Rect::new(20, 6 + 45 * index as u32, 90, 40), &mut painting));
                    }
                    Step::Comes => {}
                    _ if panes.len() < 2 => {}
                    Step::Frame(shade) => (panes[1].image, panes[1].look) = (Some(frame(shade)), Some(Look::Picture)),
                    Step::Move(x) => panes[1].tile.area.x = x,
                    Step::Placeholder => panes[1].look = Some(Look::Placeholder),
                    Step::Speaks(on) => panes[1].tile.speaking = on,
                }
                if let Some(pane) = panes.get_mut(1) {
                    (pane.version, pane.signs) = (version, None);
                }
                painting.set(picture(&panes, live, notice.then_some("no broker")));
                let (page, shown) = &mut kept[turn % pages];
                painting.paint(&mut page.surface(), shown, &mut panes, clock);
                let mut fresh = canvas(rotation);
                painting.paint(&mut fresh.surface(), &mut Shown::default(), &mut panes, clock);

                prop_assert!(page.data() == fresh.data(), "after {step:?}");
                let colours = fresh.data().chunks_exact(4).map(|pixel| PixelLayout::XRGB8888.read(pixel));
                prop_assert!(colours.into_iter().all(|colour| colour != UNTOUCHED));
            }
        }
    }

    #[test]
    fn nothing_but_a_tile_with_a_new_picture_is_written() {
        let mut fonts = Fonts::built_in();
        let mut painting = Painting::new(&mut fonts, SCREEN, Rotation::None);
        let area = |index| Rect::new(4, 4 + 40 * index, 70, 36);
        let mut panes: Vec<Pane> =
            (0..3).map(|index| pane(index, area(index as u32), &mut painting)).collect();
        for pane in &mut panes {
            (pane.image, pane.look, pane.tile.fit) = (Some(frame(90)), Some(Look::Picture), Fit::Cover);
        }
        painting.set(picture(&panes, true, None));
        let (mut page, mut shown) = (canvas(Rotation::None), Shown::default());
        painting.paint(&mut page.surface(), &mut shown, &mut panes, Clock::start());

        page.fill(Rect::of(SCREEN), UNTOUCHED);
        painting.paint(&mut page.surface(), &mut shown, &mut panes, Clock::start());
        assert!(page.data().chunks_exact(4).all(|pixel| PixelLayout::XRGB8888.read(pixel) == UNTOUCHED));

        panes[1].version = painting.version();
        painting.paint(&mut page.surface(), &mut shown, &mut panes, Clock::start());
        for (x, y) in (0..SCREEN.width).flat_map(|x| (0..SCREEN.height).map(move |y| (x, y))) {
            let written = page.pixel(x, y) != UNTOUCHED;
            assert_eq!(written, area(1).contains(Rect::new(x, y, 1, 1)), "{x},{y}");
        }
    }
}
