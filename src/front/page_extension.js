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
  const ANSWER_MS = 10_000;
  /** How long the page may take to start. */
  const START_MS = 600_000;
  /** The page moves its Run bar without a word. */
  const PLACE_MS = 1_000;
  /** More servers than this are only counted. */
  const DOTS_MAX = 16;
  /** Of so many jobs the graph is kept, to run them again if they are lost. */
  const GRAPHS_MAX = 50;
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
    ul { display: flex; gap: 5px; margin: 0; padding: 0; list-style: none; }
    li { box-sizing: border-box; width: 11px; height: 11px; border-radius: 50%;
      border: 2px solid #1f9d55; pointer-events: auto; }
    li.busy { background: #d68910; border-color: #d68910; }
    li.away { border-color: #d64545; border-radius: 0; transform: rotate(45deg) scale(.85);
      background: #d64545; }
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
  let isUnreachable = false;
  let isAsking = false;
  let isStopped = false;
  let timer = 0;
  /** The graphs of this tab's jobs, by their ids, as the page has submitted them. */
  const graphs = new Map();
  /** Jobs that were lost, with their graphs. */
  let lost = [];
  /** Instead of the line, until jobs change: what became of running jobs again. */
  let word = "";

  // --- What is said -------------------------------------------------------------------------

  const jobs = (count) => (count === 1 ? "1 job" : `${count} jobs`);
  const stateOf = (name) => seen.servers.find((server) => server.name === name)?.state;

  /** Where this tab's first job is; empty without jobs. */
  function whereabouts() {
    const [first] = seen.jobs;
    if (!first) return "";
    const { server, state, before } = first;
    if (!server) {
      const all = seen.waiting > 1 ? ` \u00b7 ${jobs(seen.waiting)} are waiting in all` : "";
      return `waiting for a free server${all}`;
    }
    if (stateOf(server) === "away") return `${server} does not answer \u00b7 your job is kept`;
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
    if (isUnreachable) return "no connection to the servers";
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
    if (!seen) return;
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
    // What is read out stays: it takes no room.
    section.style.visibility = found ? "visible" : "hidden";
    if (!found) return;
    host.style.left = `${Math.round(found.left)}px`;
    host.style.top = `${Math.round(found.top)}px`;
  }

  // --- What is asked ------------------------------------------------------------------------

  function soon(ms) {
    clearTimeout(timer);
    timer = setTimeout(ask, ms);
  }

  function next() {
    if (document.visibilityState !== "visible") return;
    const waits = seen?.jobs.some(({ state }) => state === "queued" || state === "waiting");
    // Not all pages at the same moment.
    soon((waits ? WAITING_MS : IDLE_MS) * (0.9 + Math.random() / 5));
  }

  async function ask() {
    if (isStopped) return;
    if (isAsking) return soon(SOON_MS);
    isAsking = true;
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      const url = new URL("./-/fleet", location.href);
      const answer = await fetch(url, { cache: "no-store", signal });
      if (answer.status === 404) return stop();
      if (!answer.ok) throw new Error(`the answer was ${answer.status}`);
      seen = await answer.json();
      isUnreachable = false;
    } catch {
      isUnreachable = true;
    } finally {
      isAsking = false;
    }
    show();
    next();
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
        word = "";
        graphs.set(answer.prompt_id, graph);
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
    const graph = graphs.get(id);
    graphs.delete(id);
    const isLost = type === "execution_error" && detail.exception_type === "mooring.PromptLost";
    if (!isLost || !graph) return;
    const server = seen?.jobs.find((job) => job.id === id)?.server;
    lost.push({ graph, server });
    show();
  }

  async function runAgain() {
    again.disabled = true;
    word = "";
    try {
      while (lost.length) {
        await app.api.queuePrompt(0, lost[0].graph);
        lost.shift();
      }
      // The button goes, and where the keyboard was goes on.
      app.canvasEl?.focus?.();
    } catch (error) {
      const why = error?.response?.error?.message ?? error?.message ?? "it was refused";
      word = `not run again: ${why}`;
    } finally {
      again.disabled = false;
    }
    show();
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
    addEventListener("resize", () => seen && place());
    placing = setInterval(() => {
      if (seen && document.visibilityState === "visible") place();
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
