"""Writes what the licences ask for of the code of others that is in the executable: who made it, and
the texts of its licences.

    notices.py INTO

The crates are those that Cargo links for this machine: neither those of tests, nor what only runs
while it builds. The texts are the files of their packages; a text that several crates have is there
once. Needs cargo with the sources of the crates, which it fetches if they are missing.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense|third.?party)", re.I)
# Of their tests and examples nothing is in the executable.
ASIDE = {"tests", "test", "benches", "examples", "fuzz", "testdata", "target"}
HEAD = """\
Mooring is under the Apache License 2.0; its text is beside this file, or on Debian in
/usr/share/common-licenses/Apache-2.0. Its executable contains code of the projects that are listed
here, each under its own licence; the texts follow the list. The standard library of Rust
(https://www.rust-lang.org, "MIT OR Apache-2.0") is in it too, under Apache-2.0.
"""


def answer(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def is_linked(dependency, packages):
    """A macro of the compiler runs while it builds."""
    kinds = {it["kind"] for it in dependency["dep_kinds"]}
    targets = packages[dependency["pkg"]]["targets"]
    return None in kinds and not any("proc-macro" in it["kind"] for it in targets)


def linked():
    """The packages of others in the executable."""
    host = re.search(r"^host: (\S+)", answer("rustc", "-vV"), re.M).group(1)
    cargo = os.environ.get("CARGO", "cargo")
    told = json.loads(answer(cargo, "metadata", "--locked", "--format-version", "1",
                             "--filter-platform", host))
    packages = {it["id"]: it for it in told["packages"]}
    nodes = {it["id"]: it for it in told["resolve"]["nodes"]}
    root = told["resolve"]["root"]
    seen, next_ones = {root}, [root]
    while next_ones:
        for dependency in nodes[next_ones.pop()]["deps"]:
            if dependency["pkg"] not in seen and is_linked(dependency, packages):
                seen.add(dependency["pkg"])
                next_ones.append(dependency["pkg"])
    return sorted((packages[it] for it in seen - {root}), key=lambda it: (it["name"], it["version"]))


def texts(package):
    """The texts of licences in a package, those of code within it (C of other projects) too."""
    folder = Path(package["manifest_path"]).parent
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and TEXT.match(path.name) and path.suffix not in (".rs", ".py", ".h") \
                and not ASIDE & set(inside.parts[:-1]):
            text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
            if text:
                yield str(inside), text


def main(into):
    lines, given, without = [HEAD], {}, []
    for package in linked():
        name = f"{package['name']} {package['version']}"
        found = list(texts(package))
        if not package["license"] and not found:
            sys.exit(f"notices: {name} says no licence")
        lines.append(f"{name}: {package['license'] or 'see its text'}")
        for place, text in found:
            given.setdefault(text, []).append(f"{name} ({place})")
        if not found:
            without.append((name, package))
    for name, package in without:
        authors = ", ".join(package["authors"]) or "its authors"
        lines.append(f"\n{name} has no text in its package. It is by {authors}: "
                     f"{package['repository'] or 'https://crates.io/crates/' + package['name']}")
    for text, names in given.items():
        lines.append(f"\n{'-' * 78}\n{chr(10).join(names)}\n\n{text}")
    Path(into).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
