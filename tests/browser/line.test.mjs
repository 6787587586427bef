// The line by the Run bar (`page_extension.js`), on each of the frontends and over simulated
// servers: where a job is and how many come before it, a dot for each server, planned work, a
// server that goes away, and a lost job that is run again. What is looked at is what stands on the
// page and what a screen reader is told.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser, until } from "./kit.mjs";
import { hears, load, openStock, queue, reload, runLoaded } from "./stock.mjs";

const PICTURES = new URL("../../.cache/browser/", import.meta.url).pathname;
const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
/** What nobody who draws pictures knows, and where servers are. */
const NOT_FOR_PEOPLE = /\b(backend|prompt|client|undefined|null)s?\b|\d+\.\d+\.\d+\.\d+:\d+/i;
/** The page has problems of its own: what it asks of other hosts, and files that nobody has. */
const OURS = /page_extension|mooring-line|mooring:|\/-\/fleet/;

const graph = (prefix, seconds) => ({
  1: { class_type: "EmptyImage", inputs: { width: 32, height: 32, batch_size: 1, color: 0xe01020 } },
  2: {
    class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps: 10, seconds, fail: false, preview: true },
  },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: prefix } },
});

let browser;
let fleet;
let context;
let folder;
let configuration;

const troubles = (...tabs) =>
  tabs.flatMap(({ problems }) => problems).filter((problem) => OURS.test(problem));
const line = ({ page }) => page.locator("mooring-line");
const shown = async (tab) => (await line(tab).locator("p[role=status]").textContent()).trim();

/** Waits until the line says this, in words for people. */
async function says(tab, what, pattern) {
  let last = "";
  await eventually(`${what} (${pattern})`, async () => {
    last = await shown(tab).catch(String);
    return pattern.test(last);
  }).catch((error) => { throw new Error(`${error.message}; it says "${last}"`); });
  assert.doesNotMatch(last, NOT_FOR_PEOPLE);
  return last;
}

/** Waits until a server's dot is called this. */
const dotIs = (tab, what, name) => eventually(`${what}: ${name}`, () =>
  line(tab).getByRole("listitem", { name, exact: true }).count());

/** True if no part of the page but the canvas is under the line. */
const hidesNothing = ({ page }) => page.evaluate(() => {
  const host = document.querySelector("mooring-line");
  const { left, right, top, bottom } = host.getBoundingClientRect();
  const across = [left + 1, (left + right) / 2, right - 1];
  return across.every((x) => {
    const under = document.elementsFromPoint(x, (top + bottom) / 2).find((it) => it !== host);
    return under?.matches("canvas, html, body") || under?.closest("[data-node-id]");
  });
});

const tell = (path, body) => fetch(`${fleet.admin}${path}`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

async function stranger(server, count) {
  const { url } = fleet.backends.find(({ name }) => name === server);
  for (let each = 0; each < count; each += 1) {
    const body = JSON.stringify({ client_id: "stranger", prompt: graph(`busy${each}`, 600) });
    assert.equal((await fetch(`${url}/prompt`, { method: "POST", body })).status, 200);
  }
}

async function reconfigure(keys) {
  await writeFile(configuration, keys);
  const answer = await fetch(`${fleet.admin}/api/v1/reload`, { method: "POST" });
  assert.equal(answer.status, 200, await answer.text());
}

/** Closes what the page shows over itself when it opens. */
const alone = ({ page }) => page.keyboard.press("Escape");

async function picture(tab, name) {
  await tab.page.screenshot({ path: `${PICTURES}line-${name}.png` });
}

/** What axe-core finds in the line, alone. */
async function violations({ page }) {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { violations: found } = await window.axe.run(document.querySelector("mooring-line"));
    return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  });
}

before(async () => {
  browser = await openBrowser();
}, DEADLINE);

after(async () => {
  await browser?.close();
}, DEADLINE);

for (const [version, frontend] of [
  ["1.35.9", process.env.COMFYUI_FRONTEND], ["1.49.6", process.env.COMFYUI_FRONTEND_033],
  ["1.58.1", process.env.COMFYUI_FRONTEND_NEW],
]) {
  describe(`frontend ${version}`, () => {
    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "mooring-line-"));
      configuration = join(folder, "mooring.toml");
      await writeFile(configuration, "[fleet]\ngrace = \"1h\"\n");
      const settings = ["prompts.answer_limit=2s", `state.dir=${folder}`];
      fleet = await startFleet({ backends: 2, frontend, settings, configuration });
      context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
    }, DEADLINE);

    afterEach(async () => {
      await context?.close();
      await fleet?.stop();
      await rm(folder, { recursive: true, force: true });
    }, DEADLINE);

    test("it says where a job is, how many come before it, and what is planned", DEADLINE,
      async () => {
        const tab = await openStock(context, `${fleet.url}/`);
        await alone(tab);
        const names = line(tab).getByRole("listitem");
        await eventually("a dot for each server", async () => (await names.count()) === 2);
        await stranger("gpu-a", 2);
        await stranger("gpu-b", 2);
        const { backend } = await queue(tab, graph("mine", 600));
        await says(tab, "two of strangers come first",
          new RegExp(`^on ${backend} \u00b7 2 before you$`));
        await dotIs(tab, "its server is busy", `${backend}: busy, yours`);
        await until(tab.page, "it is to be seen", () => {
          const host = document.querySelector("mooring-line");
          const section = host.shadowRoot.querySelector("section");
          return getComputedStyle(section).opacity === "1" && !host.hidden;
        });
        assert.ok(await hidesNothing(tab));
        assert.deepEqual(await violations(tab), []);
        await picture(tab, `${version}-queued`);
        await tell(`/api/v1/backends/${backend}/state`, { state: "draining" });
        await says(tab, "planned work is said", /planned work on gpu-[ab]: your jobs there go on/);
        await dotIs(tab, "the dot says it too", `${backend}: busy, planned work, yours`);
        await picture(tab, `${version}-planned`);
        await tell(`/api/v1/backends/${backend}/state`, { state: "ready" });
        await says(tab, "it is over", new RegExp(`^on ${backend} \u00b7 2 before you$`));
        // Another tab of the same browser has no job, and sees none of this one.
        const other = await openStock(context, `${fleet.url}/`);
        await eventually("its dots", async () =>
          (await line(other).getByRole("listitem").count()) === 2);
        assert.equal(await shown(other), "");
        assert.deepEqual(troubles(tab, other), []);
      });

    test("its server goes away: a word at once, and lost jobs run again elsewhere", DEADLINE,
      async () => {
        const tab = await openStock(context, `${fleet.url}/`);
        await alone(tab);
        const job = await queue(tab, graph("lost", 60));
        await says(tab, "it runs", new RegExp(`^running on ${job.backend}$`));
        await load(tab, graph("waits", 1));
        // As the page runs a part of a workflow: what it says besides the graph is sent again.
        const second = await tab.page.evaluate(async () => {
          const { app } = window;
          const options = { previewMethod: "latent2rgb" };
          const { prompt_id: prompt } =
            await app.api.queuePrompt(0, await app.graphToPrompt(), options);
          return { prompt };
        });
        await says(tab, "there is another", / \u00b7 1 more of yours$/);
        // The page is changed meanwhile: what runs again is what was lost.
        await load(tab, graph("other", 5));
        await fleet.backends.find(({ name }) => name === job.backend).crash();
        await says(tab, "its server is silent",
          new RegExp(`^${job.backend} does not answer \u00b7 your job is kept`));
        await dotIs(tab, "the dot says it too", `${job.backend}: away, yours`);
        await picture(tab, `${version}-away`);
        await reconfigure("[fleet]\ngrace = \"2s\"\n");
        await hears(tab, job.prompt, "execution_error");
        await hears(tab, second.prompt, "execution_error");
        // One of the pages shows a dialog.
        await alone(tab);
        const button = line(tab).getByRole("button", { name: "Run them again elsewhere" });
        await button.waitFor();
        assert.equal(await line(tab).getByRole("alert").textContent(), "2 jobs of yours are lost");
        assert.deepEqual(await violations(tab), []);
        await picture(tab, `${version}-lost`);
        const sent = [];
        tab.page.on("request", (request) => {
          if (request.method() === "POST" && request.url().endsWith("/api/prompt")) {
            const { prompt, extra_data: more } = request.postDataJSON();
            sent.push([prompt[3].inputs.filename_prefix, more.preview_method]);
          }
        });
        // By the keyboard alone: it is no command for the page.
        await button.focus();
        await tab.page.keyboard.press("Enter");
        await says(tab, "it runs elsewhere", /^running on gpu-[ab] /);
        assert.doesNotMatch(await shown(tab), new RegExp(`running on ${job.backend}`));
        const again = [["lost", undefined], ["waits", "latent2rgb"]];
        assert.deepEqual(sent, again, "as they were, each once");
        assert.equal(await button.count(), 0);
        // After F5 the graphs are gone, and the line is there again.
        await reload(tab);
        await says(tab, "after F5", /^running on gpu-[ab] /);
        assert.deepEqual(troubles(tab), []);
      });
  });
}

describe("frontend 1.49.6, whatever it looks like", () => {
  const frontend = process.env.COMFYUI_FRONTEND_033;
  const start = async (more = {}) => {
    fleet = await startFleet({ backends: 2, frontend, ...more });
  };

  afterEach(async () => {
    await context?.close();
    await fleet?.stop();
  }, DEADLINE);

  test("light or dark, wide or narrow, it is read easily and hides nothing", DEADLINE, async () => {
    await start();
    for (const [palette, width] of [["light", 1400], ["dark", 1400], ["dark", 390]]) {
      context = await browser.newContext({ viewport: { width, height: 844 } });
      const tab = await openStock(context, `${fleet.url}/`);
      await alone(tab);
      await tab.page.evaluate((id) =>
        window.app.extensionManager.setting.set("Comfy.ColorPalette", id), palette);
      await queue(tab, graph(`look-${palette}-${width}`, 30));
      await says(tab, "it runs", /^running on gpu-[ab]/);
      await tab.page.waitForTimeout(1500);
      const opacity = await line(tab).locator("section").evaluate((it) =>
        getComputedStyle(it).opacity);
      assert.equal(opacity, "1", `${palette} ${width}`);
      assert.ok(await hidesNothing(tab), `${palette} ${width}`);
      assert.deepEqual(await violations(tab), [], `${palette} ${width}`);
      await picture(tab, `${palette}-${width}`);
      assert.deepEqual(troubles(tab), []);
      await context.close();
    }
  });

  test("switched off it is gone, also from a page that is open", DEADLINE, async () => {
    folder = await mkdtemp(join(tmpdir(), "mooring-line-"));
    configuration = join(folder, "mooring.toml");
    await writeFile(configuration, "");
    await start({ configuration });
    context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
    const allowed = [{ pattern: /status of 404 .*\/-\/fleet/ }];
    const tab = await openStock(context, `${fleet.url}/`, allowed);
    await eventually("it is there", () => line(tab).getByRole("listitem").count());
    await reconfigure("[server]\npage_extension = \"off\"\n");
    await queue(tab, graph("off", 0.3));
    await eventually("it is gone", async () => (await line(tab).count()) === 0);
    await reload(tab);
    const job = await queue(tab, graph("off2", 0.3));
    await hears(tab, job.prompt, "execution_success");
    assert.equal(await line(tab).count(), 0);
    assert.deepEqual(troubles(tab), []);
    await rm(folder, { recursive: true, force: true });
  });
});
