"""Packs an executable that was built already as the wheel that `maturin build` makes of pyproject.toml.

    wheel.py MOORING NOTICES VERSION INTO

With `bindings = "bin"` a wheel is the executable and a few small files (PEP 427). maturin would
build Mooring once more for it.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def platform(executable):
    """The oldest glibc with all symbols that it wants (PEP 600)."""
    symbols = subprocess.run(["objdump", "-T", executable], check=True, capture_output=True, text=True)
    versions = re.findall(r"GLIBC_2\.(\d+)", symbols.stdout)
    machine = os.uname().machine
    return f"manylinux_2_{max(map(int, versions))}_{machine}"


def metadata(version):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {version}"]
    lines += [f"Classifier: {it}" for it in project["classifiers"]]
    lines += [f"License-File: {it}" for it in project["license-files"]]
    lines += ["License-File: THIRD-PARTY-NOTICES"]
    lines += [f"Summary: {cargo['description']}", f"Keywords: {','.join(project['keywords'])}"]
    lines += [f"License-Expression: {project['license']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += ["Description-Content-Type: text/markdown; charset=UTF-8; variant=GFM"]
    return "\n".join(lines) + "\n\n" + (ROOT / project["readme"]).read_text()


def main(executable, notices, version, into):
    tag = f"py3-none-{platform(executable)}"
    info = f"mooring-{version}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: mooring-packaging\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files = {
        f"mooring-{version}.data/scripts/mooring": (Path(executable).read_bytes(), 0o755),
        f"{info}/METADATA": (metadata(version).encode(), 0o644),
        f"{info}/WHEEL": (wheel.encode(), 0o644),
        f"{info}/licenses/LICENSE": ((ROOT / "LICENSE").read_bytes(), 0o644),
        f"{info}/licenses/THIRD-PARTY-NOTICES": (Path(notices).read_bytes(), 0o644),
    }
    record = []
    for name, (content, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content)}\n")
    record.append(f"{info}/RECORD,,\n")
    files[f"{info}/RECORD"] = ("".join(record).encode(), 0o644)
    at = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    with zipfile.ZipFile(Path(into) / f"mooring-{version}-{tag}.whl", "w") as archive:
        for name, (content, mode) in files.items():
            entry = zipfile.ZipInfo(name, at)
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main(*sys.argv[1:])
