//! The operator's connection to the broker: one session, no reconnecting; what goes wrong ends the command.

use super::Args;
use crate::link::mqtt;
use crate::link::tls::Tls;
use crate::secret::Secret;
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

const MAX_PACKET: u32 = 256 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ACK_LIMIT: Duration = Duration::from_secs(10);
const COMMAND_EXPIRY_S: u32 = 30;
/// Retained messages come at once after the SUBACK, and MQTT does not say which is the last: this silence does.
const QUIET: Duration = Duration::from_millis(400);
/// Packets between the connection and the command. When it is full the socket is not read.
const QUEUE: usize = 256;

/// A session with the broker.
pub struct Operator {
    client: AsyncClient,
    packets: mpsc::Receiver<Result<Packet, ConnectionError>>,
    /// Messages that came while an acknowledgement was waited for. Bounded by that wait.
    messages: VecDeque<Message>,
    prefix: String,
    address: String,
    /// The client id.
    id: String,
    /// Answers come to `{kiosk}/reply/{mailbox}`. A user name could hold characters that kiosks refuse there.
    mailbox: String,
}

/// A message below the prefix.
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub correlation: Option<Bytes>,
}

impl Operator {
    /// # Errors
    /// The broker is not reached within five seconds, or refuses the session.
    pub async fn connect(args: &Args) -> anyhow::Result<Self> {
        let broker = match &args.password {
            Some(password) => args.broker.check_with(Some(password.clone()))?,
            None => args.broker.check()?,
        };
        ensure!(broker.password.is_none() || args.username.is_some(), "a password needs a --username");
        let mailbox = format!("ctl-{:08x}", rand::random::<u32>());
        let id = args.username.clone().unwrap_or_else(|| mailbox.clone());
        let mut options = MqttOptions::new(&id, broker.host, broker.port);
        options.set_max_packet_size(Some(MAX_PACKET)).set_outgoing_inflight_upper_limit(32);
        if let Some(username) = &args.username {
            options.set_credentials(username, broker.password.as_ref().map_or("", Secret::reveal));
        }
        if let Some(tls) = &broker.tls {
            let tls = Tls::load(tls.ca_file.as_deref(), tls.identity.as_ref())?;
            options.set_transport(mqtt::transport(&tls));
        }
        let (client, event_loop) = AsyncClient::new(options, 32);
        let (sender, packets) = mpsc::channel(QUEUE);
        tokio::spawn(forward(event_loop, sender));
        let prefix = args.prefix.trim_end_matches('/').to_owned();
        let address = args.broker.address.clone();
        let mut operator = Self { client, packets, messages: VecDeque::new(), prefix, address, id, mailbox };
        let connected =
            timeout(CONNECT_LIMIT, operator.wait_for(|packet| matches!(packet, Packet::ConnAck(_))));
        let connected =
            connected.await.unwrap_or_else(|_| Err(anyhow!("no answer within {CONNECT_LIMIT:?}")));
        connected.with_context(|| format!("connect to the broker at {}", operator.address))?;
        Ok(operator)
    }

    /// Subscribes below the prefix.
    pub async fn subscribe(&mut self, topics: &[String]) -> anyhow::Result<()> {
        let filters = topics.iter().map(|topic| Filter::new(self.full(topic), QoS::AtLeastOnce));
        self.client.subscribe_many(filters).await.context("subscribe")?;
        let Packet::SubAck(ack) = self.acknowledgement(|packet| matches!(packet, Packet::SubAck(_))).await?
        else {
            bail!("the broker did not acknowledge the subscription");
        };
        for (topic, code) in std::iter::zip(topics, ack.return_codes) {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                bail!("the broker does not let {} read {topic}: {code:?}", self.id);
            }
        }
        Ok(())
    }

    /// What is retained, after a subscription: all that comes until it is quiet.
    pub async fn retained(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        while let Some(message) = self.next(Instant::now() + QUIET).await? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// The next message; `None` if none comes before the deadline.
    pub async fn next(&mut self, deadline: Instant) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            let Ok(packet) = timeout_at(deadline, self.packets.recv()).await else { return Ok(None) };
            self.keep(self.received(packet)?);
        }
    }

    /// Publishes a document or, empty, clears it; waits until the broker has it.
    pub async fn publish_retained(&mut self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        self.publish(topic, true, payload, PublishProperties::default()).await
    }

    /// Sends a command and answers the token that its reply will carry. Subscribe to [`Operator::reply_topic`] before.
    pub async fn command(&mut self, kiosk: &str, verb: &str, payload: Vec<u8>) -> anyhow::Result<Bytes> {
        let token = Bytes::copy_from_slice(&rand::random::<[u8; 8]>());
        let properties = PublishProperties {
            response_topic: Some(self.full(&self.reply_topic(kiosk))),
            correlation_data: Some(token.clone()),
            message_expiry_interval: Some(COMMAND_EXPIRY_S),
            ..Default::default()
        };
        self.publish(&format!("{kiosk}/cmd/{verb}"), false, payload, properties).await?;
        Ok(token)
    }

    /// Where a kiosk answers this operator.
    pub fn reply_topic(&self, kiosk: &str) -> String {
        format!("{kiosk}/reply/{}", self.mailbox)
    }

    async fn publish(
        &mut self,
        topic: &str,
        retain: bool,
        payload: Vec<u8>,
        properties: PublishProperties,
    ) -> anyhow::Result<()> {
        let full = self.full(topic);
        let sent =
            self.client.publish_with_properties(full, QoS::AtLeastOnce, retain, payload, properties).await;
        sent.with_context(|| format!("publish {topic}"))?;
        let Packet::PubAck(ack) = self.acknowledgement(|packet| matches!(packet, Packet::PubAck(_))).await?
        else {
            bail!("the broker did not acknowledge {topic}");
        };
        match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            reason => bail!("the broker does not let {} write {topic}: {reason:?}", self.id),
        }
    }

    async fn acknowledgement(&mut self, wanted: impl Fn(&Packet) -> bool) -> anyhow::Result<Packet> {
        let address = self.address.clone();
        let acknowledged = timeout(ACK_LIMIT, self.wait_for(wanted)).await;
        acknowledged.with_context(|| format!("the broker at {address} does not acknowledge"))?
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Packet) -> bool) -> anyhow::Result<Packet> {
        loop {
            let packet = self.packets.recv().await;
            let packet = self.received(packet)?;
            if wanted(&packet) {
                return Ok(packet);
            }
            self.keep(packet);
        }
    }

    fn received(&self, packet: Option<Result<Packet, ConnectionError>>) -> anyhow::Result<Packet> {
        match packet {
            Some(Ok(packet)) => Ok(packet),
            Some(Err(error)) => {
                let why = mqtt::failure(&error).map_or_else(|| anyhow!(error), |why| anyhow!("TLS: {why}"));
                Err(why.context(format!("broker {}", self.address)))
            }
            None => bail!("the connection to the broker at {} ended", self.address),
        }
    }

    fn keep(&mut self, packet: Packet) {
        if let Packet::Publish(publish) = packet {
            self.messages.extend(self.message(publish));
        }
    }

    fn message(&self, publish: Publish) -> Option<Message> {
        let topic = std::str::from_utf8(&publish.topic).ok()?;
        let topic = topic.strip_prefix(&self.prefix)?.strip_prefix('/')?.to_owned();
        let correlation = publish.properties.and_then(|properties| properties.correlation_data);
        Some(Message { topic, payload: publish.payload, correlation })
    }

    fn full(&self, topic: &str) -> String {
        format!("{}/{topic}", self.prefix)
    }
}

/// Runs the connection until it breaks or nobody listens. Waiting for the command is right here: there is one.
async fn forward(mut event_loop: EventLoop, packets: mpsc::Sender<Result<Packet, ConnectionError>>) {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(packet)) => {
                if packets.send(Ok(packet)).await.is_err() {
                    return;
                }
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => {
                // Polling on would connect again.
                let _ = packets.send(Err(error)).await;
                return;
            }
        }
    }
}
