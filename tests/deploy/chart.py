#!/usr/bin/env python3
"""The Helm chart: linted strictly and rendered by Helm's own library, its cases held against each
other and against deploy/kubernetes.

    chart.py INTO            writes what Kubernetes itself has to INTO/CASE.yaml, for its schemas,
                             the rest to INTO/CASE.json, and the configuration to INTO/CASE.toml
                             with the files that it names, each from a volume that the pod mounts

Needs `openssl`.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/mooring"
KUSTOMIZED = ROOT / "deploy/kubernetes"
# Their schemas are no part of Kubernetes.
OTHERS = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}
WARNING = 2
USERS = f"""
[users.ada]
role = "artist"
generation = 1
key = "{"0" * 64}"
"""


def cases():
    yield "default", {}
    for file in sorted(CHART.glob("ci/*-values.yaml")):
        yield file.name.removesuffix("-values.yaml"), yaml.safe_load(file.read_text())


def lint(name, values):
    report = helm.chart.lint(CHART, values, strict=True, kube_version="v1.34.0")
    bad = [it for it in report["messages"] if it["severity"] >= WARNING]
    assert not bad and not report["errors"], f"{name}: {bad} {report['errors']}"


def render(chart, values):
    """The documents by kind and name."""
    files = chart.render(values, name="mooring", namespace="comfyui")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    found = [it for text in texts for it in yaml.safe_load_all(text) if it]
    by_name = {(it["kind"], it["metadata"]["name"]): it for it in found}
    assert len(by_name) == len(found), "two of one name"
    return by_name


def refused(chart, values, why):
    """These values must be refused, by the schema or by a template, for this reason."""
    try:
        chart.validate_schema(values)
        chart.render(values, name="mooring", namespace="comfyui")
    except helm.errors.HelmError as refusal:
        assert why in str(refusal), f"{values}: {refusal}"
    else:
        raise AssertionError(f"accepted: {values}")


def only(found, what):
    assert len(found) == 1, f"{what}: {len(found)}"
    return found[0]


def kustomized(name):
    documents = yaml.safe_load_all((KUSTOMIZED / name).read_text())
    return only([it for it in documents if it and it["kind"] == "Deployment"], name)


def same(ours, theirs, keys, what):
    for key in keys:
        assert ours.get(key) == theirs.get(key), f"{what}.{key}: {ours.get(key)}, {theirs.get(key)}"


def agrees(name, documents):
    """A pod of the chart is one of the manifests for kustomize, but for names."""
    sidecar = name == "sidecar"
    deployment = documents["Deployment", "mooring"]
    spec = deployment["spec"]["template"]["spec"]
    theirs = kustomized("sidecar/application.yaml" if sidecar else "fleet/mooring.yaml")
    their_spec = theirs["spec"]["template"]["spec"]
    keys = ["securityContext", "enableServiceLinks", "terminationGracePeriodSeconds"]
    same(spec, their_spec, keys, f"{name} pod")
    if not sidecar:
        same(deployment["spec"], theirs["spec"], ["replicas", "strategy"], name)
        same(spec, their_spec, ["automountServiceAccountToken"], name)
    place = "initContainers" if sidecar else "containers"
    ours, them = (only(it[place], place) for it in (spec, their_spec))
    keys = ["args", "ports", "startupProbe", "readinessProbe", "livenessProbe", "securityContext",
            "volumeMounts", "restartPolicy"]
    same(ours, them, keys, f"{name} container")
    assert [it["name"] for it in ours["env"]] == [it["name"] for it in them["env"]], ours["env"]


def holds_together(name, documents):
    """What one document says of another is there."""
    by_kind = {}
    for (kind, _), it in documents.items():
        by_kind.setdefault(kind, []).append(it)
    deployment = only(by_kind["Deployment"], "Deployment")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    budget = only(by_kind["PodDisruptionBudget"], "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget, budget
    selectors = [deployment["spec"]["selector"]["matchLabels"], budget["selector"]["matchLabels"]]
    selectors += [it["spec"]["selector"] for it in by_kind["Service"]]
    selectors += [it["spec"]["podSelector"]["matchLabels"] for it in by_kind["NetworkPolicy"]]
    assert all(it.items() <= labels for it in selectors), f"{name}: {selectors} {labels}"
    services = {it["metadata"]["name"]: it for it in by_kind["Service"]}
    containers = template["spec"]["containers"] + template["spec"].get("initContainers", [])
    ports = {port["name"] for it in containers for port in it["ports"]}
    assert all(port["targetPort"] in ports for it in services.values()
               for port in it["spec"]["ports"]), ports
    for monitor in by_kind.get("ServiceMonitor", []):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        seen = [it for it in services.values() if wanted <= it["metadata"]["labels"].items()]
        assert only(seen, "monitored service")["metadata"]["name"] == "mooring-admin"
        endpoint = only(monitor["spec"]["endpoints"], "endpoint")
        ours = {it["name"]: it for it in containers if it["name"] == "mooring"}["mooring"]["env"]
        secret = {it["name"]: it for it in ours}["MOORING_ADMIN__TOKEN"]["valueFrom"]["secretKeyRef"]
        given = endpoint.get("authorization", {}).get("credentials")
        assert given in ([secret] if name != "sidecar" else [None]), f"{name}: {given} {secret}"
        assert endpoint.get("scheme", "http").upper() == admin_scheme(documents), f"{name}: {endpoint}"
    for route in by_kind.get("HTTPRoute", []):
        named = only(only(route["spec"]["rules"], "rule")["backendRefs"], "backendRef")
        assert {"name": "http", "port": named["port"], "targetPort": "http"} \
            in services[named["name"]]["spec"]["ports"]
    for ingress in by_kind.get("Ingress", []):
        path = only(only(ingress["spec"]["rules"], "rule")["http"]["paths"], "path")
        assert path["backend"]["service"]["name"] in services
    claims = {it["metadata"]["name"] for it in by_kind.get("PersistentVolumeClaim", [])}
    for volume in template["spec"]["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in claims, claim
        if config := volume.get("configMap"):
            assert ("ConfigMap", config["name"]) in documents
    mounts = [mount["name"] for it in containers for mount in it.get("volumeMounts", [])]
    volumes = [it["name"] for it in template["spec"]["volumes"]]
    assert sorted(mounts) == sorted(volumes), f"{name}: {mounts} {volumes}"
    ours = only([it for it in containers if it["name"] == "mooring"], "mooring")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        scheme = ours[probe]["httpGet"].get("scheme", "HTTP")
        assert scheme == admin_scheme(documents), f"{name}: {probe} asks by {scheme}"
    policy = only(by_kind["NetworkPolicy"], "NetworkPolicy")["spec"]
    ingress = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
    assert ingress["admin"], "anybody reaches the admin listener"
    if name == "sidecar":
        assert policy["policyTypes"] == ["Ingress"] and not ingress["http"], "the application is cut off"
    else:
        assert policy["policyTypes"] == ["Ingress", "Egress"] and ingress["http"] and policy["egress"]
        # An empty list is no bound at all.
        assert all(it.get("to") != [] for it in policy["egress"]), f"{name}: {policy['egress']}"
    if name == "default":
        assert "Secret" in by_kind and "ServiceMonitor" not in by_kind and "Ingress" not in by_kind
    if name == "central":
        assert OTHERS | {"Ingress"} <= by_kind.keys() and "Secret" not in by_kind, by_kind.keys()


def config(documents):
    """The text of mooring.toml, and of which kind the document is that has it."""
    if ("ConfigMap", "mooring") in documents:
        return "ConfigMap", documents["ConfigMap", "mooring"]["data"]["mooring.toml"]
    return "Secret", documents["Secret", "mooring"]["stringData"]["mooring.toml"]


def table(documents):
    return tomllib.loads(config(documents)[1])


def admin_scheme(documents):
    return "HTTPS" if table(documents)["admin"].get("tls") else "HTTP"


def selectors(chart, policy):
    """The pods that may reach the admin listener, and those that may be asked as backends."""
    documents = render(chart, {"networkPolicy": policy})
    spec = documents["NetworkPolicy", "mooring"]["spec"]
    admin = [it for rule in spec["ingress"] if rule["ports"] == [{"port": "admin"}]
             for it in rule["from"]]
    backends = [it for rule in spec["egress"] if rule["ports"] == [{"port": 8188}]
                for it in rule["to"]]
    return [[it["podSelector"] for it in found if "podSelector" in it] for found in (admin, backends)]


def selectors_replace(chart):
    """Of maps, Helm would keep what is there: a policy for your pods would be for both."""
    comfyui = {"matchLabels": {"app.kubernetes.io/name": "comfyui"}}
    yours = {"matchLabels": {"app": "painter"}}
    assert selectors(chart, {}) == [[comfyui], [comfyui]]
    assert selectors(chart, {"backendPodSelectors": [yours]}) == [[comfyui], [yours]]
    assert selectors(chart, {"adminPodSelectors": [yours]}) == [[yours], [comfyui]]
    both = {"backendPodSelectors": [], "adminPodSelectors": []}
    assert selectors(chart, both) == [[], []]
    nobody = render(chart, {"networkPolicy": {**both, "adminNamespaces": []}})
    ports = [it["ports"] for it in nobody["NetworkPolicy", "mooring"]["spec"]["ingress"]]
    assert ports == [[{"port": "http"}]], ports


def alerts_are_left_out(chart, alerts):
    """All of the file, but for those that are not wanted."""
    def told(disabled):
        documents = render(chart, {"prometheusRule": {"enabled": True, "disabled": disabled}})
        return documents["PrometheusRule", "mooring"]["spec"]["groups"]

    groups = yaml.safe_load(alerts.read_text())["groups"]
    assert told([]) == groups, told([])
    group = only(groups, "group")
    group["rules"] = [it for it in group["rules"] if it["alert"] != "MooringFleetEmpty"]
    assert told(["MooringFleetEmpty"]) == groups
    unknown = {"prometheusRule": {"enabled": True, "disabled": ["MooringFleet"]}}
    refused(chart, unknown, "there is no alert MooringFleet")


def keys_are_quoted(chart):
    """What TOML says of the configuration is what was given, whatever its keys are."""
    given = {"a.b": {"url": "http://a:1", "headers_file": "/run/\"a\\b"}, "c d": {"url": "http://c:1"}}
    config = {"files": {"a b.c": [{"d.e": [1, 2.5, "é\n"], "f": {"g": True}}], "empty": []}}
    told = table(render(chart, {"backends": given, "config": config}))
    assert told["backends"] == given, told["backends"]
    assert told["files"] == config["files"], told["files"]


def files(name, documents, into):
    """The configuration as the pod reads it, with its volumes below `into`. Each file that it names
    is there only if a volume is mounted where it says."""
    spec = documents["Deployment", "mooring"]["spec"]["template"]["spec"]
    containers = spec["containers"] + spec.get("initContainers", [])
    ours = only([it for it in containers if it["name"] == "mooring"], "mooring")
    text = config(documents)[1]
    for mount in ours["volumeMounts"]:
        if mount["name"] in ("config", "state"):
            continue
        assert mount["readOnly"], mount
        place = into / name / mount["name"]
        place.mkdir(parents=True)
        there = sorted(set(re.findall(f'"{mount["mountPath"]}/([^"]+)"', text)))
        assert there, f"{name}: nothing names a file of {mount}"
        for file in there:
            (place / file).write_text(USERS if file == "users.toml" else "Bearer of-a-case")
        if "tls.crt" in there:
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                            "/CN=localhost", "-keyout", place / "tls.key", "-out", place / "tls.crt"],
                           check=True, capture_output=True)
        text = text.replace(f'"{mount["mountPath"]}/', f'"{place}/')
    return text


def main(into):
    alerts = CHART / "files/mooring-alerts.yml"
    original = ROOT / "deploy/prometheus/mooring-alerts.yml"
    assert alerts.read_bytes() == original.read_bytes(), f"copy {original} to {alerts}"
    with helm.Chart.load(CHART) as chart:
        for name, values in cases():
            lint(name, values)
            documents = render(chart, values)
            if name in ("default", "central", "sidecar"):
                agrees(name, documents)
            holds_together(name, documents)
            own = [it for (kind, _), it in documents.items() if kind not in OTHERS]
            (into / f"{name}.yaml").write_text(yaml.safe_dump_all(own))
            others = [it for (kind, _), it in documents.items() if kind in OTHERS]
            (into / f"{name}.json").write_text(json.dumps(others))
            (into / f"{name}.toml").write_text(files(name, documents, into))
            assert config(documents)[0] == ("Secret" if name == "tls" else "ConfigMap"), name
        selectors_replace(chart)
        keys_are_quoted(chart)
        alerts_are_left_out(chart, alerts)
        refused(chart, {"mode": "both"}, "mode")
        refused(chart, {"replica": 2}, "replica")
        refused(chart, {"podDisruptionBudget": {"minAvailable": 1}}, "minAvailable")
        refused(chart, {"service": {"port": "http"}}, "port")
        refused(chart, {"backends": {"a": {}}}, "url")
        refused(chart, {"mode": "sidecar"}, "application.image")
        refused(chart, {"httpRoute": {"enabled": True}}, "parentRefs")
        refused(chart, {"discovery": {"enabled": False}}, "nothing behind the gateway")
        for headers in (["Authorization: Bearer k"], {"Authorization": "Bearer k"},
                        {"A": {"file": "/a"}, "B": "k"}):
            at = {"url": "http://a:1", "headers": headers}
            refused(chart, {"backends": {"a": at}}, "backends.a.headers has a value that would stand")
            found = {"config": {"discovery": {"comfyui": {"headers": headers}}}}
            refused(chart, found, "discovery.comfyui.headers has a value that would stand")
        refused(chart, {"config": {"admin": {"tls": {"client_ca": "/a"}}}}, "client_ca")
        refused(chart, {"config": {"files": {"a": [None]}}}, "no null")
        refused(chart, {"extraVolumes": [{"name": "config"}]}, "extraVolumes")
        below = [{"name": "a", "mountPath": "/etc/mooring/users"}]
        refused(chart, {"extraVolumeMounts": below}, "mountPath")
        refused(chart, {"networkPolicy": {"backendPodLabels": {"a": "b"}}}, "backendPodLabels")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
