// Users in a browser: the login page, a wrong password, two users with ComfyUI's own page at the
// same time, logging out, and what happens to an open page when its user is removed.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser, ready, until, watch } from "./kit.mjs";
import { hears, picturesOf, queue, seesAtNode } from "./stock.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.MOORING_BIN ?? `${ROOT}target/debug/mooring`;
const PICTURES = `${ROOT}.cache/browser`;

const PASSWORDS = { ada: "correct horse", bob: "battery staple" };
const COLOURS = { ada: 0x3366cc, bob: 0xcc6633 };

const graph = (color, prefix) => ({
  1: { class_type: "EmptyImage", inputs: { width: 64, height: 48, batch_size: 1, color } },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: prefix } },
});

let folder;
let fleet;
let browser;

function users(args, input = "") {
  const file = join(folder, "users.toml");
  const done = spawnSync(BINARY, ["users", ...args, "--file", file], { input, encoding: "utf8" });
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "mooring-login-"));
  mkdirSync(PICTURES, { recursive: true });
  const keys = Object.entries(PASSWORDS).map(([name, password]) => {
    const key = users(["add", name]).trim().split(/\s+/).at(-1);
    users(["password", name], `${password}\n`);
    return key;
  });
  const frontend = process.env.COMFYUI_FRONTEND;
  const settings = ["auth.mode=keys", `auth.users_file=${join(folder, "users.toml")}`,
    `state.dir=${join(folder, "state")}`];
  const headers = { "x-api-key": keys[0] };
  [fleet, browser] =
    await Promise.all([startFleet({ frontend, settings, headers }), openBrowser()]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
  rmSync(folder, { recursive: true, force: true });
}, DEADLINE);

/** A tab that is watched, and asks nobody but the gateway. */
async function tabOf(context) {
  const page = await context.newPage();
  const { origin } = new URL(fleet.url);
  await page.route((other) => other.origin !== origin && other.protocol.startsWith("http"),
    (route) => route.abort());
  return watch(page, origin, [{ why: "counted elsewhere", pattern: /./ }]);
}

async function fill({ page }, name, password) {
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

/** Opens the page, logs in, and waits until ComfyUI's own page works. */
async function logIn(context, name) {
  const tab = await tabOf(context);
  const answer = await tab.page.goto(`${fleet.url}/`);
  assert.equal(answer.status(), 401);
  await fill(tab, name, PASSWORDS[name]);
  const id = await ready(tab.page);
  await tab.page.evaluate(() => {
    window.told = [];
    for (const type of ["executed", "execution_success"]) {
      window.app.api.addEventListener(type, ({ detail }) =>
        window.told.push({ type, ...detail }));
    }
  });
  return { ...tab, id };
}

const whoIs = ({ page }) => page.evaluate(async () =>
  (await (await fetch("/-/whoami")).json()).user?.name);

test("the page is plain, readable, and works without JavaScript", DEADLINE, async () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const context = await browser.newContext({
        colorScheme, viewport: { width, height: 800 }, javaScriptEnabled: false,
      });
      const tab = await tabOf(context);
      const asked = [];
      tab.page.on("request", (request) => asked.push(request.url()));
      await tab.page.goto(`${fleet.url}/`);
      assert.deepEqual(asked, [`${fleet.url}/`], "it asks for nothing else");
      await tab.page.screenshot({ path: `${PICTURES}/login-${colorScheme}-${width}.png` });
      await fill(tab, "ada", "wrong");
      const alert = tab.page.getByRole("alert");
      assert.match(await alert.innerText(), /The name, the password or the key is wrong/);
      await tab.page.screenshot({ path: `${PICTURES}/login-wrong-${colorScheme}-${width}.png` });
      assert.equal(await tab.page.getByLabel("Name", { exact: true }).inputValue(), "ada");
      await tab.page.goto(`${fleet.url}/-/login?next=/-/whoami`);
      await fill(tab, "ada", PASSWORDS.ada);
      assert.equal(tab.page.url(), `${fleet.url}/-/whoami`);
      assert.match(await tab.page.innerText("body"), /"name": ?"ada"/);
      await tab.page.goto(`${fleet.url}/-/login`);
      await tab.page.screenshot({ path: `${PICTURES}/account-${colorScheme}-${width}.png` });
      await context.close();
    }
  }
});

test("two users run a workflow at the same time and each sees his own", DEADLINE, async () => {
  const contexts = await Promise.all([browser.newContext(), browser.newContext()]);
  const tabs = {};
  for (const [at, name] of ["ada", "bob"].entries()) {
    tabs[name] = await logIn(contexts[at], name);
    assert.equal(await whoIs(tabs[name]), name);
  }
  const prompts = {};
  for (const [name, tab] of Object.entries(tabs)) {
    const { prompt } = await queue(tab, graph(COLOURS[name], name));
    prompts[name] = prompt;
    await hears(tab, prompt, "execution_success");
    const [picture] = await picturesOf(tab, prompt);
    const { pixel } = await seesAtNode(tab, "SaveImage", picture);
    const color = COLOURS[name];
    assert.deepEqual(pixel, [color >> 16, (color >> 8) & 255, color & 255]);
  }
  for (const [name, other] of [["ada", "bob"], ["bob", "ada"]]) {
    const history = await tabs[name].page.evaluate(async () =>
      Object.keys(await (await fetch("/history")).json()));
    assert.ok(history.includes(prompts[name]), `${name} sees his own`);
    assert.ok(!history.includes(prompts[other]), `${name} does not see ${other}'s`);
  }

  // The second user of a tab is not the first one's client.
  const { page, id } = tabs.bob;
  await page.goto(`${fleet.url}/-/login`);
  await page.getByRole("button", { name: "Log out", exact: true }).click();
  assert.match(await page.getByRole("status").innerText(), /logged out/);
  await page.goto(`${fleet.url}/`);
  await fill(tabs.bob, "ada", PASSWORDS.ada);
  assert.notEqual(await ready(page), id, "the tab has another clientId");
  assert.equal(await whoIs(tabs.bob), "ada");
  const history = await page.evaluate(async () =>
    Object.keys(await (await fetch("/history")).json()));
  assert.ok(history.includes(prompts.ada) && !history.includes(prompts.bob), "it is ada's now");
  await Promise.all(contexts.map((context) => context.close()));
});

test("who is removed loses his socket, and the next page is the form", DEADLINE, async () => {
  const context = await browser.newContext();
  const tab = await logIn(context, "bob");
  const socket = tab.sockets.at(-1);
  assert.equal(socket.closed, false);
  users(["remove", "bob"]);
  await eventually("the socket is closed", () => socket.closed);
  const refused = await tab.page.evaluate(async () => (await fetch("/queue")).status);
  assert.equal(refused, 401);
  const answer = await tab.page.goto(`${fleet.url}/`);
  assert.equal(answer.status(), 401);
  await until(tab.page, "the form is there", () => document.querySelector("#password") !== null);
  await context.close();
});
