"""The floods of `bench/floods`, and the honest client beside them.

Each flood returns one sentence on what became of it. Run as a program, this is the honest client:
it reads until its standard input ends, and says how long each read took.
"""

import base64
import json
import os
import select
import socket
import struct
import sys
import threading
import time

BIG = 8 << 20
READERS = 400
SOCKETS = 400
JSON_SOCKETS = 16
JSON_BYTES = 2 << 20
FLOOD_SECONDS = 8.0
IDS = 100_000


def place(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def connect(address, receive=None, source=None):
    made = socket.socket()
    if source:
        made.bind((source, 0))
    if receive:
        # Before it connects: the window is agreed on then.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.settimeout(30)
    made.connect(place(address))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def ended(sockets):
    """How many were closed or reset by the other side; the rest have unread bytes."""
    poll = select.poll()
    for it in sockets:
        poll.register(it, select.POLLRDHUP)
    over = select.POLLRDHUP | select.POLLHUP | select.POLLERR
    return sum(1 for _, event in poll.poll(0) if event & over)


def readers(address):
    """Ask for 8 MiB and never read, with a small window. Watched for 40 s."""
    began, held = time.monotonic(), []
    for number in range(READERS):
        it = connect(address, receive=4096)
        ask = f"GET /sim/blob?bytes={BIG}&clientId=slow-{number} HTTP/1.1\r\nHost: g\r\n\r\n"
        it.sendall(ask.encode())
        held.append(it)
    first, last = None, None
    while time.monotonic() - began < 40:
        gone = ended(held)
        if gone and first is None:
            first = time.monotonic() - began
        if gone == READERS:
            last = time.monotonic() - began
            break
        time.sleep(0.2)
    gone = ended(held)
    for it in held:
        it.close()
    if last is None:
        return f"{gone} of {READERS} were closed within 40 s"
    return f"all were closed, {first:.0f} to {last:.0f} s after the first asked"


def open_socket(address, client, receive=None):
    """The socket, or `None` if it was refused."""
    it = connect(address, receive)
    key = base64.b64encode(os.urandom(16)).decode()
    it.sendall(f"GET /ws?clientId={client} HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\n"
               f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
               "\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        more = it.recv(1)
        if not more:
            return None
        head += more
    if b" 101 " not in head.split(b"\r\n")[0]:
        it.close()
        return None
    return it


def sockets(address):
    """Sockets of one client that do not read; its prompt makes 50 previews of 40 KB a second."""
    client = "load.40000.50.7"
    tried = [open_socket(address, client, receive=4096) for _ in range(SOCKETS)]
    held = [it for it in tried if it]
    body = json.dumps({"client_id": client, "prompt": {
        "3": {"class_type": "SaveImage", "inputs": {}}}})
    asking = connect(address)
    asking.sendall(f"POST /prompt HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answer = asking.recv(4096)
    assert b" 200 " in answer.split(b"\r\n")[0], answer
    time.sleep(20)
    gone = ended(held)
    for it in held:
        it.close()
    refused = SOCKETS - len(held)
    return f"{len(held)} sockets were opened and {refused} refused; {gone} were closed in 20 s"


def masked(payload):
    key = os.urandom(4)
    mask = int.from_bytes(key * (len(payload) // 4), "little")
    whole = int.from_bytes(payload, "little") ^ mask
    head = struct.pack("!BBQ", 0x81, 0x80 | 127, len(payload))
    return head + key + whole.to_bytes(len(payload), "little")


def json_frames(address):
    """Arrays in arrays, as fast as they are taken."""
    text = b"[" + b"[1,2],".ljust(6) * ((JSON_BYTES - 8) // 6) + b"0]"
    frame = masked(text.ljust((len(text) + 3) // 4 * 4))
    until = time.monotonic() + FLOOD_SECONDS
    counts = [0] * JSON_SOCKETS

    def flood(number):
        it = open_socket(address, f"json-{number}")
        while it and time.monotonic() < until:
            try:
                it.sendall(frame)
            except OSError:
                return
            counts[number] += 1

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(JSON_SOCKETS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{sum(counts)} frames were taken in {FLOOD_SECONDS:.0f} s"


def ids(address):
    """Reads on eight connections, as fast as they are answered."""
    began, each, at_once = time.monotonic(), IDS // 8, 50
    statuses = {}

    def flood(number):
        it = connect(address)
        for start in range(0, each, at_once):
            asked = "".join(
                f"GET /system_stats?clientId={os.urandom(8).hex()} HTTP/1.1\r\nHost: g\r\n\r\n"
                for _ in range(at_once))
            it.sendall(asked.encode())
            read(it, at_once, statuses)
        it.close()

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    return f"answered in {time.monotonic() - began:.0f} s: {told}"


def read(it, count, statuses):
    """So many answers with lengths."""
    data = b""
    while count:
        head, found, rest = data.partition(b"\r\n\r\n")
        if found:
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if length <= len(rest):
                status = head.split(b" ", 2)[1].decode()
                statuses[status] = statuses.get(status, 0) + 1
                data, count = rest[length:], count - 1
                continue
        more = it.recv(1 << 16)
        if not more:
            raise ConnectionError("it closed")
        data += more


def honest(address, source=None):
    """One client that reads every 10 ms, and newcomers, until the standard input ends. With a
    `source` it comes from this address, and without newcomers: they would count against it."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    latencies, served, came = [], 0, 0
    it = connect(address, source=source)
    while not over.is_set():
        began = time.monotonic()
        it.sendall(b"GET /system_stats?clientId=honest HTTP/1.1\r\nHost: g\r\n\r\n")
        read(it, 1, {})
        latencies.append((time.monotonic() - began) * 1000)
        if len(latencies) % 10 == 0 and not source:
            statuses = {}
            new = connect(address)
            new.sendall(f"GET /system_stats?clientId={os.urandom(8).hex()} HTTP/1.1\r\nHost: g"
                        "\r\n\r\n".encode())
            read(new, 1, statuses)
            new.close()
            came += 1
            served += statuses.get("200", 0)
        over.wait(0.01)
    print(" ".join(f"{it:.3f}" for it in latencies))
    print(served)
    print(came)


if __name__ == "__main__":
    honest(*sys.argv[1:])
