//! How fast the room follows its documents, measured on the glass.

use super::mouth::MouthToEar;
use super::tally::Count;
use super::{CAMERA, Demo, LAST, MEMBERS};
use crate::geometry::{Fit, Rect};
use crate::media::signs::palette;
use crate::room::document::Layout;
use crate::room::layout;
use crate::sim::number;
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};

/// How often the last member leaves and joins.
const ROUNDS: u32 = 10;
/// Between two documents: what the change before has stirred up is over.
const REST: Duration = Duration::from_secs(2);
/// Nothing here takes that long.
const LIMIT: Duration = Duration::from_secs(20);

/// What was measured.
pub struct Figures {
    slowest_fps: f64,
    placeholder: Vec<Duration>,
    picture: Vec<Duration>,
    /// From the first kiosk's microphone to the second one's speaker, over the time without changes.
    mouth_to_ear: Vec<Duration>,
    /// Pictures of the members who stayed, on their kiosks: in as long a time without changes, and over all leaves
    /// and joins.
    quiet: Count,
    changing: Count,
}

/// Lets the last member leave and join again, and looks at the first kiosk's screen.
///
/// # Errors
/// The room does not come about, or a picture does not come at all.
pub async fn measure(demo: &Demo) -> anyhow::Result<Figures> {
    let begun = Instant::now();
    while !demo.report().moved() {
        ensure!(begun.elapsed() < LIMIT, "the room does not form:{}", demo.report());
        tokio::time::sleep(REST / 4).await;
    }
    tokio::time::sleep(LAST).await;
    let slowest_fps = demo.report().slowest();

    let [first, second] = [0, 1].map(|index| &demo.kiosks[index].simulation.air);
    let mouth_to_ear = MouthToEar::measure(first, second);
    // Once uncounted: from then on it is known where the tiles are with and without the last member.
    leave_and_join(demo).await?;
    // As long without a change as with changes: what is missing now is not missing because of them.
    let count = || demo.count(&MEMBERS[..MEMBERS.len() - 1]);
    let quiet = count();
    tokio::time::sleep(2 * REST * ROUNDS).await;
    let before = count();
    let mouth_to_ear = mouth_to_ear.sorted();
    let (mut placeholder, mut picture) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let joined = leave_and_join(demo).await;
        let (first, second) = joined.with_context(|| format!("round {round} of {ROUNDS}"))?;
        eprintln!("round {round} of {ROUNDS}: placeholder after {first:.1?}, picture after {second:.1?}");
        placeholder.push(first);
        picture.push(second);
    }
    let after = count();
    let since = |after: Count, before: Count| Count {
        shown: after.shown - before.shown,
        missing: after.missing - before.missing,
    };
    Ok(Figures {
        slowest_fps,
        placeholder,
        picture,
        mouth_to_ear,
        quiet: since(before, quiet),
        changing: since(after, before),
    })
}

async fn leave_and_join(demo: &Demo) -> anyhow::Result<(Duration, Duration)> {
    demo.make_room(&MEMBERS[..MEMBERS.len() - 1]).await?;
    tokio::time::sleep(REST).await;
    let times = join(demo).await?;
    tokio::time::sleep(REST).await;
    Ok(times)
}

/// Publishes the document of all members; how long until the last one's placeholder and first picture are on the
/// first kiosk's glass.
async fn join(demo: &Demo) -> anyhow::Result<(Duration, Duration)> {
    let glass = &demo.kiosks[0].simulation.glass;
    let size = glass.look(|canvas| canvas.logical_size());
    let area: Rect = *layout::arrange(Layout::Grid, size, MEMBERS.len()).last().context("a tile")?;
    let mut changes = glass.changes();
    let published = Instant::now();
    demo.make_room(&MEMBERS).await?;
    let mut placeholder = None;
    tokio::time::timeout(LIMIT, async {
        loop {
            changes.changed().await.context("the screen has ended")?;
            let (corner, number) = glass.look(|canvas| {
                (canvas.pixel(area.x + 8, area.y + 8), number::read(canvas, CAMERA, area, Fit::Cover))
            });
            if corner == palette::TILE {
                placeholder.get_or_insert(published.elapsed());
            }
            if let (Some(placeholder), Some(_)) = (placeholder, number) {
                return Ok((placeholder, published.elapsed()));
            }
        }
    })
    .await
    .with_context(|| format!("no picture within {LIMIT:?}"))?
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |durations: &[Duration]| {
            let mut sorted = durations.to_vec();
            sorted.sort();
            let ms = |duration: Option<&Duration>| {
                duration.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e3)
            };
            format!("median {:.0} ms, worst {:.0} ms", ms(sorted.get(sorted.len() / 2)), ms(sorted.last()))
        };
        writeln!(f, "\n{ROUNDS} leaves and joins:")?;
        writeln!(f, "desired -> placeholder on the glass   {}", line(&self.placeholder))?;
        writeln!(f, "desired -> first remote picture       {}", line(&self.picture))?;
        writeln!(f, "slowest of 16 tiles                   {:.1} new pictures a second", self.slowest_fps)?;
        let ear = line(&self.mouth_to_ear);
        writeln!(f, "mouth to ear, {:3} bursts              {ear}", self.mouth_to_ear.len())?;
        let of = |count: Count| format!("{} of {} pictures", count.missing, count.shown + count.missing);
        writeln!(f, "missing of those who stayed           {}", of(self.changing))?;
        write!(f, "missing in as long without changes    {}", of(self.quiet))
    }
}
