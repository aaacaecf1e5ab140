#!/usr/bin/env bash
# Starts a node of a cluster: by its own record, by joining a node that answers, or by founding. Then becomes qdrant.
#
# A node that once joined has a record and needs nobody to start. One without joins whoever answers. Only node 0 founds,
# and only when every other node says that it is empty too: a node that merely does not answer may hold the data of a
# cluster and be slow to load it, and a second cluster beside that one would split it.
set -euo pipefail
# Many machines give 1024 open files where they allow more, and every segment holds dozens.
ulimit -Sn hard

# What a pod is given is PLINTH_HOSTS (a node's host, its number as %s), PLINTH_SCHEME, PLINTH_FOUNDING and POD_NAME; the
# rest is as the chart mounts it.
STORAGE=${PLINTH_STORAGE:-/qdrant/storage}
NODES_FILE=${PLINTH_NODES_FILE:-/opt/plinth/nodes}
QDRANT=${PLINTH_QDRANT:-./qdrant}
LISTEN=${PLINTH_LISTEN:-0.0.0.0}
PEER_PORT=${PLINTH_PEER_PORT:-6335}
FOUNDING_PORT=${PLINTH_FOUNDING_PORT:-6336}
RECORD=$STORAGE/raft_state.json
own=${POD_NAME##*-}
announcer=
trap 'exit 143' TERM
trap '[ -z "$announcer" ] || kill "$announcer" 2>/dev/null || true' EXIT

say() { printf '%s plinth: %s\n' "$(date -u +%FT%TZ)" "$1"; }
# shellcheck disable=SC2059 # It is a format.
host() { printf "$PLINTH_HOSTS" "$1"; }
uri() { printf '%s://%s:%s' "$PLINTH_SCHEME" "$(host "$1")" "$PEER_PORT"; }

# A term above 0 is written when the first entry of a cluster's log arrives.
has_joined() { [ -f "$STORAGE/raft_state" ] || grep -Eqs '"hard_state":\{"term":[1-9]' "$RECORD"; }
has_collections() { compgen -G "$STORAGE/collections/*/config.json" >/dev/null; }

answers() { timeout 2 bash -c ': <>"/dev/tcp/$0/$1"' "$(host "$1")" "$PEER_PORT" 2>/dev/null; }
is_empty() {
  [ "$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1" && read -r line <&3 && printf %s "$line"' \
    "$(host "$1")" "$FOUNDING_PORT" 2>/dev/null)" = empty ]
}

# Says "empty" to whoever asks. Bash cannot listen; Perl is in every Debian.
announce() {
  perl -MIO::Socket::INET -e '
    my ($address, $port) = @ARGV;
    my $socket = IO::Socket::INET->new(LocalAddr => $address, LocalPort => $port, Listen => 16, ReuseAddr => 1)
      or die "port $port: $!";
    while (my $asks = $socket->accept) { print $asks "empty\n"; close $asks }' "$LISTEN" "$FOUNDING_PORT" &
  announcer=$!
}

# Qdrant writes its record before it asks to join: one of a try that failed, in another role, would mislead the next.
forget_other_role() {
  has_collections || ! grep -Eqs "$1" "$RECORD" || rm -f "$RECORD"
}

become() {
  [ -z "$announcer" ] || { kill "$announcer" 2>/dev/null || true; wait "$announcer" 2>/dev/null || true; announcer=; }
  trap - EXIT TERM
  exec "$QDRANT" "$@"
}

if has_joined; then
  become "$@" --uri "$(uri "$own")"
fi
if [ "$own" = 0 ] && has_collections; then
  say 'This node has collections and was alone: it founds the cluster around them.'
  become "$@" --uri "$(uri "$own")"
fi

[ "$own" = 0 ] || announce
said=
while :; do
  nodes=$(<"$NODES_FILE")
  silent=()
  for ((node = 0; node < nodes; node++)); do
    [ "$node" != "$own" ] || continue
    if answers "$node"; then
      say "Joining by $(host "$node")."
      forget_other_role '"voters":\[[0-9]'
      become "$@" --bootstrap "$(uri "$node")" --uri "$(uri "$own")"
    fi
    is_empty "$node" || silent+=("$(host "$node")")
  done
  if [ "$own" = 0 ] && [ "$nodes" -gt 1 ] && [ ${#silent[@]} -eq 0 ] && [ "$PLINTH_FOUNDING" = auto ]; then
    say 'Every node is empty: founding a cluster.'
    forget_other_role '"voters":\[\]'
    become "$@" --uri "$(uri "$own")"
  fi
  if [ "$own" != 0 ]; then
    state='This node is empty; waiting for a node of the cluster to answer.'
  elif [ "$PLINTH_FOUNDING" != auto ]; then
    state='This node is empty and may not found a cluster; waiting for one to answer.'
  else
    state="This node is empty; waiting for ${silent[*]} to answer, or to say that it is empty too."
  fi
  [ "$state" = "$said" ] || say "$state"
  said=$state
  sleep 2
done
