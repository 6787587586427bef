#!/usr/bin/env python3
"""What a Prometheus makes of a gateway at work, with the files of deploy/prometheus and deploy/grafana.

    observe.py rules                the alerts, and that each has a test that fires it and one that
                                    does not
    observe.py run MOORING          a gateway and simulated servers at work, scraped by a Prometheus:
                                    `promtool check metrics`, every expression of the dashboard gives
                                    data, every metric that it or an alert names exists

Needs `prometheus` and `promtool`, and for `run` also `openssl`. All ports come from the system,
and all that was started is ended.
"""

import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/mooring-alerts.yml"
TESTS = ROOT / "tests/deploy/alerts/mooring-alerts.test.yml"
DASHBOARD = ROOT / "deploy/grafana/mooring.json"
TOKEN = "a-token-of-this-run"
# How long the work may take until every expression has data.
PATIENCE = 90


def promtool(*arguments, **more):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"promtool {arguments[0]} {arguments[1]}: {done.stdout}{done.stderr}")


def rules():
    promtool("check", "rules", ALERTS)
    promtool("check", "config", "--syntax-only", ALERTS.parent / "prometheus.yml")
    promtool("test", "rules", TESTS)
    tested = {"fires": set(), "is silent": set()}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            tested["fires" if case["exp_alerts"] else "is silent"].add(case["alertname"])
    alerts = {it["alert"] for group in groups() for it in group["rules"]}
    for word, names in tested.items():
        if names != alerts:
            sys.exit(f"no test, or no such alert ({word}): {sorted(names ^ alerts)}")
    print(f"{len(alerts)} alerts")


def groups():
    return yaml.safe_load(ALERTS.read_text())["groups"]


def expressions():
    """The expressions of the dashboard, with the title of their panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def metric_names(expression):
    # Neither labels, nor strings, nor what groups by labels.
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(by|without)\s*\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:mooring|process)_\w+", bare))


def documented():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    for name, kind in rows:
        yield name
        if kind == "histogram":
            yield from (f"{name}_{end}" for end in ("bucket", "sum", "count"))


def names_exist():
    known = set(documented())
    wanted = {name for _, it in expressions() for name in metric_names(it)}
    wanted |= {n for group in groups() for it in group["rules"] for n in metric_names(it["expr"])}
    assert len(wanted) > 30, wanted
    if wanted - known:
        sys.exit(f"metrics that docs/metrics.md does not have: {sorted(wanted - known)}")


class Work:
    """All that runs, in a folder of its own; ended with it."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack

    def start(self, name, *command):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        self.stack.callback(lambda: (process.terminate(), process.wait(20), log.close()))
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, what, look, process=None, seconds=30):
        """What `look` returns, as soon as it is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            if process is not None and process.poll() is not None:
                break
            time.sleep(0.05)
        logs = "\n".join(f"--- {it.name}\n{it.read_text(errors='replace')[-2000:]}"
                         for it in sorted(self.folder.glob("*.log")))
        sys.exit(f"{what}: not within {seconds} s\n{logs}")


def port_in(log, pattern):
    found = re.search(pattern, log)
    return found and int(found.group(1))


def ask(url, body=None, headers=None, method=None):
    """Status and text."""
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers or {},
                                     method=method)
    request.add_header("content-type", "application/json")
    trusting = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def graph(seconds, fails=False):
    return {
        "1": {"class_type": "EmptyImage",
              "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SlowSteps",
              "inputs": {"image": ["1", 0], "steps": 2, "seconds": seconds, "fail": fails,
                         "preview": False}},
        "3": {"class_type": "SaveImage",
              "inputs": {"images": ["2", 0], "filename_prefix": "observed"}},
    }


def gateway(work, mooring):
    """A gateway with TLS at the admin listener, two backends, and one that is discovered."""
    sims = []
    for name in "abc":
        sim = work.start(f"sim-{name}", mooring, "sim", "--port", "0", "--name", name)
        seen = lambda: port_in(work.log(f"sim-{name}"), r"http://127\.0\.0\.1:(\d+)")
        sims.append(work.until(f"the simulated server {name}", seen, sim))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out",
         "cert.pem"], cwd=work.folder, check=True, capture_output=True)
    (work.folder / "mooring.toml").write_text(f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = "{TOKEN}"
[admin.tls]
cert = "cert.pem"
key = "key.pem"
[state]
dir = "state"
[log]
format = "json"
[backends.a]
url = "http://127.0.0.1:{sims[0]}"
[backends.b]
url = "http://127.0.0.1:{sims[1]}"
[discovery.found]
dns = "localhost:{sims[2]}"
""")
    process = work.start("gateway", mooring, "serve", "--config", "mooring.toml")

    def listeners():
        for line in work.log("gateway").splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                told = told.get("fields", told)
                if told.get("message", "").startswith("Gateway ready"):
                    return told

    told = work.until("the gateway", listeners, process)
    return [f"127.0.0.1:{told[name].rsplit(':', 1)[1]}" for name in ("front", "admin")]


def prometheus(work, admin):
    # The job is called as the alerts want it.
    given = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
    given["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    given["rule_files"] = [str(ALERTS)]
    (work.folder / "token").write_text(TOKEN)
    scrape, = given["scrape_configs"]
    scrape["authorization"]["credentials_file"] = str(work.folder / "token")
    scrape["static_configs"] = [{"targets": [admin]}]
    scrape["scheme"] = "https"
    scrape["tls_config"] = {"insecure_skip_verify": True}
    (work.folder / "prometheus.yml").write_text(yaml.safe_dump(given))
    process = work.start(
        "prometheus", "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
        "--web.listen-address=127.0.0.1:0", "--log.format=json")
    seen = lambda: port_in(work.log("prometheus"), r'"address":"127\.0\.0\.1:([1-9]\d*)"')
    return f"http://127.0.0.1:{work.until('the Prometheus', seen, process)}"


def value_of(server, expression):
    query = urllib.parse.urlencode({"query": expression})
    status, text = ask(f"{server}/api/v1/query?{query}")
    answer = json.loads(text)
    if status != 200 or answer["status"] != "success":
        sys.exit(f"{expression}: {text}")
    found = answer["data"]["result"]
    return [it["value"][1] for it in found if it["value"][1] != "NaN"]


def in_this_run(expression):
    for name, value in {"$__rate_interval": "30s", "$job": ".*", "$instance": ".*", "$backend": ".*",
                        "[24h]": "[1m]"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def works(front, turn):
    """A little of everything that the dashboard shows."""
    for client in range(4):
        slow = graph(0.3, fails=client == 3)
        ask(f"http://{front}/prompt", {"client_id": f"artist-{client}", "prompt": slow})
        for path in ("/", "/object_info", "/system_stats", "/-/nothing-here"):
            ask(f"http://{front}{path}?clientId=artist-{client}")
    ask(f"http://{front}/prompt", {"client_id": f"script-{turn}", "prompt": {}})


def run(mooring):
    names_exist()
    mooring = os.path.abspath(mooring)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="observe-")))
        work = Work(folder, stack)
        front, admin = gateway(work, mooring)
        server = prometheus(work, admin)
        empty, turn = dict((it, title) for title, it in expressions()), 0
        count, began = len(empty), time.monotonic()
        while empty and time.monotonic() < began + PATIENCE:
            works(front, turn)
            turn += 1
            time.sleep(1)
            for it in [it for it in empty if value_of(server, in_this_run(it))]:
                del empty[it]
        if empty:
            told = "\n".join(f"{title}: {it}" for it, title in empty.items())
            sys.exit(f"these expressions of the dashboard gave nothing:\n{told}")
        status, text = ask(f"https://{admin}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert status == 200, text
        promtool("check", "metrics", input=text)
        firing = value_of(server, 'ALERTS{alertstate="firing"}')
        healthy = value_of(server, 'up{job="mooring"} == 1')
        assert healthy and not firing, f"an alert of a fleet that is well: {firing}"
        status, text = ask(f"{server}/api/v1/rules")
        told = json.loads(text)["data"]["groups"]
        bad = [it for group in told for it in group["rules"] if it["health"] == "err"]
        assert told and not bad, bad
        took = time.monotonic() - began
    print(f"{count} expressions gave data after {took:.0f} s")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rules"]:
            rules()
        case ["run", mooring]:
            run(mooring)
        case _:
            sys.exit(__doc__)
