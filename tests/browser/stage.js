// What the tests of this folder play on: a real mosquitto, a real Chromium with a pretended camera, real kiosks on
// pretended devices; everything on the loopback.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { chromium } from 'playwright-core';

const HERE = import.meta.dirname;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const MOSQUITTO = process.env.MOSQUITTO ?? '/usr/sbin/mosquitto';
const PARLOR = process.env.PARLOR ?? join(HERE, '../../target/debug/parlor');
export const PREFIX = 'parlor/1';
export const SCREEN = { width: 1280, height: 720 };
/** Longer than anything takes on a busy machine, in ms. */
const LIMIT = 60_000;

/** Answers what `probe` answers as soon as that is not falsy. */
export async function until(what, probe) {
  const start = Date.now();
  let last;
  while (Date.now() - start < LIMIT) {
    if ((last = await probe())) return last;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not within ${LIMIT} ms: ${what}`);
}

export class Stage {
  static async open() {
    const stage = new Stage();
    stage.directory = mkdtempSync(join(tmpdir(), 'parlor-browser-'));
    stage.children = [];
    // Whatever happens, nothing is left running.
    process.on('exit', () => stage.children.forEach((child) => child.kill('SIGKILL')));
    try {
      await stage.startBroker();
      await stage.startPages();
      await stage.startChromium();
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async close() {
    await this.browser?.close();
    this.pages?.close();
    await this.controller?.endAsync(true);
    for (const child of this.children.reverse()) {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = once(child, 'exit');
        child.kill('SIGTERM');
        const patience = setTimeout(() => child.kill('SIGKILL'), 10_000);
        await ended;
        clearTimeout(patience);
      }
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  async startBroker() {
    this.port = await freePort();
    this.webPort = await freePort();
    const configuration = this.write(
      'mosquitto.conf',
      `listener ${this.port} 127.0.0.1\nlistener ${this.webPort} 127.0.0.1\nprotocol websockets\n` +
        'allow_anonymous true\npersistence false\n',
    );
    this.start(MOSQUITTO, ['-c', configuration]);
    await until('mosquitto listens', () => accepts(this.port));
    this.messages = new Map();
    this.replies = new Map();
    this.requests = 0;
    this.controller = await mqtt.connectAsync(`mqtt://127.0.0.1:${this.port}`, { protocolVersion: 5, clientId: 'controller' });
    this.controller.on('message', (topic, payload, { properties }) => {
      this.messages.set(topic, payload);
      const correlation = properties?.correlationData?.toString();
      if (correlation) this.replies.set(correlation, payload);
    });
    await this.controller.subscribeAsync(`${PREFIX}/#`, { qos: 1, nl: true }); // not what it says itself
  }

  async startPages() {
    const files = {
      '/': ['page.html', 'text/html'],
      '/member.js': ['member.js', 'text/javascript'],
      '/mqtt.js': ['node_modules/mqtt/dist/mqtt.min.js', 'text/javascript'],
    };
    this.pages = createServer((request, response) => {
      const [name, type] = files[request.url] ?? [];
      response.writeHead(name ? 200 : 404, { 'content-type': type ?? 'text/plain' });
      response.end(name && readFileSync(join(HERE, name)));
    }).listen(0, '127.0.0.1');
    await once(this.pages, 'listening');
  }

  async startChromium() {
    this.browser = await chromium.launch({
      executablePath: CHROMIUM,
      headless: true,
      chromiumSandbox: false,
      args: [
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--use-fake-device-for-media-stream=fps=30',
        '--use-fake-ui-for-media-stream', // counts as permission: candidates show addresses, no multicast DNS
        '--autoplay-policy=no-user-gesture-required',
      ],
    });
  }

  /** A browser page that is member `id`, with a camera and a microphone, or a `tone` (Hz) in its place. */
  async member(id, { tone } = {}) {
    const page = await this.browser.newPage();
    page.on('pageerror', (error) => console.error(`${id}: ${error.message}`));
    await page.goto(`http://127.0.0.1:${this.pages.address().port}/`);
    await page.waitForFunction(() => window.Member);
    await page.evaluate(
      async ({ tone, ...options }) => {
        const video = { width: 640, height: 480, frameRate: 30 };
        const stream = await navigator.mediaDevices.getUserMedia({ video, audio: !tone });
        if (tone) stream.addTrack(window.tone(tone));
        window.member = new window.Member({ ...options, stream });
      },
      { id, tone, prefix: PREFIX, url: `ws://127.0.0.1:${this.webPort}` },
    );
    return page;
  }

  /** A kiosk on pretended devices, as soon as it is online. */
  async kiosk(id) {
    const before = this.last(`${id}/state`)?.boot;
    const configuration = this.write(
      `${id}.toml`,
      `id = "${id}"\nprefix = "${PREFIX}"\n[broker]\naddress = "127.0.0.1:${this.port}"\n` +
        '[camera.front]\ndevice = "sim"\nwidth = 640\nheight = 480\n' +
        `[screen]\ndevice = "sim"\nwidth = ${SCREEN.width}\nheight = ${SCREEN.height}\n` +
        '[sound]\nmicrophone = "sim"\nspeaker = "sim"\n' +
        '[room]\nstats_interval_s = 1\n[link]\nbind = ["127.0.0.1:0"]\n',
    );
    const child = this.start(PARLOR, ['run', '--config', configuration]);
    await until(`${id} is online`, () => {
      const state = this.last(`${id}/state`);
      return state && state.state !== 'offline' && state.boot !== before;
    });
    return child;
  }

  /** Ends a child without a goodbye. */
  async kill(child) {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** Puts these members, and nobody else, into one room: the same document for each. */
  async room(room, members) {
    for (const id of members) await this.publish(`${id}/desired`, { room, members, 'object-fit': 'contain' }, { retain: true });
  }

  /** Takes the documents back: everybody leaves. */
  async leave(members) {
    for (const id of members) await this.controller.publishAsync(`${PREFIX}/${id}/desired`, '', { qos: 1, retain: true });
  }

  async publish(topic, content, options = {}) {
    await this.controller.publishAsync(`${PREFIX}/${topic}`, JSON.stringify(content), { qos: 1, ...options });
  }

  /** The last message on a topic as JSON. */
  last(topic) {
    const payload = this.messages.get(`${PREFIX}/${topic}`);
    return payload?.length ? JSON.parse(payload.toString()) : undefined;
  }

  /** What is on a kiosk's glass, as a PNG. */
  async snapshot(id, width) {
    const correlation = `snapshot-${++this.requests}`;
    await this.publish(`${id}/cmd/snapshot`, { width }, {
      properties: {
        responseTopic: `${PREFIX}/${id}/reply/controller`,
        correlationData: Buffer.from(correlation),
        messageExpiryInterval: 30,
      },
    });
    return until(`snapshot of ${id}`, () => this.replies.get(correlation));
  }

  start(program, args) {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.on('error', (error) => console.error(`start ${program}: ${error.message}`));
    child.stderr.on('data', (text) => process.env.VERBOSE && process.stderr.write(text));
    this.children.push(child);
    return child;
  }

  write(name, content) {
    const path = join(this.directory, name);
    writeFileSync(path, content);
    return path;
  }
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true) || socket.destroy());
    socket.on('error', () => resolve(false));
  });
}
