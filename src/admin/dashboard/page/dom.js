// Makes elements. Text of others is only ever set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children. A child is a node, a text, or nothing. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((it) => it !== null && it !== undefined));
  return made;
}

/** Sets a text only if it differs: what a screen reader reads stays where it is. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Keeps one child for each item, in their order. `make` makes one, `update` brings it up to date.
 * Children that stay are not replaced, so focus stays where it is.
 */
export function keep(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const placed = new Set();
  let before = null;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    if (!child || placed.has(child)) {
      child = make(item);
      child.dataset.key = key;
    }
    placed.add(child);
    update(child, item);
    const next = before ? before.nextElementSibling : parent.firstElementChild;
    if (next !== child) parent.insertBefore(child, next);
    before = child;
  }
  for (const child of [...parent.children]) if (!placed.has(child)) child.remove();
}

/** 4200 → "4 s", 65000 → "1 min", 7200000 → "2 h". */
export function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

export const count = (number, one, several) => `${number} ${number === 1 ? one : several}`;
