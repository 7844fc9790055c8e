//! Counts the pictures that are new on each tile, by the frame numbers in them.

use crate::geometry::{Fit, Rect, Size};
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
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    tiles: BTreeMap<String, Vec<(String, Rect, Fit)>>,
    /// When each tile showed a number it had not shown just before; at most [`Tally::MOST`].
    news: BTreeMap<Key, (Option<u16>, VecDeque<Instant>)>,
    /// Pictures shown and dropped, as the kiosk counts them.
    counts: BTreeMap<Key, (u64, u64)>,
}

impl Tally {
    /// Ten seconds at 60 a second.
    const MOST: usize = 600;

    /// A tally of pictures of this size.
    pub fn new(picture: Size) -> Self {
        Self { picture, seen: Arc::default() }
    }

    /// Says where a kiosk's tiles are.
    pub fn place(&self, kiosk: &str, tiles: Vec<(String, Rect, Fit)>) {
        self.seen().tiles.insert(kiosk.to_owned(), tiles);
    }

    /// Adds what a kiosk has counted since it last said so.
    pub fn count(&self, key: Key, shown: u64, dropped: u64) {
        let mut seen = self.seen();
        let count = seen.counts.entry(key).or_default();
        *count = (count.0 + shown, count.1 + dropped);
    }

    /// Pictures shown and dropped so far, of each tile.
    pub fn counts(&self) -> BTreeMap<Key, (u64, u64)> {
        self.seen().counts.clone()
    }

    /// Watches a kiosk's glass as long as there is one.
    pub fn watch(&self, kiosk: MemberId, glass: Glass) {
        let (tally, kiosk) = (self.clone(), kiosk.to_string());
        tokio::spawn(async move {
            let mut changes = glass.changes();
            while changes.changed().await.is_ok() {
                let tiles = tally.seen().tiles.get(&kiosk).cloned().unwrap_or_default();
                let read = |(member, area, fit): (String, Rect, Fit)| {
                    let number = glass.look(|canvas| number::read(canvas, tally.picture, area, fit))?;
                    Some((member, number))
                };
                let numbers: Vec<_> = tiles.into_iter().filter_map(read).collect();
                for (member, number) in numbers {
                    tally.saw((kiosk.clone(), member), number);
                }
            }
        });
    }

    /// New pictures a second on this tile over the last `time`.
    pub fn fps(&self, key: &Key, time: Duration) -> f64 {
        let now = Instant::now();
        let seen = self.seen();
        let news = seen.news.get(key).map_or(0, |(_, at)| at.iter().filter(|at| now - **at <= time).count());
        news as f64 / time.as_secs_f64()
    }

    fn saw(&self, key: Key, number: u16) {
        let mut seen = self.seen();
        let (last, at) = seen.news.entry(key).or_default();
        if *last != Some(number) {
            *last = Some(number);
            at.push_back(Instant::now());
            if at.len() > Self::MOST {
                at.pop_front();
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
