//! The connection to the broker: one task, bounded queues, back-off for ever.
//!
//! ```text
//!            outgoing (bounded)        Outbox            window of 16
//!   kiosk ──────────────────────► newest of a topic ──────────────────► rumqttc ──► broker
//!         ◄────────────────────── Inbox ◄───────────────────────────── rumqttc ◄──
//!            events (bounded)      full: the socket is not read
//! ```
//!
//! The task never waits for the kiosk: `outgoing` is always taken, and what `events` has no room for waits in the
//! inbox. When that is full too, the socket is not read: the broker holds the messages (its queue, TCP's window), so
//! none is lost in silence. A kiosk that does not listen for a minute and a half is cut off by the broker, its last
//! will says so, and after the next CONNACK the retained documents come anew.

mod inbox;
mod outbox;
mod tls;

use crate::link::tls::Tls;
use crate::room::Publication;
use crate::room::fault::{Cause, Code};
use crate::room::message::{Incoming, Subscription};
use crate::secret::Secret;
use inbox::Inbox;
use outbox::Outbox;
use rand::Rng;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet,
    PubAck, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use std::collections::BTreeSet;
use std::time::Duration;
pub use tls::{failure, transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// The largest packet either way: a snapshot of 192 KiB and its properties fit.
const MAX_PACKET: u32 = 256 << 10;
/// What a PUBLISH has beside topic, payload and correlation data, at most.
const PUBLISH_OVERHEAD: usize = 64;
/// Unacknowledged packets of the client (v5 of rumqttc reserves 13.5 MB without a limit).
const INFLIGHT_LIMIT: u16 = 32;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const SESSION_EXPIRY_S: u32 = 10;
const WILL_DELAY_S: u32 = 5;
const BACKOFF: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);
/// A session this old was a success: the back-off starts anew. A younger one may be one that the broker ends at once.
const SETTLED: Duration = Duration::from_secs(10);
/// How long who was taken over leaves the session to the other machine.
const TAKEN_OVER_PAUSE: Duration = Duration::from_secs(600);
/// How long the goodbye waits for acknowledgements.
const DRAIN: Duration = Duration::from_secs(2);
/// From CONNECT to SUBACK.
const UP_LIMIT: Duration = Duration::from_secs(10);
/// Messages kept that came before the SUBACK; later ones are dropped.
const EARLY: usize = 256;
/// Refused topics remembered, so that each is told once a session.
const DENIED: usize = 64;

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    /// Client id and, with a password, the user name; without one it may be left to the client certificate.
    pub id: String,
    pub password: Option<Secret>,
    /// As `parlor/1`, without a slash at the end.
    pub prefix: String,
    /// `{id}/state` when the connection dies.
    pub will: Publication,
    /// Made on every CONNACK, in one SUBSCRIBE.
    pub subscriptions: Vec<Subscription>,
}

/// What the broker's side says.
#[derive(Clone, Debug)]
pub enum MqttEvent {
    /// CONNACK and the SUBACK have come. Comes before every message of the session.
    Up,
    /// The session is gone or cannot be made; said once until the code changes or the session was up again.
    Down {
        code: Code,
        cause: Cause,
    },
    /// A topic (below the prefix) that the broker's access control refuses; the connection stays. Once a session.
    Denied {
        topic: String,
    },
    Message(Incoming),
}

/// Keeps the session with the broker until `outgoing` is closed, then says goodbye (clean DISCONNECT, so
/// that the will is not sent) after all that was queued has been acknowledged or two seconds have passed.
///
/// What happens to publications while the broker is away: [`outbox`].
pub async fn run(settings: Settings, outgoing: mpsc::Receiver<Publication>, events: mpsc::Sender<MqttEvent>) {
    run_after(Duration::ZERO, settings, outgoing, events).await;
}

/// [`run`] with a pause before the first attempt, in which publications are taken as while the broker is away.
pub async fn run_after(
    mut pause: Duration,
    settings: Settings,
    outgoing: mpsc::Receiver<Publication>,
    events: mpsc::Sender<MqttEvent>,
) {
    let mut link = Link {
        settings,
        outgoing,
        outbox: Outbox::new(),
        inbox: Inbox::new(events),
        started: Instant::now(),
        goodbye: None,
        told: None,
    };
    let mut backoff = Backoff::new();
    loop {
        if link.pause(pause).await.is_none() {
            return;
        }
        let Some(loss) = link.session().await else { return };
        if loss.settled {
            backoff = Backoff::new();
        }
        pause = match loss.code {
            Code::BrokerTakenOver => TAKEN_OVER_PAUSE,
            _ => backoff.next(rand::rng().random()),
        };
        tracing::warn!(code = ?loss.code, why = loss.cause.errno, ?pause, "broker lost");
        link.lost(loss);
        link.inbox.deliver();
    }
}

struct Link {
    settings: Settings,
    outgoing: mpsc::Receiver<Publication>,
    outbox: Outbox,
    inbox: Inbox,
    started: Instant,
    /// `outgoing` is closed; the time when waiting for acknowledgements ends.
    goodbye: Option<Instant>,
    /// The code of the last `Down`, until the next `Up`.
    told: Option<Code>,
}

/// Why a session ended.
struct Loss {
    code: Code,
    cause: Cause,
    /// It was up for a while.
    settled: bool,
}

/// A connection from CONNECT to its end.
struct Session {
    client: AsyncClient,
    /// When it came up; before that, messages wait in `early`.
    up: Option<Instant>,
    early: Vec<Incoming>,
    /// The largest packet that the broker takes.
    max_packet: usize,
    denied: BTreeSet<String>,
}

impl Link {
    /// One session: connect, subscribe, carry messages both ways. `None` when the goodbye has been said.
    async fn session(&mut self) -> Option<Loss> {
        // A new client each time: the old one's packet ids, collisions and pending requests end with its session
        // (Clean Start), and our own outbox sends again.
        let (client, event_loop) = AsyncClient::new(self.options(), usize::from(INFLIGHT_LIMIT) + 2);
        let mut session = Session {
            client,
            up: None,
            early: Vec::new(),
            max_packet: MAX_PACKET as usize,
            denied: BTreeSet::new(),
        };
        // `EventLoop::poll` must not be cancelled half-way (a packet would be lost), so it is kept across the turns.
        let mut polling = Box::pin(poll(event_loop));
        let limit = Instant::now() + UP_LIMIT;
        loop {
            self.send_waiting(&mut session);
            self.inbox.deliver();
            if self.goodbye.is_some() && session.up.is_some() && self.outbox.is_empty() {
                break;
            }
            let deadline = self.goodbye;
            let readable = !self.inbox.is_full();
            tokio::select! {
                (event_loop, event) = &mut polling, if readable => match event {
                    Ok(event) => {
                        polling.set(poll(event_loop));
                        self.handle(event, &mut session);
                    }
                    Err(error) => return Some(self.end(event_loop, &error, &mut session)),
                },
                () = self.serve() => {}
                () = sleep_until(limit), if session.up.is_none() && readable => {
                    let cause = self.cause("SUBSCRIBE", format!("no answer within {UP_LIMIT:?}"));
                    return Some(Loss { code: Code::BrokerUnreachable, cause, settled: false });
                }
                () = wait_until(deadline) => break,
            }
        }
        // DISCONNECT, so that the will is not sent; then the broker closes, which is an error to the client. Polling
        // on after that would connect anew.
        let goodbye = async {
            while let (event_loop, Ok(_)) = polling.as_mut().await {
                polling.set(poll(event_loop));
            }
        };
        if session.client.try_disconnect().is_err() || timeout(DRAIN / 2, goodbye).await.is_err() {
            tracing::warn!("left without a proper goodbye, the will is sent");
        }
        None
    }

    /// Takes what was read before the connection broke, and says why it did.
    fn end(&mut self, mut event_loop: EventLoop, error: &ConnectionError, session: &mut Session) -> Loss {
        for event in std::mem::take(&mut event_loop.state.events) {
            self.handle(event, session);
        }
        let (code, op) = diagnose(error);
        let cause = self.cause(op, tls::failure(error).unwrap_or_else(|| error.to_string()));
        Loss { code, cause, settled: session.up.is_some_and(|up| up.elapsed() >= SETTLED) }
    }

    /// What is done whether there is a broker or not: takes one publication in, or hands one event over. Can be
    /// cancelled without a loss.
    async fn serve(&mut self) {
        tokio::select! {
            publication = self.outgoing.recv(), if self.goodbye.is_none() => match publication {
                Some(publication) => self.push(publication),
                None => self.goodbye = Some(Instant::now() + DRAIN),
            },
            () = self.inbox.hand_over(), if !self.inbox.is_empty() => {}
            else => std::future::pending().await,
        }
    }

    /// Waits before the next attempt. `None` if the kiosk ends meanwhile: there is no session to say goodbye to.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let end = Instant::now() + pause;
        while self.goodbye.is_none() {
            tokio::select! {
                () = sleep_until(end) => return Some(()),
                () = self.serve() => {}
            }
        }
        None
    }

    fn push(&mut self, publication: Publication) {
        let topic = publication.topic.clone();
        if self.size(&publication) > MAX_PACKET as usize {
            tracing::error!(topic, bytes = publication.payload.len(), "too large for a packet, dropped");
            return;
        }
        let lost = self.outbox.push(publication, self.started.elapsed());
        if lost > 0 {
            tracing::debug!(topic, lost, "not sent");
        }
    }

    /// Gives the client what the outbox lets go.
    fn send_waiting(&mut self, session: &mut Session) {
        while let Some(publication) = self.outbox.next(self.started.elapsed()) {
            if self.size(&publication) > session.max_packet {
                // The client would end the connection over it, again and again.
                self.outbox.refused();
                tracing::warn!(
                    topic = publication.topic,
                    limit = session.max_packet,
                    "too large for the broker"
                );
                self.deny(publication.topic, session);
                continue;
            }
            let (topic, properties) = (self.full_topic(&publication.topic), properties(&publication));
            let qos = if publication.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let payload = publication.payload;
            let taken = session.client.try_publish_with_properties(
                topic,
                qos,
                publication.retained,
                payload,
                properties,
            );
            if taken.is_err() {
                // Not for lack of room, the window is smaller than the queue: the topic is none (a wildcard in it).
                tracing::error!(topic = publication.topic, "not a topic, dropped");
                self.outbox.refused();
            }
        }
    }

    fn handle(&mut self, event: Event, session: &mut Session) {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                if let Some(limit) = ack.properties.and_then(|properties| properties.max_packet_size) {
                    session.max_packet = session.max_packet.min(limit as usize);
                }
                self.subscribe(session);
            }
            Event::Incoming(Packet::SubAck(ack)) => self.subscribed(ack, session),
            Event::Incoming(Packet::PubAck(ack)) => self.acknowledged(&ack, session),
            Event::Incoming(Packet::Publish(publish)) => self.received(publish, session),
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.outbox.written(packet_id),
            _ => {}
        }
    }

    /// One SUBSCRIBE for all, so that one SUBACK answers all.
    fn subscribe(&mut self, session: &mut Session) {
        let filters = self.settings.subscriptions.iter().map(|subscription| Filter {
            path: self.full_topic(&subscription.topic),
            qos: QoS::AtLeastOnce,
            nolocal: false,
            // As it was published, so that a retained command is known as one.
            preserve_retain: true,
            retain_forward_rule: match subscription.retain_handling_never {
                true => RetainForwardRule::Never,
                false => RetainForwardRule::OnEverySubscribe,
            },
        });
        if self.settings.subscriptions.is_empty() {
            self.came_up(session);
        } else if session.client.try_subscribe_many(filters).is_err() {
            tracing::error!(topics = ?self.settings.subscriptions, "not topic filters, nothing is subscribed");
            self.came_up(session);
        }
    }

    fn subscribed(&mut self, ack: SubAck, session: &mut Session) {
        let refused: Vec<String> = std::iter::zip(&self.settings.subscriptions, &ack.return_codes)
            .filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)))
            .map(|(subscription, _)| subscription.topic.clone())
            .collect();
        self.came_up(session);
        for topic in refused {
            self.deny(topic, session);
        }
    }

    fn came_up(&mut self, session: &mut Session) {
        tracing::info!(broker = self.address(), "broker up");
        session.up = Some(Instant::now());
        self.told = None;
        self.outbox.up();
        self.inbox.push(MqttEvent::Up);
        for message in session.early.drain(..) {
            self.inbox.push(MqttEvent::Message(message));
        }
    }

    fn acknowledged(&mut self, ack: &PubAck, session: &mut Session) {
        let Some(publication) = self.outbox.acknowledged(ack.pkid) else { return };
        match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {}
            PubAckReason::NotAuthorized => self.deny(publication.topic, session),
            reason => tracing::warn!(topic = publication.topic, ?reason, "the broker refused a message"),
        }
    }

    fn received(&mut self, publish: Publish, session: &mut Session) {
        let Some(message) = self.incoming(publish) else { return };
        if session.up.is_some() {
            self.inbox.push(MqttEvent::Message(message));
        } else if session.early.len() < EARLY {
            // A broker may send retained messages before the SUBACK (MQTT 5 section 3.8.4).
            session.early.push(message);
        } else {
            tracing::warn!(topic = message.topic, "dropped: {EARLY} messages came before the SUBACK");
        }
    }

    /// The message as the room knows it; `None` if it lies outside the prefix.
    fn incoming(&self, publish: Publish) -> Option<Incoming> {
        let topic = self.below_prefix(std::str::from_utf8(&publish.topic).ok()?)?.to_owned();
        let properties = publish.properties.unwrap_or_default();
        let response_topic =
            properties.response_topic.and_then(|topic| self.below_prefix(&topic).map(str::to_owned));
        Some(Incoming {
            topic,
            payload: publish.payload,
            retained: publish.retain,
            response_topic,
            correlation: properties.correlation_data,
        })
    }

    fn deny(&mut self, topic: String, session: &mut Session) {
        if session.denied.len() < DENIED && session.denied.insert(topic.clone()) {
            tracing::warn!(topic, "the broker denies this topic");
            self.inbox.push(MqttEvent::Denied { topic });
        }
    }

    fn lost(&mut self, loss: Loss) {
        self.outbox.down();
        if self.told.replace(loss.code) != Some(loss.code) {
            self.inbox.push(MqttEvent::Down { code: loss.code, cause: loss.cause });
        }
    }

    fn cause(&self, op: &str, error: String) -> Cause {
        Cause { op: op.into(), errno: Some(error), target: Some(self.address()) }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    fn options(&self) -> MqttOptions {
        let settings = &self.settings;
        let mut options = MqttOptions::new(&settings.id, &settings.host, settings.port);
        let mut connect = ConnectProperties::new();
        connect.session_expiry_interval = Some(SESSION_EXPIRY_S);
        connect.max_packet_size = Some(MAX_PACKET);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(true)
            .set_connect_properties(connect)
            .set_outgoing_inflight_upper_limit(INFLIGHT_LIMIT)
            .set_last_will(self.will());
        if let Some(password) = &settings.password {
            options.set_credentials(&settings.id, password.reveal());
        }
        if let Some(tls) = &settings.tls {
            options.set_transport(transport(tls));
        }
        options
    }

    fn will(&self) -> LastWill {
        let will = &self.settings.will;
        let properties = LastWillProperties {
            delay_interval: Some(WILL_DELAY_S),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let topic = self.full_topic(&will.topic);
        LastWill::new(topic, will.payload.to_vec(), QoS::AtLeastOnce, will.retained, Some(properties))
    }

    fn full_topic(&self, topic: &str) -> String {
        format!("{}/{topic}", self.settings.prefix)
    }

    fn below_prefix<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.settings.prefix)?.strip_prefix('/')
    }

    /// The publication's size as a packet, at most.
    fn size(&self, publication: &Publication) -> usize {
        let correlation = publication.correlation.as_ref().map_or(0, bytes::Bytes::len);
        let topic = self.settings.prefix.len() + 1 + publication.topic.len();
        publication.payload.len() + topic + correlation + PUBLISH_OVERHEAD
    }
}

/// Doubles from half a second to half a minute; a quarter up or down by chance, so that a thousand kiosks do not
/// come back at once.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: *BACKOFF.start() }
    }

    /// The next pause; `chance` is in 0..1.
    fn next(&mut self, chance: f64) -> Duration {
        let pause = self.next.mul_f64(0.75 + 0.5 * chance);
        self.next = (self.next * 2).min(*BACKOFF.end());
        pause.clamp(*BACKOFF.start(), *BACKOFF.end())
    }
}

async fn poll(mut event_loop: EventLoop) -> (EventLoop, Result<Event, ConnectionError>) {
    let event = event_loop.poll().await;
    (event_loop, event)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn properties(publication: &Publication) -> PublishProperties {
    PublishProperties {
        message_expiry_interval: publication.expiry_s,
        correlation_data: publication.correlation.clone(),
        ..Default::default()
    }
}

/// What the end of a connection means, and the step that failed.
fn diagnose(error: &ConnectionError) -> (Code, &'static str) {
    use ConnectReturnCode as Refusal;
    match error {
        error if tls::failure(error).is_some() => (Code::BrokerTls, "tls"),
        ConnectionError::ConnectionRefused(
            Refusal::BadUserNamePassword
            | Refusal::NotAuthorized
            | Refusal::BadAuthenticationMethod
            | Refusal::ClientIdentifierNotValid
            | Refusal::BadClientId
            | Refusal::Banned,
        ) => (Code::BrokerAuth, "CONNECT"),
        ConnectionError::ConnectionRefused(_) | ConnectionError::NotConnAck(_) => {
            (Code::BrokerUnreachable, "CONNECT")
        }
        ConnectionError::Io(_) | ConnectionError::Timeout(_) => (Code::BrokerUnreachable, "connect"),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            // mosquitto 2.0 leaves the (empty) properties out, which MQTT 5 section 3.14.2.2.1 allows and rumqttc 0.25
            // cannot read: there the room must tell by its own `state`.
            DisconnectReasonCode::SessionTakenOver => (Code::BrokerTakenOver, "DISCONNECT"),
            DisconnectReasonCode::NotAuthorized => (Code::BrokerAuth, "DISCONNECT"),
            _ => (Code::BrokerUnreachable, "DISCONNECT"),
        },
        _ => (Code::BrokerUnreachable, "session"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_from_half_a_second_and_stays_at_half_a_minute() {
        let mut backoff = Backoff::new();

        let pauses: Vec<u128> = (0..9).map(|_| backoff.next(0.5).as_millis()).collect();

        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn chance_never_takes_the_back_off_out_of_its_bounds() {
        for chance in [0.0, 0.999] {
            let mut backoff = Backoff::new();

            assert!((0..20).all(|_| BACKOFF.contains(&backoff.next(chance))));
        }
    }
}
