{{/* Names, labels and pieces that every chart of Plinth uses. Written once in charts/_shared; `make charts` copies it. */}}

{{/* Cut to 40, so that the longest suffix, an ordinal and a claim's prefix still fit into 63. */}}
{{- define "plinth.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "plinth.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* What selects pods, and so can never change. Call with (dict "root" $ "component" "node"). */}}
{{- define "plinth.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "plinth.labels" -}}
{{ include "plinth.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: plinth
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: without the chart's version, for another chart with the same pods is no reason to start them again. */}}
{{- define "plinth.podLabels" -}}
{{ include "plinth.selector" . }}
app.kubernetes.io/part-of: plinth
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The objects of this chart that a workload names, and that are made before it by whoever makes objects side by side, such as
Pulumi: its service account where the chart has one, and what else is called with, as Kind/name.
No Service: Pulumi waits until one has pods.
*/}}
{{- define "plinth.behind" -}}
{{- $namespace := include "plinth.namespace" .root -}}
{{- $objects := .objects -}}
{{- if .root.Values.serviceAccount.create -}}
{{- $objects = prepend $objects (printf "ServiceAccount/%s" (include "plinth.serviceAccountName" .root)) -}}
{{- end -}}
{{- range $at, $object := $objects -}}
{{- if $at }},{{ end -}}/namespaces/{{ $namespace }}/{{ $object -}}
{{- end -}}
{{- end -}}

{{/*
The metadata of an object. Call with (dict "root" $ "component" "node" "name" "x" "annotations" $map), and for a workload
"behind" (list "ConfigMap/x").
*/}}
{{- define "plinth.metadata" -}}
name: {{ .name }}
namespace: {{ include "plinth.namespace" .root }}
labels:
  {{- include "plinth.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $behind := "" -}}
{{- if hasKey . "behind" -}}
{{- $behind = include "plinth.behind" (dict "root" .root "objects" .behind) -}}
{{- end -}}
{{- $own := ternary (dict "config.kubernetes.io/depends-on" $behind) (dict) (not (empty $behind)) -}}
{{- with merge $own (default (dict) .annotations) (default (dict) .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "plinth.image" -}}
{{- $name := printf "%s/%s" .registry .repository -}}
{{- if .digest -}}
{{- printf "%s@%s" $name .digest -}}
{{- else -}}
{{- if eq .tag "latest" -}}
{{- fail (printf "the image %s has the tag latest, which is another one tomorrow; set a version or a digest." $name) -}}
{{- end -}}
{{- printf "%s:%s" $name .tag -}}
{{- end -}}
{{- end -}}

{{- define "plinth.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "plinth.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What Restricted asks of a container, and a root that nobody can write to. */}}
{{- define "plinth.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What Restricted asks of a pod. Call with (dict "uid" 1000 "gid" 1000). */}}
{{- define "plinth.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .gid }}
fsGroup: {{ .gid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Refuse an object of a kind that the cluster does not have. Call with (dict "root" $ "api" "a/v1/Kind" "value" "key"). */}}
{{- define "plinth.needsApi" -}}
{{- if not (.root.Capabilities.APIVersions.Has .api) -}}
{{- fail (printf "%s asks for the kind %s, which this cluster does not know; install what brings it, or, where no cluster is asked, render with --api-versions %s." .value (splitList "/" .api | last) .api) -}}
{{- end -}}
{{- end -}}

{{/* Refuse what values of every chart can say against each other. */}}
{{- define "plinth.refuse" -}}
{{- $v := .Values -}}
{{- range $value, $labels := dict "commonLabels" $v.commonLabels "podLabels" $v.podLabels -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey (default (dict) $labels) $label -}}
{{- fail (printf "%s has the label %s, by which the chart's selectors know its pods; leave it out, or set nameOverride." $value $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not $v.serviceAccount.create) $v.serviceAccount.annotations -}}
{{- fail "serviceAccount.annotations are set and serviceAccount.create is false, so no account would have them; set it to true, or annotate the account that serviceAccount.name names." -}}
{{- end -}}
{{- $policy := $v.networkPolicy -}}
{{- if and $policy.allowAnyClient $policy.clients -}}
{{- fail "networkPolicy.clients names who may come in and networkPolicy.allowAnyClient lets everyone in; set it to false, or leave the clients out." -}}
{{- end -}}
{{- if and (not $policy.enabled) (or $policy.clients $policy.allowAnyClient) -}}
{{- fail "networkPolicy.enabled is false, so networkPolicy.clients and networkPolicy.allowAnyClient keep nobody out; set it to true, or leave them out." -}}
{{- end -}}
{{- end -}}

{{/* Objects of one's own, with templates in them. */}}
{{- define "plinth.extraObjects" -}}
{{- range .Values.extraObjects }}
---
{{ tpl (kindIs "string" . | ternary . (toYaml .)) $ }}
{{- end }}
{{- end -}}

{{/* A claim's spec. Call with the values of the volume. */}}
{{- define "plinth.claim" -}}
accessModes: [ReadWriteOnce]
{{- if .storageClass }}
storageClassName: {{ eq .storageClass "-" | ternary "" .storageClass | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size | quote }}
{{- end -}}

{{/* What every pod has. Call with (dict "root" $ "uid" 999 "gid" 999). */}}
{{- define "plinth.pod" -}}
{{- with .root.Values -}}
serviceAccountName: {{ include "plinth.serviceAccountName" $.root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- if .podSecurityContext }}
  {{- toYaml .podSecurityContext | nindent 2 }}
  {{- else }}
  {{- include "plinth.podSecurity" (dict "uid" $.uid "gid" $.gid) | nindent 2 }}
  {{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Where pods may go: the name service, their own namespace, ports of anywhere, and what the values add.
Call with (dict "root" $ "ports" (list 443)).
*/}}
{{- define "plinth.egress" -}}
egress:
  # The name service; it listens on 5353 on some platforms.
  - ports:
      - {port: 53, protocol: UDP}
      - {port: 53, protocol: TCP}
      - {port: 5353, protocol: UDP}
      - {port: 5353, protocol: TCP}
  # The namespace, whose pods each say whom they let in.
  - to:
      - podSelector: {}
  {{- with .ports }}
  - ports:
      {{- range . }}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
  {{- end }}
  {{- with .root.Values.networkPolicy.egress.extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Who may come in, as the rest of an ingress rule. Call with (dict "root" $ "name" "x"). */}}
{{- define "plinth.clients" -}}
{{- if not .root.Values.networkPolicy.allowAnyClient -}}
from:
  - podSelector:
      matchLabels:
        {{ .name }}-client: "true"
  {{- with .root.Values.networkPolicy.clients }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}
