// Mooring in the browser's console: `mooring.status()`, `.reset(force)`, `.validate()`,
// `.explain()`.
//
// Served at `/-/console.js`. Load it on ComfyUI's own page in whichever way is at hand:
// `await import("/-/console.js")`, a script element, or by pasting this text. It asks the gateway
// that served the page, about this tab: the one whose clientId ComfyUI's page keeps in
// `window.name`. Each call prints a table for people and returns the plain object for programs; a
// failure is printed as one sentence and returned as `{ error, … }`, never thrown, because nobody
// catches anything in a console.

(() => {
  "use strict";

  const DEADLINE_MS = 15_000;
  const SOCKET_STATES = ["connecting", "open", "closing", "closed"];

  /** This tab's clientId, as ComfyUI's page keeps it; empty before its first `status`. */
  function clientId() {
    let stored = "";
    try {
      stored = sessionStorage.getItem("clientId") ?? "";
    } catch {
      // Storage is switched off; then `window.name` is all there is.
    }
    return window.name || stored;
  }

  /** One request about this tab. Resolves to `{ body, headers }` or to `{ error, status }`. */
  async function ask(path, method = "GET") {
    const id = clientId();
    const init = { method, headers: {}, cache: "no-store" };
    init.headers["Accept"] = "application/json";
    if (id) init.headers["Comfy-Client-Id"] = id;
    init.signal = AbortSignal.timeout(DEADLINE_MS);
    let response;
    try {
      response = await fetch(path, init);
    } catch (error) {
      const late = error?.name === "TimeoutError";
      return { error: late ? "the gateway did not answer in time" : "the gateway is not there" };
    }
    const text = await response.text();
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      body = null;
    }
    if (!response.ok || body === null) return { error: reason(response, body), body };
    return { body, headers: response.headers };
  }

  function reason(response, body) {
    const error = body?.error;
    const message = typeof error === "string" ? error : error?.message;
    if (message) return message;
    if (response.ok) return "this server has no Mooring in front of it";
    return response.status === 404
      ? "this server has no Mooring in front of it (404)"
      : `the gateway answered ${response.status}`;
  }

  /** A failure as it is printed and returned. */
  function failed(what, { error, body }) {
    console.warn(`mooring: ${what}: ${error}.`);
    return { error, ...(body ?? {}) };
  }

  /** The state of the page's own socket, if this page lets one see it. */
  function socketState() {
    const socket = window.app?.api?.socket ?? window.comfyAPI?.api?.api?.socket;
    return socket ? (SOCKET_STATES[socket.readyState] ?? "unknown") : "unknown";
  }

  /** Milliseconds as a person says them: `12 s`, `3 min 5 s`, `2 h 10 min`. */
  function span(ms) {
    if (!Number.isFinite(ms) || ms < 0) return "–";
    const seconds = Math.floor(ms / 1000);
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  const when = (unixMs) => (unixMs ? new Date(unixMs).toLocaleTimeString() : "–");

  /** Is this tab connected, to whom is it bound, since when, how much is pending? */
  async function status() {
    const answer = await ask("/-/whoami");
    if (answer.error) return failed("no status", answer);
    const mine = answer.body;
    const pending = Array.isArray(mine.pending) ? mine.pending : [];
    console.table({
      client: mine.client ?? "nobody yet",
      connected: mine.connected ? "yes" : "no",
      "bound to": mine.bound ?? "nobody",
      state: mine.state ?? "–",
      since: when(mine.since_unix_ms),
      for: mine.since_unix_ms ? span(Date.now() - mine.since_unix_ms) : "–",
      pending: pending.length,
      sockets: mine.sockets ?? "–",
      "this page's socket": socketState(),
      because: mine.reason ?? "–",
    });
    if (pending.length) console.table(pending);
    return { ...mine, socket_state: socketState() };
  }

  /** Lets go of the backend. With prompts pending only by force, and then they are lost. */
  async function reset(force = false) {
    const answer = await ask(`/-/reset?force=${force === true}`, "POST");
    if (answer.error) {
      const told = failed("not released", answer);
      if (!force) console.info("mooring: mooring.reset(true) gives up what is pending.");
      return told;
    }
    console.info("mooring: released.");
    console.table(answer.body);
    return answer.body;
  }

  /**
   * Do the binding and the API point at the same backend? The gateway says what it thinks; what
   * an ordinary request of this tab really reaches is looked at as well.
   */
  async function validate() {
    const answer = await ask("/-/validate");
    if (answer.error) return failed("not validated", answer);
    const probe = await ask("/api/system_stats");
    const api = probe.headers?.get("mooring-backend") ?? answer.body.api ?? null;
    const bound = answer.body.bound ?? null;
    const agrees = !bound || !api || bound === api;
    const result = {
      ...answer.body,
      bound,
      api,
      consistent: answer.body.consistent !== false && agrees,
      reason: `bound = ${bound ?? "nobody"}, api = ${api ?? "nobody"}`,
    };
    const say = result.consistent ? console.info : console.warn;
    say(`mooring: ${result.consistent ? "consistent" : "NOT consistent"}: ${result.reason}`);
    return result;
  }

  /** Where would this tab's next prompt go, and why did the last ones go where they went? */
  async function explain() {
    const answer = await ask("/-/explain");
    if (answer.error) return failed("not explained", answer);
    const { decisions, candidates, ...rest } = answer.body;
    console.table(rest);
    if (Array.isArray(candidates) && candidates.length) console.table(candidates);
    if (Array.isArray(decisions) && decisions.length) console.table(decisions);
    return answer.body;
  }

  window.mooring = Object.freeze({ status, reset, validate, explain });
  console.info("mooring: status(), reset(force), validate(), explain(); all return promises.");
})();
