//! What a listener gets, in virtual time and with seeded chance: loss, jitter, drift, silence, echo, double talk.
//!
//! The figures are printed: `cargo test --test sound -- --nocapture`. The speech is made by `espeak-ng`.

use parlor::media::echo::{Switches, Voice};
use parlor::media::jitter::{Jitter, Pulled, Stats};
use parlor::media::opus::{Decoder, Encoder};
use parlor::media::sound::{BLOCK, RATE_HZ, SILENCE, SLOT, SoundPacket};
use std::process::Command;
use std::time::Duration;

const TEXT: &str = "The quick brown fox jumps over the lazy dog while seven members of the committee are talking \
    about the weather in the mountains and nobody remembers who was going to write the minutes of the meeting. \
    When the sunlight strikes raindrops in the air they act as a prism and form a rainbow, and people look but no \
    one ever finds the end of it.";

const ANSWER: &str = "And I think that we should rather meet on Thursday, because on Monday most of us are away, and nobody \
    likes to wait for a whole week until the next chance to speak about it comes around.";

/// Chance that repeats (xorshift64*).
struct Chance(u64);

impl Chance {
    /// 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Speech of `espeak-ng` at 48 kHz, its loudest sample at 0.5.
fn speech(voice: &str, words_a_minute: u32, text: &str) -> Vec<f32> {
    let spoken = Command::new("espeak-ng")
        .args(["--stdout", "-v", voice, "-s", &words_a_minute.to_string(), text])
        .output()
        .expect("espeak-ng is installed");
    assert!(spoken.status.success(), "espeak-ng: {}", String::from_utf8_lossy(&spoken.stderr));
    let wave = &spoken.stdout;
    let rate = u32::from_le_bytes(wave[24..28].try_into().expect("a header of 44 bytes"));
    let samples: Vec<f32> = wave[44..]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|two| f32::from(i16::from_le_bytes(*two)) / 32_768.0)
        .collect();
    let mut speech = resample(&samples, f64::from(rate));
    let loudest = speech.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    speech.iter_mut().for_each(|sample| *sample *= 0.5 / loudest);
    speech
}

/// To 48 kHz by a windowed sinc of 32 samples.
fn resample(samples: &[f32], rate: f64) -> Vec<f32> {
    let length = (samples.len() as f64 * f64::from(RATE_HZ) / rate) as usize;
    (0..length)
        .map(|n| {
            let at = n as f64 * rate / f64::from(RATE_HZ);
            let first = at.floor() as isize - 15;
            (first..first + 32)
                .filter_map(|tap| {
                    let x = std::f64::consts::PI * (at - tap as f64);
                    let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
                    let window = 0.5 + 0.5 * (x / 16.0).cos();
                    samples.get(usize::try_from(tap).ok()?).map(|sample| f64::from(*sample) * sinc * window)
                })
                .sum::<f64>() as f32
        })
        .collect()
}

/// Each slot's packet, if it is sent, with its number.
fn packets(speech: &[f32], loss_percent: u8) -> Vec<Option<SoundPacket>> {
    let mut encoder = Encoder::new().expect("an encoder");
    encoder.set_expected_loss(loss_percent).expect("a share of packets");
    let mut sequence = 65_500_u16;
    let mut time = u32::MAX - 100_000;
    speech
        .as_chunks::<SLOT>()
        .0
        .iter()
        .map(|slot| {
            time = time.wrapping_add(SLOT as u32);
            let data = encoder.encode(slot).expect("a packet")?;
            sequence = sequence.wrapping_add(1);
            Some(SoundPacket { data, sequence, time, level: None })
        })
        .collect()
}

fn jitter() -> Jitter {
    Jitter::new(Decoder::new().expect("a decoder"))
}

fn db(samples: &[f32]) -> f64 {
    let power = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64;
    10.0 * (power + 1e-12).log10()
}

#[test]
fn with_a_tenth_lost_and_jitter_of_60_ms_nearly_every_slot_is_heard_soon_enough() {
    for seed in [1, 2, 3] {
        let mut chance = Chance(0x9E37_79B9_7F4A_7C15 + seed);
        let said = speech("en-us", 160, TEXT);
        let said: Vec<f32> = said.iter().copied().cycle().take(RATE_HZ as usize * 90).collect();
        let sent = packets(&said, 10);
        let mut arrivals: Vec<(Duration, SoundPacket)> = Vec::new();
        for (slot, packet) in sent.iter().enumerate() {
            if let Some(packet) = packet
                && chance.next() >= 0.1
            {
                let at =
                    Duration::from_millis(20 * slot as u64) + Duration::from_secs_f64(0.06 * chance.next());
                arrivals.push((at, packet.clone()));
            }
        }
        arrivals.sort_by_key(|(at, _)| *at);

        let mut jitter = jitter();
        let (mut arrived, mut block) = (arrivals.into_iter().peekable(), SILENCE);
        let (mut delay_ms, mut played) = (0.0, 0);
        let begin = sent[0].as_ref().expect("speech begins at once").time;
        for step in 0..sent.len() as u64 * 2 + 20 {
            let now = Duration::from_millis(10 * step);
            while let Some((at, packet)) = arrived.next_if(|(at, _)| *at <= now) {
                jitter.put(packet, at);
            }
            let next = jitter.playing();
            if jitter.pull(now, &mut block) == Pulled::Speech
                && let Some(next) = next
            {
                let said_ms = f64::from(next.wrapping_sub(begin)) / 48.0;
                delay_ms += now.as_secs_f64() * 1e3 - said_ms;
                played += 1;
            }
        }

        let stats = jitter.stats();
        let slots = sent.iter().flatten().count() as f64;
        let heard = (stats.decoded + stats.repaired) as f64 / slots;
        let delay_ms = delay_ms / f64::from(played);
        eprintln!(
            "loss 10 %, jitter 0-60 ms, 90 s, seed {seed}: {:.1} % of {slots} slots heard, mean delay {delay_ms:.1} ms, {stats:?}",
            heard * 100.0
        );
        assert!(heard >= 0.95, "{heard}");
        assert!(delay_ms <= 80.0, "{delay_ms}");
        assert_eq!(Stats { overflowed: stats.overflowed, ..Stats::default() }, Stats::default());
    }
}

#[test]
fn for_an_hour_of_drift_no_correction_is_heard() {
    for ppm in [100.0, -100.0] {
        drift(ppm);
    }
}

/// An hour with a sender whose clock is faster by `ppm`.
fn drift(ppm: f64) {
    const HOUR_SLOTS: u64 = 3_600 * 50;
    // A voice that repeats itself each second: it goes on without a seam.
    let said: Vec<f32> = (0..RATE_HZ as usize)
        .map(|n| {
            let t = std::f32::consts::TAU * n as f32 / RATE_HZ as f32;
            let phase = 140.0 * t + 6.0 * (2.0 * t).sin();
            let syllable = 0.55 + 0.45 * (3.0 * t).sin();
            (1..10).map(|k| (phase * k as f32).sin() / k as f32).sum::<f32>() * 0.15 * syllable
        })
        .collect();
    let all: Vec<f32> = said.iter().copied().cycle().take(RATE_HZ as usize * 4).collect();
    // The last of four seconds, again and again: the coder is settled.
    let coded: Vec<SoundPacket> =
        packets(&all, 0).into_iter().map(|packet| packet.expect("tones are sent")).collect();
    let looped = &coded[150..];

    let mut jitter = jitter();
    let mut plain = Decoder::new().expect("a decoder");
    let mut expected: std::collections::VecDeque<f32> = std::collections::VecDeque::new();
    let mut expected_from = 0_u64;
    let (mut block, mut slot) = (SILENCE, 0_u64);
    let mut last: Option<u32> = None;
    let (mut exact, mut joined, mut widest) = (0_u64, 0_u64, 0_i64);
    let (mut steepest, mut before, mut natural, mut sent_before) = (0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32);
    for step in 0..HOUR_SLOTS * 2 {
        let now = Duration::from_micros(10_000 * step + 3_000);
        loop {
            let sent_at = slot as f64 * 0.02 / (1.0 + ppm * 1e-6);
            if sent_at > now.as_secs_f64() {
                break;
            }
            let data = looped[slot as usize % looped.len()].data.clone();
            let mut samples = [0.0; SLOT];
            plain.decode(&data, &mut samples).expect("a packet");
            for sample in samples {
                natural = natural.max((sample - sent_before).abs());
                sent_before = sample;
            }
            expected.extend(samples);
            let packet = SoundPacket {
                data,
                sequence: slot as u16,
                time: (slot as u32).wrapping_mul(SLOT as u32),
                level: None,
            };
            jitter.put(packet, Duration::from_secs_f64(sent_at));
            slot += 1;
        }
        let next = jitter.playing();
        let pulled = jitter.pull(now, &mut block);
        let (Some(next), true) = (next, step > 100) else { continue };
        assert_eq!(pulled, Pulled::Speech, "at {now:?}");
        if let Some(last) = last {
            widest = widest.max((i64::from(next.wrapping_sub(last) as i32) - BLOCK as i64).abs());
            for (a, b) in std::iter::once(&before).chain(&block).zip(&block) {
                steepest = steepest.max((a - b).abs());
            }
        }
        before = block[BLOCK - 1];
        last = Some(next);
        while expected_from + 4_800 < u64::from(next) {
            expected.pop_front();
            expected_from += 1;
        }
        let at = (u64::from(next) - expected_from) as usize;
        if expected.range(at..).take(BLOCK).eq(block.iter()) {
            exact += 1;
        } else {
            joined += 1;
        }
    }
    let stats = jitter.stats();
    eprintln!(
        "drift {ppm:+} ppm, 1 h: {exact} blocks exactly as sent, {joined} with a seam of {} corrections by at most \
         {:.1} ms; steepest step {steepest:.4}, as sent {natural:.4}",
        stats.stretched,
        widest as f64 / 48.0
    );
    assert!(widest <= BLOCK as i64, "a jump of {widest} samples");
    assert!(steepest <= natural * 1.1, "a click: {steepest} against {natural}");
    // 360 ms, by steps of 2.5 to 10 ms, each seen in at most two blocks.
    assert!((36..=144).contains(&stats.stretched) && joined <= 2 * stats.stretched, "{joined} {stats:?}");
    assert_eq!((stats.late, stats.lost, stats.concealed, stats.overflowed), (0, 0, 0, 0), "{stats:?}");
}

#[test]
fn the_delay_follows_the_network_by_steps_of_at_most_10_ms() {
    let said = speech("en-us", 160, TEXT);
    let said: Vec<f32> = said.into_iter().cycle().take(60 * RATE_HZ as usize).collect();
    let mut chance = Chance(7);
    let mut arrivals: Vec<(Duration, SoundPacket)> = packets(&said, 0)
        .into_iter()
        .enumerate()
        .filter_map(|(slot, packet)| {
            let late = if (100..500).contains(&slot) { 0.12 * chance.next() } else { 0.0 };
            Some((Duration::from_millis(20 * slot as u64) + Duration::from_secs_f64(late), packet?))
        })
        .collect();
    arrivals.sort_by_key(|(at, _)| *at);

    let mut jitter = jitter();
    let mut arrived = arrivals.into_iter().peekable();
    let (mut block, mut before, mut widest) = ([0.0; BLOCK], None, 0);
    let mut delays = Vec::new();
    for step in 0..6_000 {
        let now = Duration::from_millis(10 * step);
        while let Some((at, packet)) = arrived.next_if(|(at, _)| *at <= now) {
            jitter.put(packet, at);
        }
        let pulled = jitter.pull(now, &mut block);
        let next = jitter.playing();
        // Between two blocks of speech; what is made up may become added delay.
        if let (Some(next), Some(before), Pulled::Speech) = (next, before, pulled) {
            let moved: i32 = u32::wrapping_sub(next, before) as i32 - BLOCK as i32;
            widest = widest.max(moved.abs());
        }
        before = next.filter(|_| pulled == Pulled::Speech);
        delays.push(jitter.delay().as_millis());
    }

    let (good, bad, better) = (delays[190], delays[990], delays[5_900]);
    eprintln!(
        "delay {good} ms, {bad} ms under jitter of 0-120 ms, {better} ms after it; {:?}",
        jitter.stats()
    );
    assert!(good <= 30 && (100..=150).contains(&bad) && better <= 30);
    assert!(widest <= BLOCK as i32, "a jump of {widest} samples");
}

#[test]
fn a_network_that_becomes_100_ms_slower_at_once_is_heard_again_when_it_delivers() {
    let said = speech("en-us", 160, TEXT);
    let said: Vec<f32> = said.into_iter().cycle().take(10 * RATE_HZ as usize).collect();
    let mut jitter = jitter();
    let mut waiting = Vec::new();
    let mut sent = packets(&said, 0).into_iter().enumerate();
    let mut block = [0.0; BLOCK];
    let mut unheard = Vec::new();
    for step in 0..1_000_u64 {
        if step % 2 == 0
            && let Some((slot, Some(packet))) = sent.next()
        {
            waiting.push((step + if slot < 200 { 0 } else { 10 }, packet));
        }
        let now = Duration::from_millis(10 * step);
        for (_, packet) in waiting.extract_if(.., |(at, _)| *at <= step) {
            jitter.put(packet, now);
        }
        if jitter.pull(now, &mut block) != Pulled::Speech && step > 20 {
            unheard.push(step * 10);
        }
    }

    eprintln!("100 ms slower at 4000 ms: not heard at {unheard:?} ms, {:?}", jitter.stats());
    assert!(unheard.iter().all(|ms| (4_000..4_150).contains(ms)), "{unheard:?}");
    assert_eq!(jitter.stats().late, 0);
}

/// A room between speaker and microphone: 60 ms of way, then reflections that decay, 60 dB in 300 ms.
fn echo_path(level_db: f64, seed: u64) -> Vec<(usize, f32)> {
    let mut chance = Chance(seed);
    let direct = RATE_HZ as usize * 60 / 1_000;
    let mut taps: Vec<(usize, f32)> = vec![(direct, 1.0)];
    for n in 1..300 {
        let at = 40 * n + (chance.next() * 40.0) as usize;
        let decay = 10_f64.powf(-3.0 * at as f64 / (0.3 * f64::from(RATE_HZ)));
        taps.push((direct + at, ((chance.next() - 0.5) * 0.8 * decay) as f32));
    }
    let power: f64 = taps.iter().map(|(_, tap)| f64::from(*tap).powi(2)).sum();
    let scale = (10_f64.powf(level_db / 10.0) / power).sqrt() as f32;
    taps.iter().map(|(at, tap)| (*at, tap * scale)).collect()
}

fn through(path: &[(usize, f32)], sound: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; sound.len()];
    for (delay, tap) in path {
        for (heard, said) in out[*delay..].iter_mut().zip(sound) {
            *heard += tap * said;
        }
    }
    out
}

/// Seconds of the far end alone, and then of both.
const ALONE: usize = 15;
const BOTH: usize = 15;
const SECOND: usize = RATE_HZ as usize;

/// A room with one who speaks from the speaker, and later another before the microphone.
struct Room {
    far: Vec<f32>,
    near: Vec<f32>,
    echo: Vec<f32>,
    noise: Vec<f32>,
}

impl Room {
    /// The echo is `echo_db` against what is played, the near end `near_db` against what is played; noise at −70 dB
    /// of full scale.
    fn new(echo_db: f64, near_db: f64) -> Self {
        let length = (ALONE + BOTH) * SECOND;
        let far: Vec<f32> = speech("en-us", 160, TEXT).into_iter().cycle().take(length).collect();
        let talk = speech("en-gb+f3", 150, ANSWER);
        let gain = 10_f64.powf((near_db + db(&far) - db(&talk)) / 20.0) as f32;
        let near = [0.0].into_iter().cycle().take(ALONE * SECOND);
        let near = near.chain(talk.into_iter().cycle().map(|sample| sample * gain)).take(length).collect();
        let echo = through(&echo_path(echo_db, 5), &far);
        let mut chance = Chance(11);
        let amplitude = 10_f64.powf(-70.0 / 20.0) * 3_f64.sqrt();
        let noise = (0..length).map(|_| ((chance.next() * 2.0 - 1.0) * amplitude) as f32).collect();
        Self { far, near, echo, noise }
    }

    /// What leaves for the others.
    fn sent(&self, switches: Switches) -> Vec<f32> {
        let mut voice = Voice::new(switches);
        let mut sent = Vec::with_capacity(self.far.len());
        for (number, played) in self.far.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = number * BLOCK;
            voice.render(played);
            let mut block =
                std::array::from_fn(|n| self.echo[at + n] + self.near[at + n] + self.noise[at + n]);
            voice.capture(&mut block, Duration::from_millis(60));
            sent.extend(block);
        }
        sent
    }
}

/// What goes along with `near` in `out`, in dB against `near`, and how many samples later. By least squares: with one
/// gain and phase for each frequency (50 Hz apart, 100 Hz to 8 kHz), since filters turn phases; and with one gain.
fn kept_db(near: &[f32], out: &[f32]) -> (f64, f64, usize) {
    let along = |lag: usize| -> f64 {
        let pairs = near[SECOND..3 * SECOND].iter().zip(&out[SECOND + lag..]);
        pairs.map(|(a, b)| f64::from(a * b)).sum()
    };
    let lag = (0..1_500).max_by(|a, b| along(*a).total_cmp(&along(*b))).expect("lags");
    let turn = |n: usize| (n as f32 / SLOT as f32 * std::f32::consts::TAU).sin_cos();
    let turns: Vec<(f32, f32)> = (0..SLOT).map(turn).collect();
    let windowed = |from: &[f32]| -> Vec<f32> {
        from.iter().zip(&turns).map(|(sample, (_, cos))| sample * (0.5 - 0.5 * cos)).collect()
    };
    let frames: Vec<(Vec<f32>, Vec<f32>)> = (0..near.len() - SLOT)
        .step_by(BLOCK)
        .map(|at| (windowed(&near[at..at + SLOT]), windowed(&out[at + lag..][..SLOT])))
        .collect();
    let spectrum = |frame: &[f32], bin: usize| {
        frame.iter().enumerate().fold((0.0_f32, 0.0_f32), |(re, im), (n, sample)| {
            let (sin, cos) = turns[n * bin % SLOT];
            (re + sample * cos, im - sample * sin)
        })
    };
    let (mut kept, mut said) = (0.0, 0.0);
    for bin in 2..160 {
        let (mut re, mut im, mut power) = (0.0, 0.0, 0.0);
        for (near, out) in &frames {
            let (x, y) = (spectrum(near, bin), spectrum(out, bin));
            re += f64::from(x.0 * y.0 + x.1 * y.1);
            im += f64::from(x.0 * y.1 - x.1 * y.0);
            power += f64::from(x.0 * x.0 + x.1 * x.1);
        }
        kept += (re * re + im * im) / power;
        said += power;
    }
    let power: f64 = near.iter().map(|sample| f64::from(sample * sample)).sum();
    let whole: f64 = near.iter().zip(&out[lag..]).map(|(a, b)| f64::from(a * b)).sum();
    (10.0 * (kept / said).log10(), 20.0 * (whole / power).log10(), lag)
}

#[test]
fn the_echo_is_gone_after_2_seconds_and_in_double_talk_the_near_end_is_heard() {
    let aec = Switches { echo_cancellation: true, ..Switches::OFF };
    let no_gain = Switches { gain_control: false, ..Switches::default() };
    // The gain control would hide what the others take from the near end: it is shown, not judged.
    for (echo_db, near_db, switches, name, judged) in [
        (-10.0, 0.0, aec, "cancellation alone", false),
        (-10.0, 0.0, no_gain, "with noise suppression", true),
        (-10.0, 0.0, Switches::default(), "with gain control too", false),
        (-15.0, 0.0, no_gain, "with noise suppression", true),
        (-20.0, 0.0, no_gain, "with noise suppression", true),
        (-20.0, -6.0, no_gain, "with noise suppression", true),
        (-10.0, -6.0, no_gain, "with noise suppression", false),
        // No echo to speak of: what the measure itself says of a near end that is left alone.
        (-100.0, 0.0, no_gain, "with noise suppression", false),
    ] {
        let room = Room::new(echo_db, near_db);
        let sent = room.sent(switches);
        let alone = 2 * SECOND..ALONE * SECOND;
        let enhancement = db(&room.echo[alone.clone()]) - db(&sent[alone]);
        let begin = (ALONE + 1) * SECOND;
        let (kept, plain, lag) = kept_db(&room.near[begin..begin + 12 * SECOND], &sent[begin..]);
        eprintln!(
            "echo {echo_db} dB, near end {near_db:+} dB, {name}: ERLE from 2 s on {enhancement:.1} dB, \
             near end in double talk {kept:+.1} dB ({plain:+.1} dB with one gain for all frequencies), {:.1} ms later",
            lag as f64 / 48.0
        );
        if judged {
            assert!(enhancement >= 30.0, "{enhancement:.1} dB");
            assert!(kept >= -6.0, "{kept:.1} dB");
        }
    }
}

#[test]
fn a_silent_member_never_touches_the_decoder() {
    let mut said = speech("en-us", 160, "Now I shall say nothing for a long time.");
    let spoken = said.len() / SLOT;
    said.resize(said.len() + 60 * SECOND, 0.0);
    let sent = packets(&said, 0);
    let mut jitter = jitter();
    let mut block = [0.0; BLOCK];
    let mut calls_when_silent = None;
    let mut silent = 0;

    for (slot, packet) in sent.into_iter().enumerate() {
        for half in 0..2 {
            let now = Duration::from_millis(20 * slot as u64 + 10 * half);
            if let (0, Some(packet)) = (half, &packet) {
                jitter.put(packet.clone(), now);
            }
            let pulled = jitter.pull(now, &mut block);
            // The coder takes a while to find that nothing is said any more, and so does the fading.
            if slot > spoken + 50 {
                let calls = *calls_when_silent.get_or_insert(jitter.decoder_calls());
                assert_eq!((pulled, jitter.decoder_calls(), block), (Pulled::Silence, calls, [0.0; BLOCK]));
                silent += 1;
            }
        }
    }

    let stats = jitter.stats();
    eprintln!("silence: {silent} blocks without a decoder, {stats:?}");
    assert!(stats.decoded > spoken as u64 / 2, "{stats:?}");
    assert!(stats.passed_over > 50, "updates of the background noise came and were not played: {stats:?}");
}
