//! Only cameras, unplugged and plugged in as fast as the kiosks are seen to follow, each kiosk in a room of its own.

use super::figures::Sample;
use super::ground::Ground;
use super::step::Device;
use super::world::IDS;
use anyhow::bail;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Each of these takes far less.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
/// All is over that a cycle stirs up: the fault is cleared after two seconds, a thread ends when its device does.
const CALM: Duration = Duration::from_secs(4);
/// Of the cycles, those before it is measured: buffers and arenas fill.
const WARM_UP: u32 = 4;
/// Memory may grow by this meanwhile (KiB).
const NOISE_KIB: u64 = 4096;

/// Unplugs `cycles` times altogether, half as often before it as for warming up.
///
/// # Errors
/// A kiosk does not follow, no broker.
pub async fn run(count: usize, cycles: u32) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let ground = Ground::start(count).await?;
    for id in &IDS[..count] {
        let document = json!({ "room": id, "members": [id] }).to_string();
        ground.controller.publish(format!("{id}/desired"), document, true).await;
    }
    turn(&ground, count, cycles.div_ceil(WARM_UP)).await?;
    let before = calm(&ground, count, begun).await?;
    println!("before: {before}");
    turn(&ground, count, cycles).await?;
    let after = calm(&ground, count, begun).await?;
    println!("after {cycles} cycles in {:.0?}: {after}", after.at - before.at);
    ground.end().await?;
    let flat = after.threads <= before.threads
        && after.descriptors <= before.descriptors
        && after.rss_kib <= before.rss_kib + NOISE_KIB;
    println!("{}", if flat { "nothing grows" } else { "SOMETHING GROWS" });
    Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// So many cycles, spread over the kiosks, each at its own pace.
async fn turn(ground: &Ground, count: usize, cycles: u32) -> anyhow::Result<()> {
    let mut left = vec![cycles / count as u32; count];
    left.iter_mut().take(cycles as usize % count).for_each(|left| *left += 1);
    let mut plugged = vec![true; count];
    let mut since = vec![Instant::now(); count];
    while left.iter().any(|left| *left > 0) || plugged.contains(&false) {
        tokio::time::sleep(LOOK).await;
        for of in 0..count {
            let state = state(ground, of);
            let wanted = if plugged[of] { "live" } else { "failed" };
            if state == wanted && (left[of] > 0 || !plugged[of]) {
                left[of] -= u32::from(plugged[of]);
                plugged[of] = !plugged[of];
                since[of] = Instant::now();
                ground.seats[of].cable(Device::Front).set_plugged(plugged[of]);
            } else if state != wanted && since[of].elapsed() > LIMIT {
                bail!("{}: the own tile is {state:?}, not {wanted}, for {LIMIT:?}", IDS[of]);
            }
        }
    }
    Ok(())
}

/// Waits until every tile is live and every fault cleared, and a while more.
async fn calm(ground: &Ground, count: usize, begun: Instant) -> anyhow::Result<Sample> {
    let since = Instant::now();
    let busy =
        || (0..count).any(|of| state(ground, of) != "live" || !ground.controller.faults(IDS[of]).is_empty());
    while busy() {
        if since.elapsed() > LIMIT {
            bail!("a fault stands, or a tile is not live, for {LIMIT:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(CALM).await;
    Ok(Sample::now(begun, true))
}

/// Of the kiosk's own tile.
fn state(ground: &Ground, of: usize) -> String {
    let reported = ground.controller.last(&format!("{}/reported", IDS[of])).unwrap_or_default();
    reported["tiles"][0]["state"].as_str().unwrap_or_default().to_owned()
}
