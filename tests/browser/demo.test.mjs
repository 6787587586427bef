// The playground in a real browser, as `mooring demo` serves it through the gateway.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startDemo } from "../clients/fleet.mjs";
import { encodePng } from "../clients/png.mjs";
import { DEADLINE, eventually, middleColour, openBrowser, openTab, until, watch } from "./kit.mjs";

const PICTURES = fileURLToPath(new URL("../../.cache/browser", import.meta.url));

let demo;
let browser;

before(async () => {
  [demo, browser] = await Promise.all([startDemo(), openBrowser()]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await demo?.stop();
}, DEADLINE);

/** Each test is a person with a browser of their own; tabs of one context share their cookies. */
async function playground(t, options = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const tab = await openTab(context, `${demo.url}/`);
  await named(tab.page);
  return { ...tab, context };
}

/** Waits until the first `status` gave the tab its name. */
function named(page) {
  return until(page, "the tab is connected and has a name", () =>
    document.getElementById("socket").dataset.state === "open" && window.name);
}

/** Queues one prompt of `seconds` with a colour, and returns its id. */
async function queue(page, { seconds, button = "#queue", colour = "#3366cc" } = {}) {
  const before = await ids(page);
  await page.$eval("#form", (form, values) => {
    form.querySelector("#seconds").value = values.seconds;
    form.querySelector("#colour").value = values.colour;
    form.dispatchEvent(new Event("input", { bubbles: true }));
  }, { seconds, colour });
  await page.click(button);
  return until(page, "the prompt is in the list", (old) =>
    [...document.querySelectorAll("[data-prompt]")].map((card) => card.dataset.prompt)
      .find((id) => !old.includes(id)), before);
}

const ids = (page) =>
  page.$$eval("[data-prompt]", (cards) => cards.map((card) => card.dataset.prompt));

function reaches(page, id, state) {
  return until(page, `prompt ${id} is ${state}`, ([prompt, wanted]) =>
    document.getElementById(`prompt-${prompt}`)?.dataset.state === wanted, [id, state]);
}

/** Waits for the picture itself: decoded by the browser, not just asked for. */
function pictured(page, id) {
  return until(page, `prompt ${id} shows its picture`, (prompt) =>
    document.querySelector(`[id="prompt-${prompt}"] img.result`)?.naturalWidth > 0, id);
}

const backendOf = (page, id) =>
  until(page, `prompt ${id} says who did it`, (prompt) =>
    document.querySelector(`[id="prompt-${prompt}"] .chip b`)?.textContent, id);

test("the tab has a name before its first socket, and keeps it over a reload", DEADLINE,
  async (t) => {
    const { page, sockets } = await playground(t);
    assert.equal(sockets[0].url.pathname, "/ws");
    assert.match(sockets[0].url.searchParams.get("clientId"), /^[0-9a-f]{32}$/);
    await eventually("flags are sent", () => sockets[0].sent.length);
    assert.equal(JSON.parse(sockets[0].sent[0]).type, "feature_flags", "and they come first");
    const name = await page.evaluate(() => window.name);
    assert.equal(sockets[0].url.searchParams.get("clientId"), name);
    assert.equal(await page.textContent("#client-id"), name);
    await page.reload();
    assert.equal(await named(page), name, "a reload keeps the name");
    assert.equal(sockets.at(-1).url.searchParams.get("clientId"), name);
  });

test("a prompt is queued, and its picture and its backend are shown", DEADLINE, async (t) => {
  const { page, problems } = await playground(t);
  const id = await queue(page, { seconds: 1, colour: "#3366cc" });
  await until(page, "a preview or progress is shown", (prompt) => {
    const card = document.getElementById(`prompt-${prompt}`);
    return card.querySelector("img.preview") || card.querySelector("progress").value > 0;
  }, id);
  await reaches(page, id, "done");
  await pictured(page, id);
  const inverted = await middleColour(page, `[id="prompt-${id}"] img.result`);
  assert.deepEqual(inverted, [0xcc, 0x99, 0x33], "the colour, inverted");
  assert.match(await backendOf(page, id), /^\S+$/);
  // The README shows it: one that is done and one that runs.
  const next = await queue(page, { seconds: 3, colour: "#cc6633" });
  await until(page, "the next one is on its way", (prompt) =>
    document.getElementById(`prompt-${prompt}`).querySelector("progress").value > 0, next);
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/playground.png`, fullPage: true });
  await reaches(page, next, "done");
  assert.deepEqual(problems, []);
});

test("the socket is cut in the middle of a prompt, and its end is seen", DEADLINE, async (t) => {
  const { page, sockets } = await playground(t);
  const id = await queue(page, { seconds: 3 });
  await reaches(page, id, "running");
  const name = await page.evaluate(() => window.name);
  const before = sockets.length;
  await page.click("#cut");
  await eventually("a new socket", () => sockets.length > before);
  assert.equal(sockets.at(-1).url.searchParams.get("clientId"), name, "with the same clientId");
  await reaches(page, id, "done");
  await pictured(page, id);
});

test("a prompt that ends while the tab is away is found done", DEADLINE, async (t) => {
  const { page } = await playground(t);
  const id = await queue(page, { seconds: 2 });
  await reaches(page, id, "running");
  await page.click("#cut-long");
  await until(page, "the tab says that it is cut", () =>
    document.getElementById("socket").dataset.state === "held");
  await reaches(page, id, "done");
  await pictured(page, id);
});

test("two tabs of one browser are two clients, each on its own backend", DEADLINE, async (t) => {
  const first = await playground(t);
  const opening = first.context.waitForEvent("page", DEADLINE);
  await first.page.click("#another");
  const second = watch(await opening, first.origin);
  await named(second.page);
  const names = await Promise.all([first, second].map(({ page }) =>
    page.evaluate(() => window.name)));
  assert.notEqual(names[0], names[1]);

  const one = await queue(first.page, { seconds: 3 });
  const two = await queue(second.page, { seconds: 3 });
  const [here, there] = await Promise.all([
    backendOf(first.page, one), backendOf(second.page, two),
  ]);
  assert.notEqual(here, there, "the shorter queue took the second tab");
  await Promise.all([reaches(first.page, one, "done"), reaches(second.page, two, "done")]);
  await Promise.all([pictured(first.page, one), pictured(second.page, two)]);
});

test("five prompts stay on one backend while they are pending", DEADLINE, async (t) => {
  const { page } = await playground(t);
  await queue(page, { seconds: 0.5, button: "#queue-five" });
  await until(page, "five are listed", () =>
    document.querySelectorAll("[data-prompt]").length === 5);
  const all = await ids(page);
  for (const id of all) await reaches(page, id, "done");
  for (const id of all) await pictured(page, id);
  const backends = new Set(await Promise.all(all.map((id) => backendOf(page, id))));
  assert.equal(backends.size, 1, [...backends].join());
});

test("a picture of one's own is uploaded and used", DEADLINE, async (t) => {
  const { page } = await playground(t);
  await page.setInputFiles("#file", {
    name: "mine.png", mimeType: "image/png", buffer: encodePng(40, 30, 0xff2000),
  });
  await until(page, "the upload is shown", () =>
    document.getElementById("thumb").naturalWidth > 0 &&
    document.getElementById("source-upload").checked);
  const id = await queue(page, { seconds: 0.5 });
  await reaches(page, id, "done");
  await pictured(page, id);
  const inverted = await middleColour(page, `[id="prompt-${id}"] img.result`);
  assert.deepEqual(inverted, [0x00, 0xdf, 0xff]);
});

test("a running and a waiting prompt are cancelled", DEADLINE, async (t) => {
  const { page } = await playground(t);
  const running = await queue(page, { seconds: 20 });
  await reaches(page, running, "running");
  const waiting = await queue(page, { seconds: 20 });
  await page.click(`[id="prompt-${waiting}"] button`);
  await reaches(page, waiting, "cancelled");
  await page.click(`[id="prompt-${running}"] button`);
  await reaches(page, running, "cancelled");
});

test("a prompt that fails says why", DEADLINE, async (t) => {
  const { page } = await playground(t);
  await page.check("#fail");
  const id = await queue(page, { seconds: 0.5 });
  await reaches(page, id, "failed");
  const why = await page.textContent(`[id="prompt-${id}"] .doing`);
  assert.ok(why.length > 3, why);
});

test("a backend crashes and comes back: its prompt is lost and said to be", DEADLINE, async (t) => {
  const { page } = await playground(t);
  const id = await queue(page, { seconds: 20 });
  await reaches(page, id, "running");
  const name = await backendOf(page, id);
  await page.click(`#backend-${name} button`);
  await until(page, "it is down", (backend) =>
    document.getElementById(`backend-${backend}`).dataset.up === "false", name);
  await page.click(`#backend-${name} button`);
  await reaches(page, id, "lost");
  const next = await queue(page, { seconds: 0.5 });
  await reaches(page, next, "done");
  await pictured(page, next);
});

test("a release is refused while work is pending, and works by force", DEADLINE, async (t) => {
  const { page } = await playground(t);
  const says = (words) => until(page, `the journal says ${words}`, (text) =>
    document.getElementById("journal").textContent.includes(text), words);
  const id = await queue(page, { seconds: 20 });
  await reaches(page, id, "running");
  await page.click("#validate");
  await says("Consistent");
  await page.click("#reset");
  await says("Not released");
  await page.click("#reset-force");
  await reaches(page, id, "lost");
});

for (const [width, colorScheme] of [[1280, "light"], [400, "dark"]]) {
  test(`it fits ${width} pixels (${colorScheme})`, DEADLINE, async (t) => {
    const options = { viewport: { width, height: 900 }, colorScheme };
    const { page } = await playground(t, options);
    const id = await queue(page, { seconds: 0.5 });
    await pictured(page, id);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${wide} > ${width}`);
    const nameless = await page.$$eval("button, input, progress", (all) => all.filter((each) =>
      !each.hidden && !each.labels?.length && !each.textContent.trim() &&
      !each.getAttribute("aria-label")).map((each) => each.outerHTML));
    assert.deepEqual(nameless, [], "each control has a name to be read out");
  });
}
