// Browsers and a kiosk see each other: real pictures through a real broker and real UDP, whoever makes the offer.
//
// `cargo build && npm ci && npm test`. SHOT=file.png keeps the last picture of the kiosk's screen, VERBOSE=1 shows
// the logs of broker and kiosk, CHROMIUM, MOSQUITTO and PARLOR name other programs.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { SCREEN, Stage, until } from './stage.js';

let stage;
before(async () => (stage = await Stage.open()));
after(() => stage?.close());

test('two browsers in one room see each other', async () => {
  const [left, right] = [await stage.member('b-1'), await stage.member('b-2')];

  await stage.room('browsers', ['b-1', 'b-2']);

  await sees(left, 'b-2');
  await sees(right, 'b-1');
  await stage.leave(['b-1', 'b-2']);
  await until('the room is left', () => left.evaluate(() => window.member.peers.size === 0));
  await Promise.all([left.close(), right.close()]);
});

test('a browser that offers and a kiosk see and hear each other', () => seeEachOther('a-browser'));

test('a browser that answers and a kiosk see and hear each other', () => seeEachOther('z-browser'));

test('a kiosk that dies and comes back is seen again, and sees', async () => {
  const kiosk = await stage.kiosk('kiosk');
  const page = await stage.member('a-browser');
  await stage.room('restart', ['kiosk', 'a-browser']);
  await sees(page, 'kiosk');
  const { boot } = stage.last('kiosk/state');

  await stage.kill(kiosk);
  await stage.kiosk('kiosk');

  assert.notEqual(stage.last('kiosk/state').boot, boot);
  await isShown(page, 'a-browser', boot);
  await sees(page, 'kiosk');
});

async function seeEachOther(browser) {
  const kiosk = await stage.kiosk('kiosk');
  const page = await stage.member(browser, { tone: 600 });

  await stage.room(`with-${browser}`, ['kiosk', browser]);

  const received = await sees(page, 'kiosk');
  assert.equal(received.codec, 'video/H264');
  assert.deepEqual([received.width, received.height], [640, 480]);
  const screen = await isShown(page, browser);
  // The browser shows what the kiosk's own tile shows; the mean does not mind mirror and size.
  const [own, there] = [await colour(page, screen, tile('kiosk').area), await videoColour(page, 'kiosk')];
  own.mean.forEach((value, i) => assert.ok(Math.abs(value - there.mean[i]) < 30, `${own.mean} and ${there.mean}`));

  // The pretended talker at the kiosk's microphone, and the browser's tone at the kiosk's door.
  await until('the browser hears the kiosk', async () => {
    const { sound } = await page.evaluate(() => window.member.peers.get('kiosk').received());
    return sound?.codec === 'audio/opus' && sound.packets > 50 && sound.level > -60; // dB, of the loudest tone
  });
  await until('the kiosk hears the browser', () => {
    const { sound } = stage.last('kiosk/stats')?.tiles?.find((tile) => tile.openid === browser) ?? {};
    return sound?.received > 50;
  });

  await stage.leave(['kiosk', browser]);
  await page.close();
  await stage.kill(kiosk);
}

/** Waits until `page` decodes one picture after the other of member `other`. */
async function sees(page, other) {
  const received = () => page.evaluate((other) => window.member.peers.get(other)?.received(), other);
  let last;
  try {
    const first = await until(`a picture of ${other}`, async () => {
      last = await received();
      return last?.frames > 0 && last.width > 0 && last.state === 'connected' && last;
    });
    return await until(`${other} goes on`, async () => {
      last = await received();
      return last?.session === first.session && last.frames > first.frames + 30 && last;
    });
  } catch (error) {
    const log = await page.evaluate(() => window.member.log.join('\n'));
    throw new Error(`${error.message}\n${JSON.stringify(last)}\n${log}`);
  }
}

/** Waits until the kiosk (of another life than `before`) shows Chromium's green camera in the tile of `member`. */
async function isShown(page, member, before) {
  await until(`the tile of ${member} is live`, () => {
    return stage.last('kiosk/reported')?.boot !== before && tile(member)?.state === 'live';
  });
  return until(`the green camera of ${member} is on the glass`, async () => {
    const screen = await stage.snapshot('kiosk', 640);
    if (process.env.SHOT) writeFileSync(process.env.SHOT, screen);
    return (await colour(page, screen, tile(member).area)).green > 0.3 && screen;
  });
}

function tile(member) {
  return stage.last('kiosk/reported')?.tiles?.find((tile) => tile.openid === member);
}

/** Mean (RGB, dark bars left out) and green part (0 to 1) of an area (logical pixels) of a kiosk's screen. */
function colour(page, png, [x, y, width, height]) {
  return page.evaluate(
    async ([base64, screen, [x, y, width, height]]) => {
      const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${base64}`)).blob());
      const scale = image.width / screen;
      return window.colour(image, [x * scale, y * scale, width * scale, height * scale]);
    },
    [png.toString('base64'), SCREEN.width, [x, y, width, height]],
  );
}

/** The same of what `page` shows of member `other`. */
function videoColour(page, other) {
  return page.evaluate((other) => {
    const { video } = window.member.peers.get(other);
    return window.colour(video, [0, 0, video.videoWidth, video.videoHeight]);
  }, other);
}
