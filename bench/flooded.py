"""What is flooded, and how it is watched: gateways, backends, memory, an honest client."""

import contextlib
import os
import subprocess
import sys
import threading

import proxies
from machine import (LOAD_CORE, MOORING, PROXY_CORE, ROOT, Running, family, folder, process,
                     wait_for)


@contextlib.contextmanager
def simulators(before=()):
    """Two simulated ComfyUI servers; `before` is a command that runs them."""
    with contextlib.ExitStack() as stack, folder() as path:
        addresses = []
        for name in ("a", "b"):
            log = os.path.join(path, name)
            file = stack.enter_context(open(log, "w"))
            command = [MOORING, "sim", "--port", "0", "--name", name]
            started = stack.enter_context(process([*before, *command], LOAD_CORE, stderr=file))
            found = wait_for(lambda: proxies.found_in(log, r'url="?http://([0-9.:]+)'), started, "sim")
            addresses.append(found)
        yield addresses


@contextlib.contextmanager
def mooring(addresses, settings):
    """The gateway with a worker of its own."""
    with folder() as path:
        log = os.path.join(path, "log")
        command = [MOORING, "serve", "--workers", "1", "--listen", "127.0.0.1:0", "--admin-listen",
                   "127.0.0.1:0", "--set", "state.dir=none", "--set", "server.hosts=g,comfy.example"]
        for setting in settings:
            command += ["--set", setting]
        for address in addresses:
            command += ["--backend", f"http://{address}"]
        environment = proxies.clean_environment()
        with open(log, "w") as file, process(command, PROXY_CORE, stderr=file, cwd=path,
                                             env=environment) as running:
            address = wait_for(lambda: proxies.ready_line(log), running, "Mooring")
            yield Running(address, family(running.pid))


def resident(pids):
    """MiB."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
    return total / 1024


class Memory(threading.Thread):
    """The highest resident memory while it runs."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.peak, self.over = pids, 0.0, threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            self.peak = max(self.peak, resident(self.pids))


class Honest:
    """An honest client and newcomers, in a process of their own; see `floods_by.honest`."""

    def __init__(self, address, *options, before=()):
        command = [*before, "taskset", "--cpu-list", str(LOAD_CORE), sys.executable,
                   os.path.join(ROOT, "bench", "floods_by.py"), address, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def end(self):
        """(latencies in ms, how many of the newcomers were served, of how many)."""
        said, _ = self.process.communicate(timeout=60)
        latencies, served, came = said.splitlines()
        return [float(it) for it in latencies.split()], int(served), int(came)


def percentile(values, share):
    values = sorted(values)
    return values[round(share * (len(values) - 1))]
