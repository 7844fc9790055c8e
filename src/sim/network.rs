//! A bad network on the real sockets, below SRTP: it loses, delays and overtakes datagrams, is narrow or cut, and
//! changes addresses. It does nothing to TCP.
//!
//! ```text
//!  webrtc ── datagrams ──► one task a socket: lost? when due? ──► queue ──► socket
//!  webrtc ◄── due ─ queue ◄── lost? when due? ──────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, Transmit,
    default_runtime,
};

/// Datagrams under way in one direction of one socket. Full: the oldest is lost.
const UNDER_WAY: usize = 2048;
/// Datagrams between webrtc and the task of a socket. Full: the newest is lost.
const AT_THE_DOOR: usize = 512;
/// Larger datagrams do not exist in UDP.
const LARGEST: usize = 65_535;
/// How much later a datagram comes that others overtake.
const HELD_BACK: Duration = Duration::from_millis(20);

/// What happens to datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How many are lost, in percent.
    pub loss_percent: u8,
    /// How long each is under way.
    pub delay: Duration,
    /// By how much at most that differs, both ways; their order stays.
    pub jitter: Duration,
    /// How many come another 20 ms later and are overtaken, in percent.
    pub reordered_percent: u8,
    /// None passes.
    pub cut: bool,
    /// How many kilobits a second pass, headers of IP and UDP included, of all sockets together; 0: any number.
    pub limit_kbps: u32,
    /// How long those that are too many wait for their turn; what would wait longer is lost.
    pub queue: Duration,
}

/// The network between a kiosk and everybody else. Clones are of the same network.
#[derive(Clone, Debug)]
pub struct Network {
    now: Arc<watch::Sender<Now>>,
    seed: u64,
    /// Sockets so far.
    sockets: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    carried: Arc<AtomicU64>,
    /// Outward and inward.
    bottlenecks: [Bottleneck; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Now {
    outward: Conditions,
    inward: Conditions,
    /// Counts the changes of address.
    address: u64,
}

impl Network {
    /// A good network. What it will do is chance, and of the same `seed` the same.
    pub fn new(seed: u64) -> Self {
        let now = Arc::new(watch::Sender::new(Now::default()));
        let (sockets, lost, carried, bottlenecks) = Default::default();
        Self { now, seed, sockets, lost, carried, bottlenecks }
    }

    /// Sets the same conditions in both directions, for what is sent from now on.
    pub fn set(&self, conditions: Conditions) {
        self.set_each(conditions, conditions);
    }

    /// Sets the conditions of what the kiosk sends and of what it receives from now on.
    pub fn set_each(&self, outward: Conditions, inward: Conditions) {
        self.now.send_modify(|now| (now.outward, now.inward) = (outward, inward));
    }

    /// Gives every socket another port, as an address translator does that has forgotten: what is sent comes from a
    /// new address, what is sent to the old one is lost, and the kiosk is not told.
    pub fn change_address(&self) {
        self.now.send_modify(|now| now.address += 1);
    }

    /// Datagrams lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Datagrams that came through so far.
    pub fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }

    /// What connections get their sockets from.
    ///
    /// # Panics
    ///
    /// Never: webrtc is built with a runtime.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        let inner = default_runtime().expect("webrtc is built with tokio");
        Arc::new(Sockets { network: self.clone(), inner })
    }
}

/// What happens by chance: xorshift64* (Vigna 2016).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        // Zero would stay zero for ever.
        let mut chance = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn happens(&mut self, percent: u8) -> bool {
        (self.next() >> 32) % 100 < u64::from(percent)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Where all datagrams of one direction pass one after the other. Clones are of the same.
#[derive(Clone, Debug, Default)]
struct Bottleneck(Arc<Mutex<Option<Instant>>>);

impl Bottleneck {
    /// Headers of IPv4 and UDP, in bytes.
    const HEADERS: usize = 28;

    /// When a datagram of so many bytes has passed; `None`: the queue is full.
    fn pass(&self, bytes: usize, conditions: &Conditions, now: Instant) -> Option<Instant> {
        if conditions.limit_kbps == 0 {
            return Some(now);
        }
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = free.map_or(now, |free| free.max(now));
        if turn - now > conditions.queue {
            return None;
        }
        let bits = 8 * (bytes + Self::HEADERS) as u64;
        let passed = turn + Duration::from_micros(bits * 1_000 / u64::from(conditions.limit_kbps));
        *free = Some(passed);
        Some(passed)
    }
}

/// One direction of a socket.
struct Path {
    chance: Chance,
    /// By when they are due, and in which order they were sent.
    queue: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    /// When the last one that kept its place is due.
    latest: Option<Instant>,
    lost: Arc<AtomicU64>,
    bottleneck: Bottleneck,
}

struct Datagram {
    /// Whom it is for, or whom it is from.
    address: SocketAddr,
    data: Vec<u8>,
}

impl Path {
    fn new(seed: u64, lost: Arc<AtomicU64>, bottleneck: Bottleneck) -> Self {
        let (chance, queue) = (Chance::new(seed), BTreeMap::new());
        Self { chance, queue, sent: 0, latest: None, lost, bottleneck }
    }

    fn take(&mut self, datagram: Datagram, conditions: &Conditions, now: Instant) {
        if conditions.cut || self.chance.happens(conditions.loss_percent) {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        let Some(passed) = self.bottleneck.pass(datagram.data.len(), conditions, now) else {
            self.lost.fetch_add(1, Relaxed);
            return;
        };
        let spread = 2.0 * self.chance.share();
        let travels =
            (conditions.delay + conditions.jitter.mul_f64(spread)).saturating_sub(conditions.jitter);
        let due = if self.chance.happens(conditions.reordered_percent) {
            passed + travels + HELD_BACK
        } else {
            let due = self.latest.map_or(passed + travels, |latest| latest.max(passed + travels));
            self.latest = Some(due);
            due
        };
        if self.queue.len() == UNDER_WAY {
            self.queue.pop_first();
            self.lost.fetch_add(1, Relaxed);
        }
        self.sent += 1;
        self.queue.insert((due, self.sent), datagram);
    }

    fn due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    fn give(&mut self, now: Instant) -> Option<Datagram> {
        self.queue.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }
}

/// webrtc's runtime, whose UDP sockets are on the network.
#[derive(Debug)]
struct Sockets {
    network: Network,
    inner: Arc<dyn Runtime>,
}

impl Sockets {
    fn wrap(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let local = socket.local_addr()?;
        let (outward, leaving) = mpsc::channel(AT_THE_DOOR);
        let (arriving, inward) = mpsc::channel(AT_THE_DOOR);
        let seed = self.network.seed.wrapping_add(self.network.sockets.fetch_add(1, Relaxed) << 32);
        let path = |direction: usize| {
            let bottleneck = self.network.bottlenecks[direction].clone();
            Path::new(seed.wrapping_add(direction as u64), self.network.lost.clone(), bottleneck)
        };
        let wire = Wire {
            socket,
            leaving,
            arriving,
            outward: path(0),
            inward: path(1),
            now: self.network.now.subscribe(),
            carried: self.network.carried.clone(),
        };
        tokio::spawn(wire.run(local));
        Ok(Arc::new(Socket { local, outward, inward: Mutex::new(inward) }))
    }
}

/// The task between webrtc and a socket; ends when webrtc has dropped its side.
struct Wire {
    socket: UdpSocket,
    leaving: mpsc::Receiver<Datagram>,
    arriving: mpsc::Sender<Datagram>,
    outward: Path,
    inward: Path,
    now: watch::Receiver<Now>,
    carried: Arc<AtomicU64>,
}

impl Wire {
    async fn run(mut self, local: SocketAddr) {
        let mut buffer = vec![0; LARGEST];
        let mut address = self.now.borrow().address;
        let mut watched = true;
        loop {
            let due = self.outward.due().into_iter().chain(self.inward.due()).min();
            tokio::select! {
                datagram = self.leaving.recv() => {
                    let Some(datagram) = datagram else { return };
                    let conditions = self.now.borrow().outward;
                    self.outward.take(datagram, &conditions, Instant::now());
                }
                Ok((length, from)) = self.socket.recv_from(&mut buffer) => {
                    let datagram = Datagram { address: from, data: buffer[..length].to_vec() };
                    let conditions = self.now.borrow().inward;
                    self.inward.take(datagram, &conditions, Instant::now());
                }
                () = at(due) => {}
                changed = self.now.changed(), if watched => {
                    watched = changed.is_ok();
                    let now = self.now.borrow_and_update().address;
                    if std::mem::replace(&mut address, now) != now {
                        self.move_house(local).await;
                    }
                }
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(datagram) = self.outward.give(now) {
            // A socket without room loses it, as any queue on the way may.
            let _ = self.socket.try_send_to(&datagram.data, datagram.address);
            self.carried.fetch_add(1, Relaxed);
        }
        while let Some(datagram) = self.inward.give(now) {
            let _ = self.arriving.try_send(datagram);
            self.carried.fetch_add(1, Relaxed);
        }
    }

    async fn move_house(&mut self, local: SocketAddr) {
        match UdpSocket::bind((local.ip(), 0)).await {
            Ok(socket) => self.socket = socket,
            Err(error) => tracing::warn!(%error, %local, "no other port"),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// webrtc's side of a socket.
#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    outward: mpsc::Sender<Datagram>,
    inward: Mutex<mpsc::Receiver<Datagram>>,
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes, {}", self.data.len(), self.address)
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let datagram = Datagram { address: transmit.destination, data: transmit.contents.to_vec() };
        // Full: lost, as in a socket of which nobody waits for room.
        let _ = self.outward.try_send(datagram);
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut inward = self.inward.lock().unwrap_or_else(PoisonError::into_inner);
        let Poll::Ready(datagram) = inward.poll_recv(cx) else { return Poll::Pending };
        let Some(datagram) = datagram else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        // As the kernel does: what does not fit is cut off.
        let length = datagram.data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram.data[..length]);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (datagram.address, length, length.max(1));
        Poll::Ready(Ok(1))
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for Sockets {
    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.wrap(socket)
    }

    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.inner.spawn(future)
    }

    fn spawn_reactor(&self, size: usize, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.inner.spawn_reactor(size, future)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.inner.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, remote: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.inner.connect_tcp(remote)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.inner.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.inner.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.inner.block_on(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_lost_as_was_said_and_always_the_same() {
        let lossy = Conditions { loss_percent: 10, ..Default::default() };

        let (once, again) = (travel(&lossy, 2_000), travel(&lossy, 2_000));

        assert!((1_740..1_860).contains(&once.len()), "{}", once.len());
        assert!(once == again, "the same are lost");
        assert!(travel(&Conditions { cut: true, ..Default::default() }, 100).is_empty());
    }

    #[test]
    fn jitter_keeps_the_order_and_stays_within_its_bounds() {
        let ms = Duration::from_millis;
        let late = Conditions { delay: ms(100), jitter: ms(30), ..Default::default() };

        let arrived = travel(&late, 1_000);

        assert_eq!(arrived.len(), 1_000);
        assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order");
        let took = |(number, at): &(usize, Duration)| *at - ms(*number as u64);
        assert!(arrived.iter().all(|one| (ms(70)..=ms(130)).contains(&took(one))));
        assert!(
            arrived.iter().any(|one| took(one) < ms(85)) || arrived.iter().any(|one| took(one) > ms(120))
        );
    }

    #[test]
    fn those_that_are_held_back_are_overtaken() {
        let arrived = travel(&Conditions { reordered_percent: 10, ..Default::default() }, 1_000);

        let overtaken = arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();

        assert_eq!(arrived.len(), 1_000);
        assert!((40..160).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn what_is_too_much_for_a_narrow_way_waits_its_turn_or_is_lost() {
        // A datagram is 36 bytes with its headers: 288 bits, one a millisecond, twice as many as pass.
        let narrow = Conditions { limit_kbps: 144, queue: Duration::from_millis(100), ..Default::default() };

        let arrived = travel(&narrow, 1_000);

        assert!((540..560).contains(&arrived.len()), "{}", arrived.len());
        let took = |(number, at): &(usize, Duration)| *at - Duration::from_millis(*number as u64);
        assert!(arrived.iter().all(|one| took(one) <= Duration::from_millis(103)));
        assert!(arrived.windows(2).all(|pair| pair[1].1 - pair[0].1 >= Duration::from_millis(2)));
    }

    #[test]
    fn in_a_full_queue_the_oldest_goes() {
        let slow = Conditions { delay: Duration::from_secs(3_600), ..Default::default() };

        let arrived = travel(&slow, UNDER_WAY + 3);

        assert_eq!(arrived.len(), UNDER_WAY);
        assert_eq!(arrived[0].0, 3);
    }

    /// Sends so many, one a millisecond: which arrive, and when.
    fn travel(conditions: &Conditions, count: usize) -> Vec<(usize, Duration)> {
        let start = Instant::now();
        let mut path = Path::new(7, Arc::default(), Bottleneck::default());
        let mut arrived = Vec::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        for number in 0..count {
            let now = start + Duration::from_millis(number as u64);
            let data = number.to_le_bytes().to_vec();
            path.take(Datagram { address, data }, conditions, now);
        }
        while let Some(due) = path.due() {
            let datagram = path.give(due).expect("it is due");
            let number = usize::from_le_bytes(datagram.data.try_into().expect("as it was sent"));
            arrived.push((number, due - start));
        }
        arrived
    }
}
