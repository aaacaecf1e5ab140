{{- define "monitoring.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- $v := .Values -}}
{{- if not $v.qdrant.targets -}}
{{- fail "qdrant.targets is empty, so nothing would be watched; name each node as host:port, such as qdrant-0.qdrant-headless:6333." -}}
{{- end -}}
{{- if and $v.qdrant.caSecret (not $v.qdrant.tls) -}}
{{- fail "qdrant.caSecret is set and qdrant.tls is false; set it to true, or leave the Secret out." -}}
{{- end -}}
{{- if and $v.gateway.caSecret (not $v.gateway.tls) -}}
{{- fail "gateway.caSecret is set and gateway.tls is false; set it to true, or leave the Secret out." -}}
{{- end -}}
{{- if and (not $v.gateway.name) (or $v.gateway.existingSecret $v.gateway.tls) -}}
{{- fail "gateway.name is empty, so nothing would be asked with gateway.existingSecret or gateway.tls; name the gateway, or leave them out." -}}
{{- end -}}
{{- if and $v.gateway.name (eq $v.mode "operator") -}}
{{- fail "gateway.name is for what mode operator does not run; leave it out, or set mode to standalone." -}}
{{- end -}}
{{- if and (eq $v.mode "standalone") (not $v.login.existingSecret) -}}
{{- fail (printf "login.existingSecret is empty, and Prometheus and Alertmanager would let everybody in; make a Secret with the keys %s, %s, %s and %s (README) and name it." $v.login.prometheusPasswordKey $v.login.prometheusWebConfigKey $v.login.alertmanagerPasswordKey $v.login.alertmanagerWebConfigKey) -}}
{{- end -}}
{{- if and (eq $v.mode "standalone") $v.grafana.enabled (not $v.grafana.existingSecret) -}}
{{- fail (printf "grafana.existingSecret is empty; make a Secret with the key %s and name it, or set grafana.enabled to false." $v.grafana.passwordKey) -}}
{{- end -}}
{{- range $name := list "redisExporter" "postgresExporter" -}}
{{- $exporter := get $v $name -}}
{{- if and $exporter.enabled (not $exporter.existingSecret) -}}
{{- fail (printf "%s.existingSecret is empty; name the Secret that holds the password as %s." $name (default $exporter.passwordsKey $exporter.passwordKey)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.plinthExporter.enabled (not $v.plinthExporter.image.repository) -}}
{{- fail "plinthExporter.image.repository is empty, for Plinth's image is one that you build; name its registry and repository." -}}
{{- end -}}
{{- if and $v.plinthExporter.enabled (ne (hasPrefix "https:" $v.plinthExporter.url) $v.qdrant.tls) -}}
{{- fail (printf "plinthExporter.url is %s and qdrant.tls is %t; both are about the same Qdrant, so set them alike." $v.plinthExporter.url $v.qdrant.tls) -}}
{{- end -}}
{{- if and (eq $v.mode "operator") (or $v.grafana.existingSecret $v.alertmanager.existingSecret $v.login.existingSecret) -}}
{{- fail "grafana.existingSecret, alertmanager.existingSecret and login.existingSecret are for what mode operator does not run; leave them out, or set mode to standalone." -}}
{{- end -}}
{{- if and (eq $v.mode "standalone") $v.grafana.lokiUrl (not $v.grafana.enabled) -}}
{{- fail "grafana.lokiUrl is set and grafana.enabled is false, so nobody would read it; set it to true, or leave the address out." -}}
{{- end -}}
{{- if and $v.grafana.copy.enabled (or (eq $v.mode "operator") (not $v.grafana.enabled)) -}}
{{- fail "grafana.copy.enabled is true and no Grafana runs here whose database it could copy; set it to false, or run Grafana." -}}
{{- end -}}
{{- if and $v.grafana.copy.enabled (not $v.grafana.copy.image.repository) -}}
{{- fail "grafana.copy.image.repository is empty, for Plinth's image is one that you build; name its registry and repository." -}}
{{- end -}}
{{- if and $v.grafana.copy.enabled (eq (int $v.grafana.copy.port) (int $v.grafana.port)) -}}
{{- fail (printf "grafana.port and grafana.copy.port are both %d, in one pod; set another." (int $v.grafana.port)) -}}
{{- end -}}
{{- range $url, $token := dict "webhookKey" "webhookTokenKey" "ticketWebhookKey" "ticketWebhookTokenKey" "heartbeatKey" "heartbeatTokenKey" -}}
{{- if and (get $v.alertmanager $token) (not (and $v.alertmanager.existingSecret (get $v.alertmanager $url))) -}}
{{- fail (printf "alertmanager.%s is set and there is no address of alertmanager.%s that it would be sent to; set that and alertmanager.existingSecret, or leave the token out." $token $url) -}}
{{- end -}}
{{- end -}}
{{- if and $v.alertmanager.existingSecret (regexMatch "^v?0\\.([0-9]|1[0-9]|2[0-5])(\\.|$)" $v.alertmanager.image.tag) (not $v.alertmanager.image.digest) -}}
{{- fail (printf "alertmanager.image.tag is %s, which reads no address from a file; set 0.26 or later." $v.alertmanager.image.tag) -}}
{{- end -}}
{{- if and (or $v.alertmanager.ticketWebhookKey $v.alertmanager.heartbeatKey) (not $v.alertmanager.existingSecret) -}}
{{- fail "alertmanager.existingSecret is empty, so alertmanager.ticketWebhookKey and heartbeatKey lead nowhere; name the Secret that has them." -}}
{{- end -}}
{{- range $v.rules.leaveOut -}}
{{- if not ($.Files.Get (printf "files/rules/%s" .)) -}}
{{- fail (printf "rules.leaveOut names %s, and there is no such file of rules; name one of %s." . (include "monitoring.allRules" $ | splitList " " | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "monitoring.allRules" -}}
{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "files/rules/*.yml" }}{{ $names = append $names (base $path) }}{{ end -}}
{{- join " " $names -}}
{{- end -}}

{{/* Names of the rule files that are taken, a space between. */}}
{{- define "monitoring.rules" -}}
{{- $names := list -}}
{{- range include "monitoring.allRules" . | splitList " " }}{{ if not (has . $.Values.rules.leaveOut) }}{{ $names = append $names . }}{{ end }}{{ end -}}
{{- join " " $names -}}
{{- end -}}

{{/* A file of rules, its alerts leading to where the runbooks are. Call with (dict "root" $ "name" "qdrant.yml"). */}}
{{- define "monitoring.rule" -}}
{{- $text := .root.Files.Get (printf "files/rules/%s" .name) -}}
{{- if .root.Values.rules.runbooksUrl -}}
{{- $text | replace "runbook_url: monitoring/runbooks/" (printf "runbook_url: %s/" (trimSuffix "/" .root.Values.rules.runbooksUrl)) -}}
{{- else -}}
{{- $text -}}
{{- end -}}
{{- end -}}

{{/* The exporters that run, by their component, a space between. */}}
{{- define "monitoring.exporters" -}}
{{- $found := list -}}
{{- if .Values.redisExporter.enabled }}{{ $found = append $found "redis-exporter" }}{{ end -}}
{{- if .Values.postgresExporter.enabled }}{{ $found = append $found "postgres-exporter" }}{{ end -}}
{{- if .Values.plinthExporter.enabled }}{{ $found = append $found "plinth-exporter" }}{{ end -}}
{{- join " " $found -}}
{{- end -}}

{{/* The values of a component: redis-exporter is redisExporter. */}}
{{- define "monitoring.key" -}}
{{- $words := splitList "-" . -}}
{{ first $words }}{{ range rest $words }}{{ title . }}{{ end }}
{{- end -}}

{{- define "monitoring.prometheus" -}}
{{- $name := include "plinth.fullname" . -}}
{{- $v := .Values -}}
global:
  scrape_interval: {{ $v.prometheus.scrapeIntervalSec }}s
  evaluation_interval: {{ $v.prometheus.scrapeIntervalSec }}s
  external_labels:
    stack: {{ $v.stack | default .Release.Namespace | quote }}
rule_files:
{{- range include "monitoring.rules" . | splitList " " }}
  - /etc/plinth-rules/{{ . }}
{{- end }}
alerting:
  alertmanagers:
    - static_configs:
        - targets: ["{{ $name }}-alertmanager:{{ $v.alertmanager.port }}"]
      {{- include "monitoring.basicAuth" (dict "root" . "server" "alertmanager") | nindent 6 }}
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["{{ $name }}-prometheus:{{ $v.prometheus.port }}"]
    {{- include "monitoring.basicAuth" (dict "root" . "server" "prometheus") | nindent 4 }}
  - job_name: qdrant
    metrics_path: /metrics
    {{- if $v.qdrant.tls }}
    scheme: https
    {{- if $v.qdrant.caSecret }}
    tls_config:
      ca_file: /etc/plinth-secrets/qdrant-ca
    {{- end }}
    {{- end }}
    static_configs:
      - targets: {{ toJson $v.qdrant.targets }}
    {{- if $v.qdrant.existingSecret }}
    # Qdrant's page asks for a key; the read-only one is enough.
    authorization:
      credentials_file: /etc/plinth-secrets/qdrant-read-only-api-key
    {{- end }}
  {{- $parts := list "alertmanager" -}}
  {{- if $v.grafana.enabled }}{{ $parts = append $parts "grafana" }}{{ end -}}
  {{- with include "monitoring.exporters" . }}{{ $parts = concat $parts (splitList " " .) }}{{ end -}}
  {{- range $parts }}
  - job_name: {{ . }}
    metrics_path: /metrics
    static_configs:
      - targets: ["{{ $name }}-{{ . }}:{{ (get $v (include "monitoring.key" .)).port }}"]
    {{- if eq . "alertmanager" }}
    {{- include "monitoring.basicAuth" (dict "root" $ "server" .) | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with $v.gateway }}
  {{- if .name }}
  # Each server and each worker, whose addresses come and go.
  - job_name: gateway
    metrics_path: /metrics
    {{- if .tls }}
    scheme: https
    tls_config:
      server_name: {{ .name }}
      {{- if .caSecret }}
      ca_file: /etc/plinth-secrets/gateway-ca
      {{- end }}
    {{- end }}
    dns_sd_configs:
      - {names: [{{ printf "%s-headless" .name | quote }}], type: A, port: {{ .httpPort }}}
    {{- if .existingSecret }}
    authorization:
      credentials_file: /etc/plinth-secrets/gateway-metrics-token
    {{- end }}
  - job_name: gateway-worker
    metrics_path: /metrics
    dns_sd_configs:
      - {names: [{{ printf "%s-worker" .name | quote }}], type: A, port: {{ .workerPort }}}
  {{- end }}
  {{- end }}
  {{- with $v.prometheus.extraScrapeConfigs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "monitoring.qdrantSecrets" -}}
{{- if .Values.qdrant.existingSecret }}
- secret:
    name: {{ .Values.qdrant.existingSecret | quote }}
    items:
      - {key: {{ .Values.qdrant.readOnlyApiKeyKey | quote }}, path: qdrant-read-only-api-key}
{{- end }}
{{- if .Values.qdrant.caSecret }}
- secret:
    name: {{ .Values.qdrant.caSecret | quote }}
    items:
      - {key: {{ .Values.qdrant.caKey | quote }}, path: qdrant-ca}
{{- end }}
{{- end -}}

{{- define "monitoring.gatewaySecrets" -}}
{{- with .Values.gateway }}
{{- if .existingSecret }}
- secret: {name: {{ .existingSecret | quote }}, items: [{key: {{ .tokenKey | quote }}, path: gateway-metrics-token}]}
{{- end }}
{{- if .caSecret }}
- secret: {name: {{ .caSecret | quote }}, items: [{key: {{ .caKey | quote }}, path: gateway-ca}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "monitoring.plinth" -}}
{{- $v := .Values.plinthExporter -}}
listen:
  host: 0.0.0.0
  port: {{ $v.port }}
qdrant:
  url: {{ $v.url }}
  {{- if .Values.qdrant.caSecret }}
  ca_file: /etc/plinth-secrets/qdrant-ca
  {{- end }}
  {{- if .Values.qdrant.existingSecret }}
  api_key_file: /etc/plinth-secrets/qdrant-read-only-api-key
  {{- end }}
  peers: {{ $v.peers }}
  memory_limit_bytes: {{ int64 $v.memoryLimitBytes }}
{{- if $v.stateClaim }}
backup_state: /var/lib/plinth/state/backups.json
{{- end }}
marks: /var/lib/plinth/state/marks.json
collections: {{ toJson $v.collections }}
{{- end -}}
