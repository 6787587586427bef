#!/usr/bin/env python3
"""Do the files of deploy/kubernetes/fleet agree with each other? Schemas see each of them alone."""

import re
import sys
from pathlib import Path

import yaml

FLEET = Path(__file__).resolve().parents[2] / "deploy/kubernetes/fleet"


def documents(name):
    return [it for it in yaml.safe_load_all((FLEET / name).read_text()) if it]


def only(found, what):
    assert len(found) == 1, f"{what}: {len(found)} found"
    return found[0]


def named(name, kind, called):
    found = [it for it in documents(name) if it["kind"] == kind and it["metadata"]["name"] == called]
    return only(found, f"{kind} {called} in {name}")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def admitted():
    """Who may reach the admin listener, as namespaces and pods."""
    policy = named("networkpolicy.yaml", "NetworkPolicy", "mooring")
    rules = [it for it in policy["spec"]["ingress"] if {"port": "admin"} in it["ports"]]
    peers = only(rules, "rule for the admin port")["from"]
    names = {kind: set() for kind in ("namespaceSelector", "podSelector")}
    for peer in peers:
        for kind, selector in peer.items():
            names[kind].update(selector["matchLabels"].values())
    return names


def main():
    namespace = only(documents("kustomization.yaml"), "kustomization")["namespace"]
    service = named("mooring.yaml", "Service", "mooring-admin")
    port = only(service["spec"]["ports"], "port of mooring-admin")
    deployment = named("mooring.yaml", "Deployment", "mooring")
    container = only(deployment["spec"]["template"]["spec"]["containers"], "container")
    ports = {it["name"]: it["containerPort"] for it in container["ports"]}
    assert port["port"] == ports["admin"], "the service has another port than the pod"
    place = f"http://mooring-admin.{namespace}.svc:{port['port']}/api/v1/"

    scaled = named("scaledobject.yaml", "ScaledObject", "comfyui")
    url = only(scaled["spec"]["triggers"], "trigger")["metadata"]["url"]
    assert url == place + "scaling", f"KEDA asks {url}"

    drain = only(documents("drain.yaml"), "drain.yaml")
    fleet = named("comfyui.yaml", "StatefulSet", "comfyui")
    assert drain["metadata"]["name"] == fleet["metadata"]["name"], "the patch is for another set"
    pod = drain["spec"]["template"]["spec"]
    patched = only(pod["containers"], "container")
    assert patched["name"] == only(fleet["spec"]["template"]["spec"]["containers"], "c")["name"]
    hook = "".join(patched["lifecycle"]["preStop"]["exec"]["command"])
    assert place + "backends/" in hook, "the hook asks elsewhere"
    assert "until=restart" in hook, "the next process of the pod would get no work"
    wait = seconds(re.search(r"wait=(\w+)", hook).group(1))
    assert wait < int(re.search(r"timeout=(\d+)", hook).group(1)), "the hook gives up too early"
    assert wait < pod["terminationGracePeriodSeconds"], "the pod is killed before the hook ends"
    secret = only(patched["env"], "variable")
    assert secret["name"] in hook, "the hook reads another variable"
    ours = {it["name"]: it["valueFrom"] for it in container["env"] if "valueFrom" in it}
    assert secret["valueFrom"] == ours["MOORING_ADMIN__TOKEN"], "the hook has another token"

    peers = admitted()
    assert "keda" in peers["namespaceSelector"], "KEDA cannot reach the admin listener"
    labels = fleet["spec"]["template"]["metadata"]["labels"]
    assert peers["podSelector"] & set(labels.values()), "hooks cannot reach the admin listener"


if __name__ == "__main__":
    try:
        main()
    except AssertionError as problem:
        sys.exit(str(problem))
