"""What is measured: one entry for each row, and what the gateway has promised of it."""

from dataclasses import dataclass, field
from typing import Callable, Optional

import login
from machine import certificate, load

ALL = ["nginx", "HAProxy", "Mooring"]


@dataclass
class Row:
    name: str
    # What the table says of it.
    title: str
    unit: str
    # The verb of the load and its options.
    verb: str
    options: dict = field(default_factory=dict)
    # The printed number that counts, and what it is multiplied with.
    figure: str = "cpu_us"
    scale: float = 1.0
    contenders: list = field(default_factory=lambda: list(ALL))
    # At most this much of the better of nginx and HAProxy; `None`: reported only.
    bound: Optional[float] = None
    # At most this in the row's own unit.
    limit: Optional[float] = None
    rounds_max: int = 1000
    # Takes its figure from what was measured for the row of this name.
    same_as: Optional[str] = None
    # The figure is by how much it exceeds that of the row of this name.
    more_than: Optional[str] = None
    # The figure is how many times it is that of the row of this name.
    times: Optional[str] = None
    large_buffers: bool = False
    tls: bool = False
    # Makes a user, where Mooring lets in only users: one of the classes of `login`.
    enters_by: Optional[Callable] = None
    journal: bool = False
    # Done to a Mooring that is then stopped, before the one that is measured.
    prepare: Optional[Callable] = None

    @property
    def source(self):
        return self.same_as or self.name

    @property
    def base(self):
        """The row that the figure is compared with."""
        return self.more_than or self.times

    def arguments(self):
        words = [self.verb]
        for name, value in self.options.items():
            words += [f"--{name}", str(value)]
        if self.tls:
            words += ["--tls", certificate()[0]]
        return words


# CPU µs per byte → CPU s per GB.
PER_GB = 1e3


def rows(descriptors, has_journal):
    """All rows, as far as the machine and this Mooring can do them."""
    # Each socket costs the gateway two descriptors.
    many = min(10_000, (descriptors - 1000) // 2)
    found = [
        Row("get", "small GET, keep-alive, 32 connections", "CPU µs per request", "get",
            bound=1.0),
        Row("events", "socket event of 300 B, 50 sockets × 200/s", "CPU µs per event", "events",
            {"sockets": 50, "events": 200, "size": 300}, bound=1.0),
        Row("frames", "socket frame of 40 KB, 20 × 100/s", "CPU µs per frame", "events",
            {"sockets": 20, "events": 100, "size": 40_000}, bound=1.0),
        Row("download", "download of 4 MB pictures", "CPU s per GB", "download", scale=PER_GB,
            bound=1.0),
        Row("upload", "upload of 8 MB pictures", "CPU s per GB", "upload", scale=PER_GB,
            bound=0.6),
        Row("uploadlarge", "the same, nginx and HAProxy with buffers of 256 KB", "CPU s per GB",
            "upload", scale=PER_GB, large_buffers=True),
        Row("idle", "idle socket pair, of 1,000", "KB", "idle", {"sockets": 1000}, "kib",
            scale=1.024, limit=10),
        Row("latency", "small GET at 2,000/s", "median µs", "get", {"rate": 2000}, "median_us",
            contenders=[*ALL, "direct"]),
        Row("p99", "small GET at 1,000/s while 500 sockets get 20 events/s each", "p99 µs",
            "events", {"sockets": 500, "events": 20, "size": 300, "rate": 1000}, "p99_us",
            contenders=[*ALL, "direct"]),
        Row("tls", "small GET with TLS 1.3, keep-alive, 32 connections", "CPU µs per request",
            "get", tls=True, bound=1.0),
        Row("tlstimes", "small GET with TLS, to one without", "×", "get", contenders=["Mooring"],
            same_as="tls", times="get", limit=1.3),
        Row("keys", "small GET with a user's key, more than without users", "CPU µs", "get",
            contenders=["Mooring"], enters_by=login.ByKey, more_than="get", limit=5),
        Row("sessions", "small GET with a session, more than without users", "CPU µs", "get",
            contenders=["Mooring"], enters_by=login.BySession, more_than="get", limit=5),
        Row("tokens", "small GET with a signed token, more than without users", "CPU µs", "get",
            contenders=["Mooring"], enters_by=login.ByToken, more_than="get", limit=15),
        *cycles(""),
        Row("bound10", "small GET, 10 clients bound", "CPU µs per request", "bind",
            {"clients": 10}, contenders=["Mooring"]),
        Row("bound1000", "small GET, 1,000 clients bound", "CPU µs per request", "bind",
            {"clients": 1000}, contenders=["Mooring"]),
        Row("bound100000", "small GET, 100,000 clients bound", "CPU µs per request", "bind",
            {"clients": 100_000}, contenders=["Mooring"]),
        Row("client", "bound client without a socket, of 100,000", "KB", "bind",
            {"clients": 100_000}, "kib", scale=1.024, contenders=["Mooring"], limit=1.024,
            same_as="bound100000"),
        Row("many", f"{many:,} idle sockets: still open", "sockets", "idle",
            {"sockets": many - 50}, "open", contenders=["Mooring"], rounds_max=3),
        Row("manykb", f"{many:,} idle sockets: each", "KB", "idle", {"sockets": many - 50}, "kib",
            scale=1.024, contenders=["Mooring"], same_as="many"),
    ]
    if has_journal:
        found += [
            *cycles(" with the disk journal", journal=True),
            Row("restart", "small GET after a restart with 100,000 bindings",
                "CPU µs per request", "get", contenders=["Mooring"], journal=True,
                prepare=bind_many, rounds_max=3),
            Row("start", "start-up with 100,000 bindings", "s", "get", figure="start_s",
                contenders=["Mooring"], same_as="restart"),
        ]
    return found


def cycles(title, journal=False):
    """Socket, submission, end, history: as two rows of the same work."""
    what = f"whole cycle{title}: socket, submission, end, history"
    name = "journal" if journal else "cycle"
    common = {"contenders": ["Mooring"], "journal": journal}
    return [
        Row(name, what, "CPU µs per cycle", "cycle", **common),
        Row(f"{name}rate", what, "cycles per second", "cycle", figure="per_second",
            same_as=name, **common),
    ]


def bind_many(running):
    load(["bind", "--clients", "100000"], running, 0.5)
