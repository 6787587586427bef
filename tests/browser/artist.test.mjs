// An artist's day on the page of ComfyUI 0.33 (frontend 1.49.6), over two simulated servers: one
// dies under a job and comes back, tabs are closed and opened, one name is uploaded twice, the
// home goes away, and the gateway is killed. What is looked at is what stands on the page, not
// what the routes answer.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser, ready, until } from "./kit.mjs";
import {
  assertColour, hears, inverse, load, openStock, picturesOf, queue, reload, runLoaded, seesAtNode,
  upload,
} from "./stock.mjs";

const RED = 0xe01020;
const BLUE = 0x1030e0;
/** What nobody who draws pictures knows, and where servers are. */
const NOT_FOR_PEOPLE = /\b(backend|prompt|client)s?\b|\d+\.\d+\.\d+\.\d+:\d+/i;

/** One colour, shown slowly, saved under a name of its own. */
const graph = (prefix, seconds, color = RED) => ({
  1: { class_type: "EmptyImage", inputs: { width: 32, height: 32, batch_size: 1, color } },
  2: {
    class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps: 10, seconds, fail: false, preview: true },
  },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: prefix } },
});

/** An upload, inverted. */
const inverted = (image) => ({
  1: { class_type: "LoadImage", inputs: { image } },
  2: { class_type: "ImageInvert", inputs: { image: ["1", 0] } },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "inverted" } },
});

let browser;
let fleet;
let context;
let journal;
let configuration;

/** Says how long the jobs of a dead server are kept. */
const keepJobsFor = (grace) => writeFile(configuration, `[fleet]\ngrace = "${grace}"\n`);

/** Says so to a gateway that runs. */
async function reconfigure(grace) {
  await keepJobsFor(grace);
  const answer = await fetch(`${fleet.admin}/api/v1/reload`, { method: "POST" });
  assert.equal(answer.status, 200, await answer.text());
}

const open = () => openStock(context, `${fleet.url}/`);
const simOf = (backend) => fleet.backends.find(({ name }) => name === backend);

const seesText = ({ page }, what, pattern) =>
  until(page, what, (source) => new RegExp(source).exec(document.body.innerText)?.[0],
    pattern.source);

/** Waits until a picture of this name is under Assets, Generated. */
async function generated({ page }, name) {
  if (!(await page.$("text=Media Assets"))) await page.click('[aria-label^="Assets"]');
  await until(page, `${name} is among what was generated`, (wanted) =>
    [...document.querySelectorAll('[aria-label$="image asset"]')].some((it) =>
      it.getAttribute("aria-label").startsWith(wanted)), name);
}

/** Waits until the queue panel shows this. */
async function queueShows({ page }, what, pattern) {
  const list = '[data-testid="job-assets-list"]';
  if (!(await page.$(list))) await page.click('[data-testid="queue-overlay-toggle"]');
  await until(page, what, ([selector, source]) =>
    new RegExp(source).test(document.querySelector(selector)?.innerText), [list, pattern.source]);
}

/** Waits until nothing on the page says any more that something runs. */
const rests = ({ page }) => until(page, "nothing turns any more", () =>
  !document.title.includes("%") && [...document.querySelectorAll('[class*="animate-"]')]
    .every((each) => !each.checkVisibility()));

const running = ({ page }) => page.evaluate(async () =>
  (await window.app.api.getQueue()).Running.map(({ id, prompt_id }) => id ?? prompt_id));

/** Waits until the gateway has seen that a server is up or down. */
const seen = (name, up) => eventually(`${name} is seen to be ${up ? "up" : "down"}`, async () => {
  const { backends } = await (await fetch(`${fleet.admin}/api/v1/backends`)).json();
  return backends.find((each) => each.name === name).up === up;
});

/** Queues what takes long at a server, behind the gateway's back, until the gateway knows. */
async function keepBusy(name) {
  const { url } = simOf(name);
  const body = JSON.stringify({ client_id: "stranger", prompt: graph("busy", 600) });
  for (let count = 0; count < 3; count += 1) await fetch(`${url}/prompt`, { method: "POST", body });
  await eventually(`${name} is known to be busy`, async () => {
    const { backends } = await (await fetch(`${fleet.admin}/api/v1/backends`)).json();
    return backends.find((each) => each.name === name).queue_remaining >= 3;
  });
}

before(async () => {
  browser = await openBrowser();
}, DEADLINE);

after(async () => {
  await browser?.close();
}, DEADLINE);

describe("frontend 1.49.6", () => {
  // Servers, gateway and browser profile are each test's own: what one leaves is no other's.
  beforeEach(async () => {
    const frontend = process.env.COMFYUI_FRONTEND_033;
    journal = await mkdtemp(join(tmpdir(), "mooring-artist-"));
    configuration = join(journal, "mooring.toml");
    // Far longer than a page takes to load on the slowest machine.
    await keepJobsFor("1h");
    const settings = ["prompts.answer_limit=3s", `state.dir=${journal}`];
    fleet = await startFleet({ backends: 2, frontend, settings, configuration });
    context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
  }, DEADLINE);

  afterEach(async () => {
    await context?.close();
    await fleet?.stop();
    await rm(journal, { recursive: true, force: true });
  }, DEADLINE);

  test("a server dies under a job: it is said, and the page lives on", DEADLINE, async () => {
    const tab = await open();
    const good = await queue(tab, graph("good", 0.3));
    await hears(tab, good.prompt, "execution_success");
    const lost = await queue(tab, graph("lost", 60));
    await hears(tab, lost.prompt, "progress");
    const sim = simOf(lost.backend);
    await sim.crash();
    // Long before the job is given up, and in an artist's words.
    const word = await seesText(tab, "the page says that the server is silent",
      /.*does not answer.*/);
    assert.match(word, new RegExp(`^${lost.backend} does not answer. Your job is kept for up to`));
    assert.doesNotMatch(word, NOT_FOR_PEOPLE);
    // Run, for which the page is told in the same words why not yet.
    const refused = await tab.page.evaluate(async () => {
      const error = await window.app.api.queuePrompt(0, await window.app.graphToPrompt())
        .then(() => null, (thrown) => thrown);
      return error?.response?.error?.message;
    });
    assert.match(refused, /the server that has your jobs does not answer/);
    assert.doesNotMatch(refused, NOT_FOR_PEOPLE);
    // F5, while the server that has the job is away and the other is not.
    await reload(tab);
    assert.equal(tab.page.url(), `${fleet.url}/`);
    await generated(tab, "good_00001_");
    await reconfigure("3s");
    const error = await hears(tab, lost.prompt, "execution_error");
    assert.equal(error.node_type, "SlowSteps", "the node that worked last");
    assert.match(error.exception_message, /^The job is lost: gpu-[ab] has not answered/);
    assert.doesNotMatch(error.exception_message, NOT_FOR_PEOPLE);
    await seesText(tab, "the error is on the page", /SlowSteps failed/);
    await rests(tab);
    const told = await tab.page.evaluate((id) => window.told.filter((event) =>
      event.prompt_id === id && event.type === "execution_error").length, lost.prompt);
    assert.equal(told, 1, "once");
    await sim.restart();
    await seen(sim.name, true);
    const next = await queue(tab, graph("after", 0.3));
    await hears(tab, next.prompt, "execution_success");
    await reload(tab);
    for (const name of ["after_00001_", "good_00001_"]) await generated(tab, name);
    await queueShows(tab, "all three are in the queue panel", /Failed[^]*|after_00001_/);
    await queueShows(tab, "what was made is there as well", /good_00001_/);
  });

  test("a tab is closed: its pictures are in the next one, and its job can be cancelled",
    DEADLINE, async () => {
      const first = await open();
      const done = await queue(first, graph("closed", 0.3));
      const runs = await queue(first, graph("runs", 60));
      await hears(first, done.prompt, "execution_success");
      await hears(first, runs.prompt, "progress");
      await first.page.close();
      const second = await open();
      await generated(second, "closed_00001_");
      await eventually("the job that runs on is shown", async () =>
        (await running(second)).includes(runs.prompt));
      // A bare verb is the tab's own, and it has nothing.
      await second.page.evaluate(() => window.app.api.interrupt(null));
      assert.deepEqual(await running(second), [runs.prompt]);
      await second.page.evaluate((id) => window.app.api.interrupt(id), runs.prompt);
      await eventually("it has ended", async () => !(await running(second)).length);
    });

  test("a waiting job is cancelled: the running one keeps its progress", DEADLINE, async () => {
    const tab = await open();
    const { page } = tab;
    await load(tab, graph("kept", 20));
    const runs = await runLoaded(tab, {});
    const waits = await runLoaded(tab, {});
    await hears(tab, runs.prompt, "progress");
    await seesText(tab, "both are counted", /2 active/);
    await page.evaluate((id) => window.app.api.deleteItem("queue", id), waits.prompt);
    await seesText(tab, "the waiting one is gone", /1 active/);
    await queueShows(tab, "the running one shows how far it is", /Total:\s*\d+\s*%/);
    assert.ok(await page.$eval('[aria-label="Cancel current run"]', (it) => !it.disabled));
    await page.click('[aria-label="Cancel current run"]');
    await hears(tab, runs.prompt, "execution_interrupted");
    await rests(tab);
  });

  test("one name is uploaded in two tabs: each has its own, and nothing is missing", DEADLINE,
    async () => {
      const tabs = [await open(), await open()];
      // Held on different servers while they upload.
      const held = [];
      for (const tab of tabs) held.push(await queue(tab, graph("hold", 60)));
      assert.notEqual(held[0].backend, held[1].backend);
      const names = [];
      for (const [index, color] of [RED, BLUE].entries()) {
        names.push(await upload(tabs[index], "same.png", color));
      }
      for (const [index, tab] of tabs.entries()) {
        await tab.page.evaluate((id) => window.app.api.interrupt(id), held[index].prompt);
        await hears(tab, held[index].prompt, "execution_interrupted");
      }
      for (const [index, color] of [RED, BLUE].entries()) {
        await worksWith(tabs[index], names[index], color);
      }
      // In the tab on the other server, and after F5.
      await worksWith(tabs[0], names[1], BLUE);
      await reload(tabs[1]);
      await worksWith(tabs[1], names[0], RED);
      // Its server is busy, and another is not: a small picture is no reason to wait.
      const { backend: busy } = names[1];
      await keepBusy(busy);
      const away = await worksWith(tabs[1], names[1], BLUE);
      assert.notEqual(away.backend, busy);
    });

  test("the home goes away, then all: the page works, then waits, and comes back", DEADLINE,
    async () => {
      const [home, other] = fleet.backends;
      const tab = await open();
      const first = await queue(tab, graph("first", 0.3));
      await hears(tab, first.prompt, "execution_success");
      await load(tab, graph("away", 0.3));
      await simOf(first.backend).crash();
      // Run, before anybody knows that its server is gone.
      const job = await runLoaded(tab, {});
      await hears(tab, job.prompt, "execution_success");
      if (first.backend !== home.name) {
        await other.restart();
        await seen(other.name, true);
        await home.crash();
      }
      await seen(home.name, false);
      const late = await open();
      const saved = await late.page.evaluate(async () => {
        const answer = await window.app.api.fetchApi("/userdata/workflows%2Fday.json", {
          method: "POST", body: "{}",
        });
        return { status: answer.status, reason: answer.statusText };
      });
      assert.deepEqual(saved, { status: 503, reason: `${home.name} is down: not saved` });
      await late.page.close();
      await other.crash();
      await seen(other.name, false);
      await tab.page.reload();
      await seesText(tab, "a page of ours says that nobody is there", /No server|not there|no server/);
      assert.doesNotMatch(await tab.page.innerText("body"), NOT_FOR_PEOPLE);
      await Promise.all([home.restart(), other.restart()]);
      await ready(tab.page);
    });

  test("the gateway is killed while jobs run and wait: each ends in its turn", DEADLINE,
    async () => {
      const tab = await open();
      await load(tab, graph("one", 5));
      const one = await runLoaded(tab, {});
      await load(tab, graph("two", 1));
      const two = await runLoaded(tab, {});
      await hears(tab, one.prompt, "progress");
      const from = tab.sockets.length;
      await fleet.restart();
      await hears(tab, two.prompt, "execution_success");
      const heard = tab.sockets.slice(from).flatMap((socket) => socket.heard).map(String)
        .filter((text) => text.startsWith("{")).map((text) => JSON.parse(text));
      const at = (type, prompt) => heard.findIndex((event) =>
        event.type === type && event.data.prompt_id === prompt);
      const turns = [at("execution_success", one.prompt), at("execution_start", two.prompt)];
      assert.ok(turns[0] >= 0 && turns[0] < turns[1], `an end, then the next start: ${turns}`);
      for (const name of ["one_00001_", "two_00001_"]) await generated(tab, name);
      await rests(tab);
    });
});

/** Opens a workflow with an upload, sees it, runs it, and sees what it becomes. */
async function worksWith(tab, { value, name, subfolder }, color) {
  const { page } = tab;
  await page.evaluate(() => window.app.refreshComboInNodes());
  await load(tab, inverted(value));
  const choices = await page.evaluate(() => {
    const { widgets } = window.app.graph.nodes.find(({ type }) => type === "LoadImage");
    const { values } = widgets.find((widget) => widget.name === "image").options;
    return typeof values === "function" ? values() : values;
  });
  assert.ok(choices.includes(value), `${value} is in ${choices}`);
  const preview = await seesAtNode(tab, "LoadImage", { filename: name, subfolder });
  assertColour(preview.pixel, color, "the picture that it loads");
  const job = await runLoaded(tab, {});
  await hears(tab, job.prompt, "execution_success");
  assert.equal(await page.$("text=Media input missing"), null);
  const [image] = await picturesOf(tab, job.prompt);
  const made = await seesAtNode(tab, "SaveImage", image);
  assertColour(made.pixel, inverse(color), "the picture that it makes");
  const entry = await (await fetch(`${simOf(job.backend).url}/history/${job.prompt}`)).json();
  assert.doesNotMatch(JSON.stringify(entry[job.prompt].prompt[3].extra_pnginfo), /~gpu-/,
    "the workflow in a picture names no server");
  return job;
}
