"""One prompt through a gateway to a simulated server, with the executable that a command starts.

    one_prompt.py COMMAND…     such as `mooring`, or `chroot --userspec=mooring /some/where mooring`

Says how long it took from the start of the first process to the picture.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE = 60
GRAPH = {
    "1": {"class_type": "EmptyImage",
          "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "one"}},
}


def ask(url, body=None):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


class Run:
    def __init__(self, command, stack):
        self.command, self.stack, self.end = command, stack, time.monotonic() + PATIENCE

    def start(self, pattern, *arguments):
        """Starts it and returns what the pattern finds in what it says."""
        log = self.stack.enter_context(tempfile.NamedTemporaryFile())
        process = subprocess.Popen([*self.command, *arguments], stdout=log, stderr=log)
        self.stack.callback(lambda: (process.terminate(), process.wait(30)))
        said = lambda: open(log.name, errors="replace").read()
        found = self.until(lambda: re.search(pattern, said()) or process.poll() is not None, said)
        if found is True:
            sys.exit(f"{arguments[0]} ended: {said()}")
        return found.group(1)

    def until(self, look, why=lambda: ""):
        while time.monotonic() < self.end:
            if found := look():
                return found
            time.sleep(0.05)
        sys.exit(f"not within {PATIENCE} s {why()}")


def prompt(run, front):
    """One prompt, until its picture has come."""
    answer = json.loads(ask(f"{front}/prompt", {"client_id": "me", "prompt": GRAPH}))
    done = lambda: json.loads(ask(f"{front}/history/{answer['prompt_id']}"))
    entry = run.until(done)[answer["prompt_id"]]
    picture, = entry["outputs"]["2"]["images"]
    query = "&".join(f"{key}={picture[key]}" for key in ("filename", "subfolder", "type"))
    assert ask(f"{front}/view?{query}").startswith(b"\x89PNG"), picture


def main(command):
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        run = Run(command, stack)
        server = run.start(r"(http://127\.0\.0\.1:\d+)", "sim", "--port", "0", "--name", "a")
        front = "http://" + run.start(
            r'"front":"([^"]+)"', "serve", "--backend", server, "--listen", "127.0.0.1:0",
            "--admin-listen", "127.0.0.1:0", "--set", "state.dir=none", "--set", "log.format=json")
        prompt(run, front)
        print(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
