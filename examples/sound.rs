//! What the sound of a room of four costs: CPU time of each step in percent of one core (Linux only). A minute of talk,
//! everybody at once, without the devices and the network.

use parlor::media::echo::{Switches, Voice};
use parlor::media::jitter::Jitter;
use parlor::media::mix::Mixer;
use parlor::media::opus::{Decoder, Encoder};
use parlor::media::sound::{BLOCK, SILENCE, SLOT, SoundPacket};
use parlor::sim::speech::Speech;
use std::error::Error;
use std::time::Duration;

/// Slots of 20 ms in a minute.
const SLOTS: u32 = 3_000;
const OTHERS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut speech, mut encoder) = (Speech::new(120.0), Encoder::new()?);
    let mut voice = Voice::new(Switches::default());
    let mut jitters = Vec::new();
    for _ in 0..OTHERS {
        jitters.push(Jitter::new(Decoder::new()?));
    }
    let mut mixer = Mixer::new();
    let mut costs = [("echo, noise and gain", 0), ("encode", 0), ("receive and decode", 0), ("mix", 0)];
    let (mut block, mut played, mut slot) = (SILENCE, SILENCE, [0.0; SLOT]);

    for number in 0..SLOTS {
        let now = Duration::from_millis(20) * number;
        for half in slot.chunks_exact_mut(BLOCK) {
            speech.talk(&mut block);
            costs[0].1 += cost(|| {
                voice.render(&played);
                voice.capture(&mut block, Duration::from_millis(40));
            })?;
            half.copy_from_slice(&block);
            for jitter in &mut jitters {
                costs[2].1 += cost(|| {
                    jitter.pull(now, &mut block);
                })?;
                costs[3].1 += cost(|| mixer.add(&block))?;
            }
            costs[3].1 += cost(|| mixer.take(&mut played))?;
        }
        let mut coded = None;
        costs[1].1 += cost(|| coded = encoder.encode(&slot).ok().flatten())?;
        let Some(data) = coded else { continue };
        for jitter in &mut jitters {
            let (data, sequence, time) = (data.clone(), number as u16, number * SLOT as u32);
            costs[2].1 += cost(|| jitter.put(SoundPacket { data, sequence, time, level: None }, now))?;
        }
    }

    let percent = |nanoseconds: u64| nanoseconds as f64 / (f64::from(SLOTS) * 20e6) * 100.0;
    for (step, nanoseconds) in costs {
        println!("{step:22} {:5.2} %", percent(nanoseconds));
    }
    println!(
        "{:22} {:5.2} % of one core, {} members",
        "all",
        percent(costs.iter().map(|cost| cost.1).sum()),
        OTHERS + 1
    );
    Ok(())
}

/// CPU nanoseconds of this thread (kernel: scheduler/sched-stats) that `work` takes, less what asking takes.
fn cost(work: impl FnOnce()) -> Result<u64, Box<dyn Error>> {
    let (asked, begin) = (cpu_nanoseconds()?, cpu_nanoseconds()?);
    work();
    Ok((cpu_nanoseconds()? - begin).saturating_sub(begin - asked))
}

fn cpu_nanoseconds() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("empty schedstat")?.parse()?)
}
