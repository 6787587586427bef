"""The table: medians, spreads, and ratios to the better of nginx and HAProxy."""

import datetime
import os
import platform
import re
import statistics
import subprocess

import proxies
from machine import ROOT

DOCUMENT = os.path.join(ROOT, "docs", "performance.md")
BEGIN = "<!-- begin: written by `make bench` -->"
END = "<!-- end: written by `make bench` -->"
# What a row may be above its bound and is met all the same: what one run differs from another.
TOLERANCE = 0.05


def written(rows, results, rounds, seconds):
    """The whole text between the markers."""
    lines = head(rounds, seconds)
    beside = [row for row in rows if len(row.contenders) != 1]
    if beside:
        lines += ["", "### Side by side", "",
                  "| Work | | nginx | HAProxy | Mooring | ratio | bound | met |",
                  "|---|---|---|---|---|---|---|---|"]
        lines += [compared(row, results) for row in beside]
    alone = [row for row in rows if len(row.contenders) == 1]
    if alone:
        lines += ["", "### What only Mooring does", "", "| Work | | Mooring | limit | met |",
                  "|---|---|---|---|---|"]
        lines += [by_itself(row, results) for row in alone]
        lines += flat(results)
    direct = [row for row in rows if "direct" in row.contenders]
    if direct:
        said = [f"{row.title}: {cell(figures(row, 'direct', results))} {row.unit}"
                for row in direct]
        lines += ["", "Without any proxy: " + "; ".join(said) + "."]
    return "\n".join(lines)


def head(rounds, seconds):
    known = proxies.all_of_them()
    versions = ", ".join(f"{it.name} {it.version()}" for it in known.values() if it.version())
    command = f"ROUNDS={rounds} SECONDS={seconds:g} make bench"
    return [
        f"- Date: {datetime.date.today()}",
        f"- Command: `{command}`",
        f"- Machine: {processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        f"- Programs: {versions}" + commit(),
        "",
        f"Medians; rounds: {rounds}. In brackets the smallest and the largest.",
    ]


def processor():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.M)
    return found.group(1) if found else platform.machine()


def commit():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                          capture_output=True, text=True)
    return f" (at {done.stdout.strip()})" if done.returncode == 0 else ""


def figures(row, name, results):
    """A row's numbers for one proxy, one for each round."""
    found = measured(row, row.source, name, results)
    if not row.base:
        return found
    # What it is compared with comes from the same round: the machine changes between them.
    pairs = list(zip(found, measured(row, row.base, name, results)))
    if row.times:
        return [value / base for value, base in pairs]
    return [value - base for value, base in pairs]


def measured(row, source, name, results):
    return [it[row.figure] * row.scale for it in results.get((source, name), [])
            if row.figure in it]


def number(value):
    if 100 <= value:
        return f"{value:,.0f}"
    return f"{value:.1f}" if 10 <= value else f"{value:.2f}"


def cell(values):
    if not values:
        return "–"
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}–{number(max(values))})"


def verdict(value, most):
    return "" if most is None else ("yes" if value <= most else "**no**")


def compared(row, results):
    ours = figures(row, "Mooring", results)
    others = [figures(row, name, results) for name in ("nginx", "HAProxy")]
    best = min(statistics.median(values) for values in others if values)
    ratio = statistics.median(ours) / best
    if row.limit is not None:
        bound, met = f"≤ {number(row.limit)}", verdict(statistics.median(ours), row.limit)
    elif row.bound is not None:
        bound, met = f"≤ {row.bound} ×", verdict(ratio, row.bound + TOLERANCE)
    else:
        bound, met = "reported", ""
    cells = [row.title, row.unit, *map(cell, others), cell(ours), f"{ratio:.2f} ×", bound, met]
    return "| " + " | ".join(cells) + " |"


def by_itself(row, results):
    ours = figures(row, "Mooring", results)
    limit = f"≤ {number(row.limit)}" if row.limit is not None else ""
    met = verdict(statistics.median(ours), row.limit) if ours else ""
    return "| " + " | ".join([row.title, row.unit, cell(ours), limit, met]) + " |"


def flat(results):
    """Whether a request costs the same however many clients are bound."""
    few, many = results.get(("bound10", "Mooring")), results.get(("bound100000", "Mooring"))
    if not few or not many:
        return []
    middle = [statistics.median(it["cpu_us"] for it in each) for each in (few, many)]
    ratio = middle[1] / middle[0]
    met = "met" if ratio <= 1.1 + TOLERANCE else "**not met**"
    return ["", f"From 10 to 100,000 bound clients a request's CPU grows to {ratio:.2f} × "
                f"(bound: 1.1 ×, {met})."]


def put(text):
    """Writes the table into the document, between its markers."""
    with open(DOCUMENT) as file:
        document = file.read()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(DOCUMENT, "w") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
