#!/usr/bin/env bash
# A vector without meaning, texts that are embedded, and a search by text, through the gateway; needs curl and jq.
# GATEWAY_URL is its address, GATEWAY_TOKEN a token of `plinth gateway token`.
set -euo pipefail
url=${GATEWAY_URL:-http://127.0.0.1:8000}

# The token goes by a pipe: arguments can be read by everybody on the machine.
ask() {
  local answer
  answer=$(
    printf 'authorization: Bearer %s\n' "$GATEWAY_TOKEN" |
      curl --silent --show-error --fail-with-body --max-time 30 -H @- -H 'content-type: application/json' "$@"
  ) || {
    printf '%s\n' "$answer" >&2
    return 1
  }
  printf '%s\n' "$answer"
}

# A job is asked for at once, and done by a worker.
wait_for() {
  local job status
  for _ in $(seq 120); do
    job=$(ask "$url/jobs/$1")
    status=$(jq -r .status <<<"$job")
    case $status in
    completed) printf '%s\n' "$job" && return ;;
    failed | cancelled) printf '%s\n' "$job" >&2 && return 1 ;;
    esac
    sleep 0.5
  done
  printf 'job %s is still %s\n' "$1" "$status" >&2
  return 1
}

curl --silent --fail "$url/readyz" | jq -e .ready >/dev/null

job_id=$(ask "$url/vectors/mock" -d '{"asset_id": "doc-123", "segment_id": "chunk-0"}' | jq -r .job_id)
printf 'point %s\n' "$(wait_for "$job_id" | jq -r .result.point_id)"

job_id=$(ask "$url/v1/collections/embeddings/embed" -d '{"items": [
  {"id": "cat", "text": "A kitten sleeps on the warm windowsill", "payload": {"source": "web"}},
  {"id": "car", "text": "The engine of the old lorry needs new oil", "payload": {"source": "book"}}
]}' | jq -r .job_id)
wait_for "$job_id" >/dev/null

ask "$url/search" -d '{"collection": "embeddings", "query": "a sleeping cat", "top_k": 1, "filter": {"match": {"source": "web"}}}' |
  jq -r '.hits[] | "\(.id) \(.score * 100 | round / 100)"'
