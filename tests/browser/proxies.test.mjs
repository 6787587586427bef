// ComfyUI's own page behind other proxies, with the configurations that docs/proxies.md shows: it
// loads over TLS, runs a prompt to its picture, and large bodies pass both ways.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import { DEADLINE, eventually, openBrowser } from "./kit.mjs";
import { assertColour, hears, openStock, picturesOf, queue, seesAtNode } from "./stock.mjs";

const PAGE = readFileSync(new URL("../../docs/proxies.md", import.meta.url), "utf8");
const HOST = "comfy.example.com";
const COLOUR = 0x3366cc;
/** As much as ComfyUI takes by default, but for the form around it. */
const LARGE = 100_000_000;

const GRAPH = {
  1: {
    class_type: "EmptyImage",
    inputs: { width: 64, height: 48, batch_size: 1, color: COLOUR },
  },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "proxied" } },
};

/** Each proxy: what it is called on the page, and how it is started with a file of it. */
const PROXIES = [
  {
    name: "nginx",
    language: "nginx",
    // As root its workers would be another user, who could not read the folder. And as processes
    // of their own they would outlive a master that is killed.
    whole: (text, folder) => `${process.getuid() === 0 ? "user root;" : ""}
daemon off; master_process off;
pid ${folder}/pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path ${folder}; proxy_temp_path ${folder};
  fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
  ${text}
}`,
    command: (file, folder) => ["nginx", "-e", "stderr", "-p", folder, "-c", file],
  },
  {
    name: "HAProxy",
    language: "haproxy",
    whole: (text) => text,
    command: (file) => ["haproxy", "-db", "-f", file],
  },
  {
    name: "Caddy",
    language: "caddyfile",
    whole: (text) => `{\n\tadmin off\n\tauto_https disable_redirects\n}\n${text}`,
    command: (file) => ["caddy", "run", "--adapter", "caddyfile", "--config", file],
  },
];

/** The only block of this language on the page. */
function block(language) {
  const found = [...PAGE.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].filter((it) => it[1] === language);
  assert.equal(found.length, 1, `blocks of ${language} in docs/proxies.md`);
  return found[0][2];
}

/** `text` with each of these in place of what stands on the page, which has to be there. */
function adapt(text, replaced) {
  for (const [from, to] of replaced) {
    assert.ok(text.includes(from), `${from} stands in docs/proxies.md`);
    text = text.replaceAll(from, to);
  }
  return text;
}

const freePort = () => new Promise((resolve, reject) => {
  const server = createServer().on("error", reject);
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

let folder;
let fleet;
let browser;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "mooring-proxies-"));
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
    "-nodes", "-days", "2", "-subj", `/CN=${HOST}`, "-addext", `subjectAltName=DNS:${HOST}`,
    "-keyout", join(folder, "comfy.key"), "-out", join(folder, "comfy.crt")], { stdio: "pipe" });
  writeFileSync(join(folder, "comfy.pem"), ["crt", "key"].map((end) =>
    readFileSync(join(folder, `comfy.${end}`), "utf8")).join(""), { mode: 0o600 });
  const configuration = join(folder, "mooring.toml");
  writeFileSync(configuration, block("toml"));
  const frontend = process.env.COMFYUI_FRONTEND_033;
  [fleet, browser] = await Promise.all([
    startFleet({ frontend, configuration }),
    openBrowser([`--host-resolver-rules=MAP ${HOST} 127.0.0.1`, "--ignore-certificate-errors"]),
  ]);
}, DEADLINE);

after(async () => {
  await browser?.close();
  await fleet?.stop();
  rmSync(folder, { recursive: true, force: true });
}, DEADLINE);

/** Runs a proxy as the page says, and waits until it listens. */
async function start({ name, language, whole, command }) {
  const port = await freePort();
  const text = adapt(block(language), [
    ["127.0.0.1:8180", new URL(fleet.url).host],
    ["/etc/ssl/comfy", join(folder, "comfy")],
    ...(language === "caddyfile"
      ? [[`https://${HOST}`, `https://${HOST}:${port}`]]
      : [language === "nginx" ? ["listen 443", `listen ${port}`] : ["bind :443", `bind :${port}`]]),
  ]);
  const file = join(folder, language);
  writeFileSync(file, whole(text, folder));
  const [program, ...args] = command(file, folder);
  const said = [];
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin`, HOME: folder };
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => {
    child.on("exit", resolve).on("error", (error) => { said.push(String(error)); resolve(); });
  });
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (it) => said.push(it));
  const stop = async () => { child.kill("SIGKILL"); await ended; };
  try {
    await eventually(`${name} listens`, () => new Promise((resolve, reject) => {
      if (child.exitCode !== null) reject(new Error(`${name} ended: ${said.join("")}`));
      const socket = connect(port, "127.0.0.1", () => { socket.destroy(); resolve(true); });
      socket.on("error", () => resolve(false));
    }));
  } catch (error) {
    await stop();
    throw error;
  }
  return { url: `https://${HOST}:${port}/`, stop };
}

/** Uploads a file of that size and reads it again: the digests of both, and what was answered. */
const sendLarge = ({ page }, size) => page.evaluate(async (length) => {
  const { api } = window.app;
  const digest = async (bytes) =>
    [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].join();
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65536)));
  }
  const body = new FormData();
  body.append("image", new File([bytes], "large.png", { type: "image/png" }));
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) return { status: answer.status, told: await answer.text() };
  const { name, subfolder } = await answer.json();
  const query = new URLSearchParams({ filename: name, subfolder, type: "input" });
  const got = await (await api.fetchApi(`/view?${query}`)).arrayBuffer();
  return { sent: await digest(bytes), got: await digest(got), bytes: got.byteLength };
}, size);

for (const proxy of PROXIES) {
  test(`the page works behind ${proxy.name}`, DEADLINE, async () => {
    const { url, stop } = await start(proxy);
    try {
      const context = await browser.newContext({ ignoreHTTPSErrors: true });
      const tab = await openStock(context, url, []);
      const protocol = await tab.page.evaluate(() =>
        performance.getEntriesByType("navigation")[0].nextHopProtocol);
      assert.equal(protocol, "h2");
      // Who believes that the page came by TLS gives it cookies that leave by TLS only.
      const ours = (await context.cookies(url)).filter(({ name }) => name.includes("mooring"));
      assert.ok(ours.length > 0 && ours.every(({ secure }) => secure), JSON.stringify(ours));
      const { prompt } = await queue(tab, GRAPH);
      await hears(tab, prompt, "execution_success");
      const [picture] = await picturesOf(tab, prompt);
      assertColour((await seesAtNode(tab, "SaveImage", picture)).pixel, COLOUR, "the picture");
      const large = await sendLarge(tab, LARGE);
      assert.equal(large.bytes, LARGE, JSON.stringify(large));
      assert.equal(large.got, large.sent);
      await context.close();
    } finally {
      await stop();
    }
  });
}
