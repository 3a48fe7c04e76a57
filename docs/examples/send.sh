#!/bin/sh
# A send with curl that may be repeated: the id makes it one message, however often the script runs.
#   send.sh TO TEXT ID
set -eu
socket=${CLAUDEMESH_HOME:-$HOME/.claudemesh}/daemon/${CLAUDEMESH_MESH:-team}/sock
# Python spells the JSON, so that quotes and newlines in the text stay text.
python3 -c 'import json, sys; print(json.dumps(dict(zip(("to", "message", "client_message_id"), sys.argv[1:]))))' "$@" |
  curl --fail-with-body --silent --show-error --retry 5 --retry-all-errors --unix-socket "$socket" \
    -H 'Content-Type: application/json' --data-binary @- http://localhost/v1/send
