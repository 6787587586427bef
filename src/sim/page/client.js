// The part of the playground that speaks to ComfyUI, and does so as ComfyUI's own page does.
//
// What it copies on purpose, because a gateway must cope with exactly this:
// - the first socket of a tab carries no clientId; the `sid` of the first `status` becomes it;
// - the id is kept in `window.name`, so that it survives a reload and is not copied by a
//   duplicated tab;
// - feature flags are the first thing said on each socket;
// - a socket that closes is opened again after 300 ms, for ever, with the same id;
// - each `status` makes it ask for the queue and for the last 64 entries of the history.
//
// Nothing in this file touches the document; what happens is told as events.

const RECONNECT_MS = 300;
const HISTORY_ITEMS = 64;
/** No answer of a gateway or of ComfyUI takes longer, but for an upload. */
const FETCH_MS = 60_000;

/** Binary frames begin with a big-endian word that says what they are. */
const PREVIEW_IMAGE = 1;
const PREVIEW_IMAGE_WITH_METADATA = 4;

/** An answer that is not a success, with what it said of the reason. */
export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.body = body;
  }
}

/**
 * One client: this tab.
 *
 * Events, each with a `detail`: `socket` {state, code?}, `identity` {clientId},
 * `comfy` {type, data}, `preview` {promptId, blob}, `lists` {running, pending, history, since,
 * whole}: `since` is when their reading began, and `whole` says that no backend is left out.
 */
export class Client extends EventTarget {
  clientId = window.name;
  /** `connecting`, `open`, `closed` (and about to be opened again) or `held` (cut on purpose). */
  socketState = "closed";

  #socket = null;
  #timer = 0;
  /** The prompt that `executing` named last: previews of type 1 do not say whose they are. */
  #running = null;
  #refreshing = false;
  #refreshAgain = false;

  connect() {
    clearTimeout(this.#timer);
    this.#say("connecting");
    const query = this.clientId ? `?clientId=${encodeURIComponent(this.clientId)}` : "";
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws${query}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const flags = { supports_preview_metadata: true };
      socket.send(JSON.stringify({ type: "feature_flags", data: flags }));
      this.#say("open");
    };
    socket.onmessage = (message) => {
      // A socket that was cut may still have frames on their way: they are the next one's affair.
      if (socket !== this.#socket) return;
      if (typeof message.data === "string") this.#text(message.data);
      else this.#binary(message.data);
    };
    socket.onclose = (close) => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      this.#say("closed", close.code);
      this.#timer = setTimeout(() => this.connect(), RECONNECT_MS);
    };
    this.#socket = socket;
  }

  /** Cuts the socket and stays away for `ms`, as a laptop that is closed and opened does. */
  cut(ms = RECONNECT_MS) {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.close();
    this.#say("held");
    this.#timer = setTimeout(() => this.connect(), Math.max(ms, RECONNECT_MS));
  }

  /** Queues a graph. Returns the prompt's id and what the gateway said of its place. */
  async queue(graph) {
    const { body, headers } = await api("/api/prompt", {
      client_id: this.clientId,
      prompt: graph,
      extra_data: {},
    });
    return {
      promptId: body.prompt_id,
      number: body.number,
      backend: headers.get("mooring-backend"),
      placement: headers.get("mooring-placement"),
    };
  }

  /** Stops a prompt: takes it from the queue if it waits, interrupts it if it runs. */
  async cancel(promptId, running) {
    if (running) await api("/api/interrupt", { prompt_id: promptId });
    else await api("/api/queue", { delete: [promptId] });
  }

  /** Uploads a picture. Returns the name to use for it in a graph, and who has it. */
  async upload(file) {
    const form = new FormData();
    form.append("image", file, file.name);
    const { body, headers } = await api("/api/upload/image", form, { deadline: 120_000 });
    const name = body.subfolder ? `${body.subfolder}/${body.name}` : body.name;
    return { name, file: body, backend: headers.get("mooring-backend") };
  }

  /** Asks the gateway about this tab, or tells it something: see `/-/` in its manual. */
  async gateway(path, method = "GET") {
    const headers = this.clientId ? { "Comfy-Client-Id": this.clientId } : {};
    const { body } = await api(path, undefined, { method, headers });
    return body;
  }

  /**
   * Reads queue and history and tells them; calls that overlap become one more round. The queue
   * goes first: what ends between the two is then in both, and never in neither.
   */
  async refresh() {
    if (this.#refreshing) {
      this.#refreshAgain = true;
      return;
    }
    this.#refreshing = true;
    do {
      this.#refreshAgain = false;
      try {
        const since = Date.now();
        const queue = await api("/api/queue");
        const history = await api(`/api/history?max_items=${HISTORY_ITEMS}`);
        this.#tell("lists", {
          running: queue.body.queue_running ?? [],
          pending: queue.body.queue_pending ?? [],
          history: history.body ?? {},
          since,
          whole: [queue, history].every(({ headers }) => !headers.has("mooring-missing")),
        });
      } catch (error) {
        this.#tell("trouble", { what: "Could not read the queue", error });
      }
    } while (this.#refreshAgain);
    this.#refreshing = false;
  }

  #text(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // Not for us: ComfyUI's page ignores what it cannot read, too.
    }
    const { type, data } = message ?? {};
    if (type === "status") {
      if (data?.sid && data.sid !== this.clientId) this.#adopt(data.sid);
      this.refresh();
    }
    if (type === "executing") this.#running = data?.node ? (data.prompt_id ?? null) : null;
    if (type) this.#tell("comfy", { type, data: data ?? {} });
  }

  #adopt(sid) {
    this.clientId = sid;
    window.name = sid;
    try {
      sessionStorage.setItem("clientId", sid);
    } catch {
      // Storage is switched off; `window.name` is what counts.
    }
    this.#tell("identity", { clientId: sid });
  }

  #binary(buffer) {
    const view = new DataView(buffer);
    if (buffer.byteLength < 8) return;
    const kind = view.getUint32(0);
    if (kind === PREVIEW_IMAGE) {
      const type = view.getUint32(4) === 2 ? "image/png" : "image/jpeg";
      this.#preview(this.#running, new Blob([buffer.slice(8)], { type }));
    }
    if (kind === PREVIEW_IMAGE_WITH_METADATA) {
      const end = 8 + view.getUint32(4);
      if (buffer.byteLength < end) return;
      const about = JSON.parse(new TextDecoder().decode(buffer.slice(8, end)));
      const type = about.image_type ?? "image/jpeg";
      this.#preview(about.prompt_id, new Blob([buffer.slice(end)], { type }));
    }
  }

  #preview(promptId, blob) {
    if (promptId) this.#tell("preview", { promptId, blob });
  }

  #say(state, code) {
    this.socketState = state;
    this.#tell("socket", { state, code });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Where a picture of an `executed` event or of a history entry is to be had. */
export function viewUrl({ filename, subfolder, type }) {
  return `/api/view?${new URLSearchParams({ filename, subfolder: subfolder ?? "", type })}`;
}

/** One request with a deadline. A failure of any kind is an error with one readable sentence. */
async function api(path, payload, { method, headers = {}, deadline = FETCH_MS } = {}) {
  const init = { method: method ?? (payload === undefined ? "GET" : "POST"), headers };
  if (payload instanceof FormData) init.body = payload;
  else if (payload !== undefined) {
    init.body = JSON.stringify(payload);
    init.headers = { "Content-Type": "application/json", ...headers };
  }
  init.signal = AbortSignal.timeout(deadline);
  const response = await fetch(path, init).catch((error) => {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, late ? "no answer in time" : "the gateway does not answer");
  });
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = null;
  }
  if (!response.ok) throw new ApiError(response.status, reason(response, body), body);
  return { body, headers: response.headers };
}

/** ComfyUI puts its reason in `error.message`, or in `error` itself. */
function reason(response, body) {
  const error = body?.error;
  const message = typeof error === "string" ? error : error?.message;
  return message || `${response.status} ${response.statusText}`.trim();
}
