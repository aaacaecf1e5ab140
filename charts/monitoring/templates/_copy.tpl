{{/* The container beside Grafana that lends its database to backups, what it needs, and who may ask it. */}}

{{- define "monitoring.copy" -}}
{{- $v := .Values.grafana.copy -}}
- name: copy
  image: {{ include "plinth.image" $v.image }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  command:
    - python3
    - -m
    - plinth.grafana_snapshot.server
    - --database=/var/lib/grafana/grafana.db
    - --password-file=/etc/plinth-secrets/copy-password
    - --directory=/var/lib/plinth/copy
    - --host=0.0.0.0
    - --port={{ $v.port }}
  ports:
    - {name: copy, containerPort: {{ $v.port }}, protocol: TCP}
  readinessProbe:
    tcpSocket: {port: copy}
    periodSeconds: 10
    timeoutSeconds: 5
  livenessProbe:
    tcpSocket: {port: copy}
    initialDelaySeconds: 30
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 6
  securityContext:
    {{- include "plinth.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml $v.resources | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /var/lib/grafana, readOnly: true}
    - {name: copy, mountPath: /var/lib/plinth/copy}
    - {name: copy-secrets, mountPath: /etc/plinth-secrets, readOnly: true}
{{- end -}}

{{- define "monitoring.copyVolumes" -}}
- name: copy
  emptyDir: {sizeLimit: 1Gi}
- name: copy-secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.grafana.existingSecret | quote }}
          items:
            - {key: {{ .Values.grafana.copy.passwordKey | quote }}, path: copy-password}
{{- end -}}

{{- define "monitoring.copyService" -}}
{{- $name := include "plinth.fullname" . -}}
{{- $of := dict "root" . "component" "grafana" "name" (printf "%s-grafana-copy" $name) -}}
{{- $selector := include "plinth.selector" $of -}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "plinth.metadata" $of | nindent 2 }}
spec:
  type: ClusterIP
  selector:
    {{- $selector | nindent 4 }}
  ports:
    - {name: copy, port: {{ .Values.grafana.copy.port }}, targetPort: copy, protocol: TCP, appProtocol: http}
{{- if .Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "plinth.metadata" $of | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - {port: copy, protocol: TCP}
      from:
        - podSelector:
            matchLabels:
              {{ $name }}-backup: "true"
{{- end }}
{{- end -}}
