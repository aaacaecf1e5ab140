{{- define "redis.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- if not .Values.auth.existingSecret -}}
{{- fail (printf "auth.existingSecret is empty; make a Secret with the key %s and name it." .Values.auth.passwordKey) -}}
{{- end -}}
{{- if and .Values.existingConfigSecret .Values.auth.exporterPasswordKey -}}
{{- fail "auth.exporterPasswordKey is set and existingConfigSecret holds the whole configuration; leave it out, and write the user into that redis.conf." -}}
{{- end -}}
{{- end -}}

{{- define "redis.config" -}}
bind 0.0.0.0
port {{ .Values.service.port }}
protected-mode yes
# The passwords, written by the pod itself to its own memory.
include /run/plinth/password.conf
dir "/data"
maxmemory {{ .Values.maxmemoryMib }}mb
maxmemory-policy {{ .Values.maxmemoryPolicy }}
appendonly {{ ternary "yes" "no" .Values.appendonly }}
appendfsync everysec
save 3600 1 300 100 60 10000
daemonize no
loglevel notice
logfile ""
# A client that can rewrite the config can write files as this user.
rename-command CONFIG ""
rename-command DEBUG ""
{{- end -}}

{{/* What redis_exporter may do: the same as config/redis has it on the other targets. */}}
{{- define "redis.exporterRules" -}}
resetkeys resetchannels -@all +ping +info +client|setname +slowlog|len +latency|latest +latency|histogram
{{- end -}}

{{/* Asks with the password, so that one that is loading does not count as ready. */}}
{{- define "redis.probe" -}}
exec:
  command:
    - sh
    - -c
    - REDISCLI_AUTH="$(cat /etc/plinth-secrets/password)" redis-cli -p {{ .Values.service.port }} ping | grep -q {{ .expect }}
{{- end -}}

{{- define "redis.resources" -}}
{{- if .Values.resources -}}
{{- toYaml .Values.resources -}}
{{- else -}}
{{- $memory := printf "%dMi" (mul 2 (int .Values.maxmemoryMib)) -}}
requests: {cpu: 250m, memory: {{ $memory }}, ephemeral-storage: 64Mi}
limits: {cpu: "1", memory: {{ $memory }}, ephemeral-storage: 256Mi}
{{- end -}}
{{- end -}}
