"""Processes: pinned to a core, ready when they say so, and ended whatever happens."""

import atexit
import contextlib
import functools
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MOORING = os.path.join(ROOT, "target", "release", "mooring")
LOAD = os.path.join(ROOT, "target", "load", "release", "mooring-load")

PROXY_CORE = 0
LOAD_CORE = 1
READY_WITHIN = 20.0
ENDS_WITHIN = 3.0


class Failed(Exception):
    """Something did not start, or did not do its work."""


class Running:
    """A proxy that takes connections: where, the processes whose cost counts, what is known, and
    the header that lets a request in."""

    def __init__(self, address, pids, facts=None, line=""):
        self.address = address
        self.pids = pids
        self.facts = facts or {}
        self.line = line


def raise_descriptors(wanted=65536):
    """Raises the limit of open files as far as it goes; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard), max(wanted, hard)))
        return max(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    """A port that the system gives; those who cannot take port 0 themselves get it at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as path:
        yield path


@functools.cache
def certificate():
    """A certificate that signs itself, its key, and both in one file; gone when we end."""
    path = tempfile.mkdtemp(prefix="mooring-bench-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    cert, key, both = (os.path.join(path, name) for name in ("cert.pem", "key.pem", "both.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=comfy.example",
                    "-addext", "subjectAltName=DNS:comfy.example",
                    "-addext", "basicConstraints=critical,CA:FALSE",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    with open(both, "w") as file:
        for part in (cert, key):
            with open(part) as text:
                file.write(text.read())
    return cert, key, both


@contextlib.contextmanager
def process(command, core, **options):
    """A process on one core, ended with all that it started."""
    pinned = ["taskset", "--cpu-list", str(core), *command]
    started = subprocess.Popen(pinned, start_new_session=True, **options)
    try:
        yield started
    finally:
        end(started)


def end(started):
    """SIGTERM to the whole group, and SIGKILL to what is left of it."""
    for signal_, limit in ((signal.SIGTERM, ENDS_WITHIN), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal_)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(limit)
    for stream in (started.stdin, started.stdout):
        if stream:
            stream.close()


def family(pid):
    """A process and its children: nginx works in a child."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid, *(int(child) for child in children.read().split())]


def wait_for(condition, started, what):
    """Waits until `condition` gives something; fails if the process ends or time runs out."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if started.poll() is not None:
            raise Failed(f"{what} ended at once")
        time.sleep(0.02)
    raise Failed(f"{what} was not ready in {READY_WITHIN:.0f} s")


def takes_connections(address):
    host, port = address.rsplit(":", 1)
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    return False


@contextlib.contextmanager
def backends(count=2, before=()):
    """The simulated backends; they end with their standard input, whatever becomes of us. `before`
    is a command that runs them."""
    command = [LOAD, "backend", "--listeners", str(count)]
    with process([*before, *command], LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                 text=True) as started:
        addresses = [started.stdout.readline().strip() for _ in range(count)]
        if not all(addresses):
            raise Failed("the backends did not start")
        yield addresses


def load(arguments, running, seconds):
    """Runs the load against a proxy; what it printed, as numbers."""
    command = [LOAD, *arguments, "--target", running.address, "--seconds", str(seconds),
               "--pids", ",".join(map(str, running.pids))]
    if running.line:
        command += ["--line", running.line]
    limit = 120 + 2 * seconds
    with process(command, LOAD_CORE, stdout=subprocess.PIPE, text=True) as started:
        try:
            printed, _ = started.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"the load did not end in {limit:.0f} s") from None
        if started.returncode != 0:
            raise Failed(f"the load failed ({started.returncode})")
    pairs = (line.split("=", 1) for line in printed.splitlines())
    return running.facts | {name: float(value) for name, value in pairs}
