"""Floods of one stranger: all from one address, in a process of its own at the lowest priority.

Run as a program: `stranger.py NAME ADDRESS SECONDS` floods for so long, and says in one line what
became of it. The honest client beside it comes from another address.
"""

import contextlib
import json
import os
import resource
import socket
import sys
import threading
import time

import floods_by

SOCKETS = 8000
SLOW = 2000
AT_ONCE = 50
LANES = 8
BODY = 8 << 20
DEEP = 20_000
PIECE = 8 << 10


def lanes(address, asked, until):
    """Pipelined requests on a few connections, as fast as they are answered: what was answered."""
    statuses = {}

    def lane():
        it = None
        while time.monotonic() < until:
            # A refusal may close the connection: then a new one goes on.
            with contextlib.suppress(OSError):
                it = it or floods_by.connect(address)
                send(it, b"".join(asked() for _ in range(AT_ONCE)))
                floods_by.read(it, AT_ONCE, statuses)
                continue
            it = None

    threads = [threading.Thread(target=lane) for _ in range(LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told(statuses)


def send(it, data):
    """In pieces: some kernels let a call end before others get the core, and the honest client and
    the backends need it."""
    for start in range(0, len(data), PIECE):
        it.sendall(data[start:start + PIECE])


def told(statuses):
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))


def ids(address, until):
    """Reads, each of a client that nobody knows."""
    def asked():
        return (f"GET /system_stats?clientId={os.urandom(8).hex()} HTTP/1.1\r\nHost: g\r\n\r\n"
                .encode())
    return lanes(address, asked, until)


JUNK = [os.urandom(4096), b"{", b"[" * DEEP, b'{"prompt":' * 2000, b"null",
        json.dumps({"prompt": {str(n): {} for n in range(500)}}).encode(),
        json.dumps({"prompt": "x" * 65536}).encode()]


def submission(body):
    return (f"POST /prompt HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def junk(address, until):
    """Submissions that cannot be read, or that hold no graph."""
    turn = iter(range(1 << 62))
    return lanes(address, lambda: submission(JUNK[next(turn) % len(JUNK)]), until)


def sockets(address, until):
    """Sockets, each of another client, that stay open."""
    held, refused = [], 0
    for number in range(SOCKETS):
        if time.monotonic() > until:
            break
        it = None
        with contextlib.suppress(OSError):
            it = floods_by.open_socket(address, f"stranger-{number}-{os.getpid()}")
        if it:
            held.append(it)
        else:
            refused += 1
    time.sleep(max(0, until - time.monotonic()))
    return f"{len(held):,} were opened and {refused:,} refused"


def slow(address, until, begin, more):
    """Connections that send `begin`, and then `more` once in a second for ever."""
    held, refused = [], 0
    for _ in range(SLOW):
        try:
            it = floods_by.connect(address)
            it.sendall(begin)
            held.append(it)
        except OSError:
            refused += 1
    open_, began = list(held), time.monotonic()
    while time.monotonic() < until:
        open_ = [it for it in open_ if sent(it, more)]
        time.sleep(max(0.0, min(1.0, until - time.monotonic())))
    return (f"{len(held):,} connections, {refused:,} refused, {len(held) - len(open_):,} closed "
            f"in {time.monotonic() - began:.0f} s")


def sent(it, more):
    with contextlib.suppress(OSError):
        it.send(more, socket.MSG_DONTWAIT)
        return True
    return False


def heads(address, until):
    return slow(address, until, b"GET /system_stats HTTP/1.1\r\nHost: g\r\nX-Slow: ", b"s")


def bodies(address, until):
    head = ("POST /upload/image HTTP/1.1\r\nHost: g\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {BODY}\r\n\r\n--b\r\nContent-Disposition: form-data; "
            'name="image"; filename="slow.png"\r\nContent-Type: image/png\r\n\r\n')
    return slow(address, until, head.encode(), b"s")


def readers(address, until):
    """Requests for 8 MiB whose answers are never read."""
    held = []
    for number in range(floods_by.READERS):
        it = floods_by.connect(address, receive=4096)
        it.sendall(f"GET /sim/blob?bytes={BODY}&clientId=slow-{number} HTTP/1.1\r\nHost: g"
                   "\r\n\r\n".encode())
        held.append(it)
    time.sleep(max(0, until - time.monotonic()))
    return f"{floods_by.ended(held)} of {len(held)} were closed"


KINDS = {"ids": ids, "junk": junk, "sockets": sockets, "heads": heads, "bodies": bodies,
         "readers": readers}


def main():
    name, address, seconds = sys.argv[1:]
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(KINDS[name](address, time.monotonic() + float(seconds)), flush=True)
    # The system closes what is open, all at once: many a flood ends so.
    os._exit(0)


if __name__ == "__main__":
    main()
