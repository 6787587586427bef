// Follows the gateway and shows what it tells.

import { call, follow, hasToken, isToken, keepToken } from "./api.js";
import * as clients from "./clients.js";
import { ago, byId, say } from "./dom.js";
import * as events from "./events.js";
import * as fleet from "./fleet.js";
import * as plots from "./plots.js";

let snapshot = null;
let heard = 0;
let isLive = false;
let whyAway = "";

// The filter is a part of the address, so that a view can be sent to somebody.
const filter = byId("filter");
const filterOf = () => new URLSearchParams(location.hash.slice(1)).get("filter") ?? "";
filter.value = filterOf();
window.addEventListener("hashchange", () => {
  // The link past the header is another part of the page.
  if (location.hash && !location.hash.includes("filter=")) return;
  filter.value = filterOf();
  draw();
});
filter.addEventListener("input", () => {
  const asked = filter.value.trim();
  const hash = asked ? `#${new URLSearchParams({ filter: asked })}` : location.pathname;
  history.replaceState(null, "", hash);
  draw();
});
byId("search").addEventListener("submit", (event) => event.preventDefault());

const matches = (...texts) => {
  const asked = filter.value.trim().toLowerCase();
  return !asked || texts.some((text) => text?.toLowerCase().includes(asked));
};

function draw() {
  if (!snapshot) return;
  byId("main").hidden = false;
  say(byId("version"), snapshot.version);
  const looks = snapshot.may === "look";
  document.body.classList.toggle("looks", looks);
  byId("looks").hidden = !looks;
  fleet.showTroubles(snapshot);
  fleet.show(snapshot, matches, confirm);
  plots.show(snapshot);
  clients.show(snapshot, matches, { act: confirm, detail });
  events.show(matches);
  const bad = fleet.troubles(snapshot).length;
  document.title = `${bad ? `(${bad}) ` : ""}Mooring`;
}

function drawConnection() {
  const connection = byId("connection");
  const silent = Date.now() - heard;
  if (isLive) {
    connection.dataset.kind = "good";
    say(connection, "Live");
  } else {
    connection.dataset.kind = heard ? "bad" : "wait";
    say(connection, whyAway || (heard ? `Stale for ${ago(silent)}` : "Connecting…"));
  }
  document.body.classList.toggle("stale", !isLive && heard > 0);
}

/** Which question and which client are on the screen: late answers to earlier ones are dropped. */
let asked = 0;

/**
 * Asks before it acts, and says what it would cost. A refusal stays on the screen, and so does what
 * `tell` makes of an answer.
 */
function confirm({ title, cost, yes, no = "Cancel", method, path, body, tell }) {
  asked += 1;
  const mine = asked;
  const dialog = byId("confirm");
  say(byId("confirm-title"), title);
  say(byId("confirm-cost"), cost);
  say(byId("confirm-yes"), yes);
  say(byId("confirm-no"), no);
  for (const id of ["confirm-problem", "confirm-told"]) byId(id).hidden = true;
  byId("confirm-yes").hidden = false;
  byId("confirm-yes").disabled = false;
  byId("confirm-no").onclick = () => dialog.close();
  byId("confirm-yes").onclick = async (event) => {
    event.preventDefault();
    byId("confirm-yes").disabled = true;
    const answer = await call(method, path, body).then(
      (it) => ({ it }), (error) => ({ problem: error.message }));
    if (mine === asked && dialog.open) showAnswer(answer, tell);
  };
  dialog.showModal();
}

function showAnswer({ it, problem }, tell) {
  byId("confirm-yes").disabled = false;
  if (problem !== undefined) {
    say(byId("confirm-problem"), problem);
    byId("confirm-problem").hidden = false;
  } else if (tell) {
    say(byId("confirm-told"), tell(it));
    byId("confirm-told").hidden = false;
    byId("confirm-yes").hidden = true;
    say(byId("confirm-no"), "Close");
    byId("confirm-no").focus();
  } else {
    byId("confirm").close();
    // The button that was pressed may be gone.
    if (document.activeElement === document.body) byId("fleet").focus();
  }
}

async function detail({ name, hash }) {
  asked += 1;
  const mine = asked;
  const shown = await call("GET", `/api/v1/clients/${hash}`).then(
    clients.describe, (error) => error.message);
  if (mine !== asked) return;
  say(byId("detail-title"), name);
  byId("detail-body").replaceChildren(shown);
  byId("detail").showModal();
}

/** Resolves when there is a token or key to try. `why` says what was wrong with the last one. */
function askForToken(why) {
  const dialog = byId("login");
  const field = byId("token");
  if (hasToken()) say(byId("login-why"), why || "It was not accepted.");
  keepToken(null);
  field.value = "";
  return new Promise((resolve) => {
    // There is nothing to see without.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.querySelector("form").onsubmit = (event) => {
      const token = field.value.trim();
      if (isToken(token)) {
        keepToken(token);
        resolve();
        return;
      }
      event.preventDefault();
      say(byId("login-why"), "It has only letters, digits and signs of ASCII, and no spaces.");
    };
    dialog.onclose = () => { if (!hasToken()) dialog.showModal(); };
    dialog.showModal();
  });
}

byId("reload").addEventListener("click", () => confirm({
  title: "Reload the configuration?",
  cost: "The gateway reads its files again. A wrong file changes nothing. No socket and no prompt "
    + "is lost.",
  yes: "Reload",
  method: "POST",
  path: "/api/v1/reload",
  tell: ({ applied, need_restart: later, warnings }) => [
    applied.length > 0 ? `Applied: ${applied.join(", ")}.` : "Nothing has changed.",
    later.length > 0 && `These need a restart: ${later.join(", ")}.`,
    ...(warnings ?? []),
  ].filter(Boolean).join("\n"),
}));

setInterval(drawConnection, 1000);
follow({
  told(newest) {
    heard = Date.now();
    snapshot = newest;
    events.take(snapshot, heard);
    draw();
  },
  async state(state, why = "") {
    isLive = state === "live";
    whyAway = why;
    if (isLive) heard = Date.now();
    drawConnection();
    if (state === "locked") await askForToken(why);
  },
});
