//! The encoding thread: each layer of the camera's picture that somebody gets is coded once, and given to who gets it.

use super::{CodecChoice, Inbox, LONG, lock};
use crate::geometry::Size;
use crate::media::Packet;
use crate::media::codec::Encode;
use crate::media::frame::{Frame, FramePool};
use crate::media::halve::halve;
use crate::room::fault::{Cause, Code};
use crate::room::layers::{Demand, Layer, Layers, Rate};
use crate::room::message::MemberId;
use crate::supervise::{Failure, Stop};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::debug;

/// Where one connection takes coded pictures.
pub trait Outlet: Send + Sync {
    /// What its other side needs, and what the way to it carries.
    fn demand(&self) -> Demand;
    /// Sends a picture. Never waits; false if it was dropped, and only a keyframe can follow.
    fn send(&self, packet: &Arc<Packet>) -> bool;
}

/// Gives each coded picture to the connections that are to get it, and gathers their wishes.
pub struct Fanout {
    state: Mutex<State>,
}

struct State {
    layers: Layers,
    receivers: BTreeMap<MemberId, Receiver>,
    keyframes: [Keyframe; 2],
    coded: [Option<Coded>; 2],
    /// For which size and when it was last planned; `None`: a receiver has come or gone since.
    planned: Option<(Size, Duration)>,
}

struct Receiver {
    outlet: Arc<dyn Outlet>,
    /// What it gets, and what it is to get from the next keyframe of that on.
    layer: Option<Layer>,
    next: Option<Layer>,
    sent: u64,
}

/// What is wished for one layer.
#[derive(Clone, Copy, Default)]
struct Keyframe {
    wanted: bool,
    /// Somebody sees nothing of it yet.
    newcomer: bool,
}

/// How a layer is coded at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coded {
    pub layer: Layer,
    pub size: Size,
    pub rate: Rate,
}

/// What one connection gets.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// `None`: no pictures.
    pub layer: Option<Layer>,
    /// Pictures since the connection was made.
    pub pictures: u64,
    /// Bits a second that the way to it carries.
    pub estimate_bps: Option<u32>,
}

impl Fanout {
    /// Keyframes are large: however many ask, one in this time.
    const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
    /// Members who come one after the other wait less for their first.
    const NEWCOMER_INTERVAL: Duration = Duration::from_millis(100);
    /// Between two looks at what receivers need.
    const PLAN_INTERVAL: Duration = Duration::from_millis(100);

    /// For pictures of at most `bitrate_bps`.
    pub fn new(bitrate_bps: u32) -> Self {
        let layers = Layers::new(bitrate_bps);
        let (receivers, keyframes, coded, planned) = Default::default();
        Self { state: Mutex::new(State { layers, receivers, keyframes, coded, planned }) }
    }

    /// Adds or replaces a member's outlet. It begins with a keyframe.
    pub fn add(&self, member: MemberId, outlet: Arc<dyn Outlet>) {
        let receiver = Receiver { outlet, layer: None, next: None, sent: 0 };
        let state = &mut *lock(&self.state);
        state.receivers.insert(member, receiver);
        state.planned = None;
    }

    pub fn remove(&self, member: &MemberId) {
        let state = &mut *lock(&self.state);
        state.receivers.remove(member);
        state.planned = None;
    }

    /// This member needs a keyframe of what it gets.
    pub fn want_keyframe(&self, member: &MemberId) {
        let state = &mut *lock(&self.state);
        let receiver = state.receivers.get(member);
        if let Some(layer) = receiver.and_then(|receiver| receiver.next.or(receiver.layer)) {
            state.keyframes[layer as usize].wanted = true;
        }
    }

    /// What is coded at the moment, two layers at most, and what each member gets of it.
    pub fn sending(&self) -> (Vec<Coded>, BTreeMap<MemberId, Sent>) {
        let state = lock(&self.state);
        let sent = state.receivers.iter().map(|(member, receiver)| {
            let estimate_bps = receiver.outlet.demand().estimate_bps;
            let sent = Sent { layer: receiver.layer, pictures: receiver.sent, estimate_bps };
            (member.clone(), sent)
        });
        (state.coded.into_iter().flatten().collect(), sent.collect())
    }

    /// How each layer of a picture of `size` is to be coded.
    fn plan(&self, size: Size, now: Duration) -> [Option<Coded>; 2] {
        let State { layers, receivers, keyframes, coded, planned } = &mut *lock(&self.state);
        if planned.is_some_and(|(of, at)| of == size && now.saturating_sub(at) < Self::PLAN_INTERVAL) {
            return *coded;
        }
        *planned = Some((size, now));
        let demands = receivers.iter().map(|(member, receiver)| (member.clone(), receiver.outlet.demand()));
        let demands = demands.collect();
        let plan = layers.plan(size, &demands, now);
        for (member, receiver) in receivers {
            let wanted = plan.receivers.get(member).copied().flatten();
            if wanted.is_none() || wanted == receiver.layer {
                (receiver.layer, receiver.next) = (wanted, None);
            } else if wanted != receiver.next {
                receiver.next = wanted;
                debug!(%member, layer = ?wanted, demand = ?demands.get(member), "another layer");
                if let Some(layer) = wanted {
                    // One that sees the other layer meanwhile can wait.
                    let newcomer = receiver.layer.is_none();
                    let keyframe = &mut keyframes[layer as usize];
                    *keyframe = Keyframe { wanted: true, newcomer: newcomer || keyframe.newcomer };
                }
            }
        }
        for layer in Layer::ALL {
            let now = plan.rate(layer).map(|rate| Coded { layer, size: layer.size(size), rate });
            if now != coded[layer as usize] {
                debug!(?layer, ?now, "coded otherwise");
            }
            coded[layer as usize] = now;
        }
        *coded
    }

    /// Whether the next picture of this layer is to be a keyframe, `rested` after the last one. True ends all wishes.
    fn takes_keyframe(&self, layer: Layer, rested: Duration) -> bool {
        let keyframe = &mut lock(&self.state).keyframes[layer as usize];
        let interval = match keyframe.newcomer {
            true => Self::NEWCOMER_INTERVAL,
            false => Self::KEYFRAME_INTERVAL,
        };
        let taken = keyframe.wanted && rested >= interval;
        if taken {
            *keyframe = Keyframe::default();
        }
        taken
    }

    /// Gives each receiver its layer of one picture, and takes it from one layer to the other with a keyframe.
    fn send(&self, packets: &[Option<Arc<Packet>>; 2]) {
        let State { receivers, keyframes, .. } = &mut *lock(&self.state);
        for receiver in receivers.values_mut() {
            let packet_of = |layer: Layer| packets[layer as usize].as_ref();
            if let Some(next) = receiver.next
                && packet_of(next).is_some_and(|packet| packet.keyframe)
            {
                (receiver.layer, receiver.next) = (Some(next), None);
            }
            let Some(layer) = receiver.layer else { continue };
            let Some(packet) = packet_of(layer) else { continue };
            match receiver.outlet.send(packet) {
                true => receiver.sent += 1,
                false => keyframes[layer as usize].wanted = true,
            }
        }
    }
}

/// One layer while somebody gets it.
struct Coding {
    encoder: Box<dyn Encode>,
    last_keyframe: Option<Duration>,
    /// Pictures until the next one that is coded.
    rest: u32,
}

impl Coding {
    fn start(
        codecs: &Arc<CodecChoice>,
        coded: Coded,
        rate_hz: f32,
        ceiling_bps: u32,
    ) -> Result<Self, Failure> {
        let (most, _) = coded.layer.bitrates(ceiling_bps);
        let encoder = codecs.encoder(coded.size, rate_hz, most).map_err(|error| failure(error.into()))?;
        Ok(Self { encoder, last_keyframe: None, rest: 0 })
    }
}

/// Encodes the newest picture, each layer once for all members that get it, until told to stop. What nobody gets is not
/// coded.
///
/// # Errors
/// The encoder refused a picture.
pub fn encode(
    inbox: &Inbox,
    fanout: &Fanout,
    codecs: &Arc<CodecChoice>,
    (rate_hz, bitrate_bps): (f32, u32),
    works: &dyn Fn(),
    stop: &Stop,
) -> Result<(), Failure> {
    let mut codings: [Option<Coding>; 2] = [None, None];
    let mut halves = FramePool::default();
    while !stop.is_told() {
        inbox.bell.wait(LONG);
        let Some(frame) = inbox.pictures.take() else { continue };
        let mut packets = [None, None];
        for (layer, coded) in Layer::ALL.into_iter().zip(fanout.plan(frame.size(), frame.captured)) {
            let coding = &mut codings[layer as usize];
            let Some(coded) = coded else {
                *coding = None;
                continue;
            };
            let rate = coded.rate;
            let coding = match coding {
                Some(coding) => coding,
                None => coding.insert(Coding::start(codecs, coded, rate_hz, bitrate_bps)?),
            };
            if coding.rest > 0 {
                coding.rest -= 1;
                continue;
            }
            coding.rest = rate.every - 1;
            coding.encoder.set_rate(rate.bitrate_bps, rate_hz / rate.every as f32);
            let rested =
                coding.last_keyframe.map_or(Duration::MAX, |last| frame.captured.saturating_sub(last));
            let keyframe = fanout.takes_keyframe(layer, rested);
            let picture = layered(&frame, coded, &mut halves);
            let packet = coding.encoder.encode(&picture, rtp_time(frame.captured), keyframe);
            if let Some(packet) = packet.map_err(|error| failure(error.into()))? {
                if packet.keyframe {
                    coding.last_keyframe = Some(frame.captured);
                }
                packets[layer as usize] = Some(Arc::new(packet));
                works();
            }
        }
        fanout.send(&packets);
    }
    Ok(())
}

/// The picture in the size of a layer.
fn layered(frame: &Arc<Frame>, coded: Coded, halves: &mut FramePool) -> Arc<Frame> {
    if coded.layer == Layer::Full {
        return frame.clone();
    }
    let half: Result<_, std::convert::Infallible> = halves.produce(coded.size, |half| {
        halve(frame, half);
        Ok(())
    });
    let Ok(half) = half;
    half
}

fn failure(error: anyhow::Error) -> Failure {
    Failure {
        code: Code::Internal,
        cause: Cause { op: "encode".into(), errno: Some(format!("{error:#}")), target: None },
    }
}

/// The time of a picture in the 90 kHz clock of RFC 6184; wraps.
fn rtp_time(captured: Duration) -> u32 {
    (captured.as_nanos() * 9 / 100_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Fit;
    use crate::room::wish::Wish;
    use bytes::Bytes;

    const VGA: Size = Size::new(640, 480);

    #[test]
    fn a_receiver_changes_its_layer_with_a_keyframe_and_gets_each_picture_once() {
        let fanout = Fanout::new(900_000);
        let outlet = Arc::new(Shelf::default());
        fanout.add(id("one"), outlet.clone());

        *lock(&outlet.wish) = Some(shown(640));
        fanout.plan(VGA, Duration::from_secs(1));
        assert!(fanout.takes_keyframe(Layer::Full, Duration::MAX));
        fanout.send(&[packet(0, true), None]);
        *lock(&outlet.wish) = Some(shown(160));
        fanout.plan(VGA, Duration::from_secs(2));
        assert!(fanout.takes_keyframe(Layer::Quarter, Duration::MAX));
        // The other layer's keyframe is late: it goes on with what it has.
        fanout.send(&[packet(1, false), packet(101, false)]);
        fanout.send(&[packet(2, false), packet(102, true)]);
        fanout.send(&[packet(3, false), packet(103, false)]);

        assert_eq!(outlet.times(), [0, 1, 102, 103]);
    }

    #[test]
    fn who_hides_the_picture_gets_none_and_begins_again_with_a_keyframe() {
        let fanout = Fanout::new(900_000);
        let outlet = Arc::new(Shelf::default());
        fanout.add(id("one"), outlet.clone());
        *lock(&outlet.wish) = Some(Wish::Hidden);

        let coded = fanout.plan(VGA, Duration::from_secs(3));
        fanout.send(&[packet(0, true), packet(100, true)]);
        assert_eq!(coded, [None, None]);
        assert!(outlet.times().is_empty());
        *lock(&outlet.wish) = None;
        fanout.plan(VGA, Duration::from_secs(4));
        fanout.send(&[packet(1, false), None]);
        fanout.send(&[packet(2, true), None]);

        assert_eq!(outlet.times(), [2]);
    }

    #[test]
    fn a_wish_for_a_keyframe_is_one_for_the_layer_of_who_wishes() {
        let fanout = Fanout::new(900_000);
        for (member, width) in [("large", 640), ("small", 160)] {
            let outlet = Arc::new(Shelf::default());
            *lock(&outlet.wish) = Some(shown(width));
            fanout.add(id(member), outlet);
        }
        fanout.plan(VGA, Duration::from_secs(5));
        assert_eq!(Layer::ALL.map(|layer| fanout.takes_keyframe(layer, Duration::MAX)), [true; 2]);
        fanout.send(&[packet(0, true), packet(0, true)]);

        fanout.want_keyframe(&id("small"));

        assert!(!fanout.takes_keyframe(Layer::Full, Duration::MAX));
        assert!(!fanout.takes_keyframe(Layer::Quarter, Duration::from_millis(499)));
        assert!(fanout.takes_keyframe(Layer::Quarter, Duration::from_millis(500)));
    }

    /// Keeps what it gets.
    #[derive(Default)]
    struct Shelf {
        wish: Mutex<Option<Wish>>,
        packets: Mutex<Vec<u32>>,
    }

    impl Shelf {
        fn times(&self) -> Vec<u32> {
            lock(&self.packets).clone()
        }
    }

    impl Outlet for Shelf {
        fn demand(&self) -> Demand {
            Demand { wish: *lock(&self.wish), estimate_bps: None }
        }

        fn send(&self, packet: &Arc<Packet>) -> bool {
            lock(&self.packets).push(packet.time);
            true
        }
    }

    fn shown(width: u32) -> Wish {
        Wish::Shown { size: Size::new(width, width / 4 * 3), fit: Fit::Fill }
    }

    fn packet(time: u32, keyframe: bool) -> Option<Arc<Packet>> {
        Some(Arc::new(Packet { data: Bytes::from_static(&[1]), keyframe, time }))
    }

    fn id(text: &str) -> MemberId {
        MemberId::parse(text).expect("an id")
    }
}
