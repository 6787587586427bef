// Draws what is known: the tab and its rope, the fleet, the prompts, the journal.
//
// Each function takes plain records and changes the document as little as it can, so that focus,
// selections and screen readers are left in peace. Nothing here asks or decides anything.

import { viewUrl } from "./client.js";
import { describe, hasEnded } from "./prompts.js";

const JOURNAL_LINES = 80;
const TONES = 6;
const DOTS = 12;

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`on…`: listeners) and children, in one call. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Sets text only where it differs: live regions speak at each change. */
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, key, value) {
  if (node.dataset[key] !== value) node.dataset[key] = value;
}

// Backends get their tone in the order of their names, the same in every tab.
let names = [];

export function tone(backend) {
  const index = names.indexOf(backend);
  return index < 0 ? "none" : String(index % TONES);
}

function chip(backend, placement) {
  if (!backend) return el("span", { class: "chip", "data-tone": "none" }, "not placed yet");
  return el("span", { class: "chip", "data-tone": tone(backend) },
    el("b", {}, backend), placement ? ` ${placement}` : null);
}

const SOCKET_WORDS = {
  connecting: "connecting", open: "connected", closed: "reconnecting", held: "cut",
};

/** This tab: its socket, its name, what it is moored to and why. */
export function drawTab({ socketState, clientId, binding, pending }) {
  put($("socket"), SOCKET_WORDS[socketState]);
  mark($("socket"), "state", socketState);
  put($("client-id"), clientId || "none yet");
  $("client-id").title = clientId;
  put($("bound"), binding.bound ? `${binding.bound}, ${binding.word}` : "nobody");
  put($("why"), binding.why || "nothing was sent yet");
  put($("pending-count"), String(binding.pending ?? pending));
  mark($("tab"), "tone", tone(binding.bound));
}

/** The fleet: one card per backend. `act(name, verb)` is what its button does. */
export function drawFleet(backends, binding, act) {
  const sorted = [...backends].sort((a, b) => a.name.localeCompare(b.name));
  names = sorted.map((backend) => backend.name);
  const fleet = $("fleet");
  const empty = $("fleet-empty");
  if (empty && sorted.length) empty.remove();
  for (const backend of sorted) {
    const id = `backend-${backend.name}`;
    const card = $(id) ?? fleet.appendChild(backendCard(id, backend, act));
    const here = binding.bound === backend.name;
    mark(card, "tone", tone(backend.name));
    mark(card, "up", String(backend.up));
    mark(card, "here", String(here));
    const parts = card.parts;
    put(parts.state, stateWord(backend));
    mark(parts.state, "state", backend.up ? (backend.state ?? "ready") : "down");
    put(parts.queue, backend.up ? String(backend.queue_remaining ?? 0) : "–");
    put(parts.clients, String(backend.bound_clients ?? 0));
    put(parts.here, here ? "moored here" : "");
    drawDots(parts.dots, backend.up ? (backend.queue_remaining ?? 0) : 0);
    put(parts.button, backend.up ? "Crash" : "Start");
    parts.button.setAttribute("aria-label",
      `${backend.up ? "Crash" : "Start"} ${backend.name}`);
  }
  for (const card of fleet.querySelectorAll(".backend")) {
    if (!names.includes(card.dataset.name)) card.remove();
  }
}

function backendCard(id, { name }, act) {
  const parts = {
    state: el("span", { class: "pill" }),
    queue: el("b"), clients: el("b"), here: el("span", { class: "here" }),
    dots: el("span", { class: "dots", "aria-hidden": "true" }),
  };
  parts.button = el("button", {
    type: "button", class: "small",
    onclick: () => act(name, parts.button.textContent === "Crash" ? "crash" : "restart"),
  });
  const card = el("article", { class: "card backend", id, "data-name": name },
    el("div", { class: "backend-name" }, el("h3", {}, name), parts.state, parts.here),
    el("p", { class: "counts" },
      el("span", {}, "queue ", parts.queue), el("span", {}, "clients ", parts.clients)),
    parts.dots, parts.button);
  card.parts = parts;
  return card;
}

function stateWord(backend) {
  if (!backend.up) return "down";
  return backend.state && backend.state !== "ready" ? backend.state : "up";
}

function drawDots(node, count) {
  const wanted = Math.min(count, DOTS);
  while (node.childElementCount > wanted) node.lastChild.remove();
  while (node.childElementCount < wanted) node.append(el("i"));
}

/**
 * The rope from the tab to its backend: taut while it is held, slack while it is not. One without
 * a binding has none.
 */
export function drawRope(binding) {
  const ropes = $("ropes");
  const card = binding.bound ? $(`backend-${binding.bound}`) : null;
  if (!card || getComputedStyle(ropes).display === "none") {
    ropes.replaceChildren();
    return;
  }
  const box = $("harbour").getBoundingClientRect();
  const from = $("tab").getBoundingClientRect();
  const to = card.getBoundingClientRect();
  const start = { x: from.right - box.left, y: to.top + to.height / 2 - box.top };
  start.y = Math.min(Math.max(start.y, from.top - box.top + 48), from.bottom - box.top - 48);
  const end = { x: to.left - box.left, y: to.top + to.height / 2 - box.top };
  const sag = binding.word === "held" ? 4 : 26;
  const middle = { x: (start.x + end.x) / 2, y: (start.y + end.y) / 2 + sag };
  const d = `M${start.x} ${start.y}Q${middle.x} ${middle.y} ${end.x} ${end.y}`;
  let path = ropes.querySelector("path");
  if (!path) {
    const make = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
    path = make("path");
    ropes.replaceChildren(path, make("circle"), make("circle"));
  }
  path.setAttribute("d", d);
  [start, end].forEach((point, index) => {
    const knot = ropes.querySelectorAll("circle")[index];
    knot.setAttribute("cx", point.x);
    knot.setAttribute("cy", point.y);
    knot.setAttribute("r", "5");
  });
  ropes.dataset.tone = tone(binding.bound);
  ropes.dataset.kind = binding.word;
}

/** All prompts, newest first. `cancel(prompt)` is what their button does. */
export function drawPrompts(all, cancel) {
  const list = $("prompts");
  $("prompts-empty").hidden = all.length > 0;
  $("cancel-all").disabled = !all.some((prompt) => !hasEnded(prompt));
  let line = 0;
  all.forEach((prompt, index) => {
    if (prompt.state === "queued") line += 1;
    const id = `prompt-${prompt.id}`;
    const card = $(id) ?? promptCard(id, prompt, cancel);
    if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
    drawPrompt(card, prompt, line);
  });
  while (list.childElementCount > all.length) list.lastChild.remove();
}

const STATE_WORDS = {
  queued: "waiting", running: "running", done: "done", failed: "failed",
  cancelled: "cancelled", lost: "lost",
};

function promptCard(id, prompt, cancel) {
  const parts = {
    state: el("span", { class: "pill" }),
    what: el("span", { class: "what" }),
    swatch: el("i", { class: "dot", "aria-hidden": "true" }),
    where: el("span", { class: "where" }),
    bar: el("progress", { max: "100", value: "0" }),
    doing: el("span", { class: "doing" }),
    frame: el("div", { class: "frame" }),
  };
  parts.cancel = el("button", {
    type: "button", class: "small quiet", onclick: () => cancel(prompt.id),
    "aria-label": `Cancel prompt ${prompt.id.slice(0, 8)}`,
  }, "Cancel");
  const short = prompt.id.slice(0, 8);
  parts.bar.setAttribute("aria-label", `Progress of ${short}`);
  const card = el("li", { class: "prompt", id, "data-prompt": prompt.id },
    parts.frame,
    el("div", { class: "about" },
      el("p", { class: "line" }, parts.state, el("code", { title: prompt.id }, short),
        parts.where),
      el("p", { class: "line soft" }, parts.swatch, parts.what),
      el("div", { class: "line" }, parts.bar, parts.doing, parts.cancel)));
  card.parts = parts;
  return card;
}

function drawPrompt(card, prompt, line) {
  const parts = card.parts;
  mark(card, "state", prompt.state);
  mark(card, "tone", tone(prompt.backend));
  put(parts.state, STATE_WORDS[prompt.state]);
  mark(parts.state, "state", prompt.state);
  const about = describe(prompt.graph);
  put(parts.what, about.text);
  parts.swatch.hidden = !about.colour;
  if (about.colour) parts.swatch.style.background = about.colour;
  const where = `${prompt.backend}|${prompt.placement}|${tone(prompt.backend)}`;
  if (parts.where.dataset.shown !== where) {
    parts.where.dataset.shown = where;
    parts.where.replaceChildren(chip(prompt.backend, prompt.placement));
  }
  const ended = hasEnded(prompt);
  parts.bar.hidden = ended;
  parts.cancel.hidden = ended;
  const percent = Math.round(prompt.progress * 100);
  if (parts.bar.value !== percent) parts.bar.value = percent;
  put(parts.doing, doingWords(prompt, percent));
  drawFrame(parts.frame, prompt, line);
}

function doingWords(prompt, percent) {
  if (prompt.error) return prompt.error;
  if (prompt.state === "done") {
    const seconds = (prompt.endedAt - prompt.createdAt) / 1000;
    return seconds >= 0 && seconds < 3600 ? `after ${seconds.toFixed(1)} s` : "";
  }
  return prompt.state === "running" ? `${percent} % ${prompt.doing ?? ""}` : "";
}

/** Its place in line, the newest preview while it runs, its pictures once it is done. */
function drawFrame(frame, prompt, line) {
  const urls = prompt.pictures.map(viewUrl);
  const wanted = urls.length ? urls : prompt.preview ? [prompt.preview] : [];
  const place = prompt.state === "queued" ? String(line) : "";
  const shown = wanted.join(" ") || place;
  if (frame.dataset.shown === shown) return;
  frame.dataset.shown = shown;
  const kind = urls.length ? "result" : "preview";
  const short = prompt.id.slice(0, 8);
  const alt = `${kind === "result" ? "Picture" : "Preview"} of prompt ${short}`;
  if (!wanted.length) {
    frame.replaceChildren(el("span", { title: "Its place in line" }, place));
    return;
  }
  frame.replaceChildren(...wanted.map((src) => {
    const image = el("img", { src, alt, class: kind });
    if (kind === "preview") return image;
    return el("a", { href: src, target: "_blank", rel: "noopener" }, image);
  }));
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
});

/** One sentence more in the journal, newest first. `kind`: `good`, `bad` or nothing. */
export function tell(sentence, kind = "") {
  const journal = $("journal");
  const now = new Date();
  journal.prepend(el("li", { "data-kind": kind },
    el("time", { datetime: now.toISOString() }, CLOCK.format(now)), el("span", {}, sentence)));
  while (journal.childElementCount > JOURNAL_LINES) journal.lastChild.remove();
}
