#!/bin/sh
# The end of a CI job: a member for the time of one command tells another member the result. CLAUDEMESH_INVITE is a secret of the
# CI system, made with `claudemesh invite create --uses 1000 --expires 30d --ephemeral-only`.
#   CLAUDEMESH_INVITE=claudemesh://join/… ci-job.sh alice 'the build is green' build-42
# The job fails when the broker has not accepted the message.
set -eu
if [ $# -ne 3 ]; then
  echo 'usage: ci-job.sh MEMBER TEXT ID' >&2
  exit 64
fi
exec claudemesh run --name "ci-$3" -- claudemesh send "$1" "$2" --id "$3"
