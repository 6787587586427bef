// A story of two tabs of ComfyUI's own page in one browser: each with a picture of its own under
// the same file name, held on different backends, then moved elsewhere with what it has; one
// cancels, the other runs on; and whatever was once to be seen stays what it was. With the page
// that ComfyUI 0.8.0 comes with and a newer one, with the gateway's script in it and without.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser } from "./kit.mjs";
import {
  assertColour, hears, inverse, openStock, picturesOf, queue as queuedBy, reload, seesAtNode,
  upload,
} from "./stock.mjs";

const RED = 0xe01020;
const GREEN = 0x10c030;

/** Inverts an upload and saves it; on the way it may take so many seconds. */
function graph(image, seconds) {
  const nodes = {
    1: { class_type: "LoadImage", inputs: { image } },
    2: { class_type: "ImageInvert", inputs: { image: ["1", 0] } },
    3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "ComfyUI" } },
  };
  if (seconds) {
    nodes[4] = {
      class_type: "SlowSteps",
      inputs: {
        image: ["2", 0], steps: Math.min(10 * seconds, 1000), seconds, fail: false, preview: false,
      },
    };
    nodes[3].inputs.images = ["4", 0];
  }
  return nodes;
}

let browser;

before(async () => {
  browser = await openBrowser();
}, DEADLINE);

after(async () => {
  await browser?.close();
}, DEADLINE);

/** A tab and what it has seen: the ids of its prompts, and each picture by its URL. */
async function openStory(context, url) {
  return { ...await openStock(context, url), prompts: [], pictures: new Map() };
}

/** Loads a workflow and queues it; the tab remembers its prompt. */
async function queue(tab, nodes) {
  const queued = await queuedBy(tab, nodes);
  tab.prompts.push(queued.prompt);
  return queued;
}

/** Waits for a prompt's picture, as the page was told of it and as its node shows it. */
async function seesResult(tab, prompt, color) {
  const { origin, pictures } = tab;
  await hears(tab, prompt, "execution_success");
  const [image] = await picturesOf(tab, prompt);
  const { url, pixel } = await seesAtNode(tab, "SaveImage", image);
  assertColour(pixel, inverse(color), `${prompt} as ${url}`);
  // By its bare name too, as scripts and other tabs ask for it.
  const bare = `${origin}/api/view?${new URLSearchParams(image)}`;
  for (const seen of [url, bare]) pictures.set(seen, await digest(seen));
}

/** What a URL gives to somebody of whom nothing is known. */
async function digest(url) {
  const answer = await fetch(url);
  assert.equal(answer.status, 200, url);
  return createHash("sha256").update(Buffer.from(await answer.arrayBuffer())).digest("hex");
}

async function staysWhatItWas(tabs) {
  for (const { pictures } of tabs) {
    for (const [url, known] of pictures) assert.equal(await digest(url), known, url);
  }
}

/** Which of the known prompts the page's own lists have, asked as the page asks. */
async function lists(tab, prompts) {
  const [queued, past] = await tab.page.evaluate(async () => {
    const { api } = window.app;
    return [JSON.stringify(await api.getQueue()), JSON.stringify(await api.getHistory(64))];
  });
  const listed = (text) => prompts.filter((prompt) => text.includes(prompt));
  return { queued: listed(queued), past: listed(past) };
}

/** Fills the queue of a backend with prompts that are not ours, and waits until that is known. */
async function keepBusy(fleet, backend) {
  const { url } = fleet.backends.find(({ name }) => name === backend);
  const nodes = graph("busy.png", 600);
  nodes[1] = {
    class_type: "EmptyImage", inputs: { width: 8, height: 8, batch_size: 1, color: 0 },
  };
  for (let count = 0; count < 4; count += 1) {
    const body = JSON.stringify({ client_id: "stranger", prompt: nodes });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`${url}/prompt`, { method: "POST", headers, body });
    assert.equal(answer.status, 200, await answer.text());
  }
  await eventually(`the queue of ${backend} is known`, async () => {
    const { backends } = await (await fetch(`${fleet.admin}/api/v1/backends`)).json();
    return backends.find(({ name }) => name === backend).queue_remaining >= 4;
  });
}

const VERSIONS = [
  ["1.35.9", process.env.COMFYUI_FRONTEND], ["1.58.1", process.env.COMFYUI_FRONTEND_NEW],
];

for (const [version, frontend] of VERSIONS) {
  describe(`two tabs of frontend ${version} at once`, () => {
    let fleet;
    let context;
    let tabs;
    let uploads;

    before(async () => {
      fleet = await startFleet({ frontend });
      context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
      tabs = [await openStory(context, `${fleet.url}/`), await openStory(context, `${fleet.url}/`)];
    }, DEADLINE);

    after(async () => {
      await context?.close();
      await fleet?.stop();
    }, DEADLINE);

    const all = () => tabs.flatMap(({ prompts }) => prompts);

    test("each uploads a picture under the same name, and has it", DEADLINE, async () => {
      uploads = [
        await upload(tabs[0], "photo.png", RED), await upload(tabs[1], "photo.png", GREEN),
      ];
      assert.notEqual(uploads[0].backend, uploads[1].backend, "held on different backends");
      assert.notEqual(uploads[0].value, uploads[1].value, "one name, one file");
    });

    test("each runs it and sees its own result and queue, and what one person made, live", DEADLINE, async () => {
      const made = await Promise.all(tabs.map((tab, index) =>
        queue(tab, graph(uploads[index].value, 1))));
      assert.deepEqual(made.map(({ backend }) => backend), uploads.map(({ backend }) => backend));
      for (const [index, { prompt }] of made.entries()) {
        await hears(tabs[index], prompt, "progress");
        await seesResult(tabs[index], prompt, [RED, GREEN][index]);
      }
      for (const tab of tabs) {
        assert.deepEqual(await lists(tab, all()), { queued: [], past: all() });
      }
    });

    test("each runs again, elsewhere, with its old upload", DEADLINE, async () => {
      for (const { backend } of uploads) await keepBusy(fleet, backend);
      const free = fleet.backends.find(({ name }) =>
        uploads.every(({ backend }) => name !== backend));
      for (const [index, color] of [RED, GREEN].entries()) {
        const { prompt, backend } = await queue(tabs[index], graph(uploads[index].value));
        assert.ok(free.name === backend, `${backend} is not the free one`);
        await seesResult(tabs[index], prompt, color);
      }
      await staysWhatItWas(tabs);
    });

    test("one cancels what runs, and the other, behind it, runs on", DEADLINE, async () => {
      const [one, two] = tabs;
      const first = await queue(one, graph(uploads[0].value, 60));
      await hears(one, first.prompt, "progress");
      const second = await queue(two, graph(uploads[1].value, 1));
      assert.equal(first.backend, second.backend, "one queue for both");
      assert.deepEqual((await lists(one, all())).queued, [first.prompt]);
      assert.deepEqual((await lists(two, all())).queued, [second.prompt]);
      await one.page.evaluate(() => window.app.api.interrupt());
      await hears(one, first.prompt, "execution_interrupted");
      await seesResult(two, second.prompt, GREEN);
      for (const tab of tabs) {
        assert.deepEqual(await lists(tab, all()), { queued: [], past: all() });
      }
    });

    test("the one that waits is interrupted for, and the other's runs on", DEADLINE, async () => {
      const [one, two] = tabs;
      const first = await queue(one, graph(uploads[0].value, 2));
      await hears(one, first.prompt, "execution_start");
      const second = await queue(two, graph(uploads[1].value, 60));
      await two.page.evaluate(async (id) => {
        await window.app.api.deleteItem("queue", id);
      }, second.prompt);
      await two.page.evaluate(() => window.app.api.interrupt());
      await seesResult(one, first.prompt, RED);
      assert.deepEqual((await lists(two, all())).queued, []);
      two.prompts.pop();
    });

    test("all that was seen is what it was, and nobody heard of another's", DEADLINE, async () => {
      await staysWhatItWas(tabs);
      for (const [index, { sockets, prompts }] of tabs.entries()) {
        const foreign = tabs[1 - index].prompts;
        const heard = sockets.flatMap((socket) => socket.heard).map(String);
        for (const prompt of prompts) {
          assert.ok(heard.some((frame) => frame.includes(prompt)), "its own were heard");
        }
        for (const prompt of foreign) {
          assert.ok(!heard.some((frame) => frame.includes(prompt)), `${prompt} of the other`);
        }
      }
    });

    test("a reload has the person's history still, and its pictures", DEADLINE, async () => {
      for (const tab of tabs) {
        await reload(tab);
        const { past } = await lists(tab, all());
        assert.deepEqual(past, all());
      }
    });
  });

  test(`tabs of frontend ${version} one after the other, without the script`, DEADLINE,
    async (t) => {
      const fleet = await startFleet({ frontend, settings: ["server.page_script=off"] });
      t.after(() => fleet.stop());
      const context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
      t.after(() => context.close());
      const tabs = [];
      const uploads = [];
      for (const color of [RED, GREEN]) {
        const tab = await openStory(context, `${fleet.url}/`);
        tabs.push(tab);
        const up = await upload(tab, "photo.png", color);
        uploads.push(up);
        const { prompt, backend } = await queue(tab, graph(up.value, 1));
        assert.equal(backend, up.backend, "a prompt goes where its upload went");
        await hears(tab, prompt, "progress");
        await seesResult(tab, prompt, color);
        assert.ok((await lists(tab, tab.prompts)).past.includes(prompt));
        // What one leaves behind is not where the other works.
        await keepBusy(fleet, backend);
      }
      assert.notEqual(tabs[0].id, tabs[1].id);
      assert.notEqual(uploads[0].backend, uploads[1].backend);
      assert.notEqual(uploads[0].value, uploads[1].value);
      await staysWhatItWas(tabs);
      for (const [index, color] of [RED, GREEN].entries()) {
        const { prompt, backend } = await queue(tabs[index], graph(uploads[index].value));
        assert.ok(uploads.every((up) => up.backend !== backend), "elsewhere");
        await seesResult(tabs[index], prompt, color);
      }
      const [one, two] = tabs;
      const long = await queue(one, graph(uploads[0].value, 60));
      await hears(one, long.prompt, "progress");
      await one.page.evaluate(() => window.app.api.interrupt());
      await hears(one, long.prompt, "execution_interrupted");
      const last = await queue(two, graph(uploads[1].value));
      await seesResult(two, last.prompt, GREEN);
      await staysWhatItWas(tabs);
    });
}
