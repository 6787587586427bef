// @saintno/comfyui-sdk, as it comes from its registry, against the gateway at MOORING_URL.
//
// What makes this client a hard one: it never says who it is outside the socket and the body of a
// prompt. Queue, history and pictures are asked for by a nameless stranger, on each `status`, and
// a prompt that is for one moment in neither list "went missing".

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CallWrapper, ComfyApi, ComfyPool, PromptBuilder } from "@saintno/comfyui-sdk";
import { decodePng, encodePng } from "./png.mjs";

const url = process.env.MOORING_URL;
assert.ok(url, "MOORING_URL names the gateway");

/** No prompt here takes longer than two seconds of a backend's time. */
const DEADLINE_MS = 60_000;
const PROMPTS = 10;
const IMAGE_TO_IMAGE = 50;
/** Many upload under one name, as scripts do. */
const NAMES = 5;

const opened = [];

async function connect() {
  const api = new ComfyApi(url);
  opened.push(api);
  const connected = new Promise((resolve, reject) => {
    api.on("connected", resolve);
    api.on("connection_error", () => reject(new Error("the gateway does not answer")));
  });
  api.init(3, 500);
  await connected;
  await api.waitForReady();
  return api;
}

/** EmptyImage → SlowSteps → SaveImage. Previews are on: the SDK must cope with them. */
function graph(color, prefix, seconds) {
  const nodes = {
    1: { class_type: "EmptyImage", inputs: { width: 48, height: 32, batch_size: 1, color } },
    2: {
      class_type: "SlowSteps",
      inputs: { image: ["1", 0], steps: 4, seconds, fail: false, preview: true },
    },
    3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: prefix } },
  };
  return new PromptBuilder(nodes, [], ["images"]).setOutputNode("images", "3");
}

/** Runs one prompt to its end. Resolves to its picture, decoded. */
async function run(api, color, prefix, seconds = 0.2) {
  let failure = null;
  const call = new CallWrapper(api, graph(color, prefix, seconds))
    .onFailed((error) => { failure = error; });
  const output = await call.run();
  assert.ok(output, `the prompt failed: ${failure?.message} ${failure?.cause ?? ""}`);
  const [info] = output.images.images;
  const bytes = await (await api.getImage(info)).arrayBuffer();
  return { picture: decodePng(bytes) };
}

function assertColour(picture, color, what) {
  const wanted = [color >> 16, (color >> 8) & 255, color & 255];
  assert.deepEqual([picture.width, picture.height], [48, 32], what);
  assert.deepEqual(picture.pixel(24, 16).slice(0, 3), wanted, what);
}

let api;
before(async () => { api = await connect(); }, { timeout: DEADLINE_MS });
after(() => opened.forEach((each) => each.destroy()));

test("it connects and reads who is there", { timeout: DEADLINE_MS }, async () => {
  assert.equal((await api.getSystemStats()).system.os, "linux");
  assert.ok((await api.getNodeDefs("SaveImage")).SaveImage);
  assert.deepEqual(Object.keys(await api.getQueue()).sort(), ["queue_pending", "queue_running"]);
});

test("one prompt runs to its picture", { timeout: DEADLINE_MS }, async () => {
  // Of the client and not of the call: a call listens only once its prompt is known to run.
  const told = { progress: 0, b_preview: 0 };
  for (const event of Object.keys(told)) api.on(event, () => { told[event] += 1; });
  const { picture } = await run(api, 0x3366cc, "sdk_one", 0.6);
  assertColour(picture, 0x3366cc, "the colour that was asked for");
  assert.ok(told.progress > 0, "progress was told");
  assert.ok(told.b_preview > 0, "previews were shown, in the old form that it understands");
});

test(`${PROMPTS} prompts one after the other`, { timeout: DEADLINE_MS }, async () => {
  for (let index = 0; index < PROMPTS; index += 1) {
    const color = 0x102030 + index * 0x0f0b07;
    const { picture } = await run(api, color, `sdk_row_${index}`);
    assertColour(picture, color, `prompt ${index}`);
  }
});

test(`${PROMPTS} prompts of one client at once`, { timeout: DEADLINE_MS }, async () => {
  const colors = Array.from({ length: PROMPTS }, (_, index) => 0xa01020 + index * 0x050d11);
  const runs = colors.map((color, index) => run(api, color, `sdk_once_${index}`));
  const done = await Promise.all(runs);
  done.forEach(({ picture }, index) => assertColour(picture, colors[index], `prompt ${index}`));
});

test("a prompt that ComfyUI refuses is refused with its reason", { timeout: DEADLINE_MS },
  async () => {
    const broken = new PromptBuilder(
      { 1: { class_type: "NoSuchNode", inputs: {} } }, [], ["images"],
    ).setOutputNode("images", "1");
    let failure = null;
    const call = new CallWrapper(api, broken).onFailed((error) => { failure ??= error; });
    assert.equal(await call.run(), false);
    assert.match(JSON.stringify(failure.cause), /NoSuchNode/);
  });

/**
 * LoadImage → ImageInvert → SaveImage, with a pause: a call listens only once its prompt was
 * answered for, and waits for ever for one that was over by then, on a bare ComfyUI too.
 */
function inverting(image) {
  const nodes = {
    1: { class_type: "LoadImage", inputs: { image } },
    2: { class_type: "ImageInvert", inputs: { image: ["1", 0] } },
    3: {
      class_type: "SlowSteps",
      inputs: { image: ["2", 0], steps: 2, seconds: 0.2, fail: false, preview: false },
    },
    4: { class_type: "SaveImage", inputs: { images: ["3", 0], filename_prefix: "ComfyUI" } },
  };
  return new PromptBuilder(nodes, [], ["images"]).setOutputNode("images", "4");
}

/** Uploads a picture and gets it back inverted, from wherever that was done. */
async function invert(one, color, name) {
  const uploaded = await one.uploadImage(encodePng(48, 32, color), name);
  assert.ok(uploaded, `${name} was not uploaded`);
  const { filename, subfolder } = uploaded.info;
  let failure = null;
  const call = new CallWrapper(one, inverting(subfolder ? `${subfolder}/${filename}` : filename))
    .onFailed((error) => { failure = error; });
  const output = await call.run();
  assert.ok(output, `the prompt failed: ${failure?.message} ${failure?.cause ?? ""}`);
  const [info] = output.images.images;
  const picture = decodePng(await (await one.getImage(info)).arrayBuffer());
  assertColour(picture, 0xffffff ^ color, `${filename} in ${JSON.stringify(info)}`);
  return info;
}

test(`a pool of three runs ${IMAGE_TO_IMAGE} jobs from picture to picture`,
  { timeout: 2 * DEADLINE_MS }, async () => {
    const pool = new ComfyPool([new ComfyApi(url), new ComfyApi(url), new ComfyApi(url)]);
    opened.push({
      destroy() {
        pool.destroy();
        // A destroyed pool looks for jobs every 100 ms, for ever, unless it waits for a client.
        pool.getAvailableClient = () => new Promise(() => null);
        pool.jobQueue.push({});
      },
    });
    const colors = Array.from({ length: IMAGE_TO_IMAGE }, (_, index) => 0x010203 * (index + 1));
    const jobs = colors.map((color, index) => (one) =>
      invert(one, color, `input${index % NAMES}.png`));
    const made = await pool.batch(jobs);
    const names = made.map(({ filename, subfolder }) => `${subfolder}/${filename}`);
    assert.equal(new Set(names).size, IMAGE_TO_IMAGE, "each has a name of its own");
    // What those names meant they still mean, when all is done.
    const after = await Promise.all(made.map((info) => api.getImage(info)));
    for (const [index, blob] of after.entries()) {
      const picture = decodePng(await blob.arrayBuffer());
      assertColour(picture, 0xffffff ^ colors[index], names[index]);
    }
  });
