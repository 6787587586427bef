// The backends: what each does, why it is as it is, and what an operator may do about it.

import { ago, byId, count, el, keep, say } from "./dom.js";

const HOUR = 3_600_000;

/** Marks move a pixel in about six seconds. */
const REDRAW_MS = 30_000;

const because = (...reasons) => reasons.filter(Boolean).join("; ") || null;

/**
 * What a backend is, in one word, with the kind of sign, the reason, and for how long. What an
 * operator has turned off is no trouble, whatever it does.
 */
export function standing(backend) {
  const { said, leaving, trouble } = backend;
  const by = said && said.by + (said.why ? `: ${said.why}` : "");
  const is = (word, kind, why, ms = backend.since_ms) => ({ word, kind, why, ms });
  if (backend.state === "off") return is("off", "off", because(by, trouble), said?.ago_ms);
  if (!backend.up) return is("down", "bad", because(trouble ?? "It does not answer", by));
  if (backend.condition === "wedged") {
    return is("wedged", "bad", because(trouble ?? "It runs none of its prompts"));
  }
  if (backend.condition === "shut") {
    return is("shut", "bad", because(trouble ?? "It takes no new connection"));
  }
  if (leaving) return is("leaving", "wait", because(leaving.by, trouble), leaving.ago_ms);
  if (backend.state === "draining") {
    return is(backend.drained ? "drained" : "draining", "wait", because(by, trouble), said?.ago_ms);
  }
  if (backend.condition === "suspect") {
    return is("suspect", "wait", because(trouble ?? "It runs something and sends no events"));
  }
  return is(backend.running > 0 ? "busy" : "ready", trouble ? "wait" : "good", because(trouble));
}

const ACTIONS = {
  draining: {
    label: "Drain", ask: (it) => `Drain ${it.name}?`, yes: "Drain",
    cost: (it) => it.held_clients === 0
      ? "It gets no new clients. Nobody waits for anything there."
      : `It gets no new clients. ${held(it)}, which goes on to its end.`,
  },
  off: {
    label: "Turn off", ask: (it) => `Turn ${it.name} off?`, yes: "Turn off",
    cost: (it) => it.held_clients === 0 ? "It gets no work at all."
      : `It gets no work at all. ${held(it)}: while there are any, this is refused. Drain it first.`,
  },
  ready: {
    label: "Make ready", ask: (it) => `Make ${it.name} ready?`, yes: "Make ready",
    cost: () => "It gets new clients again.",
  },
  remove: {
    label: "Remove", ask: (it) => `Remove ${it.name}?`, yes: "Remove",
    cost: (it) => "It drains, and leaves when nothing is left there."
      + (it.held_clients === 0 ? "" : ` ${held(it)}.`),
  },
};

const held = (it) => it.held_clients === 1 ? "A client has work there"
  : `${it.held_clients} clients have work there`;

/** What a file or a discovery names cannot be removed here: it would come back. */
const actionsOf = ({ state, wanted_by: by, leaving }) => ["draining", "off", "ready", "remove"]
  .filter((it) => it !== state && (it !== "remove" || by === "operator"))
  .filter((it) => !leaving || it === "off");

function make(backend) {
  return el("article", { class: "card backend" },
    el("div", { class: "name" },
      el("h3", {}, backend.name), el("span", { class: "badge" }), el("span", { class: "soft at" })),
    el("p", { class: "why" }),
    el("ul", { class: "doing" }),
    el("div", { class: "load" },
      el("span", { class: "bar", "aria-hidden": "true" }, el("i", { class: "run" }), el("i", { class: "wait" })),
      el("span", { class: "words" })),
    el("p", { class: "soft waits" }),
    el("svg", {}),
    el("p", { class: "soft hour" }),
    el("ul", { class: "gpus" }),
    el("p", { class: "soft facts" }),
    el("p", { class: "buttons act" }));
}

/** A bar that says nothing that is not in words beside it. */
const bar = (part) => el("span", { class: "bar", "aria-hidden": "true" }, el("i", { class: part }));

const fill = (item, part) => {
  item.querySelector(".bar i").style.width = `${100 * Math.min(1, Math.max(0, part))}%`;
};

const makeDoing = () => el("li", {}, el("span", { class: "words" }), bar("run"));

/** A job that runs: its node, how far that is, and for how long the job runs. */
function updateDoing(item, { prompt_id: prompt, node, value, max, runs_ms: runs }) {
  item.title = prompt;
  const told = max !== null;
  say(item.querySelector(".words"), [
    `Runs ${node ?? "a job"}`, told && `step ${steps(value)} of ${steps(max)}`,
    runs !== null && `for ${ago(runs)}`,
  ].filter(Boolean).join(", "));
  item.querySelector(".bar").hidden = !told;
  if (told) fill(item, value / max);
}

const steps = (number) => String(Math.round(number * 100) / 100);

const GIB = 1024 ** 3;

const gib = (bytes) => `${(bytes / GIB).toFixed(bytes < 10 * GIB ? 1 : 0)} GiB`;

/** A GPU and its memory; a server without one computes in the memory of the machine. */
function updateGpu(item, { name, vram_total: total, vram_free: free }) {
  const used = total !== null && free !== null;
  say(item.querySelector(".words"), `${name}: `
    + (used ? `${gib(free)} of ${gib(total)} free` : total !== null ? gib(total) : "memory unknown"));
  item.querySelector(".bar").hidden = !used;
  if (used) fill(item, 1 - free / total);
}

/** A mark for each job that ended in the last hour, by its outcome. */
function lane(jobs) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "lane");
  svg.setAttribute("viewBox", "0 0 600 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const job of jobs) {
    const mark = document.createElementNS(space, "rect");
    mark.setAttribute("data-end", job.outcome === "deleted" ? "interrupted" : job.outcome);
    mark.setAttribute("x", String(Math.max(0, 597 - 597 * job.ended_ms / HOUR)));
    mark.setAttribute("width", "3");
    mark.setAttribute("height", "20");
    svg.append(mark);
  }
  return svg;
}

function update(card, backend, { jobs, span }, act) {
  const { word, kind, why, ms } = standing(backend);
  const find = (selector) => card.querySelector(selector);
  const badge = find(".badge");
  badge.dataset.kind = kind;
  say(badge, word);
  say(find(".at"), `for ${ago(ms ?? backend.since_ms)}`);
  say(find(".why"), why ?? "");
  find(".why").hidden = !why;
  const room = Math.max(backend.max_pending ?? 0, backend.running + backend.waiting, 4);
  find(".run").style.width = `${100 * Math.min(1, backend.running / room)}%`;
  find(".wait").style.width = `${100 * Math.min(1, backend.waiting / room)}%`;
  const foreign = backend.queue_remaining - backend.running - backend.waiting;
  say(find(".words"), `${backend.running} running, ${backend.waiting} waiting`
    + (foreign > 0 ? `, ${foreign} of others` : "")
    + (backend.max_pending ? ` (at most ${backend.max_pending})` : ""));
  keep(find(".doing"), backend.doing, (it) => it.prompt_id, makeDoing, updateDoing);
  const waits = backend.oldest_waiting_ms;
  say(find(".waits"), waits === null ? "" : `The oldest has waited for ${ago(waits)}`);
  find(".waits").hidden = waits === null;
  // Equal GPUs have equal names.
  keep(find(".gpus"), backend.devices.map((it, index) => ({ ...it, index })), (it) => it.index,
    () => el("li", {}, el("span", { class: "words" }), bar("used")), updateGpu);
  const others = jobs.filter((it) => it.outcome !== "completed").length;
  const drawn = `${jobs.length} ${jobs.at(-1)?.prompt_id} ${Math.floor(Date.now() / REDRAW_MS)}`;
  if (card.dataset.drawn !== drawn) {
    card.dataset.drawn = drawn;
    find("svg").replaceWith(lane(jobs));
  }
  say(find(".hour"), (jobs.length === 0 ? "No job" : count(jobs.length, "job", "jobs"))
    + ` in the last ${span}` + (others > 0 ? `, ${others} not completed` : ""));
  say(find(".facts"), [
    backend.url, backend.version && `ComfyUI ${backend.version}`,
    backend.weight !== 1 && `weight ${backend.weight}`, backend.home && "home",
    backend.labels.join(", "), count(backend.bound_clients, "client bound", "clients bound"),
  ].filter(Boolean).join(" · "));
  keep(find(".buttons"), actionsOf(backend), (it) => it,
    (it) => el("button", { type: "button" }, ACTIONS[it].label,
      el("span", { class: "hidden-text" }, ` ${backend.name}`)),
    (button, it) => { button.onclick = () => act(action(backend, it)); });
}

function action(backend, state) {
  const { ask, cost, yes } = ACTIONS[state];
  const path = `/api/v1/backends/${encodeURIComponent(backend.name)}`;
  const asked = { title: ask(backend), cost: cost(backend), yes };
  if (state === "remove") return { ...asked, method: "DELETE", path };
  return { ...asked, method: "POST", path: `${path}/state`, body: { state, by: "dashboard" } };
}

/** The jobs of each backend that ended within the hour. */
function jobsOf(ended) {
  const jobs = new Map();
  for (const job of ended.filter((it) => it.ended_ms < HOUR)) {
    if (!jobs.has(job.backend)) jobs.set(job.backend, []);
    jobs.get(job.backend).push(job);
  }
  return jobs;
}

export function show(snapshot, matches, act) {
  const shown = snapshot.backends.filter((it) => matches(it.name, it.url, ...it.labels));
  const jobs = jobsOf(snapshot.ended);
  // Only so many ends are told: a busy fleet has more of them in an hour.
  const span = snapshot.ended_is_cut ? ago(snapshot.ended[0].ended_ms) : "hour";
  keep(byId("backends"), shown, (it) => it.name, make,
    (card, it) => update(card, it, { jobs: jobs.get(it.name) ?? [], span }, act));
  byId("no-backends").hidden = shown.length > 0;
  const sum = (key) => snapshot.backends.reduce((all, it) => all + it[key], 0);
  const up = snapshot.backends.filter((it) => it.up).length;
  say(byId("totals"), `${up} of ${snapshot.backends.length} up, ${sum("running")} running, `
    + `${sum("waiting")} waiting`);
}

/** What an operator has to look at. */
export function troubles(snapshot) {
  const found = snapshot.backends
    .map((it) => ({ name: it.name, ...standing(it) }))
    .filter((it) => it.kind === "bad" || it.word === "suspect" || ((it.word === "ready" || it.word === "busy") && it.why))
    .map((it) => ({ key: it.name, kind: it.kind, text: `${it.name} is ${it.word}: ${it.why}` }));
  if (snapshot.stopping) {
    found.unshift({ key: "-", kind: "wait", text: "The gateway stops: new clients should go elsewhere." });
  } else if (!snapshot.ready) {
    found.unshift({ key: "-", kind: "bad", text: "The gateway is not ready: no backend takes work." });
  }
  return found;
}

export function showTroubles(snapshot) {
  const found = troubles(snapshot);
  byId("trouble").hidden = found.length === 0;
  keep(byId("troubles"), found, (it) => it.key, () => el("li"), (item, it) => {
    item.dataset.kind = it.kind;
    say(item, it.text);
  });
}
