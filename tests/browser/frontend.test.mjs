// ComfyUI's own web page, as it comes from its registry, served by the simulated backends through
// the gateway: it loads, runs a workflow, shows the picture; and `mooring` works in its console.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import {
  DEADLINE, LOAD_MS, eventually, middleColour, openBrowser, openTab, until,
} from "./kit.mjs";


/** Errors on the console that are not ours, each with why it is none. */
const ALLOWED = [
  {
    why: "ComfyUI answers 404 to these on a fresh installation, without a gateway too",
    pattern: /status of 404 .*\/(user\.css|api\/userdata\/(user\.css|comfy\.templates\.json))\)/,
  },
  {
    why: "folders of blueprints and workflows that nobody has made: ComfyUI answers 404",
    pattern: /status of 404 .*\/api\/userdata\?dir=(subgraphs|workflows)&/,
  },
  {
    why: "a server's log is the operator's (server.allow_logs); the page asks for it all the same",
    pattern: /status of 403 .*\/internal\/logs\)|Error fetching logs/,
  },
  { why: "the frontend ships no icon of this name", pattern: /\/favicon\.ico\)/ },
  {
    why: "the page asks its maker's registry about nodes; other hosts are cut off in this test",
    pattern: /\/\/api\.comfy\.org/,
  },
  {
    why: "a safe reset with a prompt pending is refused, and this test asks for one",
    pattern: /status of 409 .*\/-\/reset\?force=false/,
  },
];

const GRAPH = {
  1: {
    class_type: "EmptyImage",
    inputs: { width: 64, height: 48, batch_size: 1, color: 0x3366cc },
  },
  2: {
    class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps: 6, seconds: 1.5, fail: false, preview: true },
  },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "page" } },
};

const PICTURE = 'img[src*="/api/view"]';

let fleet;
let browser;
let tab;

before(async () => {
  const frontend = process.env.COMFYUI_FRONTEND;
  [fleet, browser] = await Promise.all([startFleet({ frontend }), openBrowser()]);
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  tab = await openTab(context, `${fleet.url}/`, ALLOWED);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
}, DEADLINE);

/** The default workflow wants models that nobody has here; the page says so in a dialog. */
async function closeDialogs(page) {
  for (let turn = 0; turn < 10; turn += 1) {
    const open = await page.$(".p-dialog-mask");
    if (!open) return;
    await page.keyboard.press("Escape");
    await open.waitForElementState("hidden", { timeout: 3000 }).catch(() => null);
  }
  assert.fail("a dialog stays open");
}

test("it loads, and is one client with the id of its first socket", DEADLINE, async () => {
  const { page, sockets } = tab;
  await until(page, "the page is ready", () =>
    window.app?.graph && window.app.api?.clientId && document.querySelector('[aria-label="Run"]'),
  undefined, LOAD_MS);
  assert.equal(sockets.length, 1, "one socket");
  const [name, id] = await page.evaluate(() => [window.name, window.app.api.clientId]);
  assert.match(name, /^[0-9a-f]{32}$/);
  assert.equal(name, id);
  assert.equal(sockets[0].url.searchParams.get("clientId"), name, "named from the start");
});

test("its own button queues a prompt, and it shows the picture", DEADLINE, async () => {
  const { page } = tab;
  // The missing models are looked for after the page is ready; the dialog comes a moment later.
  await page.waitForSelector(".p-dialog-mask", { timeout: 5000 }).catch(() => null);
  await closeDialogs(page);
  await page.evaluate((graph) => window.app.loadApiJson(graph, "one.json"), GRAPH);
  await until(page, "the workflow is loaded", () => window.app.graph.nodes.length === 3);
  const posted = page.waitForResponse((response) =>
    response.url().endsWith("/api/prompt") && response.request().method() === "POST");
  await page.click('[aria-label="Run"]');
  const response = await posted;
  assert.equal(response.status(), 200, await response.text());
  assert.match(response.headers()["mooring-backend"], /^\S+$/);

  await until(page, "the node has its picture", () =>
    window.app.graph.nodes.find((node) => node.type === "SaveImage")?.imgs?.[0]?.naturalWidth > 0);
  await page.click('[aria-label="Expand job queue"]');
  await until(page, "the queue panel shows the picture", (selector) =>
    document.querySelector(selector)?.naturalWidth > 0, PICTURE);
  assert.deepEqual(await middleColour(page, PICTURE), [0x33, 0x66, 0xcc]);
});

test("its socket is cut in the middle of a prompt, and it sees the end", DEADLINE, async () => {
  const { page, sockets } = tab;
  const before = sockets.length;
  const outputs = await page.evaluate(async () => {
    const { app } = window;
    const { api } = app;
    // After a reconnect earlier ends may be told again; only this prompt's counts.
    const ends = new Set();
    api.addEventListener("execution_success", ({ detail }) => ends.add(detail.prompt_id));
    const graph = await app.graphToPrompt();
    graph.output[2].inputs.seconds = 3;
    const { prompt_id: id } = await api.queuePrompt(0, graph);
    await new Promise((resolve) => api.addEventListener("progress", resolve, { once: true }));
    api.socket.close();
    for (let tries = 0; tries < 200 && !ends.has(id); tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return { id, ended: [...ends] };
  });
  assert.ok(outputs.ended.includes(outputs.id), JSON.stringify(outputs));
  await eventually("it reconnected", () => sockets.length > before);
  const name = await page.evaluate(() => window.name);
  assert.equal(sockets.at(-1).url.searchParams.get("clientId"), name);
});

test("a reload keeps the client and finds its work again", DEADLINE, async () => {
  const { page } = tab;
  const name = await page.evaluate(() => window.name);
  await page.reload({ timeout: LOAD_MS });
  await until(page, "the page is ready again", () =>
    window.app?.api?.clientId && window.app.graph, undefined, LOAD_MS);
  assert.equal(await page.evaluate(() => window.app.api.clientId), name);
  const history = await page.evaluate(async () =>
    Object.keys(await (await window.app.api.fetchApi("/history?max_items=64")).json()).length);
  assert.ok(history >= 2, `${history} in the history`);
});

test("in its console, mooring.status() tells where this tab is", DEADLINE, async () => {
  const { page } = tab;
  await page.evaluate(() => import("/-/console.js"));
  const [status, name] = await page.evaluate(async () => [await mooring.status(), window.name]);
  assert.equal(status.client, name);
  assert.equal(status.connected, true);
  assert.equal(status.page_socket, "open");
  assert.match(status.bound, /^\S+$/);
  assert.equal(status.pending, 0);
});

test("mooring.validate() says bound = …, api = …, and they agree", DEADLINE, async () => {
  const result = await tab.page.evaluate(() => mooring.validate());
  assert.equal(result.consistent, true, JSON.stringify(result));
  assert.match(result.reason, /^bound = (\S+), api = \1$/);
});

test("mooring.explain() has the reasons of what was decided", DEADLINE, async () => {
  const result = await tab.page.evaluate(() => mooring.explain());
  assert.ok(result.client.decisions.some(({ what }) => what === "placed"), JSON.stringify(result));
});

test("mooring.reset() is refused while a prompt is pending; by force it is not", DEADLINE,
  async () => {
    const told = await tab.page.evaluate(async () => {
      const graph = await window.app.graphToPrompt();
      graph.output[2].inputs.seconds = 30;
      await window.app.api.queuePrompt(0, graph);
      const busy = await mooring.status();
      const safe = await mooring.reset();
      const forced = await mooring.reset(true);
      return { busy, safe, forced, idle: await mooring.status() };
    });
    assert.equal(told.busy.pending, 1);
    assert.equal(told.busy.binding, "held");
    assert.ok(told.safe.error, "refused, with a reason");
    assert.equal(told.forced.released, true);
    assert.equal(told.forced.cut_off, 1);
    assert.equal(told.idle.pending, 0);
  });

test("nothing of all this left an error of ours on the console", () => {
  assert.deepEqual(tab.problems, []);
});
