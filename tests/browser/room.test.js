// A browser and a kiosk see each other. `npm ci && npm test`, after `cargo build`.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Stage, until } from './stage.js';

let stage;
before(async () => (stage = await Stage.open()));
after(() => stage?.close());

test('two browsers in one room see each other', async () => {
  const [left, right] = [await stage.member('b-1'), await stage.member('b-2')];

  await stage.room('browsers', ['b-1', 'b-2']);

  await sees(left, 'b-2');
  await sees(right, 'b-1');
  await stage.leave(['b-1', 'b-2']);
  await until('nobody is connected any more', () => left.evaluate(() => window.member.peers.size === 0));
});

for (const browser of ['a-browser', 'z-browser']) {
  const who = browser < 'kiosk' ? 'the browser' : 'the kiosk';
  test(`a browser and a kiosk see each other when ${who} offers`, async () => {
    const members = ['kiosk', browser];
    if (!stage.last('kiosk/state')) stage.kiosk('kiosk');
    await until('the kiosk is online', () => ['online', 'degraded'].includes(stage.last('kiosk/state')?.state));
    const page = await stage.member(browser);

    await stage.room(`with-${browser}`, members);

    // The kiosk's camera in the browser.
    const received = await sees(page, 'kiosk');
    assert.equal(received.codec, 'video/H264');
    assert.deepEqual([received.width, received.height], [640, 480]);
    // The browser's camera on the kiosk's screen.
    const tile = await until('the kiosk shows the browser', () =>
      stage.last('kiosk/reported')?.tiles?.find((tile) => tile.openid === browser && tile.state === 'live'),
    );
    const green = await until('Chromium\'s green camera picture is on the glass', async () => {
      const part = await greenPart(page, await stage.snapshot('kiosk', 640), tile.area);
      return part > 0.3 && part;
    });
    assert.ok(green <= 1);
    await stage.leave(members);
    await page.close();
  });
}

/** Waits until `page` decodes one picture after the other of member `other`. */
async function sees(page, other) {
  const received = () => page.evaluate((other) => window.member.peers.get(other)?.received(), other);
  let last;
  try {
    const first = await until(`a picture of ${other}`, async () => {
      last = await received();
      return last?.frames > 0 && last.width > 0 && last;
    });
    return await until(`${other} goes on`, async () => {
      last = await received();
      return last.frames > first.frames + 30 && last;
    });
  } catch (error) {
    const log = await page.evaluate(() => window.member.log.join('\n'));
    throw new Error(`${error.message}\n${JSON.stringify(last)}\n${log}`);
  }
}

/** The part of a tile (logical pixels of a screen 1280 wide) that is green in a snapshot, 0 to 1. */
async function greenPart(page, png, area) {
  return page.evaluate(
    async ([base64, [x, y, width, height]]) => {
      const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${base64}`)).blob());
      const scale = image.width / 1280;
      const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
      canvas.drawImage(image, 0, 0);
      const { data } = canvas.getImageData(x * scale, y * scale, width * scale, height * scale);
      let green = 0;
      for (let i = 0; i < data.length; i += 4) green += data[i + 1] > data[i] + 40 && data[i + 1] > data[i + 2] + 40;
      return green / (data.length / 4);
    },
    [png.toString('base64'), area],
  );
}
