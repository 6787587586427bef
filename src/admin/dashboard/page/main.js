// Follows the gateway and shows what it tells.

import { call, follow, keepToken } from "./api.js";
import * as clients from "./clients.js";
import { ago, byId, say } from "./dom.js";
import * as events from "./events.js";
import * as fleet from "./fleet.js";

let snapshot = null;
let heard = 0;
let isLive = false;

// The filter is a part of the address, so that a view can be sent to somebody.
const filter = byId("filter");
const filterOf = () => new URLSearchParams(location.hash.slice(1)).get("filter") ?? "";
filter.value = filterOf();
window.addEventListener("hashchange", () => {
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
  fleet.showTroubles(snapshot);
  fleet.show(snapshot, matches, confirm);
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
    say(connection, heard ? `Stale for ${ago(silent)}` : "Connecting…");
  }
  document.body.classList.toggle("stale", !isLive && heard > 0);
}

/**
 * Asks before it acts, and says what it would cost. A refusal stays on the screen, and so does what
 * `tell` makes of an answer.
 */
function confirm({ title, cost, yes, method, path, body, tell }) {
  const dialog = byId("confirm");
  const problem = byId("confirm-problem");
  say(byId("confirm-title"), title);
  say(byId("confirm-cost"), cost);
  say(byId("confirm-yes"), yes);
  problem.hidden = true;
  byId("confirm-told").hidden = true;
  byId("confirm-yes").hidden = false;
  say(byId("confirm-no"), "Cancel");
  byId("confirm-no").onclick = () => dialog.close();
  byId("confirm-yes").onclick = async (event) => {
    event.preventDefault();
    byId("confirm-yes").disabled = true;
    try {
      const answer = await call(method, path, body);
      if (tell) {
        say(byId("confirm-told"), tell(answer));
        byId("confirm-told").hidden = false;
        byId("confirm-yes").hidden = true;
        say(byId("confirm-no"), "Close");
        byId("confirm-no").focus();
      } else dialog.close();
    } catch (error) {
      say(problem, error.message);
      problem.hidden = false;
    } finally {
      byId("confirm-yes").disabled = false;
    }
  };
  dialog.showModal();
}

async function detail(name) {
  const body = byId("detail-body");
  say(byId("detail-title"), name);
  try {
    const report = await call("GET", `/api/v1/clients/${encodeURIComponent(name)}`);
    body.replaceChildren(clients.describe(report));
  } catch (error) {
    say(body, error.message);
  }
  byId("detail").showModal();
}

/** Resolves when there is a token to try. */
function askForToken() {
  const dialog = byId("login");
  const field = byId("token");
  if (heard || sessionStorage.length > 0) say(byId("login-why"), "The token was not accepted.");
  keepToken(null);
  field.value = "";
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (field.value) {
        keepToken(field.value);
        resolve();
      } else dialog.showModal();
    };
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
  async state(state) {
    isLive = state === "live";
    if (isLive) heard = Date.now();
    drawConnection();
    if (state === "locked") await askForToken();
  },
});
