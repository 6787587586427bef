// The last hour as plots: what ended in each minute, and how long that waited and ran. Each plot is
// told in words too, so the drawing itself is hidden from screen readers.

import { byId, count, el, keep, say } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 72;
/** The width of a minute. */
const STEP = 10;

function draw(name, attributes) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

function paper(minutes) {
  const width = minutes.length * STEP;
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true",
  });
  svg.append(draw("line", { class: "axis", x1: 0, x2: width, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
  return svg;
}

/** A column for each minute: those that completed, and on top those that did not. */
function columns(minutes, most) {
  const svg = paper(minutes);
  const tall = (jobs) => (HEIGHT - 4) * jobs / most;
  minutes.forEach(([completed, others], index) => {
    const rest = { x: index * STEP + 1, width: STEP - 2 };
    const low = tall(completed);
    if (completed > 0) svg.append(draw("rect", { class: "ok", ...rest, y: HEIGHT - low, height: low }));
    if (others > 0) {
      const high = tall(others);
      svg.append(draw("rect", { class: "not", ...rest, y: HEIGHT - low - high, height: high }));
    }
  });
  return svg;
}

/** A line through the minutes that have a time; it does not cross those that have none. */
function line(minutes, times, most) {
  const svg = paper(minutes);
  const at = (time, index) => [index * STEP + STEP / 2, HEIGHT - 2 - (HEIGHT - 8) * time / most];
  let points = [];
  const end = () => {
    if (points.length > 1) svg.append(draw("polyline", { class: "line", points: points.join(" ") }));
    else if (points.length === 1) {
      const [x, y] = points[0];
      svg.append(draw("rect", { class: "dot", x: x - STEP / 2, y: y - 1.5, width: STEP, height: 3 }));
    }
    points = [];
  };
  times.forEach((time, index) => {
    if (time === null) end();
    else points.push(at(time, index));
  });
  end();
  return svg;
}

/** 420 → "0.4 s", 4200 → "4 s", 65000 → "1.1 min". */
function long(ms) {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 60 ? `${minutes.toFixed(1)} min` : `${(minutes / 60).toFixed(1)} h`;
}

function throughput(minutes) {
  const sum = (index) => minutes.reduce((all, it) => all + it[index], 0);
  const most = Math.max(...minutes.map(([completed, others]) => completed + others));
  const [completed, others] = [sum(0), sum(1)];
  return {
    title: "Jobs that ended",
    words: completed + others === 0 ? "None"
      : `${count(completed + others, "job", "jobs")}, at most ${most} in a minute`
        + (others > 0 ? `; ${others} not completed (red)` : ""),
    picture: () => columns(minutes, Math.max(most, 1)),
  };
}

function times(minutes, column, title) {
  const all = minutes.map((it) => it[column]);
  const known = all.filter((it) => it !== null);
  const most = Math.max(...known, 1);
  const newest = known.at(-1);
  return {
    title,
    words: known.length === 0 ? "Nothing was measured"
      : `${long(newest)} in the newest minute that has any, at most ${long(most)}`,
    picture: () => line(minutes, all, most),
  };
}

export function show({ minutes }) {
  const plots = [
    throughput(minutes),
    times(minutes, 2, "Waiting time, on average"),
    times(minutes, 3, "Running time, on average"),
  ];
  const drawn = JSON.stringify(minutes);
  const make = ({ title }) => el("figure", { class: "card plot" },
    el("figcaption", {}, title), el("p", { class: "soft words" }), el("svg", {}),
    el("p", { class: "soft ends", "aria-hidden": "true" },
      el("span", {}, "an hour ago"), el("span", {}, "now")));
  keep(byId("plots"), plots, (it) => it.title, make, (figure, { words, picture }) => {
    say(figure.querySelector(".words"), words);
    if (figure.dataset.drawn === drawn) return;
    figure.dataset.drawn = drawn;
    figure.querySelector("svg").replaceWith(picture());
  });
}
