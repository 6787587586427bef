// One line by the Run bar of ComfyUI's page: where this tab's jobs are and how many come before
// them, a dot for each server, planned work, and a button that runs lost jobs again.
//
// Mooring inserts this after `page.js` (`server.page_extension`). It asks `/-/fleet` when this
// tab's jobs change, when Mooring says that the servers have changed, and else every 30 s, or 5 s
// while a job waits; in a tab that nobody sees it asks nothing. It hides nothing of the page: it
// stands only where there is nothing but the canvas. It must not break the page: if something
// fails, the line is left out.

(() => {
  "use strict";

  const IDLE_MS = 30_000;
  const WAITING_MS = 5_000;
  /** What happens at the same time is one question. */
  const SOON_MS = 150;
  /** The least time between two questions. */
  const FLOOR_MS = 1_000;
  const ANSWER_MS = 10_000;
  /** How long the page may take to start. */
  const START_MS = 600_000;
  /** The page moves its Run bar without a word. */
  const PLACE_MS = 1_000;
  /** More servers than this are only counted. */
  const DOTS_MAX = 16;
  /** Of so many jobs the graph is kept, to run them again if they are lost. */
  const GRAPHS_MAX = 200;
  const GAP = 8;
  /** The Run bar may have a frame that is wider than itself. */
  const BESIDE = 18;
  /** Where nothing else is free, places so far apart are tried, from below. */
  const STEP = 40;
  const EVENTS = ["status", "reconnected", "execution_start", "execution_success",
    "execution_error", "execution_interrupted"];

  const STYLE = `
    :host { position: fixed; z-index: 900; pointer-events: none; width: max-content;
      max-width: min(calc(100vw - 80px), 860px); }
    :host([hidden]) { display: none; }
    section { display: flex; align-items: center; gap: 8px; box-sizing: border-box;
      min-height: 28px; max-width: 100%; padding: 3px 10px; border-radius: 8px;
      font: 13px/1.4 Inter, system-ui, sans-serif;
      color: var(--fg-color, CanvasText); background: var(--comfy-menu-bg, Canvas);
      border: 1px solid var(--border-color, GrayText); }
    section.nowhere:not(:focus-within) { opacity: 0; }
    section.nowhere :is(li, button) { pointer-events: none; }
    ul { display: flex; gap: 5px; margin: 0; padding: 0; list-style: none; }
    li { box-sizing: border-box; width: 11px; height: 11px; border-radius: 50%;
      border: 2px solid #1f9d55; pointer-events: auto; }
    li.busy { background: #d68910; border-color: #d68910; }
    li.away { border-color: #d64545; border-radius: 0; transform: rotate(45deg) scale(.85);
      background: #d64545; }
    ul.stale li { opacity: .35; }
    li.planned { outline: 1px dashed currentColor; outline-offset: 1px; }
    p { margin: 0; overflow-wrap: anywhere; }
    p:empty { display: none; }
    button { flex: none; pointer-events: auto; font: inherit; cursor: pointer; color: inherit;
      background: none; border: 1px solid currentColor; border-radius: 6px; padding: 1px 8px; }
    button:focus-visible { outline: 2px solid #4c9ffe; outline-offset: 2px; }
    button[disabled] { opacity: .6; cursor: default; }
    button[hidden] { display: none; }
  `;

  /** The page's `app`, once it has started. */
  let app = null;
  /** What the gateway said last. */
  let seen = null;
  /** Why nothing newer is known; empty if it is. */
  let trouble = "";
  let isAsking = false;
  let isStopped = false;
  /** How often in a row Mooring has said that there is no line. */
  let refusals = 0;
  let timer = 0;
  /** When the next question is due, and when the last one began. */
  let due = Infinity;
  let asked = -Infinity;
  /** The graphs of this tab's jobs, by their ids, as the page has submitted them. */
  const graphs = new Map();
  /** Jobs that were lost, with their graphs. */
  let lost = [];
  /** Instead of the line, until jobs change: what became of running jobs again. */
  let word = "";

  // --- What is said -------------------------------------------------------------------------

  const jobs = (count) => (count === 1 ? "1 job" : `${count} jobs`);
  /** A time for people: nobody needs it to the second, and it is a guess. */
  const about = (seconds) => {
    if (seconds < 10) return `${seconds} s`;
    if (seconds < 95) return `${5 * Math.round(seconds / 5)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${Math.round(seconds / 3600)} h`;
  };
  const stateOf = (name) => seen.servers.find((server) => server.name === name)?.state;

  /** Where this tab's first job is; empty without jobs. */
  function whereabouts() {
    const [first] = seen.jobs;
    if (!first) return "";
    const { server, state, before, start } = first;
    if (!server) {
      const all = seen.waiting > 1 ? ` \u00b7 ${jobs(seen.waiting)} are waiting in all` : "";
      const known = typeof start === "number";
      const when = known ? ` \u00b7 ${start < 1 ? "starts now" : `starts in about ${about(start)}`}` : "";
      return `waiting for a free server${when}${all}`;
    }
    const here = seen.servers.find(({ name }) => name === server);
    if (here?.state === "away") {
      const why = here.planned ? "is switched off" : "does not answer";
      return `${server} ${why} \u00b7 your job is kept`;
    }
    if (state === "running" || state === "ending") return `running on ${server}`;
    if (before === null) return `on ${server}`;
    return `on ${server} \u00b7 ${before === 0 ? "next" : `${before} before you`}`;
  }

  /** Planned work where this tab's jobs are or would go. */
  function plannedWork() {
    const { servers } = seen;
    if (servers.length && servers.every(({ planned, state }) => planned || state === "away")) {
      if (servers.some(({ planned }) => planned)) {
        return "planned work on all servers: new jobs cannot start";
      }
      return "no server answers";
    }
    const mine = new Set(seen.jobs.map(({ server }) => server));
    const here = servers.find(({ name, planned, yours }) => planned && (yours || mine.has(name)));
    if (!here) return "";
    return mine.has(here.name)
      ? `planned work on ${here.name}: your jobs there go on, later ones run elsewhere`
      : `planned work on ${here.name}: your next job runs elsewhere`;
  }

  function line() {
    if (trouble) return trouble;
    if (word) return word;
    const more = seen.pending > 1 ? `${seen.pending - 1} more of yours` : "";
    const mine = seen.servers.find(({ yours }) => yours);
    const away = !seen.pending && mine?.state === "away" && !mine.planned
      ? `${mine.name} does not answer: your next job runs elsewhere` : "";
    return [whereabouts(), more, away, plannedWork()].filter(Boolean).join(" \u00b7 ");
  }

  const nameOf = ({ name, state, planned, yours }) =>
    [`${name}: ${state}`, planned && "planned work", yours && "yours"].filter(Boolean).join(", ");

  // --- How it is shown ----------------------------------------------------------------------

  const host = document.createElement("mooring-line");
  const root = host.attachShadow({ mode: "open" });
  const section = document.createElement("section");
  const dots = document.createElement("ul");
  const text = document.createElement("p");
  const loss = document.createElement("p");
  const again = document.createElement("button");
  const close = document.createElement("button");

  function build() {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    section.setAttribute("aria-label", "Servers and your jobs");
    dots.setAttribute("role", "list");
    dots.setAttribute("aria-label", "Servers");
    text.setAttribute("role", "status");
    loss.setAttribute("role", "alert");
    again.type = close.type = "button";
    close.textContent = "Dismiss";
    again.addEventListener("click", runAgain);
    close.addEventListener("click", () => {
      lost = [];
      word = "";
      show();
    });
    section.append(dots, text, loss, again, close);
    // Enter and Escape on our buttons are no commands for the page.
    for (const type of ["keydown", "keyup", "keypress"]) {
      section.addEventListener(type, (event) => event.stopPropagation());
    }
    root.append(section);
    host.hidden = true;
    document.body.append(host);
  }

  /** Text that is the same is left alone: a screen reader reads out each change. */
  function say(element, words) {
    if (element.textContent !== words) element.textContent = words;
  }

  function dot(server) {
    const item = document.createElement("li");
    item.className = `${server.state}${server.planned ? " planned" : ""}`;
    item.setAttribute("role", "listitem");
    item.setAttribute("aria-label", nameOf(server));
    item.title = nameOf(server);
    return item;
  }

  function showDots() {
    const wanted = seen.servers.length > DOTS_MAX ? [] : seen.servers;
    const now = JSON.stringify(wanted);
    if (dots.dataset.shown === now) return;
    dots.dataset.shown = now;
    dots.replaceChildren(...wanted.map(dot));
  }

  function counted() {
    const { servers } = seen;
    if (servers.length <= DOTS_MAX) return "";
    const up = servers.filter(({ state }) => state !== "away").length;
    return `${up} of ${servers.length} servers`;
  }

  function show() {
    if (!seen || isStopped) return;
    dots.className = trouble ? "stale" : "";
    showDots();
    say(text, [counted(), line()].filter(Boolean).join(" \u00b7 "));
    const count = lost.length;
    say(loss, count ? `${jobs(count)} of yours ${count === 1 ? "is" : "are"} lost` : "");
    again.hidden = close.hidden = !count;
    const isGone = lost.some(({ server }) => server && stateOf(server) === "away");
    say(again, `Run ${count === 1 ? "it" : "them"} again${isGone ? " elsewhere" : ""}`);
    place();
  }

  const bar = () => document.querySelector(".actionbar-container") ??
    document.querySelector(".actionbar, [data-testid='queue-button'], .comfyui-menu-right") ??
    document.querySelector(".comfy-menu");

  /** What covers the whole page is a veil behind a dialog, and above the line. */
  function isVeil(element) {
    const { width, height } = element.getBoundingClientRect();
    return width >= innerWidth && height >= innerHeight;
  }

  /** True if nothing of the page would be hidden there: only the canvas, or a node on it. */
  function isFree({ left, top, width, height }) {
    if (left < 0 || top < 0) return false;
    if (left + width > innerWidth || top + height > innerHeight) return false;
    for (let column = 0; column <= 8; column += 1) {
      for (const y of [top + 1, top + height / 2, top + height - 1]) {
        const x = left + 1 + ((width - 2) * column) / 8;
        const all = document.elementsFromPoint(x, y);
        const under = all.find((element) =>
          element !== host && (element.matches("canvas") || !isVeil(element)));
        if (under && !under.matches("canvas") && !under.closest("[data-node-id]")) return false;
      }
    }
    return true;
  }

  /** Puts the line beside the Run bar, or below or above it, or where else there is room. */
  function place() {
    host.hidden = false;
    const { width, height } = host.getBoundingClientRect();
    const run = bar()?.getBoundingClientRect();
    const places = [];
    if (run?.width) {
      const left = Math.min(run.right, innerWidth - GAP) - width;
      const beside = run.top + (run.height - height) / 2;
      places.push([run.left - width - BESIDE, beside], [run.right + BESIDE, beside],
        [left, run.bottom + BESIDE], [left, run.top - height - BESIDE]);
    }
    for (let y = innerHeight - height - GAP; y > 0; y -= STEP) {
      places.push([(innerWidth - width) / 2, y], [innerWidth - width - GAP, y]);
    }
    const found = places.map(([x, y]) => ({ left: x, top: y, width, height })).find(isFree);
    // It is read out all the same, and there while the keyboard is in it.
    section.classList.toggle("nowhere", !found);
    if (!found) return;
    host.style.left = `${Math.round(found.left)}px`;
    host.style.top = `${Math.round(found.top)}px`;
  }

  // --- What is asked ------------------------------------------------------------------------

  /** Asks in so long at the latest. What is due sooner stays due. */
  function soon(ms) {
    const at = Math.max(performance.now() + ms, asked + FLOOR_MS);
    if (at >= due || isStopped) return;
    due = at;
    clearTimeout(timer);
    timer = setTimeout(ask, at - performance.now());
  }

  function next() {
    const waits = seen?.jobs.some(({ state }) => state !== "running" && state !== "ending");
    // Not all pages at the same moment.
    soon((waits ? WAITING_MS : IDLE_MS) * (0.9 + Math.random() / 5));
  }

  async function ask() {
    due = Infinity;
    clearTimeout(timer);
    // It asks when it is seen again.
    if (isStopped || document.visibilityState !== "visible") return;
    if (isAsking) return soon(FLOOR_MS);
    isAsking = true;
    asked = performance.now();
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      const url = new URL("./-/fleet", location.href);
      const answer = await fetch(url, { cache: "no-store", signal });
      const [isOurs, { status }] = [answer.headers.has("mooring-error"), answer];
      // A proxy that is set up anew may also say 404.
      refusals = status === 404 && isOurs ? refusals + 1 : 0;
      if (refusals > 1) return stop();
      if (answer.ok) {
        seen = await answer.json();
        trouble = "";
      } else if (status === 401 || status === 403) {
        trouble = "you are logged out: load the page again";
      } else if (status !== 429 && !refusals) {
        throw new Error(`the answer was ${status}`);
      }
    } catch {
      trouble = "no connection to the servers";
    } finally {
      isAsking = false;
    }
    guarded(show);
    next();
  }

  /** What fails here must not fail again and again. */
  function guarded(what) {
    try {
      what();
    } catch (error) {
      console.warn("mooring: the line about servers and jobs is left out:", error);
      stop();
    }
  }

  /** The operator has turned it off since the page was loaded. */
  function stop() {
    host.remove();
    clearTimeout(timer);
    clearInterval(placing);
    isStopped = true;
  }

  // --- Lost jobs ----------------------------------------------------------------------------

  /** Keeps the graphs that the page submits; the page itself forgets them. */
  function keepGraphs(api) {
    const submit = api.queuePrompt;
    if (typeof submit !== "function") return;
    api.queuePrompt = async function queuePrompt(number, graph, ...rest) {
      const answer = await submit.call(this, number, graph, ...rest);
      try {
        if (!again.disabled) word = "";
        graphs.set(answer.prompt_id, { number, graph, rest });
        if (graphs.size > GRAPHS_MAX) graphs.delete(graphs.keys().next().value);
        soon(SOON_MS);
      } catch {
        // An answer without an id: the page says what is wrong.
      }
      return answer;
    };
  }

  function ended(type, detail) {
    const id = detail?.prompt_id;
    const job = graphs.get(id);
    graphs.delete(id);
    const isLost = type === "execution_error" && detail.exception_type === "mooring.PromptLost";
    if (!isLost || !job) return;
    word = "";
    lost.push({ ...job, server: seen?.jobs.find((known) => known.id === id)?.server });
    guarded(show);
  }

  async function runAgain() {
    again.disabled = true;
    word = "";
    for (const job of [...lost]) {
      try {
        await app.api.queuePrompt(job.number, job.graph, ...job.rest);
        lost = lost.filter((other) => other !== job);
      } catch (error) {
        // It stays, and the others are tried.
        word = `not run again: ${error?.response?.error?.message ?? error?.message ?? "refused"}`;
      }
    }
    again.disabled = false;
    // The button goes; whoever types elsewhere meanwhile goes on.
    const here = document.activeElement;
    if (!lost.length && (here === host || here === document.body)) app.canvasEl?.focus?.();
    guarded(show);
    soon(SOON_MS);
  }

  // --- The beginning ------------------------------------------------------------------------

  let placing = 0;

  function begin() {
    const { api } = app;
    build();
    keepGraphs(api);
    for (const type of EVENTS) {
      api.addEventListener(type, ({ detail }) => {
        if (["execution_success", "execution_error", "execution_interrupted"].includes(type)) {
          ended(type, detail);
        }
        soon(SOON_MS);
      });
    }
    for (const type of ["mooring.servers", "mooring.notice"]) {
      // Not all pages at the same moment.
      addEventListener(type, () => soon(SOON_MS + Math.random() * 500));
    }
    document.addEventListener("visibilitychange", () => soon(SOON_MS));
    addEventListener("resize", () => seen && !isStopped && guarded(place));
    placing = setInterval(() => {
      if (seen && document.visibilityState === "visible") guarded(place);
    }, PLACE_MS);
    ask();
  }

  /** The page says nothing when it has started. */
  function wait() {
    try {
      app = window.app;
      if (app?.api?.addEventListener && document.body) return begin();
      if (performance.now() < START_MS) setTimeout(wait, 250);
    } catch (error) {
      console.warn("mooring: the line about servers and jobs is left out:", error);
    }
  }

  wait();
})();
