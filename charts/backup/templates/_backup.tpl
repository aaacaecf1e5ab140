{{- define "backup.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- $v := .Values -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository is empty, for Plinth's image is one that you build (plinth images build); name its registry and repository." -}}
{{- end -}}
{{- if not $v.repository.location -}}
{{- fail "repository.location is empty, so backups would go nowhere; name a restic repository, such as s3:https://host/bucket/prefix." -}}
{{- end -}}
{{- $claim := include "backup.repositoryClaim" . -}}
{{- if and $v.repository.claim $v.persistence.repository.size -}}
{{- fail "repository.claim and persistence.repository.size are both set, and one repository is in one claim; name your claim, or have one made." -}}
{{- end -}}
{{- if regexMatch "^((rest|s3|b2|azure|gs|swift):((https?:)?//)?([^/@]+:[^0-9/@][^@]*|[^/@]*)@|sftp:(//)?[^/@]*:[^/@]*@|rclone:[^/]*,|(rest|s3):[^?]*[?])" $v.repository.location -}}
{{- fail "repository.location has a secret in its address, which the ConfigMap would show; leave it out, and name its keys in repository.secretEnvironment." -}}
{{- end -}}
{{- if and (hasPrefix "/" $v.repository.location) (not $claim) -}}
{{- fail (printf "repository.location is the directory %s and repository.claim is empty, so a backup would end with its pod; name a claim, set persistence.repository.size, or name a repository elsewhere." $v.repository.location) -}}
{{- end -}}
{{- if and $claim (ne $v.repository.location "/var/lib/plinth/repository") -}}
{{- fail "the claim of the repository is mounted at /var/lib/plinth/repository; set repository.location to that, or leave the claim out." -}}
{{- end -}}
{{- if not $v.repository.existingSecret -}}
{{- fail (printf "repository.existingSecret is empty; make a Secret with the key %s and name it." $v.repository.passwordKey) -}}
{{- end -}}
{{- range $key, $_ := $v.repository.environment -}}
{{- if regexMatch "(KEY|SECRET|PASSWORD|TOKEN)" $key -}}
{{- fail (printf "repository.environment.%s would put a secret into a ConfigMap; name its key of the Secret in repository.secretEnvironment." $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := $v.repository.secretEnvironment -}}
{{- if hasKey $v.repository.environment $key -}}
{{- fail (printf "repository.environment and repository.secretEnvironment both set %s; leave one out." $key) -}}
{{- end -}}
{{- end -}}
{{- range $url := $v.qdrant.urls -}}
{{- if and $v.qdrant.caSecret (hasPrefix "http:" $url) -}}
{{- fail (printf "qdrant.caSecret is for TLS and qdrant.urls has %s; give it as https, or leave the Secret out." $url) -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.qdrant.urls $v.postgres.enabled $v.redis.enabled $v.neo4j.enabled $v.grafana.enabled) -}}
{{- fail "nothing is taken: set qdrant.urls to the address of every node, postgres.enabled, redis.enabled, neo4j.enabled or grafana.enabled." -}}
{{- end -}}
{{- range $store, $values := dict "postgres" $v.postgres "redis" $v.redis "neo4j" $v.neo4j "grafana" $v.grafana -}}
{{- if and $values.enabled (not $values.existingSecret) -}}
{{- fail (printf "%s.existingSecret is empty; name the Secret that holds its password as %s." $store $values.passwordKey) -}}
{{- end -}}
{{- end -}}
{{- range $store, $taken := dict "qdrant" (not (empty $v.qdrant.urls)) "postgres" $v.postgres.enabled "redis" $v.redis.enabled -}}
{{- if and (not $taken) (get $v $store).existingSecret -}}
{{- fail (printf "%s.existingSecret is set and %s is not taken; set %s, or leave the Secret out." $store $store (ternary "qdrant.urls" (printf "%s.enabled" $store) (eq $store "qdrant"))) -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.schedules.run $v.schedules.check $v.schedules.drill) -}}
{{- fail "schedules.run, check and drill are all empty, so nothing would ever run; set one." -}}
{{- end -}}
{{- end -}}

{{/* The claim that the repository is in, where it is in one: yours, or the chart's own. */}}
{{- define "backup.repositoryClaim" -}}
{{- if .Values.repository.claim -}}
{{- .Values.repository.claim -}}
{{- else if .Values.persistence.repository.size -}}
{{- printf "%s-repository" (include "plinth.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "backup.config" -}}
{{- $v := .Values -}}
name: {{ $v.name | quote }}
directory: /var/lib/plinth/stage
state: /var/lib/plinth/state/backups.json
repository:
  location: {{ $v.repository.location | quote }}
  password_file: /etc/plinth-secrets/repository-password
  environment: {{ toJson $v.repository.environment }}
  environment_files:
  {{- range $name, $_ := $v.repository.secretEnvironment }}
    {{ $name }}: /etc/plinth-secrets/{{ $name }}
  {{- else }} {}
  {{- end }}
  {{- if $v.repository.caKey }}
  ca_file: /etc/plinth-secrets/repository-ca
  {{- end }}
  options: {{ toJson $v.repository.options }}
  {{- with $v.repository.limitUploadKib }}
  limit_upload_kib: {{ int64 . }}
  {{- end }}
append_only: {{ $v.appendOnly }}
{{- if $v.qdrant.urls }}
qdrant:
  urls: {{ toJson $v.qdrant.urls }}
  {{- if $v.qdrant.existingSecret }}
  api_key_file: /etc/plinth-secrets/qdrant-api-key
  {{- end }}
  {{- if $v.qdrant.caSecret }}
  ca_file: /etc/plinth-secrets/qdrant-ca
  {{- end }}
{{- end }}
{{- if $v.postgres.enabled }}
postgres:
  host: {{ $v.postgres.host | quote }}
  port: {{ $v.postgres.port }}
  user: {{ $v.postgres.user | quote }}
  password_file: /etc/plinth-secrets/postgres-password
  extensions: {{ $v.postgres.extensions | toJson }}
{{- end }}
{{- if $v.redis.enabled }}
redis:
  host: {{ $v.redis.host | quote }}
  port: {{ $v.redis.port }}
  password_file: /etc/plinth-secrets/redis-password
{{- end }}
{{- if $v.neo4j.enabled }}
neo4j:
  host: {{ $v.neo4j.host | quote }}
  port: {{ $v.neo4j.port }}
  user: {{ $v.neo4j.user | quote }}
  password_file: /etc/plinth-secrets/neo4j-password
{{- end }}
{{- if $v.grafana.enabled }}
grafana:
  url: {{ $v.grafana.url | quote }}
  password_file: /etc/plinth-secrets/grafana-password
{{- end }}
not_taken: {{ toJson $v.notTaken }}
keep: {{ toJson $v.keep }}
{{- $schedule := dict "check_parts" (int $v.checkParts) -}}
{{- with $v.schedules.run }}{{ $_ := set $schedule "backup" . }}{{ end -}}
{{- with $v.schedules.check }}{{ $_ := set $schedule "check" . }}{{ end -}}
{{- with $v.schedules.drill }}{{ $_ := set $schedule "drill" . }}{{ end }}
schedule: {{ toJson $schedule }}
{{- end -}}

{{- define "backup.secrets" -}}
{{- $v := .Values -}}
{{- $items := list (dict "key" $v.repository.passwordKey "path" "repository-password") -}}
{{- with $v.repository.caKey }}{{ $items = append $items (dict "key" . "path" "repository-ca") }}{{ end -}}
{{- range $name, $key := $v.repository.secretEnvironment }}{{ $items = append $items (dict "key" $key "path" $name) }}{{ end -}}
{{- $sources := list (dict "secret" (dict "name" $v.repository.existingSecret "items" $items)) -}}
{{- if and $v.qdrant.urls $v.qdrant.existingSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" $v.qdrant.existingSecret "items" (list (dict "key" $v.qdrant.apiKeyKey "path" "qdrant-api-key")))) -}}
{{- end -}}
{{- if and $v.qdrant.urls $v.qdrant.caSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" $v.qdrant.caSecret "items" (list (dict "key" $v.qdrant.caKey "path" "qdrant-ca")))) -}}
{{- end -}}
{{- range $store, $values := dict "postgres" $v.postgres "redis" $v.redis "neo4j" $v.neo4j "grafana" $v.grafana -}}
{{- if $values.enabled -}}
{{- $sources = append $sources (dict "secret" (dict "name" $values.existingSecret "items" (list (dict "key" $values.passwordKey "path" (printf "%s-password" $store))))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $sources -}}
{{- end -}}

{{/* The TCP ports of the repository's server, as a JSON list; none for one in a directory. */}}
{{- define "backup.repositoryPorts" -}}
{{- if .Values.networkPolicy.egress.repositoryPorts -}}
{{- toJson .Values.networkPolicy.egress.repositoryPorts -}}
{{- else if hasPrefix "sftp:" .Values.repository.location -}}
[22]
{{- else if contains ":" .Values.repository.location -}}
[443]
{{- else -}}
[]
{{- end -}}
{{- end -}}
