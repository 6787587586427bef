// The home dies, and the gateway is started again without it: ComfyUI's own page loads cold, runs a
// workflow to its picture, and has its settings; it saves again when the home is back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser } from "./kit.mjs";
import { assertColour, hears, openStock, picturesOf, queue, seesAtNode } from "./stock.mjs";

const COLOUR = 0x3366cc;

/** Errors on the console that are not ours, each with why it is none. */
const ALLOWED = [
  {
    why: "ComfyUI answers 404 to these on a fresh installation, without a gateway too",
    pattern: /status of 404/,
  },
  {
    why: "a server's log is the operator's (server.allow_logs); the page asks for it all the same",
    pattern: /status of 403 .*\/internal\/logs\)|Error fetching logs/,
  },
  { why: "the frontend ships no icon of this name", pattern: /\/favicon\.ico\)/ },
  {
    why: "the page asks its maker's registry about nodes; other hosts are cut off in this test",
    pattern: /\/\/api\.comfy\.org|ERR_FAILED/,
  },
  {
    why: "what cannot be saved while the home is away says so",
    pattern: /status of 503 .*\/api\/(settings|userdata)/,
  },
  {
    why: "ComfyUI's own policy (--disable-api-nodes) forbids the `data:` address of the page's wasm",
    pattern: /data:application\/wasm[^]* Content Security Policy|^uncaught: TypeError: Failed to fetch$/,
  },
  {
    why: "the page says so of its own start",
    pattern: /ComfyApp graph accessed before initialization/,
  },
];

const GRAPH = {
  1: {
    class_type: "EmptyImage",
    inputs: { width: 64, height: 48, batch_size: 1, color: COLOUR },
  },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "home" } },
};

const FILE = "/userdata/workflows%2Fkept.json";

let state;
let fleet;
let browser;

before(async () => {
  state = mkdtempSync(join(tmpdir(), "mooring-home-"));
  const frontend = process.env.COMFYUI_FRONTEND_033;
  const settings = [`state.dir=${state}`, "fleet.probe_interval=500ms"];
  [fleet, browser] = await Promise.all([startFleet({ frontend, settings }), openBrowser()]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
  rmSync(state, { recursive: true, force: true });
}, DEADLINE);

/** What the page's own functions say of settings and files. */
const read = ({ page }) => page.evaluate(async (file) => {
  const { api } = window.app;
  const answer = await api.fetchApi("/settings");
  const kept = await api.fetchApi(file);
  return {
    home: answer.headers.get("mooring-home"),
    colour: (await answer.json())["Test.Colour"],
    kept: kept.ok ? await kept.text() : kept.status,
  };
}, FILE);

/** Saves a setting and a file with the page's own functions: "saved", or what each was told. */
const save = ({ page }, colour) => page.evaluate(async ([file, value]) => {
  const { api } = window.app;
  const told = [];
  // Unlike that for files, it does not throw when it is refused.
  const setting = await api.storeSetting("Test.Colour", value);
  if (!setting.ok) told.push(`setting: ${await setting.text()}`);
  try {
    await api.storeUserData(file.split("/").pop().replace("%2F", "/"), { value },
      { overwrite: true, stringify: true, throwOnError: true, full_info: false });
  } catch (error) {
    told.push(`file: ${error}`);
  }
  return told.join("; ") || "saved";
}, [FILE, colour]);

test("a page is there without its home, and saves again when that is back", DEADLINE, async () => {
  const [home] = fleet.backends;
  const first = await openStock(await browser.newContext(), `${fleet.url}/`, ALLOWED);
  assert.equal(await save(first, "teal"), "saved");
  assert.equal((await read(first)).colour, "teal");
  await eventually("copies of both are on the disk", () => {
    const folder = join(state, "copies");
    // One that is still being written has another name, and a kill leaves nothing of it.
    const names = readdirSync(folder).filter((name) => !name.endsWith(".new"));
    const files = names.map((name) => readFileSync(join(folder, name), "utf8"));
    return [/"Test.Colour": ?"teal"/, /\{"value": ?"teal"\}/].every((it) =>
      files.some((file) => it.test(file)));
  });
  await first.page.context().close();

  await home.crash();
  await fleet.restart();
  await eventually("the others are up", async () => {
    const answer = await fetch(`${fleet.url}/`, { headers: { accept: "text/html" } });
    return answer.ok;
  });
  const context = await browser.newContext();
  const cold = await openStock(context, `${fleet.url}/`, ALLOWED);
  const found = await read(cold);
  assert.deepEqual([found.colour, found.home], ["teal", `${home.name} (stands in)`]);
  assert.deepEqual(JSON.parse(found.kept), { value: "teal" });
  const { prompt, backend } = await queue(cold, GRAPH);
  assert.notEqual(backend, home.name);
  await hears(cold, prompt, "execution_success");
  const [picture] = await picturesOf(cold, prompt);
  assertColour((await seesAtNode(cold, "SaveImage", picture)).pixel, COLOUR, "the picture");
  const refused = `[^;]*${home.name} is down: not saved[^;]*`;
  assert.match(await save(cold, "red"), new RegExp(`^setting: ${refused}; file: ${refused}$`));

  await home.restart();
  await eventually("it is saved again", async () => await save(cold, "red") === "saved");
  const back = await read(cold);
  assert.deepEqual([back.colour, back.home, JSON.parse(back.kept)], ["red", null, { value: "red" }]);
  assert.deepEqual(cold.problems, []);
});
