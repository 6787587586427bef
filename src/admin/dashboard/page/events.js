// What happened: changes of backends between two snapshots, and jobs that did not complete.

import { byId, el, keep } from "./dom.js";
import { standing } from "./fleet.js";

const KEPT = 100;

const ENDED = { failed: "failed", interrupted: "was interrupted", deleted: "was deleted",
  lost: "was lost", completed: "completed after all" };

const happened = [];
/** The outcomes that were told, by prompt. */
const ends = new Map();
let before = null;

function note(at, kind, text, key = `${at}-${text}`) {
  happened.push({ at, kind, text, key });
}

function noteBackends(snapshot, at) {
  const known = new Map(before.backends.map((it) => [it.name, it]));
  for (const backend of snapshot.backends) {
    const was = known.get(backend.name);
    known.delete(backend.name);
    const { word, kind, why } = standing(backend);
    if (!was) note(at, "good", `${backend.name} was added`);
    // Busy and ready change with each job.
    else if (plain(standing(was).word) !== plain(word)) {
      note(at, kind, `${backend.name} is ${word}${why ? `: ${why}` : ""}`);
    }
  }
  for (const name of known.keys()) note(at, "off", `${name} is gone`);
}

const plain = (word) => (word === "busy" ? "ready" : word);

/** An end can be corrected: a job that was presumed lost may have ended in another way. */
function noteEnds(snapshot, now) {
  const told = new Set(snapshot.ended.map((it) => it.prompt_id));
  for (const prompt of ends.keys()) if (!told.has(prompt)) ends.delete(prompt);
  for (const job of snapshot.ended) {
    const before = ends.get(job.prompt_id);
    if (before === job.end) continue;
    ends.set(job.prompt_id, job.end);
    const corrects = before !== undefined && before !== "completed";
    if (job.outcome === "completed" && !corrects) continue;
    const why = job.end === job.outcome ? "" : ` (${job.end.replaceAll("_", " ")})`;
    const kind = { lost: "bad", failed: "bad", completed: "good" }[job.outcome] ?? "wait";
    note(now - job.ended_ms, kind,
      `A job of ${job.client ?? "nobody"} on ${job.backend ?? "a backend that left"} `
        + `${ENDED[job.outcome]}${why}`, `${job.prompt_id} ${job.end}`);
  }
}

/** Takes a snapshot in, and shows the newest first. */
export function take(snapshot, now) {
  if (before) noteBackends(snapshot, now);
  noteEnds(snapshot, now);
  before = snapshot;
  happened.sort((a, b) => a.at - b.at);
  happened.splice(0, Math.max(0, happened.length - KEPT));
}

export function show(matches) {
  const shown = happened.filter((it) => matches(it.text)).reverse();
  keep(byId("events"), shown, (it) => it.key, (it) => {
    const time = new Date(it.at);
    return el("li", { "data-kind": it.kind },
      el("time", { datetime: time.toISOString() }, time.toLocaleTimeString()), " ", it.text);
  }, () => {});
  byId("no-events").hidden = shown.length > 0;
}
