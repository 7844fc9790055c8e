// A browser as the other end of one connection, with a camera and a tone. Signals are lines of JSON on stdin and
// stdout; the line {"kind":"ask"} is answered with what has been received.
//
// `node link.js <id of the browser> <id of the other side> <tone in Hz>`: the smaller id makes the offer.

import { createInterface } from 'node:readline';
import { Stage } from './stage.js';

const [id, other, tone] = process.argv.slice(2);
const stage = new Stage();
stage.children = [];
await stage.startPages();
await stage.startChromium();
const page = await stage.browser.newPage();
page.on('pageerror', (error) => console.error(error.message));
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
await page.exposeFunction('say', say);
await page.goto(`http://127.0.0.1:${stage.pages.address().port}/`);
await page.waitForFunction(() => window.Peer);
await page.evaluate(
  async ({ id, other, tone }) => {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 15 } });
    stream.addTrack(window.tone(Number(tone)));
    const member = { id, stream, log: [], signal: (to, message) => window.say(message) };
    window.peer = new window.Peer(member, other);
    window.peer.start();
  },
  { id, other, tone },
);
for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (message.kind === 'ask') say({ kind: 'received', ...(await page.evaluate(() => window.peer.received())) });
  else await page.evaluate((message) => window.peer.hear(message), message);
}
await stage.browser.close();
stage.pages.close();
