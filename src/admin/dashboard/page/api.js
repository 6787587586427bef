// Talks to the admin listener. The token stays in this tab: other tabs and other sites have nothing
// that a browser would send along.

const KEY = "mooring-admin-token";

/** A page that has heard nothing for so long says so. The gateway says something every 4 s. */
const STALE_AFTER = 10_000;

/** A call that takes longer is given up: what it asked for may still happen. */
const CALL_MS = 30_000;

const token = () => sessionStorage.getItem(KEY);

/** True for what can be a token: visible ASCII, as a header takes it. */
export const isToken = (value) => /^[\x21-\x7e]+$/.test(value);

export const hasToken = () => token() !== null;

export function keepToken(value) {
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

function ask(path, options = {}) {
  const given = token();
  const headers = { ...options.headers, ...(given ? { authorization: `Bearer ${given}` } : {}) };
  return fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
}

/** Asks for something; throws an error that can be shown. */
export async function call(method, path, body) {
  let answer;
  try {
    answer = await ask(path, {
      method, body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_MS),
    });
  } catch (error) {
    throw new Error(error.name === "TimeoutError"
      ? "The gateway has not answered in 30 s. What you asked for may still happen."
      : "The gateway cannot be reached.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(reason(answer, told));
  return told;
}

const reason = (answer, told) =>
  [told.error ?? `The gateway answered ${answer.status}.`, ...(told.problems ?? [])].join("\n");

/**
 * Follows what the gateway tells, for ever. `told` gets each snapshot. `state` gets each change:
 * "live", "away" with a reason, or "locked", perhaps with a reason: then it is asked again when
 * `state` has a token.
 */
export async function follow({ told, state }) {
  let pause = 250;
  const take = (snapshot) => {
    pause = 250;
    state("live");
    // A page that cannot draw says so in the console; the gateway is not away.
    try { told(snapshot); } catch (error) { reportError(error); }
  };
  for (;;) {
    const stop = new AbortController();
    let why = "";
    try {
      const answer = await within(stop, ask("/api/v1/live", { signal: stop.signal }));
      const said = answer.ok ? {} : await answer.json().catch(() => ({}));
      // The gateway itself refuses the user of this key: another may do. A proxy's 403 says nothing
      // of the key.
      const isRefused = answer.status === 403 && hasToken() && said.error !== undefined;
      if (answer.status === 401 || isRefused) {
        await state("locked", isRefused ? reason(answer, said) : "");
        continue;
      }
      if (!answer.ok) why = reason(answer, said);
      else await read(answer.body.getReader(), stop, take);
    } catch {
      // It is away, whatever broke.
    } finally {
      stop.abort();
    }
    state("away", why);
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    pause = Math.min(pause * 2, 8000);
  }
}

/** Gives up what takes too long. */
function within(stop, promise) {
  const silent = setTimeout(() => stop.abort(), STALE_AFTER);
  return promise.finally(() => clearTimeout(silent));
}

/** Reads events until the answer ends, or nothing comes any more. */
async function read(reader, stop, told) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await within(stop, reader.read());
    if (done) return;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) told(JSON.parse(data.slice(6)));
    }
  }
}
