//! What composing a screen costs beside libyuv, libswscale, pixman and mere memory: a Markdown table.
//!
//! Everyone draws the same tiles, on one thread, each round in another order: whoever came after the slowest would pay
//! for what that has left in the caches. Times are the thread's CPU time, medians of the rounds, and ratios are taken
//! within a round. PSNR is of the first tile against exact bilinear sampling in f64. Peers need the feature
//! `bench-peers` and Debian's libyuv-dev, libswscale-dev and libpixman-1-dev. `ROUNDS` changes the 21, and `ONLY`
//! takes the rows alone whose name it is in. `PAINTER` has one painter of those paint its first tile, `TIMES` times, for
//! whoever counts what the processor does.
#![allow(unsafe_code)]

use parlor::geometry::{Cut, Fit, ONE_PIXEL, Rect, Rotation, Size, place};
use parlor::media::canvas::{Canvas, PixelLayout};
use parlor::media::compose::{Compositor, Quality, Shot};
use parlor::media::frame::Frame;
use parlor::media::kernel::Kernel;
use parlor::media::overlay::Overlay;
use parlor::media::signs;

#[cfg(feature = "bench-peers")]
#[path = "compose/peers.rs"]
mod peers;

const SCREEN: Size = Size::new(1920, 1080);
/// Who is who among the painters: fast and high, then the limit in both ways, then the peers.
const LIMIT: usize = 2;
const PEERS: usize = 4;

/// What is to be drawn.
struct Work {
    name: String,
    frames: Vec<Frame>,
    /// The part of a frame that is seen, in whole pixels, and where each frame goes.
    source: Rect,
    tiles: Vec<Rect>,
    /// What our compositor is told: the cell of the first tile and its fit.
    cells: Vec<Rect>,
    fit: Fit,
    layout: PixelLayout,
    rotation: Rotation,
}

type Paint<'a> = dyn FnMut(&Work, &mut Canvas) + 'a;

/// One who draws all tiles of a [`Work`] into a screen.
struct Painter<'a> {
    name: &'static str,
    screen: Canvas,
    paint: Box<Paint<'a>>,
}

fn main() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(21);
    let only = std::env::var("ONLY").unwrap_or_default();
    if let Ok(painter) = std::env::var("PAINTER") {
        let times = std::env::var("TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        return paint_only(works(&only), &painter, times);
    }
    println!(
        "| picture / tiles / fit / pixels | ns per pixel | fast / best peer | high / best peer | fast / limit | PSNR dB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let rows: Vec<Row> = works(&only).map(|work| measure(&work, rounds)).collect();
    verdict(&rows);
    if !only.is_empty() {
        return;
    }
    println!(
        "\nOther sizes beside the first of each group, and turned screens beside an upright one with rows as long.\n"
    );
    println!("| what | high, ns per pixel | ratio |\n| --- | --- | --- |");
    for layout in [PixelLayout::XRGB8888, PixelLayout::RGB565] {
        neighbours(layout, rounds);
    }
    println!("\n| of 16 tiles drawn | CPU / share of the screen |\n| --- | --- |");
    let whole = grid(Size::new(640, 480), 4, Fit::Cover, PixelLayout::XRGB8888);
    for changed in [1, 4, 8] {
        let part = Work {
            tiles: whole.tiles[..changed].into(),
            cells: whole.cells[..changed].into(),
            ..grid(Size::new(640, 480), 4, Fit::Cover, PixelLayout::XRGB8888)
        };
        println!("| {changed} | {:.2} |", ratio(&part, &whole, rounds));
    }
    println!("\n| laid over the tiles | CPU / without |\n| --- | --- |");
    for layout in [PixelLayout::XRGB8888, PixelLayout::RGB565] {
        let work = grid(Size::new(640, 480), 2, Fit::Cover, layout);
        println!("| the border of who speaks, {} | {:.2} |", work.name, border(&work, rounds));
    }
}

const FITS: [Fit; 3] = [Fit::Fill, Fit::Contain, Fit::Cover];

/// The rows of the first table whose name `only` is in.
fn works(only: &str) -> impl Iterator<Item = Work> {
    let layouts = [PixelLayout::XRGB8888, PixelLayout::RGB565].into_iter();
    let pictures = [(Size::new(640, 480), &FITS[..]), (Size::new(1280, 720), &FITS[..1])];
    layouts.flat_map(move |layout| {
        pictures.into_iter().flat_map(move |(size, fits)| {
            (1..=4).flat_map(move |side| {
                let wanted = move |fit: &&Fit| grid_name(size, side, **fit, layout).contains(only);
                fits.iter().filter(wanted).map(move |&fit| grid(size, side, fit, layout))
            })
        })
    })
}

/// Has one painter, or none, paint the first tile of each of the works, and says how many pixels that is.
fn paint_only(works: impl Iterator<Item = Work>, name: &str, times: u32) {
    for mut work in works {
        work.tiles.truncate(1);
        work.cells.truncate(1);
        work.frames.truncate(1);
        for painter in painters(&work).iter_mut().filter(|painter| painter.name == name) {
            for _ in 0..times {
                (painter.paint)(&work, &mut painter.screen);
            }
        }
        println!("{} {}", work.tiles[0].size().area(), work.name);
    }
}

/// A screen of `side` by `side` tiles.
fn grid(picture: Size, side: u32, fit: Fit, layout: PixelLayout) -> Work {
    let tile = Size::new(SCREEN.width / side, SCREEN.height / side);
    let cells: Vec<Rect> = (0..side * side)
        .map(|index| {
            Rect::new(index % side * tile.width, index / side * tile.height, tile.width, tile.height)
        })
        .collect();
    work(grid_name(picture, side, fit, layout), picture, cells, fit, layout, Rotation::None)
}

fn grid_name(picture: Size, side: u32, fit: Fit, layout: PixelLayout) -> String {
    format!("{picture} / {} / {fit:?} / {}", side * side, name(layout))
}

fn work(
    name: String,
    picture: Size,
    cells: Vec<Rect>,
    fit: Fit,
    layout: PixelLayout,
    rotation: Rotation,
) -> Work {
    let placements: Vec<_> =
        cells.iter().map(|&cell| place(picture, cell, fit).expect("tiles are not empty")).collect();
    let whole = |value: u32| ((value + ONE_PIXEL / 2) / ONE_PIXEL) & !1;
    let Cut { x, y, width, height } = placements[0].source;
    let tiles: Vec<Rect> = placements.iter().map(|placement| placement.target).collect();
    // Nobody repaints bars: they do not change.
    let cells = if fit == Fit::Contain { tiles.clone() } else { cells };
    let one = picture_of(picture);
    let frames = tiles.iter().map(|_| copy_of(&one)).collect();
    Work {
        name,
        frames,
        source: Rect::new(whole(x), whole(y), whole(width), whole(height)),
        tiles,
        cells,
        fit,
        layout,
        rotation,
    }
}

fn name(layout: PixelLayout) -> &'static str {
    if layout == PixelLayout::RGB565 { "RGB565" } else { "XRGB8888" }
}

fn ours<'a>(name: &'static str, quality: Quality, work: &Work) -> Painter<'a> {
    let mut compositor = Compositor::new(Kernel::best(), quality);
    Painter {
        name,
        screen: Canvas::new(work.rotation.size(SCREEN), work.layout, work.rotation),
        paint: Box::new(move |work, screen| {
            for (&cell, frame) in work.cells.iter().zip(&work.frames) {
                compositor.draw(&mut screen.surface(), cell, &Shot { fit: work.fit, ..Shot::of(frame) }, &[]);
            }
        }),
    }
}

/// Reads every byte that is seen once and writes every pixel once by `store`.
fn limit<'a>(name: &'static str, store: fn(&mut [u8], u8), work: &Work) -> Painter<'a> {
    Painter {
        name,
        screen: Canvas::new(SCREEN, work.layout, Rotation::None),
        paint: Box::new(move |work, screen| {
            let (stride, bytes) = (screen.stride(), work.layout.bytes_per_pixel);
            for (tile, frame) in work.tiles.iter().zip(&work.frames) {
                let mut sum = 0u8;
                for (plane, shrink) in frame.planes().into_iter().zip([1, 2, 2]) {
                    let [x, y, width, height] =
                        [work.source.x, work.source.y, work.source.width, work.source.height]
                            .map(|value| (value / shrink) as usize);
                    let line = (frame.size().width / shrink) as usize;
                    for row in y..y + height {
                        sum = plane[row * line + x..][..width].iter().fold(sum, |sum, &byte| sum ^ byte);
                    }
                }
                for row in tile.y as usize..tile.bottom() as usize {
                    let row = &mut screen.data_mut()[row * stride + tile.x as usize * bytes..];
                    store(&mut row[..tile.width as usize * bytes], sum);
                }
            }
        }),
    }
}

/// Stores the same byte all along a row without bringing it into the caches.
fn stream(row: &mut [u8], byte: u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_set1_epi8, _mm_sfence, _mm_stream_si128};
        // SAFETY: any bytes are sixteen of them.
        let (before, whole, after) = unsafe { row.align_to_mut::<__m128i>() };
        before.fill(byte);
        after.fill(byte);
        // SAFETY: the processor has SSE2, as all of x86-64, and vectors are where they are wanted.
        unsafe {
            let vector = _mm_set1_epi8(byte.cast_signed());
            whole.iter_mut().for_each(|to| _mm_stream_si128(to, vector));
            _mm_sfence();
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    row.fill(byte);
}

/// CPU nanoseconds a pixel of every painter in every round. All paint over one screen, so that none finds another's
/// in the caches; each has its own painted once before.
fn times(work: &Work, painters: &mut [Painter], rounds: usize) -> Vec<Vec<f64>> {
    let pixels: u64 = work.tiles.iter().map(|tile| tile.size().area()).sum();
    let repeats = (4_000_000 / pixels).clamp(2, 40);
    let mut all = Vec::new();
    let mut shared = Canvas::new(painters[0].screen.physical_size(), work.layout, work.rotation);
    for painter in painters.iter_mut() {
        (painter.paint)(work, &mut painter.screen);
    }
    let mut order: Vec<usize> = (0..painters.len()).collect();
    let mut chance = Chance(1);
    for _ in 0..rounds {
        let mut one = vec![0.0; painters.len()];
        for last in (1..order.len()).rev() {
            order.swap(last, chance.next() as usize % (last + 1));
        }
        for &who in &order {
            let paint = &mut painters[who].paint;
            // Once in vain, so that the caches are as it leaves them itself.
            paint(work, &mut shared);
            let begin = cpu_nanoseconds();
            for _ in 0..repeats {
                paint(work, &mut shared);
            }
            one[who] = (cpu_nanoseconds() - begin) / (repeats * pixels) as f64;
        }
        all.push(one);
    }
    all
}

/// Numbers by chance, the same each time.
struct Chance(u32);

impl Chance {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The lower bits repeat themselves soon.
        self.0 >> 16
    }
}

struct Row {
    layout: PixelLayout,
    /// Fast and high to the fastest peer, fast to the limit; `None` without peers.
    fast: Option<f64>,
    high: Option<f64>,
    limit: f64,
    /// Of high, and of the best peer.
    psnr: Option<(f64, f64)>,
}

/// Ours, the limit, and the peers if there are any.
fn painters<'a>(work: &Work) -> Vec<Painter<'a>> {
    #[allow(unused_mut)]
    let mut painters = vec![
        ours("fast", Quality::Fast, work),
        ours("high", Quality::High, work),
        limit("limit", |row, byte| row.fill(byte), work),
        limit("limit past the caches", stream, work),
    ];
    #[cfg(feature = "bench-peers")]
    painters.extend(peers::all(work));
    painters
}

fn measure(work: &Work, rounds: usize) -> Row {
    let mut painters = painters(work);
    let times = times(work, &mut painters, rounds);
    let each: Vec<f64> =
        (0..painters.len()).map(|who| median(times.iter().map(|round| round[who]))).collect();
    // The fastest by its median, then its ratio round by round.
    let best = (PEERS..painters.len()).min_by(|&a, &b| each[a].total_cmp(&each[b]));
    let to = |who: usize, other: usize| median(times.iter().map(|round| round[who] / round[other]));
    let limit = median(times.iter().map(|round| round[0] / round[LIMIT].min(round[LIMIT + 1])));
    let (fast, high) = (best.map(|best| to(0, best)), best.map(|best| to(1, best)));
    let quality: Vec<Option<f64>> = painters
        .iter()
        .map(|painter| {
            (work.layout == PixelLayout::XRGB8888 && !painter.name.starts_with("limit"))
                .then(|| psnr(work, &painter.screen))
        })
        .collect();
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    let cell = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    println!(
        "| {} | {} | {} | {} | {limit:.2} | {} |",
        work.name,
        list(&mut painters.iter().zip(&each).map(|(painter, each)| format!("{} {each:.2}", painter.name))),
        cell(fast),
        cell(high),
        list(&mut painters.iter().zip(&quality).filter_map(|(painter, psnr)| Some(format!(
            "{} {:.1}",
            painter.name,
            (*psnr)?
        )))),
    );
    let peer = quality[PEERS..].iter().flatten().copied().reduce(f64::max);
    Row { layout: work.layout, fast, high, limit, psnr: quality[1].zip(peer) }
}

/// The geometric means and worst of all rows beside the goals.
fn verdict(rows: &[Row]) {
    let of = |layout: PixelLayout, value: fn(&Row) -> Option<f64>| -> Vec<f64> {
        rows.iter().filter(|row| row.layout == layout).filter_map(value).collect()
    };
    let mean =
        |values: &[f64]| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp();
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    println!(
        "\n| quantity | here | must | target | stretch | verdict |\n| --- | --- | --- | --- | --- | --- |"
    );
    let say = |what: &str, value: f64, goals: [f64; 3]| {
        let reached = goals
            .iter()
            .rposition(|&goal| value <= goal)
            .map_or("MISSED", |index| ["must", "target", "stretch"][index]);
        println!("| {what} | {value:.2} | {:.2} | {:.2} | {:.2} | {reached} |", goals[0], goals[1], goals[2]);
    };
    let (xrgb, rgb565) = (of(PixelLayout::XRGB8888, |row| row.fast), of(PixelLayout::RGB565, |row| row.fast));
    if !xrgb.is_empty() {
        say("fast / fastest peer, worst", worst(&xrgb).max(worst(&rgb565)), [0.95, 0.80, 0.65]);
        say("fast / fastest peer, mean, XRGB8888", mean(&xrgb), [0.60, 0.48, 0.40]);
        say("fast / fastest peer, mean, RGB565", mean(&rgb565), [0.45, 0.33, 0.28]);
        let high = of(PixelLayout::XRGB8888, |row| row.high);
        say("high / fastest peer, worst, XRGB8888", worst(&high), [f64::INFINITY, 1.0, 0.85]);
        say("high / fastest peer, mean, XRGB8888", mean(&high), [0.75, 0.60, 0.50]);
        say(
            "high / fastest peer, mean, RGB565",
            mean(&of(PixelLayout::RGB565, |row| row.high)),
            [0.75, 0.60, 0.50],
        );
        let beaten = rows.iter().filter_map(|row| row.psnr).filter(|(ours, peer)| ours < peer).count();
        say("rows in which a peer has more PSNR than high", beaten as f64, [0.0, 0.0, 0.0]);
    }
    say(
        "fast / limit, mean, XRGB8888",
        mean(&of(PixelLayout::XRGB8888, |row| Some(row.limit))),
        [4.0, 2.8, 2.0],
    );
    let least = rows.iter().filter_map(|row| row.psnr).map(|(ours, _)| ours).fold(f64::INFINITY, f64::min);
    println!("\nLeast PSNR of high: {least:.1} dB");
}

/// Odd sizes, portrait and turned screens beside a tile of even size.
fn neighbours(layout: PixelLayout, rounds: usize) {
    let tile = |picture: Size, cell: Rect, rotation: Rotation| {
        work(
            format!("{picture} in {} {rotation:?} {}", cell.size(), name(layout)),
            picture,
            vec![cell],
            Fit::Fill,
            layout,
            rotation,
        )
    };
    let vga = Size::new(640, 480);
    let even = tile(vga, Rect::new(0, 0, 960, 540), Rotation::None);
    let portrait = tile(Size::new(480, 640), Rect::new(0, 0, 540, 960), Rotation::None);
    for (neighbour, other) in [
        (&even, tile(vga, Rect::new(0, 0, 960, 540), Rotation::None)),
        (&even, tile(vga, Rect::new(1, 1, 959, 539), Rotation::None)),
        (&even, tile(vga, Rect::new(3, 3, 957, 541), Rotation::None)),
        (&even, tile(vga, Rect::new(0, 0, 854, 480), Rotation::None)),
        (&even, tile(vga, Rect::new(0, 0, 1024, 600), Rotation::None)),
        (&even, tile(Size::new(480, 640), Rect::new(0, 0, 540, 960), Rotation::None)),
        (&even, tile(vga, Rect::new(0, 0, 960, 540), Rotation::Half)),
        (&portrait, tile(vga, Rect::new(0, 0, 960, 540), Rotation::Quarter)),
        (&portrait, tile(vga, Rect::new(1, 1, 959, 539), Rotation::ThreeQuarters)),
    ] {
        let mut painters = [ours("one", Quality::High, neighbour), ours("other", Quality::High, &other)];
        let (one_screen, other_screen) = painters.split_at_mut(1);
        let both: Vec<(f64, f64)> = (0..rounds)
            .map(|_| (times(neighbour, one_screen, 1)[0][0], times(&other, other_screen, 1)[0][0]))
            .collect();
        let cost = median(both.iter().map(|both| both.1));
        println!("| {} | {cost:.2} | {:.2} |", other.name, median(both.iter().map(|both| both.1 / both.0)));
    }
}

/// CPU of a pixel of `part` to one of `whole`.
fn ratio(part: &Work, whole: &Work, rounds: usize) -> f64 {
    let (mut few, mut all) = (ours("part", Quality::High, part), ours("whole", Quality::High, whole));
    median((0..rounds).map(|_| {
        times(part, std::slice::from_mut(&mut few), 1)[0][0]
            / times(whole, std::slice::from_mut(&mut all), 1)[0][0]
    }))
}

/// CPU of tiles with the border of who speaks over them to that of the same without.
fn border(work: &Work, rounds: usize) -> f64 {
    let of = |&cell: &Rect| {
        Overlay::of(SCREEN, work.rotation, cell, |canvas| signs::speaking(canvas, Rect::of(cell.size())))
    };
    let over: Vec<Overlay> = work.cells.iter().map(of).collect();
    let mut compositor = Compositor::new(Kernel::best(), Quality::High);
    let paint = move |work: &Work, screen: &mut Canvas| {
        for ((&cell, frame), over) in work.cells.iter().zip(&work.frames).zip(&over) {
            let shot = Shot { fit: work.fit, ..Shot::of(frame) };
            compositor.draw(&mut screen.surface(), cell, &shot, &[over]);
        }
    };
    let without = ours("without", Quality::High, work);
    let with = Painter { name: "with", paint: Box::new(paint), ..ours("", Quality::High, work) };
    median(times(work, &mut [without, with], rounds).iter().map(|round| round[1] / round[0]))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn cpu_nanoseconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "every Linux has a clock of the thread's CPU time");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Waves of many lengths, edges and a little noise: something like a face before a book-shelf.
fn picture_of(size: Size) -> Frame {
    let mut frame = Frame::new(size);
    let mut chance = Chance(1);
    for (plane, samples) in frame.planes_mut().into_iter().enumerate() {
        let (width, scale) = if plane == 0 { (size.width, 1.0) } else { (size.width / 2, 2.0) };
        for (index, sample) in samples.iter_mut().enumerate() {
            let (x, y) = (f64::from(index as u32 % width) * scale, f64::from(index as u32 / width) * scale);
            let wave = (x * 0.05).sin() + (y * 0.07 + x * 0.02).sin() + 0.5 * (x * 0.4 + y * 0.3).sin();
            let edge = if ((x / 40.0) as u32).is_multiple_of(3) { 0.8 } else { 0.0 }
                + if ((y / 64.0) as u32).is_multiple_of(2) { 0.5 } else { 0.0 };
            let amplitude = if plane == 0 { 32.0 } else { 20.0 };
            *sample = (120.0 + (wave + edge) * amplitude + f64::from(chance.next() >> 14)) as u8;
        }
    }
    frame
}

/// The same in a memory of its own.
fn copy_of(frame: &Frame) -> Frame {
    let mut copy = Frame::new(frame.size());
    copy.planes_mut().into_iter().zip(frame.planes()).for_each(|(to, from)| to.copy_from_slice(from));
    copy
}

/// PSNR over red, green and blue of the first tile.
fn psnr(work: &Work, screen: &Canvas) -> f64 {
    let (tile, frame) = (work.tiles[0], &work.frames[0]);
    let along = |first: u32, length: u32, index: u32, pixels: u32| {
        f64::from(first) + (f64::from(index) + 0.5) * f64::from(length) / f64::from(pixels)
    };
    let mut error = 0.0;
    for y in 0..tile.height {
        for x in 0..tile.width {
            let seen = screen.pixel(tile.x + x, tile.y + y);
            let exact = exact(
                frame,
                along(work.source.x, work.source.width, x, tile.width),
                along(work.source.y, work.source.height, y, tile.height),
            );
            for (seen, exact) in [seen.red, seen.green, seen.blue].into_iter().zip(exact) {
                error += (f64::from(seen) - exact.clamp(0.0, 255.0)).powi(2);
            }
        }
    }
    10.0 * (255.0f64.powi(2) * 3.0 * tile.size().area() as f64 / error).log10()
}

/// R, G, B at a place of the picture (BT.601, limited range), bilinear at every pixel.
fn exact(frame: &Frame, x: f64, y: f64) -> [f64; 3] {
    let planes = frame.planes();
    let sample = |plane: usize, shrink: f64| {
        let (columns, rows) =
            (f64::from(frame.size().width) / shrink, f64::from(frame.size().height) / shrink);
        let (x, y) =
            ((x / shrink - 0.5).clamp(0.0, columns - 1.0), (y / shrink - 0.5).clamp(0.0, rows - 1.0));
        let at = |x: f64, y: f64| {
            f64::from(planes[plane][(y.min(rows - 1.0) * columns + x.min(columns - 1.0)) as usize])
        };
        let (left, top, across, down) = (x.floor(), y.floor(), x.fract(), y.fract());
        (at(left, top) * (1.0 - across) + at(left + 1.0, top) * across) * (1.0 - down)
            + (at(left, top + 1.0) * (1.0 - across) + at(left + 1.0, top + 1.0) * across) * down
    };
    let y = (sample(0, 1.0) - 16.0) * 255.0 / 219.0;
    let (u, v) = ((sample(1, 2.0) - 128.0) * 255.0 / 224.0, (sample(2, 2.0) - 128.0) * 255.0 / 224.0);
    let (red, blue) = (y + 1.402 * v, y + 1.772 * u);
    [red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue]
}
