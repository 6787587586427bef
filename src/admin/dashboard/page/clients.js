// The clients that wait for something, with their prompts.

import { ago, byId, count, el, keep, say } from "./dom.js";

const PROMPTS_SHOWN = 6;

const nameOf = ({ client }) => client.client_id ?? client.hash;

function make(entry) {
  return el("tr", {},
    el("th", { scope: "row" },
      el("button", { type: "button", class: "link" }), el("span", { class: "soft user" })),
    el("td", { class: "where" }),
    el("td", {}, el("ul", { class: "prompts" })),
    el("td", {}, el("button", { type: "button", class: "release act" }, "Release",
      el("span", { class: "hidden-text" }, ` ${nameOf(entry)}`))));
}

function update(row, entry, { act, detail }) {
  const { client, prompts } = entry;
  const find = (selector) => row.querySelector(selector);
  say(find(".link"), nameOf(entry));
  find(".link").onclick = () => detail({ name: nameOf(entry), hash: client.hash });
  say(find(".user"), client.user ?? "");
  say(find(".where"), client.backend ?? "not bound");
  keep(find(".prompts"), prompts.slice(0, PROMPTS_SHOWN), (it) => it.prompt_id,
    (it) => el("li", {}, el("span"), el("button", { type: "button", class: "cancel act" },
      el("span", { "aria-hidden": "true" }, "×"),
      el("span", { class: "hidden-text" }, `Cancel job ${it.prompt_id}`))),
    (item, it) => {
      item.dataset.state = it.state;
      item.title = it.prompt_id;
      say(item.querySelector("span"), `${it.state} ${ago(it.age_ms)}`);
      item.querySelector(".cancel").onclick = () => act(cancel(entry, it));
    });
  const rest = client.pending - Math.min(prompts.length, PROMPTS_SHOWN);
  find(".prompts").dataset.rest = rest > 0 ? `and ${rest} more` : "";
  find(".release").onclick = () => act(release(entry));
}

function cancel(entry, { prompt_id: prompt, state, backend, age_ms: age }) {
  return {
    title: `Cancel a job of ${nameOf(entry)}?`,
    cost: (state === "running"
      ? `${backend} is interrupted: what it has made of this job so far is lost. `
      : `It is deleted from the queue of ${backend}. Should it start at this moment, it is `
        + "interrupted. ")
      + `It was submitted ${ago(age)} ago. No other job is touched, and its client is told.`,
    yes: "Cancel the job",
    no: "Keep it",
    method: "POST",
    path: `/api/v1/prompts/${encodeURIComponent(prompt)}/cancel`,
  };
}

function release(entry) {
  const { client } = entry;
  const name = nameOf(entry);
  return {
    title: `Release ${name}?`,
    cost: (client.pending === 0 ? "It has no pending prompts. "
      : `Its ${count(client.pending, "pending prompt is", "pending prompts are")} cancelled and `
        + "told as lost. ") + "Its next prompt may go to another backend.",
    yes: "Release",
    method: "POST",
    // A name may be that of another user's client too; the hash is its own.
    path: `/api/v1/clients/${client.hash}/release?force=true`,
  };
}

export function show(snapshot, matches, actions) {
  const { known, working, shown } = snapshot.clients;
  const found = shown.filter(({ client }) =>
    matches(client.client_id, client.hash, client.user, client.backend));
  keep(byId("clients"), found, (it) => it.client.hash, make,
    (row, it) => update(row, it, actions));
  byId("no-clients").hidden = found.length > 0;
  byId("clients-table").hidden = found.length === 0;
  say(byId("no-clients"), shown.length === 0 ? "Nobody waits for anything."
    : working > shown.length ? `None of the ${shown.length} that are listed matches.`
      : "No client matches.");
  const listed = working > shown.length ? `, ${shown.length} of them listed` : "";
  say(byId("clients-count"), `${working} of ${count(known, "known client", "known clients")}${listed}`);
}

/** Everything that the gateway knows of a client, as a list. */
export function describe(report) {
  const line = (what, ...told) => el("li", {}, el("b", {}, what), " ", ...told);
  const placed = report.placement;
  return el("div", {},
    el("p", { class: "soft" }, `In logs ${report.hash}${report.user ? `, a client of ${report.user}` : ""}.`),
    el("p", {}, `${report.backend ? `Bound to ${report.backend}` : "Not bound"} (${report.binding}), `
      + `link ${report.link}, ${count(report.sockets, "socket", "sockets")}, `
      + `last heard of ${ago(report.last_contact_ms)} ago.`),
    el("h3", {}, "Pending prompts"),
    el("ul", {}, report.prompts.map((it) =>
      line(it.prompt_id, `${it.state} at ${it.backend} for ${ago(it.age_ms)}, `
        + `last heard of ${ago(it.silent_ms)} ago`))),
    el("h3", {}, "Last decisions"),
    el("ul", {}, [...report.decisions].reverse().map((it) =>
      line(it.what.replaceAll("_", " "), `${it.backend ?? ""} ${ago(it.ago_ms)} ago`))),
    placed && el("h3", {}, `Last choice, ${ago(placed.ago_ms)} ago`),
    placed && el("ul", {}, placed.candidates.map((it) =>
      line(it.backend, `${it.load} pending, weight ${it.weight}`
        + (it.head_start ? `, ${it.head_start} fewer for its files` : "")
        + (it.suspect ? ", suspect" : "")
        + (it.excluded ? `, excluded: ${it.excluded}` : "")
        + (it.backend === placed.chosen ? ", chosen" : "")))));
}
