// A browser as a member of a room: takes `desired` documents, signals over MQTT, sends its camera and its
// microphone to every member, shows and hears theirs. Of two members the one with the smaller id makes every offer.

const CONNECT_TIME = 3000; // ms, as the kiosk's
const BACK_OFF = [500, 30000]; // ms, growing twofold

export class Member {
  /** `mqtt` is the broker's WebSocket URL, `stream` what this member sends. */
  constructor({ url, prefix, id, stream }) {
    Object.assign(this, { prefix, id, stream, room: null, peers: new Map(), log: [] });
    this.broker = mqtt.connect(url, { protocolVersion: 5, clientId: id, username: id, clean: true });
    this.broker.on('connect', () => {
      this.broker.subscribe([`${prefix}/${id}/desired`, `${prefix}/${id}/signal/+`], { qos: 1 }, () => {
        for (const peer of this.peers.values()) peer.start();
      });
    });
    this.broker.on('message', (topic, payload) => this.hear(topic, payload.toString()));
  }

  hear(topic, text) {
    const [part, from] = topic.slice(this.prefix.length + this.id.length + 2).split('/');
    const message = text === '' ? null : JSON.parse(text);
    if (part === 'desired') this.follow(message);
    else if (message.room === this.room) this.peers.get(from)?.hear(message);
  }

  /** Connects to whom the document newly lists and leaves whom it lists no more; `null`: leaves the room. */
  follow(document) {
    const ids = (document?.members ?? []).map((member) => member.openid ?? member);
    const others = ids.includes(this.id) ? ids.filter((id) => id !== this.id) : [];
    for (const [id, peer] of this.peers) {
      if (!others.includes(id) || document.room !== this.room) {
        peer.leave();
        this.peers.delete(id);
      }
    }
    this.room = document?.room ?? null;
    for (const id of others) {
      if (!this.peers.has(id)) {
        this.peers.set(id, new Peer(this, id));
        this.peers.get(id).start();
      }
    }
  }

  signal(to, body) {
    this.log.push(`to ${to}: ${body.kind}`);
    this.broker.publish(`${this.prefix}/${to}/signal/${this.id}`, JSON.stringify({ room: this.room, ...body }), {
      qos: 1,
      properties: { messageExpiryInterval: 30 },
    });
  }
}

export class Peer {
  constructor(member, id) {
    Object.assign(this, { member, id, session: null, seq: 0, heard: new Map(), early: [], attempts: 0 });
    this.offers = member.id < id;
    this.video = document.body.appendChild(document.createElement('video'));
    Object.assign(this.video, { autoplay: true, muted: true, playsInline: true });
  }

  start() {
    this.send('hello', {}, this.connected ? this.session : random());
    if (this.offers && !this.connected) this.offer();
  }

  get connected() {
    return this.connection?.connectionState === 'connected';
  }

  send(kind, content = {}, session = this.session) {
    this.member.signal(this.id, { session, seq: ++this.seq, kind, ...content });
  }

  hear({ session, seq, kind, sdp, candidate }) {
    if (seq <= (this.heard.get(session) ?? 0)) return; // QoS 1 repeats
    this.heard.set(session, seq);
    this.member.log.push(`from ${this.id}: ${kind}`);
    if (kind === 'hello' && this.offers && session !== this.session) this.offer();
    else if (kind === 'offer' && !this.offers) this.answer(session, sdp);
    else if (session !== this.session) return; // of a session that is no more
    else if (kind === 'answer') this.describe({ type: 'answer', sdp });
    else if (kind === 'candidate') this.take(candidate);
    else if (kind === 'bye') this.close();
  }

  async offer() {
    const connection = this.open(random());
    const wait = CONNECT_TIME + Math.min(BACK_OFF[0] * 2 ** this.attempts++, BACK_OFF[1]);
    this.timer = setTimeout(() => this.connected || this.offer(), wait);
    await connection.setLocalDescription();
    if (connection === this.connection) this.send('offer', { sdp: connection.localDescription.sdp });
  }

  async answer(session, sdp) {
    const connection = this.open(session);
    await this.describe({ type: 'offer', sdp });
    await connection.setLocalDescription();
    if (connection === this.connection) this.send('answer', { sdp: connection.localDescription.sdp });
  }

  async describe(description) {
    const connection = this.connection;
    await connection.setRemoteDescription(description);
    for (const candidate of this.early.splice(0)) await connection.addIceCandidate(candidate);
  }

  take(candidate) {
    if (this.connection.remoteDescription) this.connection.addIceCandidate(candidate).catch(() => {});
    else this.early.push(candidate);
  }

  open(session) {
    this.close();
    const connection = new RTCPeerConnection();
    Object.assign(this, { session, connection, early: [] });
    for (const track of this.member.stream.getTracks()) connection.addTrack(track, this.member.stream);
    connection.onicecandidate = ({ candidate }) => {
      if (candidate && connection === this.connection) this.send('candidate', { candidate: candidate.toJSON() });
    };
    connection.ontrack = ({ track }) => {
      if (track.kind === 'video') this.video.srcObject = new MediaStream([track]);
      else this.ear = new window.Ear(track);
    };
    connection.onconnectionstatechange = () => {
      this.member.log.push(`${this.id}: ${connection.connectionState}`);
      if (connection !== this.connection) return;
      if (connection.connectionState === 'connected') this.attempts = 0;
      if (connection.connectionState === 'failed') this.start();
    };
    return connection;
  }

  close() {
    clearTimeout(this.timer);
    this.connection?.close();
    this.ear?.close();
    this.connection = this.ear = null;
    this.session = null;
  }

  leave() {
    if (this.session) this.send('bye');
    this.close();
    this.video.remove();
  }

  /** What has been received of the other side's picture and sound so far. */
  async received() {
    const report = this.connection ? [...(await this.connection.getStats()).values()] : [];
    const video = report.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    const sound = report.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'audio');
    const codec = report.find((entry) => entry.id === video?.codecId);
    return {
      session: this.session,
      state: this.connection?.connectionState,
      codec: codec?.mimeType,
      frames: video?.framesDecoded ?? 0,
      keyframes: video?.keyFramesDecoded ?? 0,
      width: this.video.videoWidth,
      height: this.video.videoHeight,
      sound: sound && {
        codec: report.find((entry) => entry.id === sound.codecId)?.mimeType,
        packets: sound.packetsReceived,
        lost: sound.packetsLost,
        concealed: sound.concealedSamples,
        samples: sound.totalSamplesReceived,
        delay: sound.jitterBufferDelay / sound.jitterBufferEmittedCount, // s
        playout: [video, sound].map((entry) => entry?.estimatedPlayoutTimestamp), // ms on the sender's clock
        ...this.ear?.hear(),
      },
    };
  }
}

/** 16 random bytes in hex. */
function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
