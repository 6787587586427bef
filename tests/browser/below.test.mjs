// ComfyUI's own page below a path (`server.base_path`), as behind a proxy that takes nothing off:
// it loads, and runs a workflow to its picture.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, openBrowser } from "./kit.mjs";
import { openStock, picturesOf, hears, queue, seesAtNode } from "./stock.mjs";


/** What the page asks for beside the path whatever server it is from: its icons while a job runs. */
const BESIDE = /^\/assets\/(favicon\.ico|images\/favicon_progress_\S+\.png)$/;

const GRAPH = {
  1: {
    class_type: "EmptyImage",
    inputs: { width: 64, height: 48, batch_size: 1, color: 0x3366cc },
  },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "below" } },
};

let fleet;
let browser;
let tab;

before(async () => {
  const frontend = process.env.COMFYUI_FRONTEND_033;
  const path = "/comfy";
  const settings = [`server.base_path=${path}`];
  [fleet, browser] =
    await Promise.all([startFleet({ frontend, settings, path }), openBrowser()]);
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  tab = await openStock(context, `${fleet.url}${path}`, []);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
}, DEADLINE);

test("all that it asks for is below, and its socket has its name", DEADLINE, async () => {
  const { page, sockets, origin, id } = tab;
  assert.equal(page.url(), `${origin}/comfy/`);
  assert.equal(sockets.length, 1);
  assert.equal(sockets[0].url.pathname, "/comfy/ws");
  assert.equal(sockets[0].url.searchParams.get("clientId"), id);
  const asked = await page.evaluate((own) => performance.getEntriesByType("resource")
    .map(({ name }) => new URL(name)).filter((url) => url.origin === own)
    .map(({ pathname }) => pathname), origin);
  assert.deepEqual(asked.filter((path) => !path.startsWith("/comfy/") && !BESIDE.test(path)), []);
  assert.ok(asked.some((path) => path.startsWith("/comfy/assets/")));
});

test("it runs a workflow and shows the picture", DEADLINE, async () => {
  const { prompt } = await queue(tab, GRAPH);
  await hears(tab, prompt, "execution_success");
  const [picture] = await picturesOf(tab, prompt);
  const seen = await seesAtNode(tab, "SaveImage", picture);
  assert.ok(new URL(seen.url).pathname.startsWith("/comfy/api/view"), seen.url);
  assert.deepEqual(seen.pixel, [0x33, 0x66, 0xcc]);
});

test("mooring.status() finds the gateway from wherever it is loaded", DEADLINE, async () => {
  const status = await tab.page.evaluate(async () => {
    await import("/comfy/-/console.js");
    return mooring.status();
  });
  assert.equal(status.client, tab.id);
});
