// The official pages' own readers of jobs, queues and histories, taken out of their built packages
// and run in Node: what these refuse, a page does not show.
//
// From 1.49.6 on a page reads everything through `fetchHistory`, `fetchQueue` and `fetchJobDetail`,
// which check the whole answer with one schema: they are run as they are, with everything else that
// their module imports put out of the way. 1.35.9 has schemas of queues and histories; they are
// taken out of its text.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { z } from "zod";

/** What only the readers need is kept of the modules that theirs imports. */
const KEPT = /^(vendor-zod|zod\.gen|rolldown-runtime)/;
const IMPORT = /import(?:([\w$]+|\{[^}]*\}|\*as [\w$]+)from)?["']\.\/([^"']+)["'];?/g;
const EXPORT = /export\{[^}]*\};?\s*(\/\/#.*\s*)?$/;

/** Stands for whatever a page imports and its readers do not use: any member, call or instance of
 * it is itself. */
function nothing() {
  const self = new Proxy(function () {}, {
    get: (target, key) => {
      switch (key) {
        case "prototype": return target.prototype;
        case "then": return undefined;
        case "href": return "http://localhost/";
        case Symbol.toPrimitive: return () => "";
        case Symbol.iterator: return function* () {};
        default: return self;
      }
    },
    apply: () => self,
    construct: () => self,
    set: () => true,
  });
  return self;
}

/** The readers of a page that knows the jobs API. `assets` is its folder of scripts. */
export async function jobReaders(assets, folder) {
  globalThis.NOTHING ??= nothing();
  for (const name of ["window", "document", "localStorage", "sessionStorage", "location"]) {
    globalThis[name] ??= globalThis.NOTHING;
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/package.json`, '{ "type": "module" }');
  const entry = scriptWith(assets, "async function fetchJobsRaw(");
  const seen = new Set();
  const copy = (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    let text = readFileSync(`${assets}/${name}`, "utf8").replace(IMPORT, (whole, what, from) => {
      if (KEPT.test(from)) {
        copy(from);
        return whole;
      }
      if (!what) return "";
      const names = what.replace(/^\*as /, "").replace(/ as /g, ":");
      return `const ${names}=NOTHING;`;
    });
    if (name === entry) {
      text = text.replace(EXPORT, "") + "\nexport { fetchHistory, fetchQueue, fetchJobDetail };";
    }
    writeFileSync(`${folder}/${name}`, text);
  };
  copy(entry);
  return import(pathToFileURL(`${folder}/${entry}`));
}

/** A schema of that name in a page's scripts, with all that it is made of. */
export function schemaOf(assets, name) {
  const text = readFileSync(`${assets}/${scriptWith(assets, `${name}=`)}`, "utf8");
  const known = [];
  for (;;) {
    try {
      const parts = known.map((each) => `const ${each.name} = ${each.text};`).join("\n");
      return new Function("z", `${parts}\nreturn ${name};`)(z);
    } catch (error) {
      if (!(error instanceof ReferenceError) || known.length > 200) throw error;
      const named = /^(\S+) is not defined$|^Cannot access '(\S+)' before/.exec(error.message);
      const missing = named?.[1] ?? named?.[2];
      if (!missing) throw error;
      // One that is there already is wanted earlier.
      const there = known.findIndex((each) => each.name === missing);
      const [found] = there < 0 ? [{ name: missing, text: valueOf(text, missing) }]
        : known.splice(there, 1);
      known.unshift(found);
    }
  }
}

function scriptWith(assets, text) {
  const names = readdirSync(assets).filter((name) => name.endsWith(".js"));
  const found = names.find((name) => readFileSync(`${assets}/${name}`, "utf8").includes(text));
  if (!found) throw new Error(`no script of ${assets} has ${text}`);
  return found;
}

/** What a constant is, as it is written: up to the comma or semicolon that ends it. */
function valueOf(text, name) {
  const start = new RegExp(`[\\s,;]${name.replace(/\$/g, "\\$")}=(?!=)`).exec(text);
  if (!start) throw new Error(`${name} is nowhere defined`);
  let at = start.index + start[0].length;
  const first = at;
  for (let depth = 0; at < text.length; at += 1) {
    const char = text[at];
    if (char === '"' || char === "'" || char === "`") {
      for (at += 1; text[at] !== char; at += 1) if (text[at] === "\\") at += 1;
    } else if ("([{".includes(char)) depth += 1;
    else if (")]}".includes(char)) depth -= 1;
    else if (depth === 0 && (char === "," || char === ";")) break;
  }
  return text.slice(first, at);
}
