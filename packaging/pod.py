"""One prompt through the pod of the Helm chart, where there is no cluster: Helm's own library renders
the chart, and the gateway's container is run as the Deployment says: its arguments, variables, files
and probes, in the image.

    pod.py SIM RUN…     SIM is the executable that simulates the server. RUN starts the container: it
                        is called with `--volume FROM:TO…`, `--env NAME=VALUE`, `--` and arguments

Says how long it took from the start of the first process to the picture. Needs the ports of the pod.
"""

import base64
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import helm_python as helm

from one_prompt import Run, prompt

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests/deploy"))
from chart import CHART, render

NOBODY = 65532


def rendered(server):
    """The chart's documents by kind and name, with this server as the only backend."""
    values = {"backends": {"a": {"url": server}}, "discovery": {"enabled": False}}
    with helm.Chart.load(CHART) as chart:
        return render(chart, values)


def files_of(documents, volume, folder):
    """Makes what a volume has, owned as `fsGroup` would have it."""
    folder.mkdir()
    if named := volume.get("configMap"):
        for name, text in documents["ConfigMap", named["name"]]["data"].items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
    elif claim := volume.get("persistentVolumeClaim"):
        assert ("PersistentVolumeClaim", claim["claimName"]) in documents, claim
        os.chown(folder, 0, NOBODY)
        folder.chmod(0o2770)
    else:
        raise AssertionError(f"a volume of another kind: {volume}")


def value_of(documents, variable):
    if "value" in variable:
        return variable["value"]
    named = variable["valueFrom"]["secretKeyRef"]
    secret = documents["Secret", named["name"]]
    if text := secret.get("stringData", {}).get(named["key"]):
        return text
    return base64.b64decode(secret["data"][named["key"]]).decode()


def answers(container, probe):
    """Whether a probe of the container is answered as it should be, asked as a kubelet asks."""
    asked = container[probe]["httpGet"]
    ports = {it["name"]: it["containerPort"] for it in container["ports"]}
    url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.HTTPError, OSError):
        return False


def main(simulator, command):
    began = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.chmod(0o755)
        server = Run([simulator], stack).start(
            r"(http://127\.0\.0\.1:\d+)", "sim", "--port", "0", "--name", "a")
        documents = rendered(server)
        spec = documents["Deployment", "mooring"]["spec"]["template"]["spec"]
        container, = spec["containers"]
        assert spec["securityContext"]["runAsUser"] == NOBODY, spec["securityContext"]
        options = []
        for volume in spec["volumes"]:
            files_of(documents, volume, scratch / volume["name"])
        for mount in container["volumeMounts"]:
            rights = ":ro" if mount.get("readOnly") else ""
            options += ["--volume", f"{scratch / mount['name']}:{mount['mountPath']}{rights}"]
        for variable in container["env"]:
            options += ["--env", f"{variable['name']}={value_of(documents, variable)}"]
        run = Run([*command, *options, "--"], stack)
        front = run.start(r'"front":"0\.0\.0\.0(:\d+)"', *container["args"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            run.until(lambda: answers(container, probe), lambda: probe)
        prompt(run, f"http://127.0.0.1{front}")
        print(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
