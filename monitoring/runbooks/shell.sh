# Words for the runbooks: `. monitoring/runbooks/shell.sh ENV`, in bash, in the project's directory.
ENV=${1:?the name of an environment, such as local}
PATH=$PWD/.venv/bin:$PATH
# Where its files are on this machine: another project may have an environment of this name.
PLACE=$(python -c 'import sys
from plinth.settings.loader import project_root
from plinth.errors import UserError
from plinth.paths import home
try: print(home(project_root(), sys.argv[1]).place)
except UserError as error: sys.exit(str(error))' "$ENV") || return

# Keys and passwords go over pipes: an argument list is everybody's to read.
_outputs() {
  plinth outputs "$ENV" --json --show-secrets
}

_from() {
  python -c 'import json, sys; found = json.load(sys.stdin)
for key in sys.argv[1:]: found = found.get(key) or {}
print(found or "", end="")' "$@"
}

# What others wrote, with each character that a terminal would obey as its escape.
_visible() {
  python -c 'from plinth.printable import visible
with open(0, errors="surrogateescape", newline="\n") as lines:
    for line in lines: print(visible(line.removesuffix("\n")), flush=True)'
}

# The last argument is the address. By itself curl sends keys for 127.0.0.1 to the proxy of the environment.
_curl() {
  local direct
  direct=$(python -c 'import sys
from plinth.system.http_client import goes_direct
print("*" if goes_direct(sys.argv[1]) else "")' "${!#}") || return
  curl --noproxy "$direct" --silent --show-error "$@"
}

q() (
  node=url method=GET key=read_only_api_key body=() trusted=()
  case ${1:-} in /*) ;; *) method=${1:-} key=api_key && shift ;; esac
  known=$(_outputs) || exit
  [ -z "${NODE:-}" ] || node="nodes $NODE"
  # shellcheck disable=SC2086
  address=$(_from qdrant $node <<<"$known")
  [ -n "$address" ] || { echo "there is no node '${NODE:-}' of Qdrant; plinth status $ENV names them" >&2; exit 1; }
  [ -z "${2:-}" ] || body=(--header 'content-type: application/json' --data "$2")
  # No secret, and read more than once, which a pipe is not.
  ca=$(mktemp) && trap 'rm -f "$ca"' EXIT
  _from qdrant ca_cert <<<"$known" >"$ca"
  [ ! -s "$ca" ] || trusted=(--cacert "$ca")
  _curl --fail-with-body --request "$method" "${body[@]}" "${trusted[@]}" \
    --config <(echo "header = \"api-key: $(_from qdrant $key <<<"$known")\"") "$address$1" && echo
)

ask() (
  outputs=$(_outputs) || exit
  service=$1 path=$2 && shift 2
  _curl --fail-with-body "$@" \
    --config <(printf 'user = "%s:%s"\n' "$(_from "$service" user <<<"$outputs")" "$(_from "$service" password <<<"$outputs")") \
    "$(_from "$service" url <<<"$outputs")$path"
)

am() (
  outputs=$(_outputs) || exit
  amtool "$@" --alertmanager.url="$(_from alertmanager url <<<"$outputs")" --http.config.file=<(
    printf 'basic_auth: {username: "%s", password: "%s"}\n' \
      "$(_from alertmanager user <<<"$outputs")" "$(_from alertmanager password <<<"$outputs")"
  )
)

login() {
  _outputs | python -c 'import json, sys; print(*map(json.load(sys.stdin)[sys.argv[1]].get, ("user", "password")))' "$1"
}

prom() {
  ask prometheus /api/v1/query --get --data-urlencode "query=$1" |
    python -c 'import json, sys; [print(s["value"][1], json.dumps(s["metric"]), sep="\t") for s in json.load(sys.stdin)["data"]["result"]]'
}

url() {
  echo "$(_outputs | _from "$1" url)${2:-}"
}

sql() {
  _outputs | python -c 'import json, sys, psycopg
from plinth.printable import visible
where = json.load(sys.stdin)["postgres"]
known = {key: where[key] for key in ("host", "port", "user", "password")}
try:
    with psycopg.connect(**known, dbname="postgres", autocommit=True) as connection:
        found = connection.execute(sys.argv[1])
        for row in found if found.description else (): print(*(visible(str(value)) for value in row), sep="\t")
except psycopg.Error as error: sys.exit(visible(str(error)))' "$1"
}

redis() {
  _outputs | python -c 'import json, sys, redis
from plinth.printable import visible
try: said = redis.Redis(**json.load(sys.stdin)["redis"], decode_responses=True).execute_command(*sys.argv[1:])
except redis.RedisError as error: sys.exit(visible(str(error)))
print(*(visible(line) for line in str(said).splitlines()), sep="\n")' "$@"
}

logs() {
  local found containers
  if [ -f "$PLACE/run/logs/$1.log" ]; then
    tail -n 40 "$PLACE/run/logs/$1.log" | _visible
    return
  fi
  containers=$(docker ps -aq --filter "label=plinth.stack=$ENV" --filter "label=plinth.service=$1" 2>/dev/null)
  if [ -z "$containers" ]; then
    echo "there is no log of '$1' here; ask kubectl logs, or the machine that it runs on" >&2
    return 1
  fi
  for found in $containers; do
    docker inspect --format '== {{.Name}}: {{.State.Status}}, exit {{.State.ExitCode}}' "$found"
    docker logs --tail 40 "$found" 2>&1 | _visible
  done
}

restart() {
  if [ -f "$PLACE/run/supervisord.conf" ]; then
    # Named from beside it: its whole path may be too long for a socket, and the daemon's own file is none for supervisorctl.
    (cd "$PLACE/run/logs" && supervisorctl --serverurl unix://../supervisor.sock restart "$1")
  else
    docker restart --time 60 "plinth-$ENV-$1"
  fi
}

sizes() {
  if [ -f "$PLACE/run/supervisord.conf" ]; then
    du --one-file-system --human-readable --max-depth=2 "$@" "$PLACE/data" | sort -h | tail
  else
    docker system df --verbose | grep "^plinth-$ENV-" | sort -h -k 3
  fi
}

targets() {
  ask prometheus '/api/v1/targets?state=active' | python -c 'import json, sys
from plinth.printable import visible
for target in json.load(sys.stdin)["data"]["activeTargets"]:
    if target["health"] != "up": print(target["labels"]["job"], target["scrapeUrl"], visible(target["lastError"]), sep="\t")'
}

alerts() {
  ask prometheus /api/v1/alerts | python -c 'import json, sys
from plinth.printable import visible
for alert in json.load(sys.stdin)["data"]["alerts"]:
    labels, words = alert["labels"], alert["annotations"]
    if labels["severity"] != "info":
        print(f"""{labels["severity"]} {labels["alertname"]} ({alert["state"]} since {alert["activeAt"][:16]}Z)""")
        print(*(f"    {visible(words[key])}" for key in ("summary", "description", "runbook_url")), sep="\n")'
}
