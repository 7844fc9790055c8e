//! What is seen on the glass: how old each picture is when it gets there, by the number its camera drew into it.

use crate::geometry::{Fit, Rect, Size};
use crate::media::canvas::Canvas;
use crate::sim::{camera, number};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Ages kept of each tile: an hour at 30 a second. Full: further pictures are only counted.
const AGES: usize = 108_000;

/// Watches the tiles of one glass.
#[derive(Clone)]
pub struct Sight {
    picture: Size,
    rate_hz: u32,
    fit: Fit,
    tiles: Arc<Mutex<BTreeMap<String, Tile>>>,
}

/// What was seen of one tile.
#[derive(Clone, Debug)]
pub struct Tile {
    area: Rect,
    number: Option<u16>,
    /// New pictures.
    pub shown: u64,
    /// From the camera to the glass, as they came.
    pub ages: Vec<Duration>,
}

impl Sight {
    /// Of these members and areas, all of pictures of one size, rate and fit.
    pub fn new<'a>(
        picture: Size,
        rate_hz: u32,
        tiles: impl Iterator<Item = (&'a String, Rect)>,
        fit: Fit,
    ) -> Self {
        let tile = |area| Tile { area, number: None, shown: 0, ages: Vec::new() };
        let tiles = tiles.map(|(member, area)| (member.clone(), tile(area))).collect();
        Self { picture, rate_hz, fit, tiles: Arc::new(Mutex::new(tiles)) }
    }

    /// Looks at each change of the glass.
    pub fn eye(&self) -> impl FnMut(&Canvas) + Send + 'static {
        let sight = self.clone();
        move |canvas| {
            let now = SystemTime::now();
            for tile in sight.tiles().values_mut() {
                let seen = number::read(canvas, sight.picture, tile.area, sight.fit);
                let Some(number) = seen.filter(|number| tile.number != Some(*number)) else { continue };
                tile.number = Some(number);
                tile.shown += 1;
                if tile.ages.len() < AGES {
                    tile.ages.push(camera::age(number, sight.rate_hz, now));
                }
            }
        }
    }

    /// Whether every tile has shown a second of pictures.
    pub fn all_move(&self) -> bool {
        self.tiles().values().all(|tile| tile.shown >= u64::from(self.rate_hz))
    }

    /// Counts anew.
    pub fn forget(&self) {
        self.tiles().values_mut().for_each(|tile| {
            tile.shown = 0;
            tile.ages.clear();
        });
    }

    /// What was seen since.
    pub fn take(&self) -> BTreeMap<String, Tile> {
        self.tiles().clone()
    }

    fn tiles(&self) -> MutexGuard<'_, BTreeMap<String, Tile>> {
        self.tiles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
