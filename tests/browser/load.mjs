// How much the official page costs to load, and how long it takes: the first time and again, from
// a server itself and through the gateway. Measured by the browser (Resource Timing).

import { openBrowser, ready, until } from "./kit.mjs";

/** The wire: 50 Mbit/s both ways and 20 ms. */
const WIRE = {
  offline: false, latency: 20, downloadThroughput: 50e6 / 8, uploadThroughput: 50e6 / 8,
};

/** More than any page loads; the browser's own limit is 250. */
const ENTRIES_MAX = 10_000;

/** A browser that finds no other host. (Routes of the test's own would switch off its cache.) */
export const openAlone = () =>
  openBrowser(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]);

/**
 * Loads the page of a server in a new profile, and again: `{ first, again }`, each with the bytes
 * that came over the wire, and with the milliseconds until the last of the page's assets was there.
 */
export async function loadTwice(browser, url, { isThrottled = false } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  try {
    const page = await context.newPage();
    await page.addInitScript((max) => performance.setResourceTimingBufferSize(max), ENTRIES_MAX);
    if (isThrottled) {
      const session = await context.newCDPSession(page);
      await session.send("Network.enable");
      await session.send("Network.emulateNetworkConditions", WIRE);
    }
    await page.goto(`${url}/`);
    const first = await cost(page);
    await page.reload();
    return { first, again: await cost(page) };
  } finally {
    await context.close();
  }
}

/** What a load has cost, once the page asks for nothing more. */
async function cost(page) {
  await ready(page);
  await until(page, "the page asks for nothing more", () => {
    const count = performance.getEntriesByType("resource").length;
    const now = performance.now();
    if (window.quiet?.count !== count) window.quiet = { count, since: now };
    return now - window.quiet.since > 1_000;
  });
  return page.evaluate(() => {
    const files = performance.getEntriesByType("resource");
    const all = [...performance.getEntriesByType("navigation"), ...files];
    const assets = files.filter(({ name }) => new URL(name).pathname.includes("/assets/"));
    return {
      files: assets.length,
      bytes: all.reduce((sum, { transferSize }) => sum + transferSize, 0),
      last: Math.max(...assets.map(({ responseEnd }) => responseEnd)),
    };
  });
}
