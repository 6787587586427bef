"""The proxies, each as its documents say that it should be set up for this work."""

import contextlib
import os
import re
import resource
import shutil
import subprocess
import time

import login
from machine import (MOORING, PROXY_CORE, Failed, Running, certificate, family, folder, free_port,
                     process, takes_connections, wait_for)

# Where Debian puts them, also for those who have no /usr/sbin in their PATH.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# One worker; a client's requests go to the backend that its name hashes to. Connections to
# backends are kept. Bodies stream both ways, and nothing is written to disk or logged. Answers get
# larger buffers than the default, because that is cheaper here; requests get them in a row of
# their own, because few set them up so.
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 100m;
    {large}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream fleet {{
        hash $arg_clientId consistent;
        {servers}
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        location / {{
            proxy_pass http://fleet;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_request_buffering off;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 256k;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""

# One thread; a stick table remembers where each client was sent.
HAPROXY = """
global
    nbthread 1
    maxconn {pairs}
    {large}
defaults
    mode http
    option http-keep-alive
    option forwardfor
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
listen fleet
    bind 127.0.0.1:{port} backlog 4096{tls}
    balance leastconn
    stick-table type string len 64 size 200k expire 1h
    stick on url_param(clientId)
    {servers}
"""


class Nginx:
    name = "nginx"

    @contextlib.contextmanager
    def started(self, addresses, row):
        port = free_port()
        large = "client_body_buffer_size 256k;" if row.large_buffers else ""
        tls = ""
        if row.tls:
            cert, key, _ = certificate()
            tls = f" ssl; ssl_certificate {cert}; ssl_certificate_key {key}"
        servers = " ".join(f"server {address};" for address in addresses)
        with folder() as path:
            config = os.path.join(path, "nginx.conf")
            with open(config, "w") as file:
                file.write(NGINX.format(folder=path, servers=servers, port=port, large=large, tls=tls,
                                        connections=descriptors() - 100))
            # As root its child would be another user, who could not read the folder.
            command = [shutil.which("nginx", path=PATH), "-e", "stderr", "-p", path, "-c", config]
            if os.getuid() == 0:
                command += ["-g", "user root;"]
            with process(command, PROXY_CORE) as running:
                # It listens before it has its worker, and the worker is what costs.
                wait_for(lambda: len(family(running.pid)) == 2, running, "nginx")
                wait_for(lambda: takes_connections(f"127.0.0.1:{port}"), running, "nginx")
                yield Running(f"127.0.0.1:{port}", family(running.pid))

    def version(self):
        return said([shutil.which("nginx", path=PATH), "-v"], r"nginx/([0-9.]+)")


class HAProxy:
    name = "HAProxy"

    @contextlib.contextmanager
    def started(self, addresses, row):
        port = free_port()
        large = "tune.bufsize 262144" if row.large_buffers else ""
        tls = f" ssl crt {certificate()[2]} alpn http/1.1" if row.tls else ""
        servers = "\n    ".join(f"server s{n} {it}" for n, it in enumerate(addresses))
        with folder() as path:
            config = os.path.join(path, "haproxy.cfg")
            with open(config, "w") as file:
                file.write(HAPROXY.format(servers=servers, port=port, large=large, tls=tls,
                                          pairs=(descriptors() - 200) // 2))
            command = [shutil.which("haproxy", path=PATH), "-db", "-q", "-f", config]
            with process(command, PROXY_CORE) as running:
                wait_for(lambda: takes_connections(f"127.0.0.1:{port}"), running, "HAProxy")
                yield Running(f"127.0.0.1:{port}", family(running.pid))

    def version(self):
        return said([shutil.which("haproxy", path=PATH), "-v"], r"version ([0-9.]+)")


class Mooring:
    name = "Mooring"

    @contextlib.contextmanager
    def started(self, addresses, row):
        with folder() as path:
            environment = clean_environment()
            if row.journal:
                environment["MOORING_STATE__DIR"] = os.path.join(path, "state")
                os.mkdir(environment["MOORING_STATE__DIR"])
            settings = []
            if row.tls:
                cert, key, _ = certificate()
                settings += [f"server.tls.cert={cert}", f"server.tls.key={key}"]
            user = None
            if row.enters_by:
                user = row.enters_by(path)
                settings += user.settings()
            if row.prepare:
                with self.serving(addresses, path, environment, settings) as running:
                    row.prepare(running)
            with self.serving(addresses, path, environment, settings) as running:
                if user:
                    running.line = user.line(running.address)
                yield running

    @contextlib.contextmanager
    def serving(self, addresses, path, environment, settings=()):
        log, began = os.path.join(path, "log"), time.monotonic()
        command = [MOORING, "serve", "--workers", "1", "--listen", "127.0.0.1:0",
                   "--admin-listen", "127.0.0.1:0", "--set", f"server.max_connections={descriptors()}",
                   "--set", "affinity.max_clients=200000",
                   "--set", "server.hosts=comfy.example"]
        for setting in settings:
            command += ["--set", setting]
        for address in addresses:
            command += ["--backend", f"http://{address}"]
        with open(log, "w") as file, process(command, PROXY_CORE, stderr=file, cwd=path,
                                             env=environment) as running:
            try:
                address = wait_for(lambda: ready_line(log), running, "Mooring")
            except Failed as failed:
                with open(log) as said_so:
                    raise Failed(f"{failed}: {said_so.read()}") from None
            facts = {"start_s": time.monotonic() - began}
            yield Running(address, family(running.pid), facts)

    def version(self):
        return said([MOORING, "--version"], r"mooring ([0-9.]+)")


class Direct:
    """No proxy: what the load and a backend take by themselves."""

    name = "direct"

    @contextlib.contextmanager
    def started(self, addresses, _row):
        yield Running(addresses[0], [])

    def version(self):
        return ""


def all_of_them():
    return {it.name: it for it in (Nginx(), HAProxy(), Mooring(), Direct())}


def descriptors():
    """How many files and sockets a process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def clean_environment():
    """Ours without what would configure Mooring."""
    mute = ("MOORING_", "RUST_LOG")
    return {key: value for key, value in os.environ.items() if not key.startswith(mute)}


def ready_line(log):
    """The front's address, once the log says that the gateway is ready."""
    with open(log) as file:
        text = re.sub(r"\x1b\[[0-9;]*m", "", file.read())
    found = re.search(r"Gateway ready\..*?front=([0-9.:]+)|front=([0-9.:]+).*?Gateway ready\.",
                      text)
    return found and (found.group(1) or found.group(2))


def found_in(log, pattern):
    """What a pattern finds in a log, its colours left out."""
    with open(log) as file:
        found = re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", file.read()))
    return found and found.group(1)


def has_journal():
    """True if this Mooring can keep its state on a disk."""
    with folder() as path:
        command = [MOORING, "check", "--backend", "http://127.0.0.1:1", "--set",
                   f"state.dir={path}"]
        done = subprocess.run(command, env=clean_environment(), cwd=path, capture_output=True)
        return done.returncode == 0


def said(command, pattern):
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "of unknown version"
