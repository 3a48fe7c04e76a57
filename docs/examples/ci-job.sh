#!/bin/sh
# The end of a CI job: joins the mesh with the secret $INVITE, tells a member the result, and waits for the broker's word.
#   INVITE=claudemesh://join/… ci-job.sh alice 'the build is green' build-42
# A job's container starts empty, so the job is a new member each time.
set -eu
CLAUDEMESH_HOME=$(mktemp -d)
export CLAUDEMESH_HOME
trap 'claudemesh down >/dev/null 2>&1 || true; rm -rf "$CLAUDEMESH_HOME"' EXIT
printf '%s' "$INVITE" | claudemesh join - --name "ci-$3"
claudemesh daemon up -d
claudemesh send "$1" "$2" --id "$3" --wait 30000
