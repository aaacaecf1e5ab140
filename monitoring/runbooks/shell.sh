# Words for the runbooks: `. monitoring/runbooks/shell.sh ENV`, in bash, in the project's directory.
ENV=${1:?the name of an environment, such as local}
PATH=$PWD/.venv/bin:$PATH

_output() {
  plinth outputs "$ENV" --json --show-secrets |
    python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]].get(sys.argv[2]) or "")' "$1" "$2"
}

# The key goes over standard input: an argument list is everybody's to read.
q() {
  local key
  key=$(_output qdrant read_only_api_key) &&
    curl --silent --show-error --config - "$(_output qdrant url)$1" <<<"header = \"api-key: $key\"" && echo
}

prom() {
  curl --silent --show-error --get --data-urlencode "query=$1" "$(_output prometheus url)/api/v1/query" |
    python -c 'import json, sys; [print(s["value"][1], json.dumps(s["metric"]), sep="\t") for s in json.load(sys.stdin)["data"]["result"]]'
}

logs() {
  local log
  for log in {.plinth,/var/lib/plinth/*}/"$ENV"/run/logs/"$1".log; do
    if [ -f "$log" ]; then
      tail -n 40 "$log"
      return
    fi
  done
  echo "there is no log of '$1' here; see docker logs or kubectl logs" >&2
  return 1
}
