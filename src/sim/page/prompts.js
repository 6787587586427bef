// What this tab knows of its prompts: events and lists go in, one plain record per prompt comes
// out. No document, no network: what cannot be known from events is asked for by `demo.js`.
//
// A prompt is `queued`, `running`, or has ended: `done`, `failed`, `cancelled` or `lost`. It ends
// once; what is said of it afterwards adds pictures at most, but for one that was lost and found.

const ENDED = new Set(["done", "failed", "cancelled", "lost"]);
/** Older prompts leave the page; the history has them still. */
const KEPT = 40;
/** SlowSteps is what takes time, so it is what the bar should show. */
const WEIGHT = { SlowSteps: 12 };

export const hasEnded = (prompt) => ENDED.has(prompt.state);

export class Prompts {
  #byId = new Map();

  /** As one wants to see them: what runs, what waits in its order, what ended, newest first. */
  get all() {
    const rank = ({ state }) => (state === "running" ? 0 : state === "queued" ? 1 : 2);
    return [...this.#byId.values()].sort((a, b) => {
      const age = a.createdAt - b.createdAt;
      return rank(a) - rank(b) || (hasEnded(a) ? -age : age);
    });
  }

  get pending() {
    return this.all.filter((prompt) => !hasEnded(prompt));
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** The record of a prompt, made if this is the first we hear of it. */
  note(id, known = {}) {
    let prompt = this.#byId.get(id);
    if (!prompt) {
      prompt = {
        id, state: "queued", createdAt: Date.now(), graph: null, backend: null, placement: null,
        progress: 0, doing: null, preview: null, pictures: [], error: null, finished: new Set(),
        endedAt: null, knownSince: Date.now(), misses: 0, checked: false,
      };
      this.#byId.set(id, prompt);
      this.#forget();
    }
    for (const [key, value] of Object.entries(known)) {
      if (value !== undefined && value !== null) prompt[key] = value;
    }
    return prompt;
  }

  /** Takes one event of the socket. Returns the prompt that changed, and whether it ended now. */
  event(type, data) {
    if (!data.prompt_id) return null;
    // The end of a prompt that has left this page is no reason to bring it back.
    const known = this.#byId.has(data.prompt_id);
    if (!known && type === "executing" && data.node === null) return null;
    const prompt = this.note(data.prompt_id);
    const before = hasEnded(prompt);
    apply(prompt, type, data);
    return { prompt, ended: !before && hasEnded(prompt) };
  }

  /** Takes queue and history as they are now. Returns the prompts that ended by this news. */
  lists({ running, pending, history, since, whole }, clientId) {
    // ComfyUI lists everybody's prompts; this page shows its own. No client named: it may be ours.
    const isOurs = ([, , , extra] = []) => !extra?.client_id || extra.client_id === clientId;
    const seen = new Set();
    for (const item of running.filter(isOurs)) seen.add(this.#listed(item, "running"));
    for (const item of pending.filter(isOurs)) seen.add(this.#listed(item, "queued"));
    const ended = [];
    for (const [id, entry] of Object.entries(history)) {
      if (!isOurs(entry.prompt)) continue;
      seen.add(id);
      const [, , graph, extra] = entry.prompt ?? [];
      const prompt = this.note(id, { graph, createdAt: extra?.create_time });
      const before = hasEnded(prompt);
      fromHistory(prompt, entry);
      if (!before) ended.push(prompt);
    }
    return [...ended, ...this.#gone(seen, whole ? since : 0)];
  }

  /** What is in neither list, of those that were known at a time: it is gone, and nobody said so. */
  #gone(seen, since) {
    const gone = [];
    for (const prompt of this.pending) {
      const isMissing = !seen.has(prompt.id) && prompt.knownSince < since;
      prompt.misses = isMissing ? prompt.misses + 1 : 0;
      // A waiting prompt that is deleted leaves the queue with no word to a page but a `status`.
      if (isMissing && prompt.state === "queued") end(prompt, "cancelled");
      // Of one that began an end is told: a gateway should have.
      else if (prompt.misses >= 3) end(prompt, "lost", "It is in no queue and in no history.");
      if (hasEnded(prompt)) gone.push(prompt);
    }
    return gone;
  }

  #listed([, id, graph, extra], state) {
    const prompt = this.note(id, { graph, createdAt: extra?.create_time });
    if (!hasEnded(prompt)) prompt.state = state;
    return id;
  }

  #forget() {
    const ended = this.all.filter(hasEnded);
    for (const prompt of ended.slice(KEPT)) {
      if (prompt.preview) URL.revokeObjectURL(prompt.preview);
      this.#byId.delete(prompt.id);
    }
  }
}

/** What a graph does, in a few words, and the colour it starts from if it starts from one. */
export function describe(graph) {
  const nodes = Object.values(graph ?? {});
  const find = (name) => nodes.find((node) => node.class_type === name)?.inputs;
  const empty = find("EmptyImage");
  const slow = find("SlowSteps");
  const colour = empty ? hex(empty.color) : null;
  const words = [empty ? colour : (find("LoadImage")?.image ?? "a graph")];
  if (find("ImageInvert")) words.push("inverted");
  if (slow) words.push(`${slow.steps} steps`, `${Math.round(slow.seconds * 10) / 10} s`);
  return { colour, text: words.join(" · ") };
}

const hex = (number) => `#${(number >>> 0).toString(16).padStart(6, "0").slice(-6)}`;

function apply(prompt, type, data) {
  if (type === "execution_start" && !hasEnded(prompt)) prompt.state = "running";
  if (type === "execution_cached") for (const node of data.nodes ?? []) prompt.finished.add(node);
  if (type === "executing" && data.node) doing(prompt, data.node, 0);
  if (type === "progress") doing(prompt, data.node, data.max ? data.value / data.max : 0);
  if (type === "progress_state") {
    for (const node of Object.values(data.nodes ?? {})) {
      if (node.state === "finished") prompt.finished.add(node.node_id);
      if (node.state === "running") doing(prompt, node.node_id, node.value / (node.max || 1));
    }
  }
  if (type === "executed") pictures(prompt, data.output);
  if (type === "execution_success") end(prompt, "done");
  if (type === "execution_interrupted") end(prompt, "cancelled");
  // "ExecutionBlocked" is told as an error and is none: the prompt goes on.
  if (type === "execution_error" && data.exception_type !== "ExecutionBlocked") {
    end(prompt, failure(data), data.exception_message?.trim());
  }
}

function fromHistory(prompt, entry) {
  for (const output of Object.values(entry.outputs ?? {})) pictures(prompt, output);
  const messages = new Map(entry.status?.messages ?? []);
  const error = messages.get("execution_error");
  if (entry.status?.status_str === "success") {
    // A backend that was given up may return with the work done after all.
    if (prompt.state === "lost") prompt.state = "running";
    end(prompt, "done");
  } else if (error) end(prompt, failure(error), error.exception_message?.trim());
  else end(prompt, messages.has("execution_interrupted") ? "cancelled" : "failed");
}

/** A gateway says of lost work that it was lost; everything else is the graph's own failure. */
const failure = (data) => (/lost/i.test(data.exception_type ?? "") ? "lost" : "failed");

function end(prompt, state, error) {
  if (hasEnded(prompt)) return;
  Object.assign(prompt, { state, error: error ?? null, endedAt: Date.now(), doing: null });
  if (state === "done") prompt.progress = 1;
}

function pictures(prompt, output) {
  for (const picture of output?.images ?? []) {
    const same = (it) => it.filename === picture.filename && it.subfolder === picture.subfolder;
    if (picture.filename && !prompt.pictures.some(same)) prompt.pictures.push(picture);
  }
}

function doing(prompt, node, fraction) {
  if (hasEnded(prompt)) return;
  prompt.state = "running";
  prompt.doing = prompt.graph?.[node]?.class_type ?? `node ${node}`;
  const weigh = (id) => WEIGHT[prompt.graph?.[id]?.class_type] ?? 1;
  const ids = Object.keys(prompt.graph ?? { [node]: null });
  const total = ids.reduce((sum, id) => sum + weigh(id), 0);
  const past = ids.filter((id) => prompt.finished.has(id) && id !== node);
  const done = past.reduce((sum, id) => sum + weigh(id), 0) + fraction * weigh(node);
  // It never goes back: after a reconnect an older figure may come again.
  prompt.progress = Math.max(prompt.progress, Math.min(1, done / total));
}
