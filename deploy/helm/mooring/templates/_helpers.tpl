{{- define "mooring.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "mooring.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "mooring.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "mooring.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "mooring.selector" -}}
app.kubernetes.io/name: {{ include "mooring.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mooring.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "mooring.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "mooring.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mooring.secret" -}}
{{- default (printf "%s-admin" (include "mooring.fullname" .)) .Values.admin.existingSecret }}
{{- end }}

{{- define "mooring.claim" -}}
{{- default (printf "%s-state" (include "mooring.fullname" .)) .Values.persistence.existingClaim }}
{{- end }}

{{- define "mooring.discovers" -}}
{{- if and .Values.discovery.enabled (eq .Values.mode "central") }}yes{{ end }}
{{- end }}

{{/* HTTPS if the listener of operators has a certificate, for those who ask it. */}}
{{- define "mooring.adminScheme" -}}
{{- ternary "HTTPS" "HTTP" (ne (dig "admin" "tls" "cert" "" .Values.config) "") }}
{{- end }}

{{- define "mooring.frontScheme" -}}
{{- ternary "https" "http" (ne (dig "server" "tls" "cert" "" .Values.config) "") }}
{{- end }}

{{/* The headers of a backend or of a discovery are keys of its server. A ConfigMap is no place for
     them: whoever may look at a namespace reads it. */}}
{{- define "mooring.checkHeaders" -}}
{{- $literal := false }}
{{- if kindIs "map" .headers }}
{{- range .headers }}
{{- if not (and (kindIs "map" .) (hasKey . "file")) }}{{ $literal = true }}{{ end }}
{{- end }}
{{- else if .headers }}
{{- $literal = true }}
{{- end }}
{{- if $literal }}
{{- fail (printf "%s.headers has a value that would stand in a ConfigMap, which is no place for secrets. Name a file of a Secret that extraVolumes mounts (headers: {Authorization: {file: /run/secrets/mooring/token}}), or set configIn: Secret" .of) }}
{{- end }}
{{- end }}

{{/* The configuration as one table: what was given, with what the chart itself decides. */}}
{{- define "mooring.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $admin := dict "listen" "0.0.0.0:8181" "open_metrics" .Values.admin.openMetrics }}
{{- $_ := set $config "admin" (merge $admin (default dict $config.admin)) }}
{{- if .Values.backends }}
{{- $_ := set $config "backends" .Values.backends }}
{{- end }}
{{- if include "mooring.discovers" . }}
{{- $kubernetes := dict "service" .Values.discovery.service "port" .Values.discovery.port }}
{{- $found := dict "comfyui" (dict "kubernetes" $kubernetes) }}
{{- $_ := set $config "discovery" (merge (default dict $config.discovery) $found) }}
{{- end }}
{{- if eq .Values.configIn "ConfigMap" }}
{{- range $table := list "backends" "discovery" }}
{{- range $name, $one := default dict (get $config $table) }}
{{- include "mooring.checkHeaders" (dict "of" (printf "%s.%s" $table $name) "headers" (get $one "headers")) }}
{{- end }}
{{- end }}
{{- end }}
{{- if dig "admin" "tls" "client_ca" "" $config }}
{{- fail "config.admin.tls.client_ca: Kubernetes has no certificate for its probes, so the pod would never be ready. networkPolicy and the token protect the admin listener" }}
{{- end }}
{{- include "mooring.toml" (dict "path" "" "table" $config) | trim }}
{{- end }}

{{/* TOML. Helm's own toToml writes 2 as 2.0, which is no whole number to TOML. Strings of JSON are
     such of TOML, so what is no bare key is a quoted one. */}}
{{- define "mooring.toml" }}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "mooring.tomlKey" $key }} = {{ include "mooring.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := include "mooring.tomlKey" $key }}
{{- $inner := ternary $name (printf "%s.%s" $path $name) (eq $path "") }}
[{{ $inner }}]
{{- include "mooring.toml" (dict "path" $inner "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mooring.tomlKey" -}}
{{- ternary . (toJson .) (regexMatch "^[A-Za-z0-9_-]+$" .) }}
{{- end }}

{{- define "mooring.tomlValue" -}}
{{- if kindIs "invalid" . }}
{{- fail "a list in config or backends has an empty value, and TOML has no null" }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else if kindIs "slice" . }}[
{{- range $place, $value := . }}{{ if $place }}, {{ end }}{{ include "mooring.tomlValue" $value }}{{ end -}}
]
{{- else if kindIs "map" . }}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- $pairs = append $pairs (printf "%s = %s" (include "mooring.tomlKey" $key) (include "mooring.tomlValue" $value)) }}
{{- end }}
{{- end }}{ {{- join ", " $pairs -}} }
{{- else }}{{ toJson . }}
{{- end }}
{{- end }}

{{/* The container, the same beside an application as alone. */}}
{{- define "mooring.container" -}}
name: mooring
image: {{ include "mooring.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/mooring/mooring.toml]
env:
  {{- if eq .Values.mode "sidecar" }}
  # For this pod only; the image says 0.0.0.0.
  - name: MOORING_SERVER__LISTEN
    value: 127.0.0.1:8180
  {{- end }}
  - name: MOORING_STATE__DIR
    value: /var/lib/mooring
  - name: MOORING_ADMIN__TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ include "mooring.secret" . }}
        key: {{ .Values.admin.key }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if eq .Values.mode "central" }}
  - name: http
    containerPort: 8180
  {{- end }}
  - name: admin
    containerPort: 8181
# Until each backend was asked once, for 2 s at most, the front is not open.
startupProbe:
  httpGet:
    path: /livez
    port: admin
    {{- if eq (include "mooring.adminScheme" .) "HTTPS" }}
    scheme: HTTPS
    {{- end }}
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
    {{- if eq (include "mooring.adminScheme" .) "HTTPS" }}
    scheme: HTTPS
    {{- end }}
  periodSeconds: 5
# The process only: backends that are down are no reason to restart it.
livenessProbe:
  httpGet:
    path: /livez
    port: admin
    {{- if eq (include "mooring.adminScheme" .) "HTTPS" }}
    scheme: HTTPS
    {{- end }}
  periodSeconds: 10
  failureThreshold: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "mooring.restricted" . | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/mooring
    readOnly: true
  - name: state
    mountPath: /var/lib/mooring
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "mooring.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
