#!/usr/bin/env python3
"""What a client and a large body cost in memory.

Starts two simulated backends and the gateway (release build, one worker), and reads the resident
memory of the gateway from /proc. Prints a table; `docs/memory.md` holds the last one.
"""

import asyncio
import base64
import os
import re
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MOORING = os.path.join(ROOT, "target", "release", "mooring")
CLIENTS = int(os.environ.get("CLIENTS", "2000"))
BIG = 2 << 30
CHUNK = 1 << 20


def start(*arguments, ready):
    """Starts the binary and returns it with the address in its `ready` line."""
    process = subprocess.Popen([MOORING, *arguments], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        found = re.search(ready, line)
        if found:
            return process, found.group(1)
    sys.exit(f"{arguments}: did not start")


def resident(process):
    """Resident memory in KiB."""
    with open(f"/proc/{process.pid}/smaps_rollup") as rollup:
        return int(re.search(r"^Rss:\s+(\d+)", rollup.read(), re.M).group(1))


async def open_socket(host, port, client):
    reader, writer = await asyncio.open_connection(host, port, limit=4096)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws?clientId={client} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        .encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    await reader.read(64)
    return reader, writer


async def idle_clients(address, gateway):
    host, port = address.split(":")
    held = [await open_socket(host, port, f"warm-{n}") for n in range(50)]
    await asyncio.sleep(2)
    before = resident(gateway)
    for n in range(CLIENTS):
        held.append(await open_socket(host, port, f"client-{n}"))
    await asyncio.sleep(3)
    after = resident(gateway)
    for _, writer in held:
        writer.close()
    return (after - before) / CLIENTS


def peak_while(gateway, work):
    """The highest resident memory while `work` runs, over the one before it, in KiB."""
    before = resident(gateway)
    peak = before
    for _ in work:
        peak = max(peak, resident(gateway))
    return peak - before


def upload(address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /sim/sink HTTP/1.1\r\nHost: {address}\r\nContent-Length: {BIG}\r\n\r\n"
        connection.sendall(head.encode())
        zeroes = bytes(CHUNK)
        for sent in range(BIG // CHUNK):
            connection.sendall(zeroes)
            if sent % 16 == 0:
                yield
        answer = connection.recv(4096)
        assert b" 200 " in answer.split(b"\r\n")[0], answer


def download(address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"GET /sim/blob?bytes={BIG} HTTP/1.1\r\nHost: {address}\r\n\r\n"
        connection.sendall(head.encode())
        got, reads = 0, 0
        while got < BIG:
            data = connection.recv(CHUNK)
            assert data, f"cut after {got} bytes"
            got += len(data)
            reads += 1
            if reads % 64 == 0:
                # A reader slower than the backend: what piles up is the gateway's.
                time.sleep(0.002)
                yield


def main():
    sims = [start("sim", "--port", "0", "--name", name, ready=r"url=\"?http://([0-9.:]+)")
            for name in ("a", "b")]
    backends = [part for _, address in sims for part in ("--backend", f"http://{address}")]
    gateway, address = start(
        "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", "1",
        "--set", "server.max_connections=20000", *backends, ready=r"front=([0-9.:]+)")
    try:
        base = resident(gateway)
        up = peak_while(gateway, upload(address))
        down = peak_while(gateway, download(address))
        idle = asyncio.run(idle_clients(address, gateway))
    finally:
        for process in (gateway, *(sim for sim, _ in sims)):
            process.terminate()
            process.wait()
    print("| what | measured | bound |")
    print("|---|---|---|")
    print(f"| the gateway, idle | {base / 1024:.1f} MiB | |")
    print(f"| an idle client with one socket, of {CLIENTS} | {idle:.1f} KiB | 40 KiB |")
    print(f"| upload of 2 GiB, peak above idle | {up / 1024:.1f} MiB | 16 MiB |")
    print(f"| download of 2 GiB, slow reader, peak above idle | {down / 1024:.1f} MiB | 16 MiB |")


main()
