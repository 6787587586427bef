// The dashboard of the admin listener in a browser: narrow and wide, light and dark, by keyboard
// alone, with a screen reader's rules (axe), with a token, and while the gateway is away.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser, watch } from "./kit.mjs";

const PICTURES = fileURLToPath(new URL("../../.cache/browser", import.meta.url));
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** A job of so many seconds that fails at its end, or does not. */
const job = (seconds, fail = false) => ({
  1: { class_type: "EmptyImage", inputs: { width: 8, height: 8, batch_size: 1, color: 255 } },
  2: { class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps: 20, seconds, fail, preview: false } },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "board" } },
});

let fleet;
let browser;

before(async () => {
  mkdirSync(PICTURES, { recursive: true });
  [fleet, browser] = await Promise.all([startFleet(), openBrowser()]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
}, DEADLINE);

/** Opens the dashboard of that address; it may ask nobody else. */
async function open(admin, options = {}, hash = "") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  await page.route((other) => other.origin !== admin, (route) => route.abort());
  const tab = watch(page, admin);
  const answer = await page.goto(`${admin}/${hash}`);
  assert.equal(answer.status(), 200);
  return { ...tab, context };
}

const isLive = ({ page }) => page.getByRole("status").filter({ hasText: "Live" }).waitFor();

async function submit(client, graph) {
  const answer = await fetch(`${fleet.url}/prompt`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ client_id: client, prompt: graph }),
  });
  assert.equal(answer.status, 200);
  return (await answer.json()).prompt_id;
}

/** Ends a job, whether it waits or runs. */
async function end(prompt) {
  const answer = await fetch(`${fleet.url}/api/jobs/${prompt}/cancel`, { method: "POST" });
  assert.equal(answer.status, 200);
}

/** A colour scheme with enough contrast, names for everything, no trap: WCAG 2.2 as axe knows it. */
async function isAccessible({ page }, what) {
  // A debugger may add a script; the page itself allows none but its own.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document));
  const told = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((it) => it.html)}`);
  assert.deepEqual(told, [], what);
}

test("it shows who works and what happened, on every screen", DEADLINE, async () => {
  await submit("tab-of-cyd", job(1, true));
  const long = [];
  for (const client of ["tab-of-ada", "tab-of-bob", "tab-of-ada"]) {
    long.push(await submit(client, job(300)));
  }
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const tab = await open(fleet.admin, { colorScheme, viewport: { width, height: 900 } });
      const { page } = tab;
      await isLive(tab);
      await page.getByRole("rowheader").filter({ hasText: "tab-of-ada" }).waitFor();
      await page.getByRole("listitem").filter({ hasText: /of tab-of-cyd on gpu-. failed/ }).waitFor();
      assert.equal(await page.locator(`.prompts li[title="${long[0]}"]`).count(), 1);
      const busy = page.getByRole("article").filter({ has: page.locator(`li[title="${long[0]}"]`) });
      await busy.getByText(/^Runs SlowSteps \(node 2\), step \d+ of 20, for/).waitFor();
      await busy.getByText(/^cpu: [\d.]+ GiB of [\d.]+ GiB free$/).waitFor();
      assert.equal(await page.getByRole("article").count(), 3);
      const ended = page.getByRole("figure", { name: "Jobs that ended" });
      await ended.getByText(/^\d+ jobs?, at most \d+ in a minute; \d+ not completed/).waitFor();
      assert.ok(await ended.locator("svg rect.not").count() > 0);
      const ran = page.getByRole("figure", { name: "Running time, on average" });
      await ran.getByText(/ in the newest minute that has any, at most /).waitFor();
      const overflow = await page.evaluate(() =>
        document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} px too wide`);
      await page.screenshot({
        path: `${PICTURES}/dashboard-${colorScheme}-${width}.png`, fullPage: true,
      });
      assert.deepEqual(tab.problems, []);
      await isAccessible(tab, `${colorScheme} ${width}`);
      await tab.context.close();
    }
  }
  const tab = await open(fleet.admin, {}, "#filter=tab-of-bob");
  await tab.page.getByRole("rowheader").filter({ hasText: "tab-of-bob" }).waitFor();
  assert.equal(await tab.page.getByRole("rowheader").count(), 1);
  await tab.page.getByRole("button", { name: "tab-of-bob", exact: true }).click();
  const detail = tab.page.getByRole("dialog", { name: "tab-of-bob" });
  await detail.getByText(long[1]).waitFor();
  await isAccessible(tab, "a client");
  await tab.page.screenshot({ path: `${PICTURES}/dashboard-client.png` });
  await detail.getByRole("button", { name: "Close" }).click();
  for (const prompt of long) await end(prompt);
  await tab.page.getByText("No client matches.").or(tab.page.getByText("Nobody waits")).waitFor();
  await tab.context.close();
});

test("the keyboard alone drains a backend and makes it ready again", DEADLINE, async () => {
  const tab = await open(fleet.admin);
  const { page } = tab;
  await isLive(tab);
  const focused = () => page.evaluate(() => document.activeElement?.textContent);
  const press = async (name) => {
    await eventually(`${name} is reached`, async () => {
      if (await focused() === name) return true;
      await page.keyboard.press("Tab");
      return false;
    });
    await page.keyboard.press("Enter");
  };
  await press("Drain gpu-b");
  const dialog = page.getByRole("dialog", { name: "Drain gpu-b?" });
  await dialog.waitFor();
  await page.screenshot({ path: `${PICTURES}/dashboard-drain.png` });
  await isAccessible(tab, "the question");
  await press("Drain");
  await dialog.waitFor({ state: "hidden" });
  const card = page.getByRole("article").filter({ hasText: "gpu-b" });
  await card.getByText(/^drain(ing|ed)$/).waitFor();
  await card.getByText(/^dashboard \(127\.0\.0\.1\)/).waitFor();
  await press("Make ready gpu-b");
  await press("Make ready");
  await card.getByText(/^(ready|busy)$/).waitFor();
  await page.getByRole("listitem").filter({ hasText: /gpu-b is (ready|busy)/ }).waitFor();
  assert.deepEqual(tab.problems, []);
  await tab.context.close();
});

test("a refusal is told, and what it would have done is not done", DEADLINE, async () => {
  await submit("tab-of-dora", job(300));
  const tab = await open(fleet.admin);
  const { page } = tab;
  const row = page.getByRole("row").filter({ hasText: "tab-of-dora" });
  const server = await row.locator(".where").innerText();
  await page.getByRole("button", { name: `Turn off ${server}` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Turn off" }).click();
  await page.getByRole("alert").filter({ hasText: /pending/ }).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await row.getByRole("button", { name: "Release tab-of-dora" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Release" }).click();
  await row.waitFor({ state: "detached" });
  await page.getByRole("listitem").filter({ hasText: "was lost (reset)" }).waitFor();
  await tab.context.close();
});

test("one job is cancelled after a question, and the other runs", DEADLINE, async () => {
  const [keeps, goes] = [await submit("tab-of-eve", job(300)), await submit("tab-of-eve", job(300))];
  const tab = await open(fleet.admin, {}, "#filter=tab-of-eve");
  const { page } = tab;
  await page.getByRole("button", { name: `Cancel job ${goes}` }).click();
  const dialog = page.getByRole("dialog", { name: "Cancel a job of tab-of-eve?" });
  await dialog.getByText(/deleted from the queue of gpu-/).waitFor();
  await page.screenshot({ path: `${PICTURES}/dashboard-cancel.png` });
  await isAccessible(tab, "the question before a cancel");
  await dialog.getByRole("button", { name: "Keep it" }).click();
  assert.equal(await page.locator(`.prompts li[title="${goes}"]`).count(), 1);
  await page.getByRole("button", { name: `Cancel job ${goes}` }).click();
  await dialog.getByRole("button", { name: "Cancel the job" }).click();
  await dialog.waitFor({ state: "hidden" });
  await page.locator(`.prompts li[title="${goes}"]`).waitFor({ state: "detached" });
  await page.locator(`.prompts li[title="${keeps}"][data-state="running"]`).waitFor();
  await end(keeps);
  assert.deepEqual(tab.problems, []);
  await tab.context.close();
});

test("it says that it is stale while the gateway is away, and goes on after that", DEADLINE,
  async () => {
    const tab = await open(fleet.admin);
    await isLive(tab);
    const stale = tab.page.getByRole("status").filter({ hasText: /Stale for \d+ s/ }).waitFor();
    await Promise.all([stale, fleet.restart()]);
    await isLive(tab);
    await tab.context.close();
  });

test("with a token it asks for it once in a tab, and shows nothing before", DEADLINE, async () => {
  const settings = ["admin.token=s3cret", "admin.read_token=looks"];
  const locked = await startFleet({ backends: 1, settings });
  try {
    const tab = await open(locked.admin);
    const { page } = tab;
    const dialog = page.getByRole("dialog", { name: "Token or key" });
    await dialog.waitFor();
    assert.equal(await page.getByRole("article").count(), 0);
    await isAccessible(tab, "the login");
    const tries = [["“s3cret”", /of ASCII/], ["wrong", /not accepted/], ["s3cret", null]];
    await page.keyboard.press("Escape");
    for (const [token, after] of tries) {
      await dialog.getByLabel("Token").fill(token);
      await page.keyboard.press("Enter");
      if (after) await dialog.getByText(after).waitFor();
    }
    await isLive(tab);
    await page.getByRole("article").waitFor();
    await page.reload();
    await isLive(tab);
    await page.getByRole("button", { name: "Drain gpu-a" }).waitFor();
    await tab.context.close();
    const looking = await open(locked.admin);
    await looking.page.getByRole("dialog").getByLabel("Token").fill("looks");
    await looking.page.keyboard.press("Enter");
    await looking.page.getByText("Looking only").waitFor();
    await looking.page.getByRole("article").waitFor();
    assert.equal(await looking.page.getByRole("button").count(), 0);
    await isAccessible(looking, "looking only");
    await looking.page.screenshot({ path: `${PICTURES}/dashboard-looks.png` });
    await looking.context.close();
  } finally {
    await locked.stop();
  }
});
