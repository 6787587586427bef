// Makes this tab of ComfyUI's page a client of its own: gives it its clientId before the first
// request, and says it with every request to its own server.
//
// Mooring puts this first into the page's `<head>` (`server.page_script`). The page takes its
// clientId from `window.name`; left alone it is given one by its first socket, and its other
// requests carry none at all. Nothing here may break the page: what cannot be done is left out,
// and then the page is known by its cookie, as without this script.
//
// One tab, one id. A duplicated tab, and one that `window.open` makes, begins with a *copy* of the
// first one's sessionStorage, and in some browsers of its `window.name`. So the id may be taken
// from there only while no page of that tab lives: a page writes `here:ID` when it begins and
// `gone:ID` when it leaves. Whoever finds `gone` is the next page of the same tab (a reload);
// whoever finds `here` is a copy, and mints an id of its own. A page that was killed could write
// nothing: browsers say so of discarded tabs, and for the rest a Web Lock, which dies with its
// page, tells whether `here` is still true. (Web Locks need HTTPS or localhost; without them a
// crashed tab comes back as a new client.)
//
// One user, one id. Where users log in (`auth.mode = "keys"`), a cookie has a mark that is another
// one for another user. An id that the tab had under another mark is another user's: the tab mints
// its own, also while its page is open.

(() => {
  "use strict";

  const HEADER = "Comfy-Client-Id";
  const STORE = "mooring.tab";
  const ID = /^[0-9a-f]{32}$/;
  const MARK = /(?:^|;\s*)(?:__Host-|__Secure-)?mooring_mark=([0-9a-f]+)/;
  /** An id whose lock is not free for so long has another tab. */
  const CONFLICT_MS = 5_000;

  let id = "";
  /** Whose it is. */
  let owner = mark();
  /** Ends the hold on the lock of `id`, if it is held. */
  let letGo = () => {};
  /** The tab's own open sockets. */
  const sockets = new Set();

  /** Who is logged in, as far as this page is told; empty for nobody. */
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

  /** What the last page of this tab, or of the one that it is a copy of, has left. */
  function found() {
    try {
      const [state, old, whose = ""] = (sessionStorage.getItem(STORE) ?? "").split(":");
      if (!ID.test(old)) return null;
      owner ||= whose;
      return whose === owner ? { state, id: old } : { state: "another's" };
    } catch {
      // Storage is switched off; then `window.name` is all there is.
      return null;
    }
  }

  function leave(state) {
    try {
      sessionStorage.setItem(STORE, `${state}:${id}${owner && `:${owner}`}`);
    } catch {
      // Off or full: the next page finds the id in `window.name`.
    }
  }

  function become(next) {
    id = next;
    window.name = next;
    leave("here");
    // Sockets under another name: the page opens them again in a moment, under this one.
    for (const socket of sockets) socket.close();
  }

  /** Resolves when the page leaves: until then the lock is held. */
  const held = () => new Promise((resolve) => { letGo = resolve; });

  /** Holds the lock of this tab's id; if another tab has it and keeps it, this one moves. */
  function claim() {
    const mine = id;
    const signal = AbortSignal.timeout?.(CONFLICT_MS);
    navigator.locks?.request(`${STORE}:${mine}`, { signal }, held).catch((error) => {
      if (error?.name !== "TimeoutError" || id !== mine) return;
      become(mint());
      claim();
    });
  }

  /** Takes back the id of a page that was killed; one that lives holds its lock. */
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
      // A name that somebody chose (`window.open(url, "comfy")`) is the same for all his users.
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
      // Back from the browser's cache of pages, whose sockets were closed.
      become(id);
      claim();
    });
    // A page that was rendered ahead wrote into a storage that is thrown away.
    document.addEventListener("prerenderingchange", () => leave("here"));
  }

  /** The tab's id, which is another one once another user is there. */
  function current() {
    const now = mark();
    // Whoever has left may come back.
    if (now && now !== owner) {
      letGo();
      owner = now;
      become(mint());
      claim();
    }
    return id;
  }

  /** True for what goes to this page's own server over HTTP. */
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
      // Whatever it is (a plain object, another Request), it is asked for all but its headers.
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
        // Not a URL, or not headers: the browser's own `fetch` says so.
      }
      return change === undefined ? native.call(this, ...arguments)
        : native.call(this, resource, change);
    };
  }

  function wrapXhr() {
    const prototype = XMLHttpRequest.prototype;
    const { open, send, setRequestHeader } = prototype;
    /** Requests of ours that do not carry the header yet. */
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
          // Sent already: the browser's own `send` says so.
        }
      }
      return send.apply(this, body);
    };
  }

  /**
   * The URL of another socket of this page's own server (a node pack's) with the tab's name in it,
   * which Mooring takes off again; or `null` for one of another server.
   */
  function packSocket(url) {
    const target = new URL(url, document.baseURI);
    const isSocket = ["ws:", "wss:", "http:", "https:"].includes(target.protocol);
    const folder = new URL("./", location.href).pathname;
    if (!isSocket || target.host !== location.host) return null;
    if ([`${folder}ws`, `${folder}api/ws`].includes(target.pathname)) return null;
    // As text: a pack may compare its query with what it has written.
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
    // A page that opens its socket again says the id that it had.
    if (known && known !== before && known !== mine) return null;
    if (known !== mine) target.searchParams.set("clientId", mine);
    return target.href;
  }

  const NOTICE = '{"type": "mooring.notice"';

  /** Shows what Mooring has to say to people; all other messages are the page's. */
  function heard(event) {
    if (typeof event.data !== "string" || !event.data.startsWith(NOTICE)) return;
    event.stopImmediatePropagation();
    try {
      const { level, message } = JSON.parse(event.data).data;
      const life = level === "warn" ? 60_000 : 5_000;
      const toast = { severity: level, summary: "Mooring", detail: message, life };
      window.app.extensionManager.toast.add(toast);
    } catch (error) {
      // The page is not there yet, or has no such place: nothing of it may break for that.
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
          // Not a URL: the browser's own constructor says so.
        }
        const socket = Reflect.construct(native, [own ?? other ?? url, ...rest], made);
        if (own !== null) {
          sockets.add(socket);
          // Before the page's own, which does not know these messages.
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
