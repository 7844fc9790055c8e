//! The decoding threads: each stream has a decoder, and stays with one of them.

use super::{CodecChoice, Video, Work, lock};
use crate::clock::Clock;
use crate::media::Packet;
use crate::media::codec::Decode;
use crate::media::frame::FramePool;
use crate::media::h264::DecodeError;
use crate::room::fault::{Cause, Code};
use crate::supervise::{Failure, Stop};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One connection's pictures on their way to a decoder. Whoever feeds it holds it: when that is gone, so is its decoder.
struct Stream {
    number: u64,
    video: Weak<Video>,
    /// Is told why pictures cannot be decoded, and `None` when they can again.
    trouble: Box<dyn Fn(Option<Failure>) + Send + Sync>,
}

struct Job {
    stream: Weak<Stream>,
    packet: Packet,
    arrived: Duration,
}

/// As many decoding threads as cores; each stream stays with one of them.
pub struct Decoders {
    workers: Vec<(SyncSender<Option<Job>>, Arc<Work>)>,
    streams: AtomicU64,
    clock: Clock,
}

impl Decoders {
    /// Access units that wait for one worker. Full: the stream drops to its next keyframe.
    const QUEUE: usize = 64;

    /// The pool and the work of each of its threads, to be run with [`decode`].
    pub fn new(workers: usize, clock: Clock) -> (Self, Vec<Jobs>) {
        let (workers, jobs) = (0..workers.max(1))
            .map(|_| {
                let (sender, receiver) = sync_channel(Self::QUEUE);
                let work = Arc::<Work>::default();
                ((sender, work.clone()), Jobs { queue: receiver, work, codecs: CodecChoice::software() })
            })
            .unzip();
        (Self { workers, streams: AtomicU64::new(0), clock }, jobs)
    }

    /// Wakes every thread, so that it sees that it is to end. Full: it is awake.
    pub fn wake(&self) -> impl Fn() + Send + 'static + use<> {
        let workers: Vec<_> = self.workers.iter().map(|(worker, _)| worker.clone()).collect();
        move || workers.iter().for_each(|worker| drop(worker.try_send(None)))
    }

    /// What each thread has worked.
    pub fn work(&self) -> Vec<Arc<Work>> {
        self.workers.iter().map(|(_, work)| work.clone()).collect()
    }

    /// A sink for a new stream whose pictures go to `video`, as long as somebody else holds that. `trouble` is told
    /// why pictures cannot be decoded, several in a row or by their kind, and `None` when one can again.
    pub fn sink(
        &self,
        video: &Arc<Video>,
        trouble: impl Fn(Option<Failure>) + Send + Sync + 'static,
    ) -> Box<dyn FnMut(Packet) -> bool + Send> {
        let number = self.streams.fetch_add(1, Relaxed);
        let (worker, _) = self.workers[number as usize % self.workers.len()].clone();
        let stream = Arc::new(Stream { number, video: Arc::downgrade(video), trouble: Box::new(trouble) });
        let (clock, feeder) = (self.clock, Feeder { stream: Some(stream), worker });
        Box::new(move |packet| {
            let stream = feeder.stream.as_ref().map(Arc::downgrade).unwrap_or_default();
            feeder.worker.try_send(Some(Job { stream, packet, arrived: clock.mono() })).is_ok()
        })
    }
}

/// Who feeds a stream: when it goes, the stream ends, and its thread is woken to free the decoder.
struct Feeder {
    stream: Option<Arc<Stream>>,
    worker: SyncSender<Option<Job>>,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        drop(self.stream.take());
        // Full: the thread is awake, and frees it with the next stream.
        let _ = self.worker.try_send(None);
    }
}

/// The work of one decoding thread.
pub struct Jobs {
    /// `None` only wakes the thread: a stream has ended, or it is to end itself.
    queue: Receiver<Option<Job>>,
    work: Arc<Work>,
    codecs: Arc<CodecChoice>,
}

impl Jobs {
    /// With these codecs in place of the software.
    pub fn with(self, codecs: Arc<CodecChoice>) -> Self {
        Self { codecs, ..self }
    }
}

/// A stream and its decoder.
struct Decoding {
    stream: Weak<Stream>,
    decoder: Box<dyn Decode>,
    pool: FramePool,
    /// Pictures in a row that could not be decoded.
    failed: u32,
    /// Whether that was told.
    told: bool,
}

/// So many pictures in a row that cannot be decoded are more than an accident of the network.
const TROUBLE: u32 = 3;

/// Decodes what comes until told to stop or nobody can send any more. A stream that is damaged asks for a keyframe
/// and its last good picture stays.
pub fn decode(jobs: &Jobs, clock: Clock, stop: &Stop) -> Result<(), Failure> {
    let mut decodings: HashMap<u64, Decoding> = HashMap::new();
    while !stop.is_told() {
        let Ok(job) = jobs.queue.recv() else { return Ok(()) };
        let Some(job) = job else {
            decodings.retain(|_, decoding| decoding.stream.strong_count() > 0);
            continue;
        };
        let Some(stream) = job.stream.upgrade() else { continue };
        let Some(video) = stream.video.upgrade() else { continue };
        if !decodings.contains_key(&stream.number) {
            decodings.retain(|_, decoding| decoding.stream.strong_count() > 0);
            let decoder = jobs.codecs.decoder().map_err(|error| Failure {
                code: Code::DecodeFailed,
                cause: Cause { op: "open decoder".into(), errno: Some(error.to_string()), target: None },
            })?;
            let (number, stream, pool) = (stream.number, job.stream.clone(), FramePool::default());
            let decoding = Decoding { stream, decoder, pool, failed: 0, told: false };
            decodings.insert(number, decoding);
        }
        video.meter.received.fetch_add(1, Relaxed);
        let decoding = decodings.get_mut(&stream.number).expect("it was put there above");
        if video.paused.load(Relaxed) {
            decoding.decoder.lose();
            continue;
        }
        let start = clock.mono();
        let decoded = decoding.decoder.decode(&job.packet, &mut decoding.pool, job.arrived);
        jobs.work.add(clock.mono() - start);
        match decoded {
            Ok(Some(image)) => {
                let now = clock.mono();
                let mut lip_sync = lock(&video.lip_sync);
                let wait = lip_sync.wait(job.packet.time, now);
                let late = lip_sync.lateness(job.packet.time, now + wait);
                drop(lip_sync);
                video.meter.sound_late_us.store(late.map_or(i64::MIN, |late| (late * 1e6) as i64), Relaxed);
                video.put(image, now, now + wait);
                decoding.failed = 0;
                if std::mem::take(&mut decoding.told) {
                    (stream.trouble)(None);
                }
            }
            Ok(None) => {}
            Err(DecodeError::NeedsKeyframe) if !job.packet.keyframe => video.keyframe_needed.notify_one(),
            Err(error) => {
                tracing::debug!(%error, "picture not decoded");
                video.keyframe_needed.notify_one();
                decoding.failed = decoding.failed.saturating_add(1);
                let code = match error {
                    DecodeError::CodecMismatch(_) | DecodeError::TooLarge(_) => Code::CodecMismatch,
                    _ if decoding.failed < TROUBLE => continue,
                    _ => Code::DecodeFailed,
                };
                if !std::mem::replace(&mut decoding.told, true) {
                    let cause = Cause { op: "decode".into(), errno: Some(error.to_string()), target: None };
                    (stream.trouble)(Some(Failure { code, cause }));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::media::frame::Frame;
    use crate::media::h264::Encoder;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    #[test]
    fn a_stream_that_cannot_be_decoded_is_said_once_and_so_is_that_it_can_again() {
        let (clock, stop) = (Clock::start(), Stop::default());
        let (decoders, mut jobs) = Decoders::new(1, clock);
        let jobs = jobs.pop().expect("one worker");
        let video = Arc::new(Video::new(Arc::default()));
        let (tell, told) = mpsc::channel();
        let mut sink = decoders.sink(&video, move |trouble| tell.send(trouble).expect("heard"));
        let mut encoder = Encoder::new(Size::new(64, 64), 30.0, 200_000).expect("an encoder");
        let good =
            encoder.encode(&Frame::new(Size::new(64, 64)), 0, true).expect("coded").expect("a picture");
        // A keyframe as its header says, and nothing that can be decoded in it.
        let bad = Packet { data: vec![0, 0, 0, 1, 0x65, 0xff, 0xff, 0xff].into(), ..good.clone() };
        // A B picture: `1` is its first macroblock, `010` its type.
        let foreign = Packet { data: vec![0, 0, 0, 1, 0x41, 0b1010_0000, 0xff].into(), ..good.clone() };

        for packet in [&good, &bad, &bad, &bad, &bad, &bad, &good, &good] {
            assert!(sink(packet.clone()));
        }
        drop((sink, decoders));
        // The queue is read to its end, as nobody feeds it any more; but the stream is gone with its feeder.
        decode(&jobs, clock, &stop).expect("ends");
        assert_eq!(told.try_iter().count(), 0);

        let (decoders, mut jobs) = Decoders::new(1, clock);
        let jobs = jobs.pop().expect("one worker");
        stop.on_tell(decoders.wake());
        let (tell, told) = mpsc::channel();
        let mut sink = decoders.sink(&video, move |trouble| tell.send(trouble).expect("heard"));
        for packet in [&good, &bad, &bad, &bad, &bad, &good, &good, &foreign, &foreign, &good] {
            assert!(sink(packet.clone()));
        }
        let told_to_stop = stop.clone();
        let worker = std::thread::spawn(move || decode(&jobs, clock, &told_to_stop));
        let code = |_| {
            told.recv_timeout(Duration::from_secs(60)).expect("told").map(|failure: Failure| failure.code)
        };
        assert_eq!([0, 1, 2, 3].map(code), [Some(Code::DecodeFailed), None, Some(Code::CodecMismatch), None]);
        stop.tell();
        worker.join().expect("no panic").expect("ends");
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_there_is_no_time_for_is_not_decoded_and_begins_anew_with_a_keyframe() {
        let (clock, stop) = (Clock::start(), Stop::default());
        let (decoders, mut jobs) = Decoders::new(1, clock);
        let jobs = jobs.pop().expect("one worker");
        stop.on_tell(decoders.wake());
        let (video, other) = (Arc::new(Video::new(Arc::default())), Arc::new(Video::new(Arc::default())));
        let mut sink = decoders.sink(&video, |trouble| panic!("{trouble:?}"));
        let mut other_sink = decoders.sink(&other, |trouble| panic!("{trouble:?}"));
        let mut encoder = Encoder::new(Size::new(64, 64), 30.0, 200_000).expect("an encoder");
        let mut shoot = |keyframe| {
            encoder.encode(&Frame::new(Size::new(64, 64)), 0, keyframe).expect("coded").expect("a picture")
        };
        let worker = std::thread::spawn({
            let stop = stop.clone();
            move || decode(&jobs, clock, &stop)
        });
        // The worker is through with these when it has decoded what another member sent after them.
        let mut pictures = |packets: &[Packet], last: Packet| {
            packets.iter().for_each(|packet| assert!(sink(packet.clone())));
            assert!(other_sink(last));
            while other.take(clock.mono()).is_none() {
                assert!(!worker.is_finished());
                std::thread::yield_now();
            }
            std::iter::from_fn(|| video.take(clock.mono())).count()
        };

        assert_eq!(pictures(&[shoot(true)], shoot(true)), 1);
        video.paused.store(true, Relaxed);
        assert_eq!(pictures(&[shoot(false), shoot(true)], shoot(true)), 0);
        video.paused.store(false, Relaxed);
        assert_eq!(pictures(&[shoot(false)], shoot(true)), 0);
        let asked = std::pin::pin!(video.keyframe_needed.notified());
        assert!(asked.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(pictures(&[shoot(true)], shoot(true)), 1);
        stop.tell();
        worker.join().expect("no panic").expect("ends");
    }

    #[test]
    fn a_stream_that_changes_its_size_goes_on_in_the_new_one() {
        let (clock, stop) = (Clock::start(), Stop::default());
        let (decoders, mut jobs) = Decoders::new(1, clock);
        let jobs = jobs.pop().expect("one worker");
        stop.on_tell(decoders.wake());
        let video = Arc::new(Video::new(Arc::default()));
        let mut sink = decoders.sink(&video, |trouble| panic!("{trouble:?}"));
        let worker = std::thread::spawn({
            let stop = stop.clone();
            move || decode(&jobs, clock, &stop)
        });
        for size in [Size::new(64, 64), Size::new(320, 180), Size::new(96, 160)] {
            let mut encoder = Encoder::new(size, 30.0, 200_000).expect("an encoder");
            let packet = encoder.encode(&Frame::new(size), 0, true).expect("coded").expect("a picture");
            assert!(sink(packet));
            let image = loop {
                assert!(!worker.is_finished());
                if let Some(picture) = video.take(clock.mono()) {
                    break picture.image;
                }
                std::thread::yield_now();
            };
            assert_eq!(image.size(), size);
        }
        stop.tell();
        worker.join().expect("no panic").expect("ends");
    }
}
