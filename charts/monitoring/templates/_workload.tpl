{{/*
One part of the stack: its service, its network policy and what runs it.
Call with (dict "root" $ "component" "prometheus" "uid" 65534 "gid" 65534 "command" (list) "path" "/-/ready"
"mounts" "yaml" "volumes" "yaml" "env" "yaml" "checksum" "text" "data" "/prometheus" "callers" (list "grafana") "clients" true
"strategy" "Recreate" "beside" "yaml of containers" "login" "/etc/plinth-secrets/password").
"login" is the file with the password of login.user, for a part whose every path asks for it.
*/}}
{{- define "monitoring.workload" -}}
{{- $root := .root -}}
{{- $v := get .root.Values (include "monitoring.key" .component) -}}
{{- $name := printf "%s-%s" (include "plinth.fullname" .root) .component -}}
{{- $of := dict "root" .root "component" .component -}}
{{- $selector := include "plinth.selector" $of -}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "plinth.metadata" (merge (dict "name" $name) $of) | nindent 2 }}
spec:
  type: ClusterIP
  selector:
    {{- $selector | nindent 4 }}
  ports:
    - {name: http, port: {{ $v.port }}, targetPort: http, protocol: TCP, appProtocol: http}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "plinth.metadata" (merge (dict "name" $name) $of) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- $ports := ternary .root.Values.networkPolicy.egress.alertmanagerPorts (list) (eq .component "alertmanager") }}
  {{- include "plinth.egress" (dict "root" .root "ports" $ports) | nindent 2 }}
  ingress:
    - ports:
        - {port: http, protocol: TCP}
      {{- if not (and .clients .root.Values.networkPolicy.allowAnyClient) }}
      from:
        {{- range .callers }}
        - podSelector:
            matchLabels:
              {{- include "plinth.selector" (dict "root" $root "component" .) | nindent 14 }}
        {{- end }}
        {{- if .clients }}
        - podSelector:
            matchLabels:
              {{ include "plinth.fullname" .root }}-client: "true"
        {{- with .root.Values.networkPolicy.clients }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- else if eq .root.Values.mode "operator" }}
        {{- with .root.Values.networkPolicy.clients }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
      {{- end }}
{{- end }}
---
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" (not (empty .data)) }}
metadata:
  {{- $behind := list -}}
  {{- range fromYamlArray (default "" .volumes) }}{{ with .configMap }}{{ $behind = append $behind (printf "ConfigMap/%s" .name) }}{{ end }}{{ end -}}
  {{- include "plinth.metadata" (merge (dict "name" $name "behind" $behind) $of) | nindent 2 }}
spec:
  replicas: 1
  {{- with .strategy }}
  strategy: {type: {{ . }}}
  {{- end }}
  {{- if .data }}
  serviceName: {{ $name }}
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: {{ $v.persistence.whenDeleted }}
    whenScaled: Retain
  {{- end }}
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
        {{- with .labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .component }}
        {{- with .checksum }}
        checksum/config: {{ sha256sum . }}
        {{- end }}
        {{- with include "monitoring.marks" . }}
        checksum/secrets: {{ sha256sum . }}
        {{- end }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "plinth.pod" (dict "root" .root "uid" .uid "gid" .gid) | nindent 6 }}
      terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
      containers:
        - name: {{ .component }}
          image: {{ include "plinth.image" $v.image }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          command:
            {{- toYaml .command | nindent 12 }}
          {{- with .env }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ $v.port }}, protocol: TCP}
          startupProbe:
            {{- include "monitoring.probe" . | nindent 12 }}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 120
          readinessProbe:
            {{- include "monitoring.probe" . | nindent 12 }}
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            {{- include "monitoring.probe" (merge (dict "path" (default .path .alive)) .) | nindent 12 }}
            periodSeconds: 15
            timeoutSeconds: 10
            failureThreshold: 6
          securityContext:
            {{- include "plinth.containerSecurity" .root | nindent 12 }}
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if .data }}
            - {name: data, mountPath: {{ .data }}}
            {{- end }}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
        {{- with .beside }}
        {{- . | nindent 8 }}
        {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
  {{- if .data }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
        labels:
          {{- $selector | nindent 10 }}
      spec:
        {{- include "plinth.claim" $v.persistence | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* The marks of what a part mounts of its Secrets. Call with what the workload is called with. */}}
{{- define "monitoring.marks" -}}
{{- $marks := .root.Values.secretMarks -}}
{{- range fromYamlArray (default "" .volumes) -}}
{{- range (default (dict) .projected).sources -}}
{{- $secret := .secret -}}
{{- range (default (dict) $secret).items -}}
{{- $key := printf "%s/%s" $secret.name .key -}}
{{- with get $marks $key }}{{ printf "%s=%s\n" $key . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What a probe does. A password in a header of httpGet would be in the pod's own specification, and one in the arguments of
a client in everybody's list of processes: the shell's own printf has it alone. Call with what the workload is called with.
*/}}
{{- define "monitoring.probe" -}}
{{- if .login -}}
exec:
  command:
    - sh
    - -c
    - |-
      login=$(printf %s:%s "$1" "$(cat "$2")" | base64 | tr -d "\n"); printf "GET %s HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n" "$4" "$login" | nc -w 4 127.0.0.1 "$3" | head -n 1 | grep -q " 200 "
    - login
    - {{ .root.Values.login.user | quote }}
    - {{ .login }}
    - {{ (get .root.Values (include "monitoring.key" .component)).port | quote }}
    - {{ .path }}
{{- else -}}
httpGet: {path: {{ .path }}, port: http}
{{- end -}}
{{- end -}}

{{/*
A source of secrets: files from login.existingSecret. Call with (dict "root" $ "files" (list "prometheus-password")), of
SERVER-password and SERVER-web.yml.
*/}}
{{- define "monitoring.logins" -}}
{{- $v := .root.Values.login -}}
{{- $keys := dict "prometheus-password" $v.prometheusPasswordKey "prometheus-web.yml" $v.prometheusWebConfigKey
  "alertmanager-password" $v.alertmanagerPasswordKey "alertmanager-web.yml" $v.alertmanagerWebConfigKey -}}
{{- $items := list -}}
{{- range .files }}{{ $items = append $items (dict "key" (get $keys .) "path" .) }}{{ end -}}
{{- toYaml (list (dict "secret" (dict "name" $v.existingSecret "items" $items))) -}}
{{- end -}}

{{/* How Prometheus logs in to a server. Call with (dict "root" $ "server" "alertmanager"). */}}
{{- define "monitoring.basicAuth" -}}
basic_auth:
  username: {{ .root.Values.login.user }}
  password_file: /etc/plinth-secrets/{{ .server }}-password
{{- end -}}

{{/* A projected volume of secrets. Call with the sources as YAML. */}}
{{- define "monitoring.secrets" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end -}}

{{/* A ConfigMap. Call with (dict "root" $ "component" "x" "suffix" "config" "data" (dict)). */}}
{{- define "monitoring.configMap" -}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "plinth.metadata" (dict "root" .root "component" .component "name" (printf "%s-%s-%s" (include "plinth.fullname" .root) .component .suffix) "labels" .labels) | nindent 2 }}
data:
  {{- range $name, $text := .data }}
  {{ $name }}: |
    {{- $text | nindent 4 }}
  {{- end }}
{{- end -}}
