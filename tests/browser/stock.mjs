// What a test does on ComfyUI's own page: it uploads, loads a workflow and runs it, and looks at
// what the page heard and shows.

import assert from "node:assert/strict";
import { encodePng } from "../clients/png.mjs";
import { openTab, ready, until } from "./kit.mjs";

/** What the page's own listeners are told of jobs; kept in `window.told`. */
const TOLD = ["execution_start", "executing", "progress", "executed", "execution_success",
  "execution_error", "execution_interrupted"];

/** Opens the page in a tab and waits until it works; `told` keeps what it hears from then on. */
export async function openStock(context, url, allowed) {
  const tab = await openTab(context, url, allowed);
  const id = await ready(tab.page);
  await listen(tab);
  return { ...tab, id };
}

/** Loads the page again, as F5 does. */
export async function reload(tab) {
  await tab.page.reload();
  await ready(tab.page);
  await listen(tab);
}

const listen = ({ page }) => page.evaluate((types) => {
  window.told = [];
  for (const type of types) {
    window.app.api.addEventListener(type, ({ detail }) =>
      window.told.push({ type, ...(typeof detail === "object" ? detail : { node: detail }) }));
  }
}, TOLD);

/** Uploads a picture as the page's own nodes do; `value` is what they would have then. */
export async function upload({ page }, name, color) {
  const told = await page.evaluate(async ([base64, filename]) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const body = new FormData();
    body.append("image", new File([bytes], filename, { type: "image/png" }));
    const answer = await window.app.api.fetchApi("/upload/image", { method: "POST", body });
    return { backend: answer.headers.get("mooring-backend"), ...await answer.json() };
  }, [encodePng(12, 12, color).toString("base64"), name]);
  return { ...told, value: told.subfolder ? `${told.subfolder}/${told.name}` : told.name };
}

/** Opens a workflow, and waits until it is the one that the page has. */
export async function load({ page }, nodes, name = "story.json") {
  await page.evaluate(([json, file]) => window.app.loadApiJson(json, file), [nodes, name]);
  const count = Object.keys(nodes).length;
  await until(page, "the workflow is loaded", (wanted) =>
    window.app.graph.nodes.length === wanted, count);
}

/** Queues what is loaded as the Run button does, and looks that this is what was sent. */
export async function runLoaded({ page }, nodes) {
  const posted = page.waitForResponse((response) =>
    response.url().endsWith("/api/prompt") && response.request().method() === "POST");
  await page.evaluate(() => { window.app.queuePrompt(0, 1); });
  const response = await posted;
  assert.equal(response.status(), 200, await response.text());
  const { prompt: sent } = response.request().postDataJSON();
  for (const [id, { inputs }] of Object.entries(nodes)) {
    for (const [key, value] of Object.entries(inputs)) {
      assert.deepEqual(sent[id].inputs[key], value, `${id}.${key} is what was asked for`);
    }
  }
  const { prompt_id: prompt } = await response.json();
  return { prompt, backend: response.headers()["mooring-backend"] };
}

/** Loads a workflow and queues it. */
export async function queue(tab, nodes) {
  await load(tab, nodes);
  return runLoaded(tab, nodes);
}

/** Waits until the page itself was told of this; returns what. */
export const hears = ({ page }, prompt, type) =>
  until(page, `the page hears ${type}`, ([id, kind]) =>
    window.told.find((event) => event.prompt_id === id && event.type === kind), [prompt, type]);

/** The first pixel of a picture that one of the page's nodes shows, once it is there. */
export async function seesAtNode({ page }, type, { filename, subfolder }) {
  await page.bringToFront();
  return until(page, `${type} shows ${filename}`, ([kind, name, folder]) => {
    const { graph: { nodes }, canvas } = window.app;
    const node = nodes.find((each) => each.type === kind);
    // Pictures are loaded for what is to be seen.
    canvas.centerOnNode(node);
    const [shown] = node.imgs ?? [];
    if (!shown?.naturalWidth) return false;
    const query = new URL(shown.src, location.href).searchParams;
    if (query.get("filename") !== name || query.get("subfolder") !== folder) return false;
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.drawImage(shown, 0, 0);
    return { url: shown.src, pixel: [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3) };
  }, [type, filename, subfolder]);
}

/** The pictures of a job, as the page was told of them. */
export const picturesOf = async ({ page }, prompt) => page.evaluate((id) =>
  window.told.find((event) => event.prompt_id === id && event.output?.images).output.images,
prompt);

/** ComfyUI counts in fractions and cuts off what is less than a whole: one less is the same. */
export function assertColour(pixel, color, what) {
  const isNear = channels(color).every((value, index) => Math.abs(value - pixel[index]) <= 1);
  assert.ok(isNear, `${what} is ${pixel}, and not ${channels(color)}`);
}

export const channels = (color) => [color >> 16, (color >> 8) & 255, color & 255];
export const inverse = (color) => 0xffffff - color;
