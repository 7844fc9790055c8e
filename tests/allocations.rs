//! What a kiosk in a call allocates, by thread: a picture on its way costs no memory that was not there before.

#![allow(unsafe_code)]

#[path = "endpoint/house.rs"]
mod house;
mod support;

use house::House;
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

#[global_allocator]
static COUNTING: Counting = Counting;

/// The system's allocator; it counts for each thread.
struct Counting;

/// More threads than these are not told apart: they share the last place.
const THREADS: usize = 256;
/// The kernel's number of each thread that has allocated, and how often it has.
static COUNTS: [(AtomicU32, AtomicU64); THREADS] =
    [const { (AtomicU32::new(0), AtomicU64::new(0)) }; THREADS];
static SEEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count() {
    // A thread that ends frees what it kept for itself: that is no picture.
    let _ = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(SEEN.fetch_add(1, Relaxed).min(THREADS - 1));
            // SAFETY: gettid has no arguments and always succeeds.
            let thread = unsafe { libc::gettid() };
            COUNTS[place.get()].0.store(thread as u32, Relaxed);
        }
        COUNTS[place.get()].1.fetch_add(1, Relaxed);
    });
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// How often the threads of each name have allocated.
fn counts() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (thread, count) in &COUNTS[..SEEN.load(Relaxed).min(THREADS)] {
        let name = format!("/proc/self/task/{}/comm", thread.load(Relaxed));
        if let Ok(name) = std::fs::read_to_string(name) {
            *counts.entry(name.trim().to_owned()).or_default() += count.load(Relaxed);
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_come_and_go_without_allocating() {
    let mut house = House::open().await;
    let (lobby, ward) = (house.kiosk("lobby").await, house.kiosk("ward").await);
    for id in ["lobby", "ward"] {
        house.desire(id, json!({ "room": "r", "members": ["lobby", "ward"] })).await;
    }
    house.shows(&lobby, &["llllllllllwwwwwwwwww", "llllllllllwwwwwwwwww"]).await;
    house.shows(&ward, &["llllllllllwwwwwwwwww", "llllllllllwwwwwwwwww"]).await;
    // Pools, tables and queues have found their size.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let before = counts();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut during = counts();
    during.iter_mut().for_each(|(name, count)| *count -= before.get(name).unwrap_or(&0));
    eprintln!("allocations in 4 s, two kiosks of 15 pictures a second: {during:#?}");

    // A coded picture has bytes and a handle of its own, which all members share; and ten times a second it is planned
    // who gets which layer. Two kiosks code 15 pictures a second.
    let (coded, plans) = (2 * 15 * 4, 2 * 10 * 4);
    // On a busy machine the screen holds pictures for longer, and a pool of at most eight frames has not found its size yet.
    let pools = 2 * 8 * 2;
    for (thread, most) in
        [("camera-front", pools), ("decode", pools), ("screen", 0), ("encode", coded * 5 / 2 + plans * 6)]
    {
        let of_thread = |(name, _): &(&String, &u64)| name.starts_with(thread);
        assert!(before.iter().any(|entry| of_thread(&entry)), "no thread is called {thread}: {before:?}");
        let allocated: u64 = during.iter().filter(of_thread).map(|(_, count)| count).sum();
        assert!(allocated <= most, "{thread} allocates {allocated} times, not {most}: {during:?}");
    }
    house.close().await;
}
