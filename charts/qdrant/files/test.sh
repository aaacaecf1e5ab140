# Writes a collection, finds a point in it and removes it again, over REST; and is refused without the key.
set -euo pipefail
collection=plinth-helm-test-$RANDOM
ask() { # method, path, body, key
  exec 3<>"/dev/tcp/$HOST/$PORT"
  printf '%s %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\n%s\r\n%s' \
    "$1" "$2" "$HOST" "${#3}" "${4:+api-key: $4$'\r\n'}" "$3" >&3
  cat <&3
  exec 3>&-
}
expect() { # what, answer, words
  case $2 in *"$3"*) echo "ok: $1" ;; *) echo "failed: $1: $(head -n 1 <<<"$2")"; exit 1 ;; esac
}
key=${API_KEY-}
expect 'create' "$(ask PUT "/collections/$collection" '{"vectors":{"size":4,"distance":"Dot"}}' "$key")" '"result":true'
trap 'ask DELETE "/collections/$collection" "" "$key" >/dev/null' EXIT
expect 'upsert' "$(ask PUT "/collections/$collection/points?wait=true" \
  '{"points":[{"id":1,"vector":[1,0,0,0]},{"id":2,"vector":[0,1,0,0]}]}' "$key")" '"completed"'
expect 'search' "$(ask POST "/collections/$collection/points/query" '{"query":[0,0.9,0.1,0],"limit":1}' "$key")" '"id":2'
[ -z "$key" ] || expect 'refused without a key' "$(ask GET /collections '' '')" ' 401 '
