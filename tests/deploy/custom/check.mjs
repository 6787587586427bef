// Holds documents, as JSON lists in the files that are named, against the schemas of their projects.
import fs from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const kinds = { HTTPRoute, PrometheusRule, ServiceMonitor };
const seen = new Set();
for (const file of process.argv.slice(2)) {
  for (const document of JSON.parse(fs.readFileSync(file, "utf8"))) {
    try {
      new kinds[document.kind](document).validate();
    } catch (problem) {
      console.error(`${file}: ${document.kind}: ${problem.message}`);
      process.exitCode = 1;
    }
    seen.add(document.kind);
  }
}
for (const kind of Object.keys(kinds).filter((kind) => !seen.has(kind))) {
  console.error(`no case has a ${kind}`);
  process.exitCode = 1;
}
