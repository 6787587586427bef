// Mooring in the browser's console: `mooring.status()`, `.reset(force)`, `.validate()`,
// `.explain()`.
//
// Served at `/-/console.js`, below `server.base_path`. Load it on ComfyUI's own page with
// `await import("/-/console.js")`, with a script element, or by pasting this text. It asks the
// gateway that served the page about this tab. ComfyUI's page keeps the tab's clientId in
// `window.name`. Each call prints a table for people and returns a plain object for programs. A
// failure is printed as one sentence and returned as `{ error, … }`. It is never thrown, because
// nobody catches an error in a console.

(() => {
  "use strict";

  const DEADLINE_MS = 15_000;
  /** The path of Mooring on this host (`server.base_path`), inserted when this is served. */
  const BASE = "";
  const SOCKET_STATES = ["connecting", "open", "closing", "closed"];

  /** This tab's clientId, as ComfyUI's page keeps it; empty before its first `status`. */
  function clientId() {
    let stored = "";
    try {
      stored = sessionStorage.getItem("clientId") ?? "";
    } catch {
      // Storage is turned off, so only `window.name` is left.
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
      response = await fetch(`${BASE}${path}`, init);
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

  /** Milliseconds in readable form: `12 s`, `3 min 5 s`, `2 h 10 min`. */
  function span(ms) {
    if (!Number.isFinite(ms) || ms < 0) return "–";
    const seconds = Math.floor(ms / 1000);
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  /** The same, with the time of day when it began. */
  const since = (ms) =>
    Number.isFinite(ms) ? `${new Date(Date.now() - ms).toLocaleTimeString()} (${span(ms)})` : "–";

  /** Is this tab connected, to whom is it bound, since when, how much is pending? */
  async function status() {
    const answer = await ask("/-/whoami");
    if (answer.error) return failed("no status", answer);
    const { client_id: id, client } = answer.body;
    const prompts = client?.prompts ?? [];
    const told = {
      client: id ?? null,
      connected: (client?.sockets ?? 0) > 0,
      bound: client?.backend ?? null,
      binding: client?.binding ?? "none",
      bound_since_ms: client?.bound_since_ms ?? null,
      pending: client?.pending ?? 0,
      prompts,
      sockets: client?.sockets ?? 0,
      link: client?.link ?? "none",
      page_socket: socketState(),
      last_decision: client?.decisions?.at(-1) ?? null,
    };
    console.table({
      client: told.client ?? "nobody yet",
      connected: told.connected ? "yes" : "no",
      "bound to": told.bound ? `${told.bound} (${told.binding})` : "nobody",
      since: told.bound ? since(told.bound_since_ms) : "–",
      pending: told.pending,
      "sockets to the gateway": told.sockets,
      "this page's socket": told.page_socket,
      "link to the server": told.link,
      "last decision": told.last_decision?.what ?? "–",
    });
    if (prompts.length) {
      console.table(prompts.map((prompt) => ({
        job: prompt.prompt_id, server: prompt.backend, state: prompt.state,
        since: since(prompt.age_ms), silent: span(prompt.silent_ms),
      })));
    }
    return told;
  }

  /** Lets go of the server. With jobs pending only by force, and then they are lost. */
  async function reset(force = false) {
    const answer = await ask(`/-/reset?force=${force === true}`, "POST");
    if (answer.error) {
      const told = failed("not released", answer);
      if (!force) console.info("mooring: mooring.reset(true) gives up what is pending.");
      return told;
    }
    const { released, cut_off: lost } = answer.body;
    const words = lost ? `released; jobs given up: ${lost}` : "released";
    console.info(`mooring: ${released ? words : "there was nothing to release"}.`);
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
      reason: `bound = ${bound ?? "none"}, api = ${api ?? "none"}`,
      gateway_reason: answer.body.reason,
    };
    const say = result.consistent ? console.info : console.warn;
    const verdict = result.consistent ? "consistent" : "NOT consistent";
    say(`mooring: ${verdict}: ${result.reason} (${result.gateway_reason}).`);
    return result;
  }

  /** Why are things as they are? The last decisions; of one prompt, where it went, if named. */
  async function explain(promptId) {
    const query = promptId ? `?prompt=${encodeURIComponent(promptId)}` : "";
    const answer = await ask(`/-/explain${query}`);
    if (answer.error) return failed("not explained", answer);
    const { client, prompt } = answer.body;
    const decisions = client?.decisions ?? [];
    if (decisions.length) {
      console.table(decisions.map(({ ago_ms: ago, what, backend }) => (
        { when: since(ago), what, server: backend ?? "–" })));
    } else console.info("mooring: nothing was decided about this tab yet.");
    const candidates = client?.placement?.candidates ?? [];
    if (candidates.length) {
      console.info(`mooring: placed ${since(client.placement.ago_ms)}, between:`);
      console.table(candidates.map(({ backend, load, weight, head_start: start, excluded }) => (
        { server: backend, load, weight, "head start": start ?? "–", excluded: excluded ?? "–" })));
    }
    if (prompt) console.table(prompt);
    else if (promptId) console.info(`mooring: nothing is known of job ${promptId}.`);
    return answer.body;
  }

  window.mooring = Object.freeze({ status, reset, validate, explain });
  console.info("mooring: status(), reset(force), validate(), explain(); all return promises.");
})();
