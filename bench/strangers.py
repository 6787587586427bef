"""The floods of one stranger, each in rounds: an honest client's latency, and memory afterwards."""

import os
import statistics
import subprocess
import sys
import time

import floods_by
import stranger
from flooded import Honest, Memory, mooring, percentile, resident, simulators
from machine import LOAD_CORE, ROOT, backends

ROUNDS = int(os.environ.get("ROUNDS", "5"))
CALM = 3.0
SECONDS = 8.0
# How long memory may take to come back to `BACK` times what it was.
RETURNS_WITHIN = 120.0
BACK = 1.2
SLOWER = 3.0
HONEST = "127.0.0.2"
# The honest client and the backends share a core with the flood. In a usual class they would wait
# for it, 4 ms and more at a time, where the kernel does not interrupt calls: that would be measured
# then, and not the gateway. In the real-time class they have the core as soon as they need it.
FIRST = ("chrt", "--rr", "1")
LIMITS = ["limits.address_connections=100", "limits.address_sockets=50",
          "limits.address_requests_per_minute=12000", "limits.address_new_clients_per_minute=600"]

TITLES = {
    "ids": "reads, each of a client that nobody knows",
    "junk": "submissions of junk, 4 to 400 KB",
    "sockets": "up to 8,000 sockets, each of another client",
    "heads": "2,000 heads that never end, a byte a second",
    "bodies": "2,000 uploads that never end, a byte a second",
    "readers": "400 readers that never read their 8 MiB",
}


def rows(names):
    """Each flood; `names` of some, or nothing for all."""
    found = []
    for kind, title in TITLES.items():
        if names and f"stranger-{kind}" not in names:
            continue
        found.append((title, measured(kind)))
        print(f"floods: stranger-{kind}: {found[-1][1]}", file=sys.stderr)
    return found


def measured(kind):
    # The quick backends take every submission, and never end one that is not theirs.
    servers = simulators if kind in ("readers", "junk") else backends
    with servers(before=FIRST) as addresses, mooring(addresses, LIMITS) as running:
        # The first requests fill caches and pools, and bring in pages of the executable that no
        # request has used before: what they need is no flood's.
        honest(running, lambda: time.sleep(CALM))
        if kind == "junk":
            each_once(running.address)
        before, peak, rounds, said = resident(running.pids), 0.0, [], ""
        for _ in range(ROUNDS):
            calm = honest(running, lambda: time.sleep(CALM))
            memory = Memory(running.pids)
            memory.start()
            results = []
            flooded = honest(running, lambda: results.append(flood(kind, running.address)))
            memory.over.set()
            memory.join()
            peak, said = max(peak, memory.peak), results[0]
            rounds.append((calm, flooded))
        ended = time.monotonic()
        while resident(running.pids) > BACK * before and time.monotonic() - ended < RETURNS_WITHIN:
            time.sleep(1)
        return {"before": before, "peak": peak, "after": resident(running.pids),
                "back": time.monotonic() - ended, "said": said,
                "calm": statistics.median(it for it, _ in rounds),
                "flooded": statistics.median(it for _, it in rounds),
                "ratio": statistics.median(b / a for a, b in rounds)}


def each_once(address):
    """Each kind of junk, one after the other."""
    for body in stranger.JUNK:
        it = floods_by.connect(address)
        it.sendall(stranger.submission(body))
        floods_by.read(it, 1, {})
        it.close()


def honest(running, work):
    """The p99 in ms of an honest client beside some work."""
    client = Honest(running.address, HONEST, before=FIRST)
    time.sleep(0.3)
    work()
    latencies, _, _ = client.end()
    return percentile(latencies, 0.99)


def flood(kind, address):
    command = ["taskset", "--cpu-list", str(LOAD_CORE), sys.executable,
               os.path.join(ROOT, "bench", "stranger.py"), kind, address, str(SECONDS)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def written(found):
    lines = [
        "", "## One stranger", "",
        f"All from one address, for {SECONDS:.0f} s, {ROUNDS} times; the generator runs at nice 19.",
        "The honest client comes from another address and reads every 10 ms. It and the backends",
        "have the core that they share with the generator as soon as they need it (real-time class):",
        "what is measured is the gateway. Times are medians of the rounds. The limits are:", "", *(f"- `{it}`" for it in LIMITS), "",
        f"The p99 of the honest client should be at most {SLOWER:.0f} times what it is without the",
        f"flood, and memory at most {BACK} times what it was {RETURNS_WITHIN:.0f} s later.", "",
        "| Flood | honest p99 before, beside it | times | MiB before, peak, then | "
        "after | the last round |", "|---|---|---|---|---|---|",
    ]
    for title, it in found:
        slower = f"{it['ratio']:.1f}" + ("" if it["ratio"] <= SLOWER else " **(over)**")
        late = it["after"] > BACK * it["before"]
        back = f"{it['back']:.0f} s" + (" **(over)**" if late else "")
        lines.append(f"| {title} | {it['calm']:.1f} ms, {it['flooded']:.1f} ms | {slower} | "
                     f"{it['before']:.1f}, {it['peak']:.1f}, {it['after']:.1f} | {back} | "
                     f"{it['said']} |")
    return "\n".join(lines) + "\n"
