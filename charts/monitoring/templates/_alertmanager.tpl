{{- define "monitoring.alertmanager" -}}
{{- $v := .Values.alertmanager -}}
{{- $page := and $v.existingSecret $v.webhookKey -}}
{{- $ticket := and $v.existingSecret (default $v.webhookKey $v.ticketWebhookKey) -}}
{{- $heartbeat := and $v.existingSecret $v.heartbeatKey -}}
# Without a webhook alerts stay on Alertmanager's own page.
route:
  receiver: nobody
  group_by: [alertname, job]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 4h
  routes:
    # The dead man's switch: a heartbeat outside of the stack complains when this stops coming.
    - matchers: ['alertname = "Watchdog"']
      receiver: {{ ternary "heartbeat" "nobody" (not (empty $heartbeat)) }}
      group_wait: 0s
      group_interval: 1m
      repeat_interval: 1m
    - matchers: ['severity = "page"']
      receiver: {{ ternary "page" "nobody" (not (empty $page)) }}
      repeat_interval: 1h
    # A ticket is read in the morning: what belongs together comes together, and once a day.
    - matchers: ['severity = "ticket"']
      receiver: {{ ternary "ticket" "nobody" (not (empty $ticket)) }}
      group_wait: 5m
      group_interval: 1h
      repeat_interval: 24h
inhibit_rules:
  # A node that is down has nothing to say of itself.
  - source_matchers: ['alertname = "QdrantDown"']
    target_matchers: ['alertname =~ "Qdrant.*"', 'alertname != "QdrantDown"']
    equal: [job, instance]
  # What a test search finds when there is no server, is that there is no server.
  - source_matchers: ['alertname =~ "QdrantDown|QdrantRecoveryMode"']
    target_matchers: ['alertname =~ "QdrantSearchProbeFailing|ExporterStale"']
  - source_matchers: ['alertname = "PostgresDown"']
    target_matchers: ['alertname =~ "Postgres.*"', 'alertname != "PostgresDown"']
    equal: [job, instance]
  - source_matchers: ['alertname = "RedisDown"']
    target_matchers: ['alertname =~ "Redis.*"', 'alertname != "RedisDown"']
    equal: [job, instance]
  # The cause, not what follows from it.
  - source_matchers: ['alertname = "QdrantConsensusStopped"']
    target_matchers: ['alertname =~ "QdrantPendingOperationsStuck|QdrantTransferStuck"']
    equal: [job, instance]
  - source_matchers: ['alertname = "QdrantCollectionRed"']
    target_matchers: ['alertname =~ "QdrantOptimizerError|QdrantOptimizationStuck"']
    equal: [collection]
  # The page, not the ticket about the same.
  - source_matchers: ['alertname = "QdrantSearchSlow"']
    target_matchers: ['alertname = "QdrantSearchBudgetBurn"']
    equal: [job, api]
  - source_matchers: ['alertname = "QdrantErrorBudgetBurn"']
    target_matchers: ['alertname = "QdrantErrorBudgetBurnSlow"']
    equal: [job, api]
  - source_matchers: ['alertname = "HostDiskFillsUp"']
    target_matchers: ['alertname = "HostDiskFillsUpSlowly"']
    equal: [instance, mountpoint]
receivers:
  - name: nobody
{{- $tokens := dict "heartbeat" $v.heartbeatTokenKey "page" $v.webhookTokenKey "ticket" (ternary $v.ticketWebhookTokenKey $v.webhookTokenKey (not (empty $v.ticketWebhookKey))) }}
{{- range $kind, $key := dict "heartbeat" $heartbeat "page" $page "ticket" $ticket }}
{{- if $key }}
  - name: {{ $kind }}
    webhook_configs:
      - url_file: /etc/plinth-secrets/{{ $key }}
        send_resolved: {{ ne $kind "heartbeat" }}
        {{- with get $tokens $kind }}
        http_config:
          authorization:
            credentials_file: /etc/plinth-secrets/{{ . }}
        {{- end }}
{{- end }}
{{- end }}
{{- end -}}
