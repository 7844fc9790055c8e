//! Counts the pictures that are new on each tile, and those that are missing, by the frame numbers in them.

use crate::geometry::{Fit, Rect, Size};
use crate::media::canvas::Canvas;
use crate::room::message::MemberId;
use crate::sim::number;
use crate::sim::screen::Glass;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A tile: kiosk and member.
pub type Key = (String, String);

/// What has been seen. Clones share it.
#[derive(Clone)]
pub struct Tally {
    picture: Size,
    seen: Arc<Mutex<BTreeMap<Key, Seen>>>,
}

/// One tile.
#[derive(Default)]
struct Seen {
    /// Where the tile is and where it was, the newest first: the glass is often ahead of what is said about it. At
    /// most [`Tally::MOST_PLACES`].
    places: VecDeque<(Rect, Fit)>,
    number: Option<u16>,
    /// When it showed a new number; at most [`Tally::MOST_NEWS`].
    news: VecDeque<Instant>,
    count: Count,
}

/// Pictures of a tile, from its camera to the glass.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub shown: u64,
    /// Numbers that were left out between two that were shown, wherever they were lost.
    pub missing: u64,
}

impl Tally {
    /// Ten seconds at 60 a second.
    const MOST_NEWS: usize = 600;
    const MOST_PLACES: usize = 8;
    /// A greater step is another camera, or a member who was away.
    const LONGEST_GAP: u16 = 300;

    /// A tally of pictures of this size.
    pub fn new(picture: Size) -> Self {
        Self { picture, seen: Arc::default() }
    }

    /// Says where a kiosk's tile is now.
    pub fn place(&self, key: Key, place: (Rect, Fit)) {
        let mut seen = self.seen();
        let places = &mut seen.entry(key).or_default().places;
        places.retain(|known| *known != place);
        places.push_front(place);
        places.truncate(Self::MOST_PLACES);
    }

    /// What was counted so far, of each tile.
    pub fn counts(&self) -> BTreeMap<Key, Count> {
        self.seen().iter().map(|(key, seen)| (key.clone(), seen.count)).collect()
    }

    /// The frame number that this tile shows; `None` before the first.
    pub fn number(&self, key: &Key) -> Option<u16> {
        self.seen().get(key)?.number
    }

    /// Watches a kiosk's glass.
    pub fn watch(&self, kiosk: &MemberId, glass: &Glass) {
        let (tally, kiosk) = (self.clone(), kiosk.to_string());
        glass.watch(move |canvas| tally.look(&kiosk, canvas));
    }

    fn look(&self, kiosk: &str, canvas: &Canvas) {
        let now = Instant::now();
        for (_, tile) in self.seen().iter_mut().filter(|((of, _), _)| of == kiosk) {
            let read = |(area, fit): &(Rect, Fit)| number::read(canvas, self.picture, *area, *fit);
            if let Some(number) = tile.places.iter().find_map(read) {
                tile.saw(number, now);
            }
        }
    }

    /// New pictures a second on this tile over the last `time`.
    pub fn fps(&self, key: &Key, time: Duration) -> f64 {
        let now = Instant::now();
        let seen = self.seen();
        let news = seen.get(key).map_or(0, |tile| tile.news.iter().filter(|at| now - **at <= time).count());
        news as f64 / time.as_secs_f64()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<Key, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn saw(&mut self, number: u16, now: Instant) {
        let step = self.number.replace(number).map_or(1, |before| number.wrapping_sub(before));
        if step == 0 {
            return;
        }
        self.count.shown += 1;
        if step <= Tally::LONGEST_GAP {
            self.count.missing += u64::from(step - 1);
        }
        self.news.push_back(now);
        if self.news.len() > Tally::MOST_NEWS {
            self.news.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_left_out_are_missing_and_a_new_camera_is_not_a_gap() {
        let mut tile = Seen::default();

        for number in [65_534, 65_534, 65_535, 0, 3, 9_000, 9_001] {
            tile.saw(number, Instant::now());
        }

        assert_eq!((tile.count.shown, tile.count.missing), (6, 2));
    }
}
