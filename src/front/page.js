// Makes this tab of ComfyUI's page a client of its own: gives it a clientId before the first
// request, and sends it with every request to its own server.
//
// Mooring inserts this at the start of the page's `<head>` (`server.page_script`). The page takes
// its clientId from `window.name`. Without this script it gets one with its first socket, and its
// other requests contain none. This script must not break the page: if something fails, it is left
// out, and the page is identified by its cookie, as without this script.
//
// One tab, one id. A duplicated tab, or one from `window.open`, begins with a *copy* of the first
// tab's sessionStorage, and in some browsers of its `window.name`. So the stored id may be used
// only if no page of that tab is open. A page writes `here:ID` when it begins and `gone:ID` when
// it leaves. A page that finds `gone` is the next page of the same tab (a reload). A page that
// finds `here` is in a copy of the tab and creates a new id. A page that was killed cannot write
// `gone`. Browsers report discarded tabs; in all other cases a Web Lock, which ends with its page,
// shows whether `here` is still true. (Web Locks need HTTPS or localhost; without them a crashed
// tab comes back as a new client.)
//
// One user, one id. If users log in (`auth.mode = "keys"`), a cookie has a mark that is different
// for each user. An id that the tab got under another mark belongs to another user. Then the tab
// creates a new id, even while its page is open.

(() => {
  "use strict";

  const HEADER = "Comfy-Client-Id";
  const STORE = "mooring.tab";
  const ID = /^[0-9a-f]{32}$/;
  const MARK = /(?:^|;\s*)(?:__Host-|__Secure-)?mooring_mark=([0-9a-f]+)/;
  /** If the lock of an id is not free after this time, another tab uses the id. */
  const CONFLICT_MS = 5_000;

  let id = "";
  /** The mark of the user that `id` belongs to. */
  let owner = mark();
  /** Releases the lock of `id`, if it is held. */
  let letGo = () => {};
  /** The tab's own open sockets. */
  const sockets = new Set();

  /** The mark of the user who is logged in; empty if there is none. */
  function mark() {
    try {
      return MARK.exec(document.cookie)?.[1] ?? "";
    } catch {
      // A sandboxed page has no cookies.
      return "";
    }
  }

  /** 128 random bits, in the form that ComfyUI gives. */
  function mint() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** What the last page of this tab, or of the tab that it was copied from, has stored. */
  function found() {
    try {
      const [state, old, whose = ""] = (sessionStorage.getItem(STORE) ?? "").split(":");
      if (!ID.test(old)) return null;
      owner ||= whose;
      return whose === owner ? { state, id: old } : { state: "another's" };
    } catch {
      // Storage is turned off, so only `window.name` is left.
      return null;
    }
  }

  function leave(state) {
    try {
      sessionStorage.setItem(STORE, `${state}:${id}${owner && `:${owner}`}`);
    } catch {
      // Storage is off or full: the next page finds the id in `window.name`.
    }
  }

  function become(next) {
    id = next;
    window.name = next;
    leave("here");
    // Close sockets with the old id: the page opens them again in a moment, with the new one.
    for (const socket of sockets) socket.close();
  }

  /** Resolves when the page leaves: until then the lock is held. */
  const held = () => new Promise((resolve) => { letGo = resolve; });

  /** Takes the lock of this tab's id. If another tab keeps it, this tab gets a new id. */
  function claim() {
    const mine = id;
    const signal = AbortSignal.timeout?.(CONFLICT_MS);
    navigator.locks?.request(`${STORE}:${mine}`, { signal }, held).catch((error) => {
      if (error?.name !== "TimeoutError" || id !== mine) return;
      become(mint());
      claim();
    });
  }

  /** Takes back the id of a page that was killed. A page that is open holds its lock. */
  function recover(old) {
    if (!navigator.locks) return;
    navigator.locks.request(`${STORE}:${old}`, { ifAvailable: true }, (lock) => {
      if (!lock) return claim();
      become(old);
      return held();
    }).catch(() => {});
  }

  function begin() {
    const last = found();
    if (last?.state === "another's") {
      become(mint());
      claim();
    } else if (last === null) {
      // A chosen name (`window.open(url, "comfy")`) would be the same in many browsers.
      become(ID.test(window.name) ? window.name : mint());
      claim();
    } else if (last.state === "gone" || document.wasDiscarded) {
      become(last.id);
      claim();
    } else {
      become(mint());
      recover(last.id);
    }
    addEventListener("pagehide", () => {
      leave("gone");
      letGo();
    });
    addEventListener("pageshow", ({ persisted }) => {
      if (!persisted) return;
      // The page comes back from the browser's page cache, where its sockets were closed.
      become(id);
      claim();
    });
    // What a prerendered page wrote into its storage is lost.
    document.addEventListener("prerenderingchange", () => leave("here"));
  }

  /** The tab's id. It changes when another user logs in. */
  function current() {
    const now = mark();
    // After a logout the same user may come back.
    if (now && now !== owner) {
      letGo();
      owner = now;
      become(mint());
      claim();
    }
    return id;
  }

  /** True for requests to this page's own server over HTTP. */
  function isOwn(url) {
    const { origin, protocol } = new URL(url, document.baseURI);
    return origin === location.origin && (protocol === "http:" || protocol === "https:");
  }

  /**
   * The second argument of `fetch` with the header in it, or as it was. A `Request` is not
   * touched and its body is not read: `init.headers` stand in for its own.
   */
  function named(resource, init) {
    const request = resource instanceof Request ? resource : null;
    if (!isOwn(request ? request.url : resource)) return init;
    const headers = new Headers(init?.headers ?? request?.headers);
    if (headers.has(HEADER)) return init;
    headers.set(HEADER, current());
    if (init !== undefined && init !== null) {
      // `init` may be any object. All its properties are used, except the headers.
      return new Proxy({}, { get: (_, key) => (key === "headers" ? headers : init[key]) });
    }
    if (!request) return { headers };
    // Any `init` at all resets these two (Fetch standard, "new Request").
    const { referrer, referrerPolicy } = request;
    return { headers, referrer, referrerPolicy };
  }

  function wrapFetch() {
    const native = window.fetch;
    window.fetch = function fetch(resource, init) {
      let change = init;
      try {
        if (arguments.length > 0) change = named(resource, init);
      } catch {
        // Not a URL, or not headers: the browser's own `fetch` reports it.
      }
      return change === undefined ? native.call(this, ...arguments)
        : native.call(this, resource, change);
    };
  }

  function wrapXhr() {
    const prototype = XMLHttpRequest.prototype;
    const { open, send, setRequestHeader } = prototype;
    /** Requests to our own server that do not have the header yet. */
    const nameless = new WeakSet();
    prototype.open = function (method, url, ...rest) {
      nameless.delete(this);
      const opened = open.call(this, method, url, ...rest);
      if (isOwn(url)) nameless.add(this);
      return opened;
    };
    prototype.setRequestHeader = function (name, value) {
      const set = setRequestHeader.call(this, name, value);
      if (String(name).toLowerCase() === HEADER.toLowerCase()) nameless.delete(this);
      return set;
    };
    prototype.send = function (...body) {
      if (nameless.delete(this)) {
        try {
          setRequestHeader.call(this, HEADER, current());
        } catch {
          // Sent already: the browser's own `send` reports it.
        }
      }
      return send.apply(this, body);
    };
  }

  /**
   * The URL of another socket of this page's own server (of a node pack) with the tab's id added,
   * which Mooring removes again; or `null` for a socket of another server.
   */
  function packSocket(url) {
    const target = new URL(url, document.baseURI);
    const isSocket = ["ws:", "wss:", "http:", "https:"].includes(target.protocol);
    const folder = new URL("./", location.href).pathname;
    if (!isSocket || target.host !== location.host) return null;
    if ([`${folder}ws`, `${folder}api/ws`].includes(target.pathname)) return null;
    // Edited as text, because a pack may compare the query with what it has written.
    const [head, hash = ""] = target.href.split("#");
    const join = head.includes("?") ? "&" : "?";
    return `${head}${join}mooring_client=${current()}${hash && `#${hash}`}`;
  }

  /** The URL of the tab's own socket with its clientId, or `null` for any other socket. */
  function ownSocket(url) {
    const target = new URL(url, document.baseURI);
    const folder = new URL("./", location.href).pathname;
    const isWs = [`${folder}ws`, `${folder}api/ws`].includes(target.pathname);
    if (target.host !== location.host || !isWs) return null;
    const known = target.searchParams.get("clientId");
    const before = id;
    const mine = current();
    // A page that opens its socket again uses the id that it had.
    if (known && known !== before && known !== mine) return null;
    if (known !== mine) target.searchParams.set("clientId", mine);
    return target.href;
  }

  const OURS = '{"type": "mooring.';

  /**
   * Shows notices of Mooring to the user, and tells the extension of everything that Mooring says.
   * All other messages are for the page.
   */
  function heard(event) {
    if (typeof event.data !== "string" || !event.data.startsWith(OURS)) return;
    event.stopImmediatePropagation();
    try {
      const { type, data } = JSON.parse(event.data);
      window.dispatchEvent(new CustomEvent(type));
      if (type !== "mooring.notice") return;
      const { level, message } = data;
      const life = level === "warn" ? 60_000 : 5_000;
      const toast = { severity: level, summary: "Mooring", detail: message, life };
      window.app.extensionManager.toast.add(toast);
    } catch (error) {
      // The page is not ready, or cannot show notices. This must not break it.
      console.warn("mooring:", event.data, error);
    }
  }

  function wrapSockets() {
    window.WebSocket = new Proxy(window.WebSocket, {
      construct(native, [url, ...rest], made) {
        let own = null;
        let other = null;
        try {
          own = ownSocket(url);
          other = packSocket(url);
        } catch {
          // Not a URL: the browser's own constructor reports it.
        }
        const socket = Reflect.construct(native, [own ?? other ?? url, ...rest], made);
        if (own !== null) {
          sockets.add(socket);
          // Before the page's own listener, which does not know these messages.
          socket.addEventListener("message", heard);
          socket.addEventListener("close", () => sockets.delete(socket));
        }
        return socket;
      },
    });
  }

  try {
    begin();
  } catch (error) {
    console.warn("mooring: this tab has no clientId of its own:", error);
    return;
  }
  for (const wrap of [wrapFetch, wrapXhr, wrapSockets]) {
    try {
      wrap();
    } catch (error) {
      console.warn("mooring: requests of one kind go without their clientId:", error);
    }
  }
})();
