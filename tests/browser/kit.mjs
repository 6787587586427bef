// What the browser tests share: the browser, a watch over a page, and waiting with a deadline.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PICTURES = `${ROOT}.cache/browser`;

/** For what a person would wait for; the machine may be slow, but never longer than this. */
export const PATIENCE_MS = 60_000;
/** The official page compiles some megabytes of script. */
export const LOAD_MS = 120_000;
/** For a whole test: it only keeps one that hangs from hanging the run. */
export const DEADLINE = { timeout: 300_000 };

/** A browser with a profile of its own, which is gone when it is closed; `more` are arguments. */
export async function openBrowser(more = []) {
  mkdirSync(PICTURES, { recursive: true });
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    timeout: PATIENCE_MS,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      // A tab in the background is to be as awake as the one in front.
      "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
      ...more,
    ],
  });
}

/**
 * A tab, watched from before its first request: `sockets` are its WebSockets in order, each with
 * the frames that it sent and heard; `problems` are its errors but for those that `allowed`
 * explains.
 */
export async function openTab(context, url, allowed = []) {
  const page = await context.newPage();
  const tab = watch(page, new URL(url).origin, allowed);
  // Nothing of these tests needs another host, and none is to be asked.
  await page.route((other) => other.origin !== tab.origin && other.protocol.startsWith("http"),
    (route) => route.abort());
  await page.goto(url, { timeout: PATIENCE_MS });
  return tab;
}

export function watch(page, origin, allowed = []) {
  page.setDefaultTimeout(PATIENCE_MS);
  const tab = { page, origin, sockets: [], problems: [] };
  const problem = (text) => {
    if (!allowed.some(({ pattern }) => pattern.test(text))) tab.problems.push(text);
  };
  page.on("websocket", (socket) => {
    const seen = { url: new URL(socket.url()), sent: [], heard: [], closed: false };
    socket.on("framesent", ({ payload }) => seen.sent.push(payload));
    socket.on("framereceived", ({ payload }) => seen.heard.push(payload));
    socket.on("close", () => { seen.closed = true; });
    tab.sockets.push(seen);
  });
  page.on("pageerror", (error) => problem(`uncaught: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") problem(`${message.text()} (${message.location().url})`);
  });
  return tab;
}

/**
 * Waits until `look`, run in the page with `argument`, gives something true; returns it. A look
 * that throws is one that came too early: the page of a new tab is empty at first.
 */
export async function until(page, what, look, argument, timeout = PATIENCE_MS) {
  const deadline = Date.now() + timeout;
  for (;;) {
    try {
      const left = Math.max(1, deadline - Date.now());
      const handle = await page.waitForFunction(look, argument, { timeout: left, polling: 50 });
      return await handle.jsonValue();
    } catch (error) {
      if (Date.now() < deadline && !page.isClosed()) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        continue;
      }
      const name = what.replace(/\W+/g, "-");
      const path = `${PICTURES}/${name}.png`;
      await page.screenshot({ path, timeout: 5000 }).catch(() => null);
      throw new Error(`${what}: not within ${timeout} ms (see ${path}): ${error}`);
    }
  }
}

/**
 * Waits until the official page has its socket's first word and the workflow that it begins with
 * (what is loaded before that one is replaced by it); returns the tab's name.
 */
export async function ready(page) {
  await until(page, "the page is ready", () => {
    const { graph, api, extensionManager: manager } = window.app ?? {};
    return graph && api?.clientId && api.socket?.readyState === 1 &&
      manager?.workflow?.activeWorkflow && !manager.spinner;
  }, undefined, LOAD_MS);
  return page.evaluate(() => window.name);
}

/** Waits for something that happens outside the page. */
export async function eventually(what, look, timeout = PATIENCE_MS) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${timeout} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The colour in the middle of a loaded `<img>`, as the browser decoded it. */
export function middleColour(page, selector) {
  return page.$eval(selector, (image) => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data].slice(0, 3);
  });
}
