{{- define "qdrant.headless" -}}
{{ include "plinth.fullname" . }}-headless
{{- end -}}

{{- define "qdrant.scheme" -}}
{{ ternary "https" "http" .Values.tls.enabled }}
{{- end -}}

{{- define "qdrant.clientLabel" -}}
{{ include "plinth.fullname" . }}-client: "true"
{{- end -}}

{{/* Qdrant's configuration: the values', and over them what follows from the rest of the values. Keys are never in it. */}}
{{- define "qdrant.config" -}}
{{- $cluster := gt (int .Values.replicas) 1 -}}
{{- $service := dict "host" "0.0.0.0" "http_port" (int .Values.service.httpPort) "grpc_port" (int .Values.service.grpcPort) -}}
{{- if and .Values.auth.enabled $cluster }}{{ $_ := set $service "enforce_internal_auth" true }}{{ end -}}
{{- $derived := dict
  "service" $service
  "storage" (dict "storage_path" "/qdrant/storage" "snapshots_path" "/qdrant/snapshots")
  "cluster" (dict "enabled" $cluster) -}}
{{- if .Values.tls.enabled -}}
{{- $_ := set $service "enable_tls" true -}}
{{- $tls := dict "cert" "/etc/plinth-tls/cert.pem" "key" "/etc/plinth-tls/key.pem" -}}
{{- if .Values.tls.caKey }}{{ $_ := set $tls "ca_cert" "/etc/plinth-tls/ca.pem" }}{{ end -}}
{{- $_ := set $derived "tls" $tls -}}
{{- end -}}
{{- if $cluster }}{{ $_ := set $derived.cluster "p2p" (dict "port" 6335 "enable_tls" .Values.tls.enabled) }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $derived) -}}
{{- end -}}

{{- define "qdrant.resources" -}}
{{- if .Values.resources -}}
{{- toYaml .Values.resources -}}
{{- else -}}
{{- $tier := get (dict "small" (list 1 "2Gi") "medium" (list 4 "8Gi") "large" (list 8 "16Gi")) .Values.tier -}}
requests:
  cpu: {{ first $tier }}
  memory: {{ last $tier }}
  ephemeral-storage: 256Mi
limits:
  cpu: {{ first $tier }}
  memory: {{ last $tier }}
  ephemeral-storage: {{ ternary "1Gi" "11Gi" .Values.persistence.snapshots.enabled }}
{{- end -}}
{{- end -}}

{{- define "qdrant.affinity" -}}
{{- if .Values.affinity -}}
{{- toYaml .Values.affinity -}}
{{- else if eq .Values.podAntiAffinity "hard" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "plinth.selector" (dict "root" . "component" "node") | nindent 10 }}
{{- else if eq .Values.podAntiAffinity "soft" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "plinth.selector" (dict "root" . "component" "node") | nindent 12 }}
{{- end -}}
{{- end -}}

{{- define "qdrant.spread" -}}
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "plinth.selector" (dict "root" . "component" "node") | fromYaml)) -}}
{{- $spread := list -}}
{{- range .Values.topologySpreadConstraints }}{{ $spread = append $spread (merge (dict) . $selector) }}{{ end -}}
{{- toYaml $spread -}}
{{- end -}}

{{- define "qdrant.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "qdrant.scheme" .root | upper }}
periodSeconds: {{ .probe.periodSeconds }}
timeoutSeconds: {{ .probe.timeoutSeconds }}
failureThreshold: {{ .probe.failureThreshold }}
{{- end -}}

{{/* What values cannot say of each other in the schema. */}}
{{- define "qdrant.refuse" -}}
{{- include "plinth.refuse" . -}}
{{- $v := .Values -}}
{{- $service := default (dict) $v.config.service -}}
{{- $storage := default (dict) $v.config.storage -}}
{{- $collection := default (dict) $storage.collection -}}
{{- $cluster := gt (int $v.replicas) 1 -}}
{{- if eq (int $v.replicas) 2 -}}
{{- fail "replicas is 2, and two nodes have no majority once one fails; set it to 1, or to 3 and more." -}}
{{- end -}}
{{- if and $cluster (not $v.existingConfigSecret) (not $v.cluster.allowSingleReplica) (lt (int (default 1 $collection.replication_factor)) 2) -}}
{{- fail (printf "replicas is %d and config.storage.collection.replication_factor is 1, so one lost node loses data; set the factor to 2, or cluster.allowSingleReplica to true." (int $v.replicas)) -}}
{{- end -}}
{{- if and (not $v.existingConfigSecret) (gt (int (default 1 $collection.replication_factor)) (int $v.replicas)) -}}
{{- fail (printf "config.storage.collection.replication_factor is %d and there are no more than %d nodes; lower it, or raise replicas." (int $collection.replication_factor) (int $v.replicas)) -}}
{{- end -}}
{{- range list "api_key" "read_only_api_key" "alt_api_key" -}}
{{- if hasKey $service . -}}
{{- fail (printf "config.service.%s would show a key to whoever may look at pods; put it into a Secret and name that as auth.existingSecret." .) -}}
{{- end -}}
{{- end -}}
{{- $s3 := default (dict) (default (dict) $storage.snapshots_config).s3_config -}}
{{- if or (hasKey $s3 "secret_key") (hasKey $s3 "access_key") -}}
{{- fail "config.storage.snapshots_config.s3_config would show the bucket's keys to whoever may look at pods; give them from a Secret as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with extraEnvFrom." -}}
{{- end -}}
{{- range $key, $instead := dict "host" "networkPolicy.clients" "http_port" "service.httpPort" "grpc_port" "service.grpcPort" "enable_tls" "tls.enabled" "enforce_internal_auth" "auth.enabled" -}}
{{- if hasKey $service $key -}}
{{- fail (printf "config.service.%s is not yours to set, for the chart's other objects must agree with it; set %s." $key $instead) -}}
{{- end -}}
{{- end -}}
{{- range list "storage_path" "snapshots_path" -}}
{{- if hasKey $storage . -}}
{{- fail (printf "config.storage.%s is where the chart mounts the volume; leave it out." .) -}}
{{- end -}}
{{- end -}}
{{- if or (hasKey $v.config "cluster") (hasKey $v.config "tls") -}}
{{- fail "config.cluster and config.tls follow from replicas and tls; set those." -}}
{{- end -}}
{{- if and $v.auth.enabled (not $v.auth.existingSecret) -}}
{{- fail (printf "auth.existingSecret is empty; make a Secret with the keys %s and %s and name it, or set auth.enabled to false where nobody else can reach the port." $v.auth.apiKeyKey $v.auth.readOnlyApiKeyKey) -}}
{{- end -}}
{{- if and (not $v.auth.enabled) $v.auth.existingSecret -}}
{{- fail "auth.existingSecret names a Secret and auth.enabled is false, so its keys would not be asked for; set auth.enabled to true, or leave the Secret out." -}}
{{- end -}}
{{- if and $v.auth.enabled (has $v.auth.apiKeyKey (list $v.auth.readOnlyApiKeyKey $v.auth.altApiKeyKey)) -}}
{{- fail (printf "auth.apiKeyKey and another key of the Secret are both %s, so the full API key would be the read-only or the second one too; give each its own." $v.auth.apiKeyKey) -}}
{{- end -}}
{{- $public := or (ne $v.service.type "ClusterIP") $v.ingress.enabled $v.httpRoute.enabled $v.grpcRoute.enabled -}}
{{- if and (not $v.auth.enabled) $public -}}
{{- fail "auth.enabled is false and the service is published, so everyone could write and delete; set auth.existingSecret, or keep service.type ClusterIP without ingress and routes." -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.tls.existingSecret) (not $v.existingConfigSecret) -}}
{{- fail (printf "tls.enabled is true and tls.existingSecret is empty; make a Secret with the keys %s and %s and name it." $v.tls.certKey $v.tls.keyKey) -}}
{{- end -}}
{{- if and (not $v.tls.enabled) $v.tls.existingSecret -}}
{{- fail "tls.existingSecret names a Secret and tls.enabled is false; set it to true, or leave the Secret out." -}}
{{- end -}}
{{- if and $cluster $v.tls.enabled (not $v.tls.caKey) -}}
{{- fail "tls.caKey is empty, and the nodes of a cluster check each other's certificates with the signer's; name its key in the Secret." -}}
{{- end -}}
{{- if eq (int $v.service.httpPort) (int $v.service.grpcPort) -}}
{{- fail (printf "service.httpPort and service.grpcPort are both %d; give each its own." (int $v.service.httpPort)) -}}
{{- end -}}
{{- range list $v.service.httpPort $v.service.grpcPort -}}
{{- if has (int .) (list 6335 6336) -}}
{{- fail (printf "port %d is the nodes' own; choose another for service.httpPort or service.grpcPort." (int .)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.service.loadBalancerSourceRanges (ne $v.service.type "LoadBalancer") -}}
{{- fail (printf "service.loadBalancerSourceRanges keep nobody out of a service of type %s; set service.type to LoadBalancer, or name who may come in as networkPolicy.clients." $v.service.type) -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.enabled is true and ingress.host is empty; name the host." -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.tlsSecret) (not $v.ingress.allowPlain) -}}
{{- fail "ingress.tlsSecret is empty, so the API key would travel in the clear; name a Secret with a certificate, or set ingress.allowPlain where something before it has TLS." -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true and httpRoute.parentRefs is empty; name the gateway." -}}
{{- end -}}
{{- if and $v.grpcRoute.enabled (not $v.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.enabled is true and grpcRoute.parentRefs is empty; name the gateway." -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled $v.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both true, so every node would be scraped twice; choose one." -}}
{{- end -}}
{{- if and $v.affinity (eq $v.podAntiAffinity "hard") -}}
{{- fail "affinity is set and podAntiAffinity is hard, which affinity replaces, so two nodes could share a machine; set podAntiAffinity to none and say it within affinity." -}}
{{- end -}}
{{- $away := $v.podDisruptionBudget.maxUnavailable -}}
{{- if kindIs "string" $away }}{{ $away = divf (mulf (trimSuffix "%" $away) $v.replicas) 100 | ceil }}{{ end -}}
{{- if and $cluster $v.podDisruptionBudget.enabled (ge (mul 2 (int $away)) (int $v.replicas)) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable lets %d of %d nodes go at once, so maintenance could take the majority; lower it." (int $away) (int $v.replicas)) -}}
{{- end -}}
{{- if ge (int $v.preStopSeconds) (int $v.terminationGracePeriodSeconds) -}}
{{- fail (printf "preStopSeconds is %d of the %d of terminationGracePeriodSeconds, so nothing is left for Qdrant to stop; lower the one or raise the other." (int $v.preStopSeconds) (int $v.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- if gt (int $v.updateStrategy.partition) (int $v.replicas) -}}
{{- fail (printf "updateStrategy.partition is %d and there are %d nodes; set it to at most that." (int $v.updateStrategy.partition) (int $v.replicas)) -}}
{{- end -}}
{{- end -}}
