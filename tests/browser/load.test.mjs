// The official page of ComfyUI 0.33 costs less through the gateway than from a server itself, the
// first time and again. With PAGE_ROUNDS it is measured over a wire of 50 Mbit/s as well, and
// written into docs/performance.md (`bench/page`).

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startFleet } from "../clients/fleet.mjs";
import { openAlone, loadTwice } from "./load.mjs";

const DEADLINE = { timeout: 400_000 };
const ROUNDS = Number(process.env.PAGE_ROUNDS ?? 0);
const DOCUMENT = fileURLToPath(new URL("../../docs/performance.md", import.meta.url));
const BEGIN = "<!-- begin: written by `bench/page` -->";
const END = "<!-- end: written by `bench/page` -->";

/** Of what it costs without the gateway, at most. */
const BOUNDS = { first: { bytes: 0.45, last: 0.6 }, again: { bytes: 0.05, last: 0.2 } };

let fleet;
let browser;

before(async () => {
  const frontend = process.env.COMFYUI_FRONTEND_033;
  [fleet, browser] = await Promise.all([startFleet({ frontend, backends: 2 }), openAlone()]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
}, DEADLINE);

test("a load through the gateway is a fraction of one from the server", DEADLINE, async () => {
  // The gateway has never been asked for a file: its first visitor is not to pay for all others.
  const through = await loadTwice(browser, fleet.url);
  const alone = await loadTwice(browser, fleet.backends[0].url);
  for (const turn of ["first", "again"]) {
    const [ours, theirs] = [through[turn], alone[turn]];
    assert.ok(theirs.files > 50 && theirs.bytes > 5e6, JSON.stringify(theirs));
    assert.equal(ours.files, theirs.files, turn);
    const ratio = ours.bytes / theirs.bytes;
    assert.ok(ratio <= BOUNDS[turn].bytes,
      `${turn}: ${ours.bytes} of ${theirs.bytes} bytes, ${ratio.toFixed(3)}`);
  }
});

test("over 50 Mbit/s it is faster", { ...DEADLINE, skip: ROUNDS === 0 }, async () => {
  const [measured, unlimited] = [{ through: [], alone: [] }, { through: [], alone: [] }];
  for (let round = 0; round < ROUNDS; round += 1) {
    const wire = { isThrottled: true };
    measured.alone.push(await loadTwice(browser, fleet.backends[0].url, wire));
    measured.through.push(await loadTwice(browser, fleet.url, wire));
    unlimited.alone.push(await loadTwice(browser, fleet.backends[0].url));
    unlimited.through.push(await loadTwice(browser, fleet.url));
  }
  const rows = [];
  for (const [turn, what] of [["first", "first load"], ["again", "reload"]]) {
    rows.push(row(measured, turn, "bytes", `bytes of a ${what}`, "MB", 1e6));
    rows.push(row(measured, turn, "last", `last asset of a ${what}`, "s", 1e3));
    rows.push(row(unlimited, turn, "last", "the same with no limit of the wire", "s", 1e3, null));
  }
  const text = [
    `- Date: ${new Date().toISOString().slice(0, 10)}; rounds: ${ROUNDS}; medians, in brackets the`
      + " smallest and the largest",
    `- Machine: ${os.cpus()[0].model.trim()}, ${os.cpus().length} cores; page 1.49.6 over the`
      + " simulated server, Chromium with 50 Mbit/s and 20 ms",
    "", "| What | | server | through Mooring | ratio | bound | met |", "|---|---|---|---|---|---|---|",
    ...rows.map(({ line }) => line),
  ].join("\n");
  console.log(text);
  if (process.env.PAGE_WRITE) write(text);
  for (const { ratio, bound, line } of rows) assert.ok(bound === null || ratio < 1, line);
});

/** One line of the table; without a bound it is only reported. */
function row({ alone, through }, turn, figure, title, unit, scale, bound = BOUNDS[turn][figure]) {
  const [theirs, ours] = [alone, through].map((all) =>
    all.map((load) => load[turn][figure] / scale).sort((one, other) => one - other));
  const ratio = median(ours) / median(theirs);
  const said = bound === null ? ["reported", ""]
    : [`≤ ${bound} ×`, ratio <= bound ? "yes" : "**no**"];
  const cells = [title, unit, cell(theirs), cell(ours), `${ratio.toFixed(3)} ×`, ...said];
  return { ratio, bound, line: `| ${cells.join(" | ")} |` };
}

const median = (sorted) => sorted[sorted.length >> 1];

const cell = (sorted) =>
  `${median(sorted).toFixed(2)} (${sorted[0].toFixed(2)}–${sorted.at(-1).toFixed(2)})`;

function write(text) {
  const document = readFileSync(DOCUMENT, "utf8");
  const [from, to] = [document.indexOf(BEGIN) + BEGIN.length, document.indexOf(END)];
  assert.ok(BEGIN.length <= from && from <= to, "docs/performance.md has a place for it");
  writeFileSync(DOCUMENT, `${document.slice(0, from)}\n\n${text}\n\n${document.slice(to)}`);
}
