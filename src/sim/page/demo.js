// The playground's own page: puts the client, what is known of the prompts and the drawing
// together. Read from the top: what happens → what is asked → what the buttons do.

import { Client, viewUrl } from "./client.js";
import { Prompts, hasEnded } from "./prompts.js";
import { $, drawFleet, drawPrompts, drawRope, drawTab, tell } from "./view.js";

/** How often the fleet and this tab's binding are asked for while somebody is looking. */
const WATCH_MS = 1000;
/** Five prompts of one colour look alike, so each turns the colour a little further. */
const FIVE = 5;

const client = new Client();
const prompts = new Prompts();

let backends = [];
const NOBODY = { bound: null, word: "", why: "", pending: null };
let binding = NOBODY;
/** What was uploaded last, as a graph names it. */
let uploaded = null;
/** Makes each prompt differ a little: the same one again would be answered from the cache. */
let salt = Math.floor(Math.random() * 900);
let drawing = false;

// ---------------------------------------------------------------- what happens

client.addEventListener("socket", ({ detail }) => {
  if (detail.state === "open") tell("The socket is open.", "good");
  if (detail.state === "closed") tell(`The socket closed (${detail.code}). Trying again.`, "bad");
  draw();
});

client.addEventListener("identity", ({ detail }) => {
  tell(`The first status gave this tab its name: ${detail.clientId}.`);
  watch();
});

client.addEventListener("comfy", ({ detail: { type, data } }) => {
  const change = prompts.event(type, data);
  if (change?.ended) ended(change.prompt);
  if (change || type === "status") draw();
});

client.addEventListener("preview", ({ detail: { promptId, blob } }) => {
  const prompt = prompts.note(promptId);
  if (hasEnded(prompt)) return;
  if (prompt.preview) URL.revokeObjectURL(prompt.preview);
  prompt.preview = URL.createObjectURL(blob);
  draw();
});

client.addEventListener("lists", ({ detail }) => {
  for (const prompt of prompts.lists(detail, client.clientId)) ended(prompt);
  for (const prompt of prompts.all) if (prompt.state === "done") findPlace(prompt);
  draw();
});

client.addEventListener("trouble", ({ detail: { what, error } }) => {
  tell(`${what}: ${error.message}.`, "bad");
});

const END_WORDS = {
  done: "is done", failed: "failed", cancelled: "was cancelled", lost: "was lost",
};

function ended(prompt) {
  // A reload reads old ends from the history: they are no news.
  if (Date.now() - prompt.createdAt > 10 * 60_000) return;
  const why = prompt.error ? `: ${prompt.error}` : ".";
  const where = prompt.backend ? ` on ${prompt.backend}` : "";
  const kind = prompt.state === "done" ? "good" : prompt.state === "cancelled" ? "" : "bad";
  tell(`Prompt ${prompt.id.slice(0, 8)} ${END_WORDS[prompt.state]}${where}${why}`, kind);
}

/** Asks once who serves a prompt's picture: it must be who made it. */
async function findPlace(prompt) {
  const [picture] = prompt.pictures;
  if (prompt.checked || !picture) return;
  prompt.checked = true;
  const response = await fetch(viewUrl(picture), { method: "HEAD" }).catch(() => null);
  const backend = response?.headers.get("mooring-backend");
  if (!backend) return;
  if (prompt.backend && prompt.backend !== backend) {
    const short = prompt.id.slice(0, 8);
    tell(`The picture of ${short} came from ${backend}, but ${prompt.backend} made it.`, "bad");
  }
  prompt.backend ??= backend;
  draw();
}

// ---------------------------------------------------------------- what is asked

/** Asks for the fleet and for this tab's binding. Both may be missing: it may be another server. */
async function watch() {
  const [fleet, mine] = await Promise.all([
    client.gateway("/-/demo/backends").catch(() => null),
    client.clientId ? client.gateway("/-/whoami").catch(() => null) : null,
  ]);
  const before = binding.bound;
  backends = Array.isArray(fleet) ? fleet : (fleet?.backends ?? []);
  if (mine) binding = readBinding(mine);
  const isDown = backends.some((backend) => backend.name === binding.bound && !backend.up);
  if (isDown && binding.word === "held") {
    binding.why = "its work is there; it is down, and waited for";
  }
  if (before && binding.bound && before !== binding.bound) {
    tell(`This tab moved from ${before} to ${binding.bound}: ${binding.why}.`);
  }
  draw();
}

/** Why a client is where it is, in the words of this page. Other decisions explain themselves. */
const WHY = {
  placed: "it had the shortest queue",
  moved: "it had the shorter queue by then",
  held: "its work is pending there",
  reserved: "what was uploaded lies there",
  idle: "nothing is pending, so the next prompt may go elsewhere",
};

/** The binding as `/-/whoami` tells it. */
function readBinding({ client: mine }) {
  if (!mine) return NOBODY;
  for (const known of mine.prompts ?? []) {
    const prompt = prompts.get(known.prompt_id);
    if (!prompt) continue;
    prompt.backend ??= known.backend;
    // A backend that is away lists nothing; the gateway still waits for it.
    prompt.misses = 0;
  }
  const last = mine.decisions?.at(-1)?.what;
  const why = mine.binding === "held" ? (WHY[last] ?? WHY.held) : (WHY[mine.binding] ?? last);
  return { bound: mine.backend, word: mine.binding, why: why ?? "", pending: mine.pending };
}

async function watchWhileSeen() {
  if (!document.hidden) await watch();
  setTimeout(watchWhileSeen, WATCH_MS);
}

function draw() {
  if (drawing) return;
  drawing = true;
  // A frame of the screen may hold many events. A hidden tab draws no frames, so a timer it is.
  setTimeout(() => {
    drawing = false;
    const { socketState, clientId } = client;
    drawFleet(backends, binding, act);
    drawTab({ socketState, clientId, binding, pending: prompts.pending.length });
    drawPrompts(prompts.all, cancel);
    drawRope(binding);
  }, 16);
}

// ---------------------------------------------------------------- what the buttons do

/** The graph of the form, its colour turned by `turn` of a circle. */
function graph(turn = 0) {
  salt = (salt + 1) % 1000;
  const upload = $("source-upload").checked && uploaded;
  const source = upload
    ? { class_type: "LoadImage", inputs: { image: uploaded.name } }
    : {
      class_type: "EmptyImage",
      inputs: { width: 384, height: 256, batch_size: 1, color: colour(turn) },
    };
  const nodes = { 1: source };
  let last = "1";
  if ($("invert").checked) {
    nodes[2] = { class_type: "ImageInvert", inputs: { image: [last, 0] } };
    last = "2";
  }
  nodes[3] = {
    class_type: "SlowSteps",
    inputs: {
      image: [last, 0],
      steps: Number($("steps").value),
      seconds: Number($("seconds").value) + salt / 100_000,
      fail: $("fail").checked,
      preview: true,
    },
  };
  // Every backend counts its files from 1: names of two tabs are to differ for people, too.
  const prefix = `demo_${client.clientId.slice(0, 6)}`;
  nodes[4] = { class_type: "SaveImage", inputs: { images: ["3", 0], filename_prefix: prefix } };
  return nodes;
}

/** The chosen colour as ComfyUI's number, its hue turned by `turn` of a circle. */
function colour(turn) {
  const value = parseInt($("colour").value.slice(1), 16);
  if (!turn) return value;
  const [red, green, blue] = [value >> 16, (value >> 8) & 255, value & 255];
  const angle = turn * 2 * Math.PI;
  const [cos, sin, root] = [Math.cos(angle), Math.sin(angle), Math.sqrt(1 / 3)];
  const a = cos + (1 - cos) / 3;
  const b = (1 - cos) / 3 - root * sin;
  const c = (1 - cos) / 3 + root * sin;
  const clamp = (number) => Math.max(0, Math.min(255, Math.round(number)));
  return (clamp(a * red + b * green + c * blue) << 16)
    | (clamp(c * red + a * green + b * blue) << 8)
    | clamp(b * red + c * green + a * blue);
}

async function queue(count) {
  for (let index = 0; index < count; index += 1) {
    const nodes = graph(index / count);
    try {
      const { promptId, backend, placement } = await client.queue(nodes);
      prompts.note(promptId, { graph: nodes, backend, placement });
      const where = backend ? ` on ${backend}${placement ? ` (${placement})` : ""}` : "";
      tell(`Prompt ${promptId.slice(0, 8)} is queued${where}.`);
    } catch (error) {
      tell(`The prompt was refused: ${error.message}.`, "bad");
    }
    draw();
  }
  client.refresh();
  watch();
}

async function cancel(id) {
  const prompt = prompts.get(id);
  if (!prompt || hasEnded(prompt)) return;
  try {
    await client.cancel(id, prompt.state === "running");
  } catch (error) {
    tell(`Could not cancel ${id.slice(0, 8)}: ${error.message}.`, "bad");
  }
  client.refresh();
}

async function cancelAll() {
  // Waiting ones first: a running one that ends would start the next.
  const pending = prompts.pending.reverse();
  for (const prompt of pending) await cancel(prompt.id);
}

async function upload(file) {
  if (!file) return;
  $("choose").disabled = true;
  try {
    const stored = await client.upload(file);
    uploaded = stored;
    $("upload-name").textContent = stored.name;
    $("thumb").src = `${viewUrl({ ...stored.file, filename: stored.file.name })}&preview=webp`;
    $("thumb").alt = stored.name;
    $("thumb").hidden = false;
    $("thumb-none").hidden = true;
    $("source-upload").checked = true;
    tell(`${stored.name} is uploaded${stored.backend ? ` to ${stored.backend}` : ""}.`, "good");
  } catch (error) {
    tell(`The upload failed: ${error.message}.`, "bad");
  }
  $("choose").disabled = false;
  showGraph();
  watch();
}

async function act(name, verb) {
  try {
    await client.gateway(`/-/demo/${encodeURIComponent(name)}/${verb}`, "POST");
    if (verb === "crash") tell(`${name} crashed; its queue is lost.`, "bad");
    else tell(`${name} is started again, with nothing in its queue.`, "good");
  } catch (error) {
    tell(`Could not ${verb} ${name}: ${error.message}.`, "bad");
  }
  watch();
}

async function reset(force) {
  try {
    await client.gateway(`/-/reset?force=${force}`, "POST");
    tell(force ? "Released by force." : "Released.");
  } catch (error) {
    tell(`Not released: ${error.message}.`, "bad");
  }
  client.refresh();
  watch();
}

async function validate() {
  try {
    const { consistent, reason } = await client.gateway("/-/validate");
    const verdict = consistent ? "Consistent" : "Not consistent";
    tell(`${verdict}. ${reason}.`, consistent ? "good" : "bad");
  } catch (error) {
    tell(`Could not check: ${error.message}.`, "bad");
  }
}

function showGraph() {
  const names = Object.values(graph()).map((node) => node.class_type);
  $("graph").textContent = names.join(" → ");
  $("steps-out").textContent = $("steps").value;
  $("seconds-out").textContent = $("seconds").value;
}

function listen() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    queue(1);
  });
  $("form").addEventListener("input", showGraph);
  $("queue-five").addEventListener("click", () => queue(FIVE));
  $("cancel-all").addEventListener("click", cancelAll);
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => upload($("file").files[0]));
  $("source-upload").addEventListener("click", () => uploaded || $("file").click());
  $("colour").addEventListener("click", () => {
    $("form").elements.source.value = "colour";
    showGraph();
  });
  $("drop").addEventListener("dragover", (event) => event.preventDefault());
  $("drop").addEventListener("drop", (event) => {
    event.preventDefault();
    upload(event.dataTransfer.files[0]);
  });
  $("cut").addEventListener("click", () => cut(0, "It comes back at once."));
  $("cut-long").addEventListener("click", () => cut(5000, "It comes back in 5 s."));
  // `noopener` gives the new tab an empty `window.name`: it is a client of its own.
  $("another").addEventListener("click", () => window.open(location.href, "_blank", "noopener"));
  $("reset").addEventListener("click", () => reset(false));
  $("reset-force").addEventListener("click", () => reset(true));
  $("validate").addEventListener("click", validate);
  document.addEventListener("visibilitychange", () => document.hidden || watch());
  new ResizeObserver(() => drawRope(binding)).observe($("harbour"));
}

function cut(ms, after) {
  client.cut(ms);
  tell(`You cut the socket. ${after}`, "bad");
}

listen();
showGraph();
client.connect();
watchWhileSeen();
