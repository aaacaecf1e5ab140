# Bash speaks no TLS: that the port is open is what it can tell. It opens once every collection is loaded.
set -euo pipefail
: <>"/dev/tcp/$HOST/$PORT"
echo "ok: $HOST:$PORT is open"
