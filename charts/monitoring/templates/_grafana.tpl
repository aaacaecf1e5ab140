{{- define "monitoring.grafanaIni" -}}
[server]
http_addr = 0.0.0.0
http_port = {{ .Values.grafana.port }}
[paths]
data = /var/lib/grafana
logs = /var/lib/grafana/log
plugins = /var/lib/grafana/plugins
provisioning = /etc/plinth/provisioning
[log]
mode = console
[security]
admin_user = admin
admin_password = $__file{/etc/plinth-secrets/admin-password}
secret_key = $__file{/etc/plinth-secrets/secret-key}
disable_gravatar = true
[auth.anonymous]
enabled = false
[users]
allow_sign_up = false
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
feedback_links_enabled = false
[news]
news_feed_enabled = false
[snapshots]
external_enabled = false
[plugins]
# Else it fetches some from the internet at every start until it has them.
preinstall_disabled = true
public_key_retrieval_disabled = true
[dashboards]
default_home_dashboard_path = /etc/plinth-dashboards/overview.json
{{- end -}}

{{- define "monitoring.datasource" -}}
apiVersion: 1
datasources:
  - name: Prometheus
    uid: plinth-prometheus
    type: prometheus
    access: proxy
    url: http://{{ include "plinth.fullname" . }}-prometheus:{{ .Values.prometheus.port }}
    isDefault: true
    basicAuth: true
    basicAuthUser: {{ .Values.login.user }}
    secureJsonData:
      basicAuthPassword: $__file{/etc/plinth-secrets/prometheus-password}
  {{- with .Values.grafana.lokiUrl }}
  - name: Loki
    uid: plinth-loki
    type: loki
    access: proxy
    url: {{ . }}
  {{- end }}
{{- end -}}

{{/* The dashboards, a space between: that of logs where there are any. */}}
{{- define "monitoring.boards" -}}
{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "files/dashboards/*.json" -}}
{{- if or $.Values.grafana.lokiUrl (ne (base $path) "logs.json") }}{{ $names = append $names (base $path) }}{{ end -}}
{{- end -}}
{{- join " " $names -}}
{{- end -}}
