{{- define "postgres.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- $v := .Values -}}
{{- if and (not $v.operator.enabled) (not $v.auth.existingSecret) -}}
{{- fail (printf "auth.existingSecret is empty; make a Secret with the key %s and name it." $v.auth.superuserKey) -}}
{{- end -}}
{{- if and $v.operator.enabled (or $v.auth.existingSecret $v.auth.monitorKey) -}}
{{- fail "auth is for the chart's own server and operator.enabled is true; leave it out, and name operator.superuserSecret and each database's passwordSecret." -}}
{{- end -}}
{{- range list "listen_addresses" "port" "unix_socket_directories" "hba_file" -}}
{{- if hasKey $v.config . -}}
{{- fail (printf "config.%s is not yours to set, for probes and the network policy must agree with it; leave it out, or set service.port." .) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.databases -}}
{{- if has .name $names -}}
{{- fail (printf "databases names %s twice; give each database one entry." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if and (not $v.operator.enabled) (not .passwordKey) -}}
{{- fail (printf "databases: %s has no passwordKey; name the key of %s that holds its owner's password." .name $v.auth.existingSecret) -}}
{{- end -}}
{{- if and $v.operator.enabled (not .passwordSecret) -}}
{{- fail (printf "databases: %s has no passwordSecret; with the operator it names a Secret of type basic-auth for the owner." .name) -}}
{{- end -}}
{{- if eq (default .name .owner) "postgres" -}}
{{- fail (printf "databases: %s would belong to the superuser; give it an owner of its own." .name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.operator.enabled (eq (int $v.operator.instances) 2) -}}
{{- fail "operator.instances is 2; the operator keeps one standby in sync with 3 and more, and 1 has none: set it to 1 or 3." -}}
{{- end -}}
{{- end -}}

{{- define "postgres.parameters" -}}
{{- $memory := int .Values.memoryMib -}}
{{- $own := dict
  "shared_buffers" (printf "%dMB" (div $memory 4))
  "effective_cache_size" (printf "%dMB" (div (mul $memory 3) 4))
  "work_mem" (printf "%dMB" (max 4 (div $memory (mul 4 (int .Values.maxConnections)))))
  "maintenance_work_mem" (printf "%dMB" (max 32 (div $memory 16)))
  "max_connections" (int .Values.maxConnections | toString)
  "max_wal_size" "1GB"
  "checkpoint_completion_target" "0.9"
  "random_page_cost" "1.1"
  "log_min_duration_statement" "1s"
  "log_lock_waits" "on"
  "timezone" "UTC" -}}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.config)) -}}
{{- end -}}

{{- define "postgres.config" -}}
listen_addresses = '0.0.0.0'
port = {{ .Values.service.port }}
unix_socket_directories = ''
hba_file = '/etc/plinth/pg_hba.conf'
password_encryption = scram-sha-256
wal_level = replica
log_destination = stderr
log_line_prefix = '%m [%p] %q%u@%d '
{{- range $name, $value := include "postgres.parameters" . | fromYaml }}
{{ $name }} = '{{ $value | toString | replace "'" "''" }}'
{{- end }}
{{- end -}}

{{- define "postgres.resources" -}}
{{- if .Values.resources -}}
{{- toYaml .Values.resources -}}
{{- else -}}
requests: {cpu: 500m, memory: {{ .Values.memoryMib }}Mi, ephemeral-storage: 64Mi}
limits: {cpu: "2", memory: {{ .Values.memoryMib }}Mi, ephemeral-storage: 512Mi}
{{- end -}}
{{- end -}}

{{- define "postgres.probe" -}}
exec:
  command: [pg_isready, -q, -h, 127.0.0.1, -p, {{ .Values.service.port | quote }}]
{{- end -}}
