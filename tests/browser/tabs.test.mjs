// Tabs of ComfyUI's own page in one browser, each a client of its own: they share a cookie, a
// gateway and three simulated backends, and have nothing to tell them apart but the script that
// the gateway puts into the page. With the page that ComfyUI 0.8.0 comes with, and a newer one.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startFleet } from "../clients/fleet.mjs";
import {
  DEADLINE, LOAD_MS, eventually, openBrowser, openTab, ready, until, watch,
} from "./kit.mjs";
import { upload } from "./stock.mjs";

const HEADER = "comfy-client-id";
const ID = /^[0-9a-f]{32}$/;

const GRAPH = {
  1: {
    class_type: "EmptyImage",
    inputs: { width: 16, height: 16, batch_size: 1, color: 0x3366cc },
  },
  2: {
    class_type: "SlowSteps",
    inputs: { image: ["1", 0], steps: 20, seconds: 20, fail: false, preview: false },
  },
  3: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "tab" } },
};

let browser;

before(async () => {
  browser = await openBrowser();
}, DEADLINE);

after(async () => {
  await browser?.close();
}, DEADLINE);

/** Keeps what a page asks by script, as `{ url, id }`. */
function listen(page) {
  const asked = [];
  page.on("request", (request) => {
    if (["fetch", "xhr"].includes(request.resourceType())) {
      asked.push({ url: new URL(request.url()), id: request.headers()[HEADER] });
    }
  });
  return asked;
}

/** A tab that is watched from before its first request. */
async function tab(context, url) {
  const opening = context.waitForEvent("page");
  const opened = openTab(context, url);
  const asked = listen(await opening);
  const watched = await opened;
  return { ...watched, asked, id: await ready(watched.page) };
}

/** Opens a tab as a duplicate of a page: with a copy of its sessionStorage and of its name. */
async function duplicate(page, origin, name) {
  const opening = page.context().waitForEvent("page");
  await page.evaluate((copied) => {
    const opened = window.open("about:blank");
    opened.name = copied;
    opened.location = location.href;
  }, name);
  const opened = await opening;
  // Playwright may only see it when its first requests are out: the sockets tell enough.
  const watched = watch(opened, origin);
  return { ...watched, id: await ready(opened) };
}

/** What `look` gives in each of some tabs. */
const inEach = (tabs, look, argument) =>
  Promise.all(tabs.map(({ page }) => page.evaluate(look, argument)));

for (const [version, frontend] of [
  ["1.35.9", process.env.COMFYUI_FRONTEND], ["1.58.1", process.env.COMFYUI_FRONTEND_NEW],
]) {
  describe(`frontend ${version}`, () => {
    let fleet;
    let context;
    let tabs;

    before(async () => {
      fleet = await startFleet({ frontend });
      context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
      tabs = [await tab(context, `${fleet.url}/`), await tab(context, `${fleet.url}/`)];
    }, DEADLINE);

    after(async () => {
      await context?.close();
      await fleet?.stop();
    }, DEADLINE);

    test("each tab has an id of its own before its first request", DEADLINE, async () => {
      assert.notEqual(tabs[0].id, tabs[1].id);
      const cookies = await context.cookies();
      assert.equal(cookies.filter(({ name }) => name === "mooring").length, 1, "one for both");
      for (const { id, page, sockets, origin, asked } of tabs) {
        assert.match(id, ID);
        assert.equal(await page.evaluate(() => window.app.api.clientId), id);
        assert.deepEqual(sockets.map(({ url }) => url.searchParams.get("clientId")), [id]);
        const own = asked.filter(({ url }) => url.origin === origin);
        assert.ok(own.length > 5, `${own.length} requests by script`);
        for (const { url, id: said } of own) assert.equal(said, id, url.href);
        for (const { url, id: said } of asked) {
          if (url.origin !== origin) assert.equal(said, undefined, url.href);
        }
      }
    });

    test("each tab works on a backend of its own, and all it asks goes there", DEADLINE,
      async () => {
        const [one, two] = await inEach(tabs, async (graph) => {
          const json = { client_id: window.app.api.clientId, prompt: graph };
          const posted = await window.app.api.fetchApi("/prompt", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(json),
          });
          return posted.headers.get("mooring-backend");
        }, GRAPH);
        assert.notEqual(one, two);
        const uploaded = [
          await upload(tabs[0], "same.png", 0xff2000), await upload(tabs[1], "same.png", 0xff2000),
        ];
        assert.deepEqual(uploaded.map(({ backend }) => backend), [one, two]);
        const seen = await inEach(tabs, async () => {
          const { api } = window.app;
          const answers = [
            await api.fetchApi("/object_info/SaveImage"), await api.fetchApi("/system_stats"),
          ];
          return answers.map(({ headers }) => headers.get("mooring-backend"));
        });
        assert.deepEqual(seen, [[one, one], [two, two]]);
        const left = await inEach(tabs, async () => {
          await window.app.api.fetchApi("/interrupt", { method: "POST" });
          const answer = await fetch("/-/whoami");
          return (await answer.json()).client_id;
        });
        assert.deepEqual(left, tabs.map(({ id }) => id));
      });

    test("a reload keeps the id", DEADLINE, async () => {
      const [{ page, sockets, id }] = tabs;
      await page.reload({ timeout: LOAD_MS });
      assert.equal(await ready(page), id);
      assert.equal(sockets.at(-1).url.searchParams.get("clientId"), id);
    });

    test("a duplicate gets another, even if the browser copies all there is", DEADLINE,
      async () => {
        const [first] = tabs;
        // All browsers copy sessionStorage, and some the tab's name.
        for (const name of ["", first.id]) {
          const copy = await duplicate(first.page, first.origin, name);
          assert.match(copy.id, ID);
          assert.notEqual(copy.id, first.id);
          assert.notEqual(copy.id, tabs[1].id);
          await copy.page.reload({ timeout: LOAD_MS });
          assert.equal(await ready(copy.page), copy.id, "and keeps it over a reload");
          assert.equal(await first.page.evaluate(() => window.name), first.id);
          await copy.page.close();
        }
        await first.page.reload({ timeout: LOAD_MS });
        assert.equal(await ready(first.page), first.id);
      });

    test("none of that left an error on the console", () => {
      const ours = tabs.flatMap(({ problems }) => problems)
        .filter((text) => /mooring|page\.js|client-id/i.test(text))
        // The page asks its maker's registry, which its own policy forbids; not our affair.
        .filter((text) => !text.includes("//api.comfy.org/"));
      assert.deepEqual(ours, []);
    });
  });
}

describe("the script", () => {
  let fleet;
  let context;
  let page;
  let id;

  before(async () => {
    fleet = await startFleet({ frontend: process.env.COMFYUI_FRONTEND });
    context = await browser.newContext();
    ({ page, id } = await tab(context, `${fleet.url}/`));
  }, DEADLINE);

  after(async () => {
    await context?.close();
    await fleet?.stop();
  }, DEADLINE);

  /** Who the gateway takes a request for; `ask` runs in the page and gives its answer's text. */
  const whoAsks = async (ask) => JSON.parse(await page.evaluate(ask)).client_id;

  test("names fetches of every form, and replaces no name", DEADLINE, async () => {
    assert.equal(await whoAsks(async () => (await fetch("/-/whoami")).text()), id);
    assert.equal(await whoAsks(async () =>
      (await fetch(new URL("/-/whoami", location.href), null)).text()), id);
    assert.equal(await whoAsks(async () =>
      (await fetch(new Request("/-/whoami"))).text()), id);
    assert.equal(await whoAsks(async () =>
      (await fetch("/-/whoami", new Request("/x", { headers: { "X-A": "1" } }))).text()), id);
    const named = { "comfy-client-id": "another" };
    const other = await page.evaluate(async (headers) => {
      const forms = [
        () => fetch("/-/whoami", { headers }),
        () => fetch("/-/whoami", { headers: Object.entries(headers) }),
        () => fetch(new Request("/-/whoami", { headers })),
        () => fetch(new Request("/-/whoami"), { headers: new Headers(headers) }),
      ];
      const answers = [];
      for (const form of forms) answers.push((await (await form()).json()).client_id);
      return answers;
    }, named);
    assert.deepEqual(other, ["another", "another", "another", "another"]);
  });

  test("leaves a Request, its headers and its body as they were", DEADLINE, async () => {
    const told = await page.evaluate(async () => {
      const request = new Request("/api/userdata/told.txt?overwrite=true", {
        method: "POST",
        headers: { "X-A": "1" },
        body: "the body",
        referrer: "/somewhere",
        referrerPolicy: "same-origin",
        cache: "no-store",
      });
      const stored = await fetch(request);
      const again = await fetch(request).then(() => "sent", (error) => error.name);
      const stream = new Blob(["a", "b"]).stream();
      const init = { method: "POST", body: stream, duplex: "half" };
      const streamed = await fetch("/api/userdata/s.txt", init).catch((error) => error);
      return {
        stored: stored.status,
        headers: [...request.headers].map(([name]) => name),
        used: request.bodyUsed,
        again,
        body: await (await fetch("/api/userdata/told.txt")).text(),
        // Browsers send streams over HTTP/2 only: the refusal is their own.
        streamed: streamed.status ?? streamed.name,
        nothing: await window.fetch().catch((error) => error.name),
        wrong: await fetch("http://[").catch((error) => error.name),
      };
    });
    assert.deepEqual(told, {
      stored: 200, headers: told.headers, used: true, again: "TypeError", body: "the body",
      streamed: "TypeError", nothing: "TypeError", wrong: "TypeError",
    });
    assert.ok(told.headers.includes("x-a"));
    assert.ok(!told.headers.includes(HEADER));
  });

  test("names XMLHttpRequests, once", DEADLINE, async () => {
    const told = await page.evaluate(async () => {
      const ask = (prepare) => new Promise((resolve) => {
        const request = new XMLHttpRequest();
        request.onload = () => resolve(JSON.parse(request.responseText).client_id);
        request.open("GET", "/-/whoami");
        prepare(request);
        request.send();
      });
      let unopened = "";
      try {
        new XMLHttpRequest().send();
      } catch (error) {
        unopened = error.name;
      }
      return {
        plain: await ask(() => {}),
        named: await ask((request) => request.setRequestHeader("COMFY-client-id", "another")),
        unopened,
      };
    });
    assert.deepEqual(told, { plain: id, named: "another", unopened: "InvalidStateError" });
  });

  test("tells no other origin", DEADLINE, async () => {
    const lax = await browser.newContext({ bypassCSP: true });
    const { page: free } = await tab(lax, `${fleet.url}/`);
    const seen = [];
    await free.route("http://other.example/**", (route) => {
      seen.push(route.request().headers()[HEADER]);
      return route.fulfill({ headers: { "access-control-allow-origin": "*" }, body: "{}" });
    });
    await free.evaluate(async (url) => {
      await fetch(url);
      await fetch(new Request(url), { mode: "cors" });
      await new Promise((resolve) => {
        const request = new XMLHttpRequest();
        request.onloadend = resolve;
        request.open("GET", url);
        request.send();
      });
    }, "http://other.example/");
    assert.deepEqual(seen, [undefined, undefined, undefined]);
    await lax.close();
  });

  test("names the tab's own socket, and itself to Mooring on those of node packs", DEADLINE, async () => {
    const urls = await page.evaluate(() => {
      const made = ["/ws", "/api/ws?x=1", "/ws?clientId=another", "/pack/ws", "/pack/?EIO=4"].map((path) =>
        new WebSocket(new URL(path, location.href.replace("http", "ws"))));
      const told = made.map((socket) => [socket.url, socket instanceof WebSocket]);
      for (const socket of made) socket.close();
      return { told, open: WebSocket.OPEN };
    });
    assert.equal(urls.open, 1);
    assert.ok(urls.told.every(([, isOne]) => isOne));
    const queries = urls.told.map(([url]) => new URL(url).search);
    assert.deepEqual(queries, [`?clientId=${id}`, `?x=1&clientId=${id}`, "?clientId=another",
      `?mooring_client=${id}`, `?EIO=4&mooring_client=${id}`]);
  });

  test("gives a tab whose page was killed its id back", DEADLINE, async () => {
    const victim = await tab(context, `${fleet.url}/`);
    // A killed page leaves its storage as it was while it lived.
    await victim.page.evaluate((old) => addEventListener("pagehide", () =>
      sessionStorage.setItem("mooring.tab", `here:${old}`)), victim.id);
    await victim.page.reload({ timeout: LOAD_MS });
    await ready(victim.page);
    await until(victim.page, "it has its id again", (old) => window.name === old, victim.id);
    await until(victim.page, "and so has its socket", (old) =>
      window.app.api.clientId === old && window.app.api.socket?.readyState === 1, victim.id);
  });

  test("and the page's last good copy are enough while the home is down", DEADLINE, async () => {
    const root = await fetch(`${fleet.url}/`);
    const home = fleet.backends.find(({ name }) =>
      name === root.headers.get("mooring-backend"));
    await home.process.stop();
    await eventually("the home is seen to be down", async () =>
      (await fetch(`${fleet.url}/`)).headers.get("mooring-stale") !== null);
    const later = await tab(await browser.newContext(), `${fleet.url}/`);
    assert.match(later.id, ID);
    await later.page.context().close();
  });
});

test("switched off, the first socket has no id, and its sid becomes the tab's", DEADLINE,
  async (t) => {
    const settings = ["server.page_script=off"];
    const fleet = await startFleet({ frontend: process.env.COMFYUI_FRONTEND, settings });
    t.after(() => fleet.stop());
    const context = await browser.newContext();
    t.after(() => context.close());
    const { page, sockets, id } = await tab(context, `${fleet.url}/`);
    assert.equal(sockets[0].url.search, "");
    assert.equal(await page.evaluate(() => window.app.api.clientId), id);
    await page.reload({ timeout: LOAD_MS });
    assert.equal(await ready(page), id);
    assert.equal(sockets.at(-1).url.searchParams.get("clientId"), id);
  });
