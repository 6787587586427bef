// Talks to the admin listener. The token stays in this tab: other tabs and other sites have nothing
// that a browser would send along.

const KEY = "mooring-admin-token";

/** A page that has heard nothing for so long says so. The gateway says something every 4 s. */
const STALE_AFTER = 8000;

const token = () => sessionStorage.getItem(KEY);

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
    });
  } catch {
    throw new Error("The gateway cannot be reached.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const why = told.error ?? `The gateway answered ${answer.status}.`;
    throw new Error([why, ...(told.problems ?? [])].join("\n"));
  }
  return told;
}

/**
 * Follows what the gateway tells, for ever. `told` gets each snapshot, `state` each change:
 * "live", "away" (it does not answer) or "locked" (it wants a token; resolve the promise that is
 * returned once there is one).
 */
export async function follow({ told, state }) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8000)) {
    try {
      const stop = new AbortController();
      const answer = await ask("/api/v1/live", { signal: stop.signal });
      if (answer.status === 401) {
        await state("locked");
        pause = 250;
        continue;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      await read(answer.body.getReader(), stop, (snapshot) => {
        pause = 250;
        state("live");
        told(snapshot);
      });
    } catch {
      // Told below: it is away, whatever broke.
    }
    state("away");
    await new Promise((resolve) => { setTimeout(resolve, pause); });
  }
}

/** Reads events until the answer ends, or nothing comes any more. */
async function read(reader, stop, told) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const silent = setTimeout(() => stop.abort(), STALE_AFTER);
    const { done, value } = await reader.read().finally(() => clearTimeout(silent));
    if (done) return;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) told(JSON.parse(data.slice(6)));
    }
  }
}
