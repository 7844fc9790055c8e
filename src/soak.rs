//! A room that is shaken for minutes or days: steps chosen by a seed, and after each one a look whether all that must
//! be true of the room is true. What is broken ends it at once; the same seed takes the same steps again.

mod broker;
mod controller;
mod cycles;
mod figures;
mod ground;
mod promises;
mod step;
mod world;

use crate::media::snapshot::Picture;
use crate::room::fault::Code;
use anyhow::{Context, bail, ensure};
pub use broker::{BrokerProcess, serve};
use figures::{Sample, Sampler};
use ground::{Ground, STRANGER};
use promises::Eyes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use step::Step;
use world::{IDS, Stage, World};

/// What is done and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long; a day has 1440.
    #[arg(long, default_value_t = 30.0, value_parser = minutes)]
    pub minutes: f64,
    /// Chooses the steps; without one, chance chooses it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many kiosks.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub kiosks: u8,
    /// Instead of all that, only unplugs and plugs in cameras, this often, as fast as they are seen to follow.
    #[arg(long, value_name = "CYCLES", conflicts_with_all = ["minutes", "seed", "stop_kiosk"])]
    pub unplug: Option<u32>,
    /// Ends this kiosk behind the soak's back after the first step: to see that it can fail.
    #[arg(long, value_name = "OPENID")]
    pub stop_kiosk: Option<String>,
    /// Where every kiosk's screen is written as a PNG file when a promise is broken.
    #[arg(long, value_name = "FOLDER")]
    pub screens: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes @ 0.1..=1e6) => Ok(minutes),
        _ => Err("want minutes from 0.1 to 1000000".into()),
    }
}

/// How long the promises may be broken after a step; the broker is tried again in up to half a minute.
const LIMIT: Duration = Duration::from_secs(20);
const LIMIT_OF_BROKER: Duration = Duration::from_secs(60);
/// How long they must hold.
const HOLD: Duration = Duration::from_secs(1);
/// Between two looks: less than a picture takes.
const LOOK: Duration = Duration::from_millis(40);
/// Every so many steps all is healed, and looked at for a while without a step.
const REST_EVERY: u64 = 10;
const REST: Duration = Duration::from_secs(3);
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Times kept of each kind of step; when full the oldest goes.
const TIMES: usize = 10_000;
/// glibc keeps freed memory for each arena, and gives threads that come and go ever other ones: with a single one, what
/// it keeps does not look like growth. It is read when a process starts (mallopt(3)).
const ARENAS: &str = "MALLOC_ARENA_MAX";
/// What a busy machine may have a kiosk say at any time; that it stands when it must not is another thing.
const ALWAYS: [Code; 5] =
    [Code::TileStalled, Code::TileOverBudget, Code::SoundXrun, Code::PeerUnreachable, Code::NoKeyframe];

/// Runs until the time is over, a promise is broken or `stop` resolves. Failure if one was broken or something grew.
///
/// # Errors
/// What makes the soak itself impossible: no broker, a kiosk that died, an unknown `--stop-kiosk`.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    let count = usize::from(options.kiosks);
    if std::env::var_os(ARENAS).is_none() {
        let mut same = Command::new(std::env::current_exe()?);
        let error = same.args(std::env::args_os().skip(1)).env(ARENAS, "1").exec();
        return Err(error).context("start anew with one arena");
    }
    if let Some(cycles) = options.unplug {
        return cycles::run(count, cycles).await;
    }
    if let Some(stop) = &options.stop_kiosk {
        ensure!(
            IDS[..count].contains(&stop.as_str()),
            "--stop-kiosk: the kiosks are {}",
            IDS[..count].join(", ")
        );
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let time = Duration::from_secs_f64(60.0 * options.minutes);
    println!("{count} kiosks, {} minutes, --seed {seed} --kiosks {count}", options.minutes);
    let mut soak = Soak::start(count, seed).await?;
    let ended = tokio::select! {
        ended = soak.shake(time, options.stop_kiosk.as_deref()) => ended,
        () = stop => Ok(()),
    };
    let failure = match ended {
        Ok(()) => None,
        // A promise that was broken.
        Err(error) => Some(format!("{error:#}")),
    };
    let slopes = soak.sampler.slopes();
    println!("\n{}\n{slopes}", soak.table());
    let flat = slopes.flat();
    if let Some(folder) = options.screens.filter(|_| failure.is_some()) {
        soak.write_screens(&folder)?;
    }
    soak.ground.end().await?;
    match &failure {
        Some(failure) => println!("\nA PROMISE IS BROKEN. {failure}\nAgain: --seed {seed} --kiosks {count}"),
        None if !slopes.tell() => {
            println!("\nevery promise was kept; the time was too short to tell what grows");
        }
        None if flat => println!("\nevery promise was kept, and nothing grows"),
        None => println!("\nevery promise was kept, but SOMETHING GROWS"),
    }
    Ok(if failure.is_none() && flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Soak {
    ground: Ground,
    world: World,
    eyes: Eyes,
    chance: StdRng,
    sampler: Sampler,
    begun: Instant,
    done: u64,
    /// What each kiosk may still have to say: of the last step, where one fault hid another, or of the whole time
    /// without the broker.
    debts: Vec<BTreeSet<Code>>,
    /// By kind of step, how long it took until all was said, and until all was seen too.
    times: BTreeMap<&'static str, VecDeque<(Duration, Duration)>>,
}

impl Soak {
    async fn start(count: usize, seed: u64) -> anyhow::Result<Self> {
        let begun = Instant::now();
        Ok(Self {
            ground: Ground::start(count).await?,
            world: World::new(count),
            eyes: Eyes::default(),
            chance: StdRng::seed_from_u64(seed),
            sampler: Sampler::start(begun),
            begun,
            done: 0,
            debts: vec![BTreeSet::new(); count],
            times: BTreeMap::new(),
        })
    }

    /// Steps until `time` is over; a broken promise is the error.
    async fn shake(&mut self, time: Duration, stop_kiosk: Option<&str>) -> anyhow::Result<()> {
        let (mut line, mut done) = (Instant::now(), 0);
        self.step(Step::Rest).await?;
        if let Some(id) = stop_kiosk {
            self.ground.stop_silently(id).await?;
        }
        while self.begun.elapsed() < time {
            let step = self.choose();
            self.step(step).await?;
            if line.elapsed() >= LINE_EVERY {
                let sample = Sample::now(self.begun, false);
                let rate = (self.done - done) as f64 / line.elapsed().as_secs_f64() * 60.0;
                println!("{} -- {sample}, {rate:.0} steps a minute", clock(sample.at));
                (line, done) = (Instant::now(), self.done);
            }
        }
        // As it began.
        while let Some(step) = self.reconnection() {
            self.step(step).await?;
        }
        self.step(Step::Rest).await
    }

    /// What brings somebody back to the broker, if somebody is away.
    fn reconnection(&self) -> Option<Step> {
        let away = (0..self.world.places.len()).find(|of| !self.world.online(*of))?;
        Some(if self.world.broker { Step::LineMended(away) } else { Step::BrokerStarted })
    }

    fn choose(&mut self) -> Step {
        let choices = self.world.choices();
        if self.reconnection().is_none() && self.done.is_multiple_of(REST_EVERY) {
            return Step::Rest;
        }
        let kind = choices.choose(&mut self.chance);
        let step = kind.and_then(|kind| kind.choose(&mut self.chance)).copied();
        step.unwrap_or(Step::Rest)
    }

    async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        let before = self.world.clone();
        let begun = Instant::now();
        self.world.apply(&step);
        self.ground.carry_out(&step, &mut self.world).await?;
        let (said, seen) = self.wait(&step, &before, begun).await?;
        self.done += 1;
        for of in 0..self.debts.len() {
            let codes: Vec<Code> = may_say(&step, [&before, &self.world], of).collect();
            if before.online(of) && self.world.online(of) {
                self.debts[of].clear();
            }
            self.debts[of].extend(codes);
        }
        println!(
            "{} {:4} {step}: said after {:.2} s, seen after {:.2} s",
            clock(self.begun.elapsed()),
            self.done,
            said.as_secs_f64(),
            seen.as_secs_f64()
        );
        let times = self.times.entry(step.kind()).or_default();
        if times.len() == TIMES {
            times.pop_front();
        }
        times.push_back((said, seen));
        if step == Step::Rest {
            self.sampler.set_rest(true);
            let rested = self.keep_for(REST).await;
            self.sampler.set_rest(false);
            rested?;
        } else if !self.world.broker {
            // So that it is not always missed for the shortest time.
            let away = self.chance.random_range(0..4);
            self.keep_for(Duration::from_secs(away)).await?;
        }
        Ok(())
    }

    /// Waits until everything is so, and has been for a while. How long it took until it was said, and seen too.
    async fn wait(
        &mut self,
        step: &Step,
        before: &World,
        begun: Instant,
    ) -> anyhow::Result<(Duration, Duration)> {
        let limit = match step {
            Step::BrokerStarted | Step::LineMended(_) | Step::Leave(_, Stage::Forgotten) => LIMIT_OF_BROKER,
            _ => LIMIT,
        };
        let mut must_say = step.must_say();
        let (mut said, mut seen) = (None, None);
        loop {
            tokio::time::sleep(LOOK).await;
            self.eyes.look(&self.ground, self.world.places.len());
            for (kiosk, record) in self.ground.controller.records() {
                self.judge(step, before, &kiosk, &record)?;
                if must_say.is_some_and(|(of, code)| IDS[of] == kiosk && record["code"] == json!(code)) {
                    must_say = None;
                }
            }
            let mut unsaid = promises::unsaid(&self.world, &self.ground);
            unsaid.extend(must_say.map(|(of, code)| format!("{}/error: nothing of {code:?}", IDS[of])));
            let unseen = promises::unseen(&self.world, &self.ground, &self.eyes);
            let now = begun.elapsed();
            said = if unsaid.is_empty() { said.or(Some(now)) } else { None };
            seen = if unsaid.is_empty() && unseen.is_empty() { seen.or(Some(now)) } else { None };
            if let (Some(said), Some(seen)) = (said, seen)
                && now >= seen + HOLD
            {
                return Ok((said, seen));
            }
            if now > limit {
                let broken: Vec<String> = unsaid.into_iter().chain(unseen).collect();
                let number = self.done + 1;
                match broken.is_empty() {
                    true => bail!("Step {number}, {step}: not kept for {HOLD:?} within {limit:?}"),
                    false => bail!("Step {number}, {step}, after {limit:?}:\n  {}", broken.join("\n  ")),
                }
            }
        }
    }

    /// Looks on for a while; what is said meanwhile must be expected. The next step finds what else has changed.
    async fn keep_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            tokio::time::sleep(LOOK).await;
            self.eyes.look(&self.ground, self.world.places.len());
        }
        let world = self.world.clone();
        for (kiosk, record) in self.ground.controller.records() {
            self.judge(&Step::Rest, &world, &kiosk, &record)?;
        }
        Ok(())
    }

    /// Whether a record may be said.
    fn judge(
        &self,
        step: &Step,
        before: &World,
        kiosk: &str,
        record: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let Some(of) = IDS.iter().position(|id| *id == kiosk) else { return Ok(()) };
        let debts = self.debts[of].iter().copied();
        let mut may = may_say(step, [before, &self.world], of).chain(debts).chain(ALWAYS);
        let code = &record["code"];
        // A signal is kept for seconds before it is refused.
        let of_stranger = record["openid"].as_str().is_some_and(|id| id.starts_with(STRANGER));
        if of_stranger && *code == json!(Code::SignalRefused) {
            return Ok(());
        }
        ensure!(
            may.any(|may| *code == json!(may)),
            "Step {}, {step}: {kiosk} says what nobody has done:\n  {record}",
            self.done + 1
        );
        Ok(())
    }

    fn write_screens(&self, folder: &Path) -> anyhow::Result<()> {
        for (id, seat) in IDS.iter().zip(&self.ground.seats) {
            let file = folder.join(format!("{id}.png"));
            let png = seat.simulation.glass.look(|canvas| Picture::of(canvas, u32::MAX).png())?;
            std::fs::write(&file, png).with_context(|| format!("write {}", file.display()))?;
        }
        println!("the screens are in {}", folder.display());
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = format!(
            "{:<28}{:>6}{:>12}{:>10}{:>12}{:>10}",
            "step", "count", "said median", "worst", "seen median", "worst"
        );
        for (kind, times) in &self.times {
            let [said, seen] =
                [|times: &(Duration, Duration)| times.0, |times: &(Duration, Duration)| times.1].map(
                    |which| {
                        let mut sorted: Vec<f64> =
                            times.iter().map(which).map(|time| time.as_secs_f64()).collect();
                        sorted.sort_by(f64::total_cmp);
                        let worst = sorted.last().copied().unwrap_or(f64::NAN);
                        (sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN), worst)
                    },
                );
            table.push_str(&format!(
                "\n{kind:<28}{:>6}{:>10.2} s{:>8.2} s{:>10.2} s{:>8.2} s",
                times.len(),
                said.0,
                said.1,
                seen.0,
                seen.1
            ));
        }
        table
    }
}

/// What this kiosk may say in a step: of what stands before and after it, and on the way.
fn may_say(step: &Step, worlds: [&World; 2], of: usize) -> impl Iterator<Item = Code> {
    let stands = worlds.into_iter().flat_map(move |world| world.faults(of));
    stands.flat_map(|standing| standing.codes).chain(step.may_say().iter().copied())
}

/// As `1:02:03`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
