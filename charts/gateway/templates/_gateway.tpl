{{- define "gateway.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- $v := .Values -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository is empty, for Plinth's image is one that you build; name its registry and repository." -}}
{{- end -}}
{{- if not $v.postgres.existingSecret -}}
{{- fail (printf "postgres.existingSecret is empty; name the Secret that holds the password of %s as %s." $v.postgres.user $v.postgres.passwordKey) -}}
{{- end -}}
{{- if and $v.tokens.existingSecret $v.tokens.jwks -}}
{{- fail "tokens.existingSecret and tokens.jwks are both set; tokens are checked with one of them, so leave the other out." -}}
{{- end -}}
{{- if not (or $v.tokens.existingSecret $v.tokens.jwks) -}}
{{- fail (printf "tokens.jwks is empty, so nobody could call; set it to the address of your identity provider's keys, or, for development, tokens.existingSecret to a Secret with the key %s." $v.tokens.signingKeyKey) -}}
{{- end -}}
{{- if and $v.qdrant.caSecret (not (hasPrefix "https:" $v.qdrant.url)) -}}
{{- fail (printf "qdrant.caSecret is set and qdrant.url is %s, which is reached without TLS; set https://, or leave the Secret out." $v.qdrant.url) -}}
{{- end -}}
{{- $http := eq $v.provider.name "http" -}}
{{- if and $http (not (and $v.provider.url $v.provider.model)) -}}
{{- fail "provider.name is http, and such a provider has a url and a model; set provider.url and provider.model." -}}
{{- end -}}
{{- if and (not $http) (or $v.provider.url $v.provider.model $v.provider.existingSecret) -}}
{{- fail (printf "provider.name is %s, which asks no address; leave provider.url, provider.model and provider.existingSecret out, or set provider.name to http." $v.provider.name) -}}
{{- end -}}
{{- if and (eq $v.provider.name "minilm") (ne (int $v.provider.dimension) 384) -}}
{{- fail (printf "provider.dimension is %d, and minilm makes vectors of 384 values; set that." (int $v.provider.dimension)) -}}
{{- end -}}
{{- if and $v.qdrant.collectionTokens (not $v.qdrant.existingSecret) -}}
{{- fail "qdrant.collectionTokens is true and qdrant.existingSecret is empty, so no key would sign them; name the Secret with the API key." -}}
{{- end -}}
{{- if and $v.tracing.existingSecret (not $v.tracing.endpoint) -}}
{{- fail "tracing.existingSecret is set and tracing.endpoint is empty, so nothing is traced; set the collector's address, or leave the Secret out." -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %d, below autoscaling.minReplicas, %d; set it to that or more." (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- end -}}
{{- if eq (int $v.service.httpPort) (int $v.service.grpcPort) -}}
{{- fail (printf "service.httpPort and service.grpcPort are both %d, in one pod; set another." (int $v.service.httpPort)) -}}
{{- end -}}
{{- if and (not $v.networkPolicy.enabled) (or $v.networkPolicy.scrapers $v.networkPolicy.egress.ports $v.networkPolicy.egress.extra) -}}
{{- fail "networkPolicy.enabled is false, so networkPolicy.scrapers and networkPolicy.egress keep nobody out; set it to true, or leave them out." -}}
{{- end -}}
{{- end -}}

{{/* How many servers there are at least. */}}
{{- define "gateway.servers" -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled -}}
{{- end -}}

{{/* The configuration of a role. Call with (dict "root" $ "role" "server"). */}}
{{- define "gateway.config" -}}
{{- $v := .root.Values -}}
{{- $server := eq .role "server" -}}
listen:
  host: 0.0.0.0
  http_port: {{ ternary $v.service.httpPort $v.worker.port $server }}
{{- if $server }}
  grpc_port: {{ $v.service.grpcPort }}
{{- if $v.tls.existingSecret }}
  cert_file: /etc/plinth-secrets/tls.crt
  key_file: /etc/plinth-secrets/tls.key
{{- end }}
{{- end }}
qdrant:
  url: {{ $v.qdrant.url }}
{{- if $v.qdrant.existingSecret }}
  api_key_file: /etc/plinth-secrets/qdrant-api-key
{{- if $v.qdrant.collectionTokens }}
  collection_tokens: true
{{- end }}
{{- end }}
{{- if $v.qdrant.caSecret }}
  ca_file: /etc/plinth-secrets/qdrant-ca
{{- end }}
postgres:
  host: {{ $v.postgres.host | quote }}
  port: {{ $v.postgres.port }}
  database: {{ $v.postgres.database | quote }}
  user: {{ $v.postgres.user | quote }}
  password_file: /etc/plinth-secrets/postgres-password
redis:
  host: {{ $v.redis.host | quote }}
  port: {{ $v.redis.port }}
  tls: {{ $v.redis.tls }}
{{- if $v.redis.existingSecret }}
  password_file: /etc/plinth-secrets/redis-password
{{- end }}
{{- if $server }}
tokens:
{{- if $v.tokens.jwks }}
  jwks: {{ $v.tokens.jwks | quote }}
{{- else }}
  key_file: /etc/plinth-secrets/signing-key
{{- end }}
  issuer: {{ $v.tokens.issuer | quote }}
  audience: {{ $v.tokens.audience | quote }}
  organisation_claim: {{ $v.tokens.organisationClaim | quote }}
  scopes_claim: {{ $v.tokens.scopesClaim | quote }}
{{- if $v.metrics.existingSecret }}
metrics_token_file: /etc/plinth-secrets/metrics-token
{{- end }}
{{- end }}
provider:
  name: {{ $v.provider.name }}
  dimension: {{ $v.provider.dimension }}
{{- if eq $v.provider.name "http" }}
  url: {{ $v.provider.url | quote }}
  model: {{ $v.provider.model | quote }}
{{- if $v.provider.existingSecret }}
  api_key_file: /etc/plinth-secrets/provider-api-key
{{- end }}
{{- end }}
cache:
  ttl_s: {{ $v.cacheTtlSec }}
# No file: to standard output, which the cluster's own collector takes.
audit:
  required: {{ $v.auditRequired }}
limits:
  per_second: {{ int64 $v.limits.requestsPerSecond }}
  burst: {{ int64 $v.limits.requestBurst }}
  body_bytes: {{ mul (int64 $v.limits.requestMaxMb) 1048576 }}
  request_s: {{ $v.limits.requestTimeoutSec }}
jobs:
  worker_concurrency: {{ $v.worker.concurrency }}
  dispatch_interval_ms: {{ int64 $v.dispatchIntervalMs }}
{{- if $v.tracing.endpoint }}
tracing:
  endpoint: {{ $v.tracing.endpoint | quote }}
  sample_ratio: {{ $v.tracing.sampleRatio }}
{{- if $v.tracing.existingSecret }}
  headers_file: /etc/plinth-secrets/tracing-headers
{{- end }}
{{- end }}
collections: {{ toJson $v.collections }}
{{- end -}}

{{/* The sources of a role's secrets: those of the stores for both, what admits callers for the server alone. */}}
{{- define "gateway.sources" -}}
{{- $v := .root.Values -}}
{{- $held := list
  (list $v.qdrant.existingSecret $v.qdrant.apiKeyKey "qdrant-api-key")
  (list $v.qdrant.caSecret $v.qdrant.caKey "qdrant-ca")
  (list $v.postgres.existingSecret $v.postgres.passwordKey "postgres-password")
  (list $v.redis.existingSecret $v.redis.passwordKey "redis-password")
  (list $v.provider.existingSecret $v.provider.apiKeyKey "provider-api-key")
  (list $v.tracing.existingSecret $v.tracing.headersKey "tracing-headers") -}}
{{- if eq .role "server" -}}
{{- $held = concat $held (list
  (list $v.tokens.existingSecret $v.tokens.signingKeyKey "signing-key")
  (list $v.metrics.existingSecret $v.metrics.tokenKey "metrics-token")
  (list $v.tls.existingSecret $v.tls.certKey "tls.crt")
  (list $v.tls.existingSecret $v.tls.keyKey "tls.key")) -}}
{{- end -}}
{{- range $held }}
{{- if index . 0 }}
- secret: {name: {{ index . 0 | quote }}, items: [{key: {{ index . 1 | quote }}, path: {{ index . 2 }}}]}
{{- end }}
{{- end }}
{{- end -}}

{{/* The marks of what a role mounts. Called as its sources are. */}}
{{- define "gateway.marks" -}}
{{- $marks := .root.Values.secretMarks -}}
{{- range fromYamlArray (include "gateway.sources" .) -}}
{{- $key := printf "%s/%s" .secret.name (index .secret.items 0).key -}}
{{- with get $marks $key }}{{ printf "%s=%s\n" $key . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/*
A role's ConfigMap, network policy and Deployment. Call with (dict "root" $ "role" "server" "name" "x" "replicas" 1
"resources" $map "ports" (dict "http" 8000) "probes" "yaml").
*/}}
{{- define "gateway.workload" -}}
{{- $root := .root -}}
{{- $of := dict "root" .root "component" .role -}}
{{- $selector := include "plinth.selector" $of -}}
{{- $config := include "gateway.config" . -}}
{{- $server := eq .role "server" -}}
{{- $policy := .root.Values.networkPolicy -}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "plinth.metadata" (merge (dict "name" (printf "%s-config" .name)) $of) | nindent 2 }}
data:
  gateway.yaml: |
    {{- $config | nindent 4 }}
{{- if $policy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "plinth.metadata" (merge (dict "name" .name) $of) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- include "plinth.egress" (dict "root" .root "ports" $policy.egress.ports) | nindent 2 }}
  {{- if or $server $policy.scrapers }}
  ingress:
    {{- if $server }}
    - ports:
        - {port: http, protocol: TCP}
        - {port: grpc, protocol: TCP}
      {{- include "plinth.clients" (dict "root" .root "name" .name) | nindent 6 }}
    {{- end }}
    {{- with $policy.scrapers }}
    - ports:
        - {port: http, protocol: TCP}
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "plinth.metadata" (merge (dict "name" .name "behind" (list (printf "ConfigMap/%s-config" .name))) $of) | nindent 2 }}
spec:
  {{- with .replicas }}
  replicas: {{ . }}
  {{- end }}
  # One that serves goes once the one in its place does.
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- with .root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "plinth.podLabels" $of | nindent 8 }}
        qdrant-client: "true"
        postgres-client: "true"
        redis-client: "true"
      annotations:
        kubectl.kubernetes.io/default-container: {{ .role }}
        checksum/config: {{ sha256sum $config }}
        {{- with include "gateway.marks" . }}
        checksum/secrets: {{ sha256sum . }}
        {{- end }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "plinth.pod" (dict "root" .root "uid" 65534 "gid" 65534) | nindent 6 }}
      terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
      {{- if $server }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
      {{- end }}
      containers:
        - name: {{ .role }}
          image: {{ include "plinth.image" .root.Values.image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python3, -m, plinth.gateway, {{ .role }}, --config-path, /etc/plinth/gateway.yaml]
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
            {{- end }}
          {{- .probes | nindent 10 }}
          securityContext:
            {{- include "plinth.containerSecurity" .root | nindent 12 }}
          resources:
            {{- toYaml .resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: config, mountPath: /etc/plinth, readOnly: true}
            - {name: secrets, mountPath: /etc/plinth-secrets, readOnly: true}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        - name: config
          configMap: {name: {{ .name }}-config}
        - name: secrets
          projected:
            defaultMode: 0440
            sources:
              {{- include "gateway.sources" . | trim | nindent 14 }}
{{- end -}}
