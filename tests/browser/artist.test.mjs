// An artist's day on the page of ComfyUI 0.33 (frontend 1.49.6), over two simulated servers: one
// dies under a job and comes back, tabs are closed and opened, one name is uploaded twice, and
// the home goes away. What is looked at is what stands on the page, not what the routes answer.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { encodePng } from "../clients/png.mjs";
import { LOAD_MS, eventually, openBrowser, openTab, ready, until } from "./kit.mjs";

const DEADLINE = { timeout: 120_000 };
const RED = 0xe01020;
const BLUE = 0x1030e0;
/** How long a dead server's jobs are kept. Short, so that nobody waits for a minute. */
const GRACE = ["fleet.grace=4s", "prompts.answer_limit=3s"];

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

/** Opens the page, puts its first dialogs away, and waits until it works. */
async function open(path = "/") {
  const tab = await openTab(context, `${fleet.url}${path}`);
  await ready(tab.page);
  await tab.page.evaluate(() => {
    window.told = [];
    for (const type of ["execution_start", "executing", "progress", "execution_success",
      "execution_error", "execution_interrupted"]) {
      window.app.api.addEventListener(type, ({ detail }) =>
        window.told.push({ type, ...(typeof detail === "object" ? detail : { node: detail }) }));
    }
  });
  return tab;
}

/** Loads a workflow and clicks Run so many times; the ids of the jobs. */
async function run({ page }, nodes, times = 1) {
  const count = Object.keys(nodes).length;
  await page.evaluate((json) => window.app.loadApiJson(json, "day.json"), nodes);
  await until(page, "the workflow is loaded", (wanted) =>
    window.app.graph.nodes.length === wanted, count);
  const jobs = [];
  for (let turn = 0; turn < times; turn += 1) {
    const posted = page.waitForResponse((response) =>
      response.url().endsWith("/api/prompt") && response.request().method() === "POST");
    await page.click('[data-testid="queue-button"]');
    const response = await posted;
    assert.equal(response.status(), 200, await response.text());
    const { prompt_id: id } = await response.json();
    jobs.push({ id, backend: response.headers()["mooring-backend"] });
  }
  return jobs;
}

const hears = ({ page }, id, type) => until(page, `the page hears ${type}`, ([job, kind]) =>
  window.told.some((event) => event.prompt_id === job && event.type === kind), [id, type]);

/** The names of the pictures under Assets, Generated. */
async function generated({ page }, name) {
  const panel = '[aria-label$="image asset"]';
  if (!(await page.$("text=Media Assets"))) await page.click('[aria-label^="Assets"]');
  await until(page, `${name} is among what was generated`, ([selector, wanted]) =>
    [...document.querySelectorAll(selector)].some((it) =>
      it.getAttribute("aria-label").startsWith(wanted)), [panel, name]);
}

const simOf = (backend) => fleet.backends.find(({ name }) => name === backend);

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
    fleet = await startFleet({ backends: 2, frontend, settings: GRACE });
    context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
  }, DEADLINE);

  afterEach(async () => {
    await context?.close();
    await fleet?.stop();
  }, DEADLINE);

  test("a server dies under a job: it is said, and all panels live on", DEADLINE, async () => {
    const tab = await open();
    const { page } = tab;
    const [good] = await run(tab, graph("good", 0.5));
    await hears(tab, good.id, "execution_success");
    await generated(tab, "good_00001_");
    const [lost] = await run(tab, graph("lost", 60));
    await hears(tab, lost.id, "progress");
    const died = Date.now();
    const sim = simOf(lost.backend);
    await sim.crash();
    // A word on the page long before the grace is over, in an artist's words.
    await until(page, "the page says that the server does not answer", () =>
      /does not answer/.test(document.body.innerText), undefined, 15_000);
    assert.ok(Date.now() - died < 10_000);
    await hears(tab, lost.id, "execution_error");
    const error = await page.evaluate((id) =>
      window.told.find((event) => event.prompt_id === id && event.type === "execution_error"),
    lost.id);
    assert.doesNotMatch(error.exception_message, /\d+\.\d+\.\d+\.\d+:\d+/, "no host and port");
    // Read while the other server is there and this one is not.
    await page.reload({ timeout: LOAD_MS });
    await ready(page);
    await generated(tab, "good_00001_");
    await page.evaluate(() => { window.told = []; });
    await tab.page.close();
    await sim.restart();
    const next = await open();
    const [after] = await run(next, graph("after", 0.5));
    await eventually("the next job has ended", async () => {
      const answer = await next.page.evaluate(async (id) =>
        (await (await window.app.api.fetchApi(`/jobs/${id}`)).json()).status, after.id);
      return answer === "completed";
    });
    await next.page.reload({ timeout: LOAD_MS });
    await ready(next.page);
    await generated(next, "after_00001_");
    await generated(next, "good_00001_");
    await next.page.click('[data-testid="queue-overlay-toggle"]');
    await until(next.page, "the queue panel has the jobs", () =>
      /good_00001_/.test(document.querySelector('[data-testid="job-assets-list"]')?.innerText));
    await next.page.close();
  });

  test("a tab is closed: its pictures are in the next one, and its job can be cancelled",
    DEADLINE, async () => {
      const first = await open();
      const [done, running] = [
        ...await run(first, graph("closed", 0.3)), ...await run(first, graph("runs", 60)),
      ];
      await hears(first, done.id, "execution_success");
      await hears(first, running.id, "progress");
      await first.page.close();
      const second = await open();
      await generated(second, "closed_00001_");
      const seen = () => second.page.evaluate(async () => {
        const queue = await (await window.app.api.fetchApi("/queue")).json();
        return queue.queue_running.map(([, id]) => id);
      });
      await eventually("the job that runs on is shown", async () =>
        (await seen()).includes(running.id));
      await second.page.evaluate((id) =>
        window.app.api.fetchApi("/queue", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ delete: [id] }),
        }), running.id);
      await second.page.evaluate((id) =>
        window.app.api.fetchApi("/interrupt", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ prompt_id: id }),
        }), running.id);
      await eventually("it has ended", async () => !(await seen()).includes(running.id));
      await second.page.close();
    });

  test("a waiting job is cancelled: the running one keeps its progress", DEADLINE, async () => {
    const tab = await open();
    const { page } = tab;
    const [runs, waits] = await run(tab, graph("kept", 12), 2);
    await hears(tab, runs.id, "progress");
    await page.evaluate((id) => window.app.api.fetchApi("/queue", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ delete: [id] }),
    }), waits.id);
    await page.click('[data-testid="queue-overlay-toggle"]');
    await until(page, "the waiting one is gone", () =>
      /1 active|1 running/.test(document.body.innerText));
    await until(page, "the running one shows how far it is", () =>
      /Total:\s*\d+\s*%/.test(document.querySelector('[data-testid="job-assets-list"]')?.innerText));
    const enabled = await page.$eval('[aria-label="Cancel current run"]', (it) => !it.disabled);
    assert.ok(enabled, "the X is alive");
    await page.click('[aria-label="Cancel current run"]');
    await hears(tab, runs.id, "execution_interrupted");
    await page.close();
  });

  test("one name is uploaded in two tabs: each picks its own, and nothing is missing", DEADLINE,
    async () => {
      const tabs = [await open(), await open()];
      // Held on different servers while they upload.
      for (const tab of tabs) await run(tab, graph("hold", 4));
      const told = [];
      for (const [index, color] of [RED, BLUE].entries()) {
        told.push(await tabs[index].page.evaluate(async (base64) => {
          const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
          const body = new FormData();
          body.append("image", new File([bytes], "same.png", { type: "image/png" }));
          const answer = await window.app.api.fetchApi("/upload/image", { method: "POST", body });
          const { name, subfolder } = await answer.json();
          return subfolder ? `${subfolder}/${name}` : name;
        }, encodePng(12, 12, color).toString("base64")));
      }
      for (const [index, color] of [RED, BLUE].entries()) {
        const tab = tabs[index];
        const choices = await tab.page.evaluate(async () => {
          await window.app.refreshComboInNodes();
          const info = await (await window.app.api.fetchApi("/object_info/LoadImage")).json();
          const [first, second] = info.LoadImage.input.required.image;
          return Array.isArray(first) ? first : second.options;
        });
        assert.ok(choices.includes(told[index]), `${told[index]} is in ${choices}`);
        const [job] = await run(tab, inverted(told[index]));
        await hears(tab, job.id, "execution_success");
        assert.equal(await tab.page.$("text=Media input missing"), null);
        const shown = await tab.page.evaluate(async (id) => {
          const { api } = window.app;
          const history = await (await api.fetchApi(`/history/${id}`)).json();
          const image = history[id].outputs[3].images[0];
          const answer = await api.fetchApi(`/view?${new URLSearchParams(image)}`);
          const bitmap = await createImageBitmap(await answer.blob());
          const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
          const pen = canvas.getContext("2d");
          pen.drawImage(bitmap, 0, 0);
          return [...pen.getImageData(6, 6, 1, 1).data].slice(0, 3);
        }, job.id);
        const opposite = 0xffffff - color;
        assert.deepEqual(shown, [opposite >> 16, (opposite >> 8) & 255, opposite & 255]);
      }
      for (const { page } of tabs) await page.close();
    });

  test("the home goes away: the page still opens, and says that nothing was saved", DEADLINE,
    async () => {
      const [home] = fleet.backends;
      await home.crash();
      await eventually("it is seen to be down", async () => {
        const answer = await fetch(`${fleet.admin}/api/v1/backends`);
        return (await answer.json()).backends.some(({ up }) => !up);
      });
      const tab = await open();
      const saved = await tab.page.evaluate(async () => {
        const answer = await window.app.api.fetchApi("/userdata/workflows%2Fday.json", {
          method: "POST", body: "{}",
        });
        return { status: answer.status, reason: answer.statusText, text: await answer.text() };
      });
      assert.equal(saved.status, 503);
      assert.match(`${saved.reason} ${saved.text}`, /not saved/);
      const [job] = await run(tab, graph("away", 0.3));
      await hears(tab, job.id, "execution_success");
      await tab.page.close();
      await home.restart();
    });
});
