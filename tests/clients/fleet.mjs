// Starts what the tests need, three simulated backends and the gateway over them, and ends it.
//
// As a module: `startFleet()`, `startDemo()`. As a command: `node fleet.mjs COMMAND …` runs the
// command with MOORING_URL (and MOORING_ADMIN_URL) set and exits with its exit code. Ports come
// from the system; every process that is started here is ended here, whatever happens.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.MOORING_BIN ?? `${ROOT}target/debug/mooring`;
/** A machine that also builds is slow; only a test that fails waits so long. */
const START_MS = 60_000;
const STOP_MS = 5_000;
/** Lines of each process that are shown when something went wrong. */
const KEPT_LINES = 60;

const running = new Set();

/** One process of ours, and the last lines that it wrote. */
class Process {
  lines = [];
  #waiting = new Set();

  constructor(name, args) {
    this.name = name;
    const env = { ...process.env, NO_COLOR: "1", RUST_LOG: process.env.RUST_LOG ?? "info" };
    this.child = spawn(BINARY, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    running.add(this);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.#read(line));
    }
    this.ended = new Promise((resolve) => {
      this.child.on("exit", resolve);
      this.child.on("error", resolve);
    }).then(() => {
      running.delete(this);
      for (const look of this.#waiting) look(null);
    });
  }

  #read(line) {
    this.lines.push(line);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
    for (const look of this.#waiting) look(line);
  }

  /** Waits for a line that matches, and returns the match. */
  async line(pattern) {
    const past = this.lines.map((line) => pattern.exec(line)).find(Boolean);
    if (past) return past;
    let look;
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        const give = (why) => reject(new Error(`${this.name} ${why}:\n${this.lines.join("\n")}`));
        timer = setTimeout(() => give(`did not say ${pattern} in time`), START_MS);
        look = (line) => {
          if (line === null) return give("ended before it was ready");
          const match = pattern.exec(line);
          if (match) resolve(match);
        };
        this.#waiting.add(look);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(look);
    }
  }

  /** Ends it at once, as a crash does. */
  kill() {
    this.child.kill("SIGKILL");
  }

  async stop() {
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
    await this.ended;
    clearTimeout(timer);
  }
}

/** The address in lines such as `… front=127.0.0.1:41234 …` and `… url="http://…"`. */
const READY = /\b(?:front=|url="http:\/\/)(127\.0\.0\.1:\d+)/;
const ADMIN = /\badmin=\W?(127\.0\.0\.1:\d+)/;

/** A simulated backend, which keeps its address when it is started again. */
class Backend {
  #more;

  constructor(name, more) {
    this.name = name;
    this.#more = more;
    this.#run("0");
  }

  #run(port) {
    const args = ["sim", "--port", port, "--name", this.name, ...this.#more];
    this.process = new Process(this.name, args);
  }

  async start() {
    this.url = `http://${(await this.process.line(READY))[1]}`;
  }

  /** Ends it as a power failure does: nothing is said, and what was in its memory is gone. */
  async crash() {
    this.process.child.kill("SIGKILL");
    await this.process.ended;
  }

  async restart() {
    this.#run(new URL(this.url).port);
    await this.start();
  }
}

/** A gateway that somebody else started and ends, named by an environment variable. */
const foreign = (url) => ({ url, backends: [], lines: [], stop: async () => {} });

/**
 * Simulated backends and the gateway over them, each a process of its own. `settings` are keys of
 * the gateway's configuration: `["server.page_script=off"]`; `sim` are arguments of each backend;
 * `path` is where the front is (`server.base_path`); `headers` let in whoever asks there;
 * `configuration` is a file of more keys, which can change while the gateway runs.
 */
export async function startFleet({
  backends = 3, frontend, settings = [], sim = [], path = "", headers = {}, configuration,
} = {}) {
  if (process.env.MOORING_URL) return foreign(process.env.MOORING_URL);
  const page = frontend ? ["--frontend", frontend] : [];
  const sims = [];
  try {
    for (let index = 0; index < backends; index += 1) {
      sims.push(new Backend(`gpu-${"abcdefgh"[index]}`, [...page, ...sim]));
    }
    for (const each of sims) await each.start();
    const names = sims.flatMap(({ name, url }) => ["--set", `backends.${name}.url=${url}`]);
    // Nobody sends new clients to a gateway of a test that ends.
    const set = ["server.drain_delay=0s", ...settings].flatMap((key) => ["--set", key]);
    const file = configuration ? ["--config", configuration] : [];
    return await withGateway("serve", [...file, ...set, ...names], sims, { path, headers });
  } catch (error) {
    await stopAll();
    throw error;
  }
}

/** `mooring demo`: backends and gateway in one process. */
export async function startDemo() {
  if (process.env.MOORING_DEMO_URL) return foreign(process.env.MOORING_DEMO_URL);
  try {
    return await withGateway("demo", [], []);
  } catch (error) {
    await stopAll();
    throw error;
  }
}

/** The gateway over some backends; `restart` kills it, as a crash does, and starts it again. */
async function withGateway(verb, more, sims, { path = "", headers = {} } = {}) {
  const start = (front, admin) => new Process(`mooring ${verb}`,
    [verb, "--listen", front, "--admin-listen", admin, ...more]);
  let gateway = start("127.0.0.1:0", "127.0.0.1:0");
  const front = (await gateway.line(READY))[1];
  const url = `http://${front}`;
  await answers(`${url}${path}/api/system_stats`, headers);
  const admin = gateway.lines.map((line) => ADMIN.exec(line)).find(Boolean)?.[1];
  const restart = async () => {
    gateway.kill();
    await gateway.ended;
    gateway = start(front, admin);
    await gateway.line(READY);
  };
  const stop = async () => {
    await gateway.stop();
    await Promise.all(sims.map(({ process }) => process.stop()));
  };
  return {
    url, admin: admin && `http://${admin}`, backends: sims, restart, stop,
    get lines() { return gateway.lines; },
  };
}

/** Waits until a backend answers through the gateway: listening is not yet being up. */
async function answers(url, headers) {
  const deadline = Date.now() + START_MS;
  for (;;) {
    const asked = fetch(url, { headers, signal: AbortSignal.timeout(2000) });
    const answer = await asked.catch((error) => error);
    if (answer.ok) return;
    if (Date.now() > deadline) throw new Error(`${url} gave ${answer.status ?? answer.message}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function stopAll() {
  await Promise.all([...running].map((each) => each.stop()));
}

async function main(command) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is not built`);
  const fleet = await startFleet();
  const env = { ...process.env, MOORING_URL: fleet.url, MOORING_ADMIN_URL: fleet.admin ?? "" };
  const child = spawn(command[0], command.slice(1), { env, stdio: "inherit" });
  const code = await new Promise((resolve) => {
    child.on("exit", (status) => resolve(status ?? 1));
    child.on("error", () => resolve(127));
  });
  if (code) console.error(fleet.lines.map((line) => `  gateway: ${line}`).join("\n"));
  await fleet.stop();
  return code;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => stopAll().then(() => process.exit(1)));
  }
  main(process.argv.slice(2)).then(
    (code) => process.exit(code),
    (error) => {
      console.error(`fleet: ${error.message}`);
      stopAll().then(() => process.exit(1));
    },
  );
}
