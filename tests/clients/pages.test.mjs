// Every list of jobs, queue and history that Mooring makes, read by the official pages' own code
// (pages.mjs): one member of one job that they do not like, and they show nothing at all.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startFleet } from "./fleet.mjs";
import { jobReaders, schemaOf } from "./pages.mjs";

const CACHE = fileURLToPath(new URL("../../.cache/", import.meta.url));
const assetsOf = (version) =>
  `${CACHE}frontend-${version}/comfyui_frontend_package/static/assets`;
const WITH_JOBS = ["1.49.6", "1.58.1"];
const WITHOUT = "1.35.9";
const PATIENCE_MS = 30_000;

const graph = ({ steps = 1, seconds = 0.01, fail = false } = {}) => ({
  1: { class_type: "EmptyImage", inputs: { width: 8, height: 8, batch_size: 1, color: 255 } },
  2: { class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps, seconds, fail, preview: false } },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "page" } },
});
const LONG = { steps: 500, seconds: 120 };

const readers = new Map();
let schemas;

before(async () => {
  for (const version of WITH_JOBS) {
    readers.set(version, await jobReaders(assetsOf(version), `${CACHE}pages-${version}`));
  }
  schemas = {
    prompt: schemaOf(assetsOf(WITHOUT), "zTaskPrompt"),
    history: schemaOf(assetsOf(WITHOUT), "zHistoryTaskItem"),
  };
});

/** One who asks, with the headers that say who he is. */
function asker(url, headers) {
  const fetchApi = (route) => fetch(`${url}/api${route}`, { headers });
  const json = async (route) => {
    const answer = await fetchApi(route);
    assert.equal(answer.status, 200, route);
    return answer.json();
  };
  const post = async (route, body) => {
    const sent = { "content-type": "application/json", ...headers };
    const answer = await fetch(`${url}/api${route}`,
      { method: "POST", headers: sent, body: JSON.stringify(body) });
    return { backend: answer.headers.get("mooring-backend"), body: await answer.json() };
  };
  return { fetchApi, json, post };
}

/** Runs a page's reader, and fails with what it said if it did not like the answer. */
async function read(version, what, reader) {
  const said = [];
  const before = console.error;
  console.error = (...parts) => said.push(parts.join(" "));
  try {
    const found = await reader();
    assert.deepEqual(said, [], `${version}, ${what}`);
    return found;
  } finally {
    console.error = before;
  }
}

const ids = (jobs) => jobs.map((job) => job.id).sort();

/** Everything that an asker is told, read by every page; returns the statuses that it met. */
async function everyPageReads({ fetchApi, json }, { isAway = false } = {}) {
  const met = new Set();
  const { jobs } = await json("/jobs");
  jobs.forEach((job) => met.add(job.status));
  for (const [version, page] of readers) {
    const history = await read(version, "history", () => page.fetchHistory(fetchApi));
    const { Running, Pending } = await read(version, "queue", () => page.fetchQueue(fetchApi));
    assert.deepEqual(ids([...history, ...Running, ...Pending]), ids(jobs), version);
    for (const { id } of jobs) {
      const detail = await read(version, id, () => page.fetchJobDetail(fetchApi, id));
      assert.equal(detail?.id, id);
    }
  }
  const { queue_running: running, queue_pending: pending } = await json("/queue");
  for (const prompt of [...running, ...pending]) schemas.prompt.parse(prompt.slice(0, 5));
  for (const entry of Object.values(await json("/history"))) {
    schemas.history.parse({ taskType: "History", ...entry });
  }
  for (const { id } of jobs) {
    const answer = await fetchApi(`/history/${id}`);
    // Of what is pending on a backend that is away nobody can say whether it has ended.
    if ([502, 503].includes(answer.status) && isAway) continue;
    assert.equal(answer.status, 200, id);
    for (const entry of Object.values(await answer.json())) {
      schemas.history.parse({ taskType: "History", ...entry });
    }
  }
  return met;
}

async function until(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await look())) {
    assert.ok(Date.now() < deadline, `${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("a page refuses a list in which one job has no time", async () => {
  const job = { id: "a", status: "completed", create_time: 5, priority: 1 };
  const answer = (jobs) => async () => Response.json(
    { jobs, pagination: { offset: 0, limit: 200, total: jobs.length, has_more: false } });
  for (const [version, page] of readers) {
    const good = await read(version, "history", () => page.fetchHistory(answer([job])));
    assert.equal(good.length, 1);
    const { create_time: _, ...timeless } = { ...job, id: "b" };
    await assert.rejects(
      read(version, "history", () => page.fetchHistory(answer([job, timeless]))), version);
  }
  const entry = { taskType: "History", prompt: [1, "p", {}, {}, []], outputs: {} };
  assert.ok(schemas.history.safeParse(entry).success);
  assert.ok(!schemas.history.safeParse({ ...entry, prompt: [1, "p", {}, { create_time: "x" }, []] })
    .success);
});

for (const comfyui of ["0.33", "0.8", "0.3.64"]) {
  describe(`over ${comfyui}`, () => {
    let fleet;
    let page;
    let nobody;
    let nameless;

    before(async () => {
      const settings = ["fleet.grace=2s", "prompts.answer_limit=2s"];
      fleet = await startFleet({ backends: 2, sim: ["--comfyui", comfyui], settings });
      page = asker(fleet.url, { "comfy-client-id": "page", "comfy-user": "ada" });
      nobody = asker(fleet.url, { "comfy-client-id": "eve" });
      nameless = asker(fleet.url, {});
    });

    after(() => fleet?.stop());

    const submit = async (who, what) => {
      const { backend, body } = await who.post("/prompt", { prompt: graph(what) });
      assert.ok(body.prompt_id, JSON.stringify(body));
      return { id: body.prompt_id, backend };
    };
    const statusOf = async (who, { id }) =>
      (await who.json("/jobs")).jobs.find((job) => job.id === id)?.status;

    test("every page reads jobs of every kind, of a backend that dies too", async () => {
      // Before there is anybody with a name at this address.
      const unnamed = await submit(nameless, {});
      await until("it is done", async () => await statusOf(nameless, unnamed) === "completed");
      assert.ok((await everyPageReads(nameless)).has("completed"));

      const made = [await submit(page, {}), await submit(page, { fail: true })];
      await until("both have ended", async () =>
        await statusOf(page, made[0]) === "completed" && await statusOf(page, made[1]) === "failed");
      const cut = await submit(page, LONG);
      const waits = await submit(page, LONG);
      await until("one runs", async () => await statusOf(page, cut) === "in_progress");
      assert.deepEqual([...await everyPageReads(page)].sort(),
        ["completed", "failed", "in_progress", "pending"]);
      await everyPageReads(nameless);
      await everyPageReads(nobody);
      const cancelled = await page.post(`/jobs/${cut.id}/cancel`, {});
      assert.deepEqual(cancelled.body, { cancelled: true });
      await until("the next one runs", async () =>
        await statusOf(page, waits) === "in_progress");
      await everyPageReads(page);

      const dying = fleet.backends.find(({ name, url }) =>
        waits.backend === name || url.endsWith(waits.backend));
      dying.process.kill();
      await dying.process.ended;
      // Until its grace is over it is told as it was, and then as lost.
      const met = await everyPageReads(page, { isAway: true });
      assert.ok(met.has("in_progress") || met.has("pending"), [...met].join());
      await until("it is lost", async () => await statusOf(page, waits) === "failed");
      await everyPageReads(page);
      await everyPageReads(nameless);
      await everyPageReads(nobody);
    });
  });
}
