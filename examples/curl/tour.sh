#!/usr/bin/env bash
# Greenroom with curl alone: send, wait, stream, and go on behind a cut.
#
#     greenroom &
#     examples/curl/tour.sh [SESSION]
#
# GREENROOM_URL is where the server is, GREENROOM_TOKEN a token where it has users.
set -euo pipefail

url=${GREENROOM_URL:-http://127.0.0.1:4910}/v1/sessions/${1:-curl:tour}
call=(curl --silent --show-error --fail-with-body --header 'content-type: application/json')
if [[ -n ${GREENROOM_TOKEN:-} ]]; then
    call+=(--header "authorization: Bearer $GREENROOM_TOKEN")
fi

echo '# Send. The answer comes at once: the turn is on disk and will run, whatever happens to this script.'
"${call[@]}" "$url/messages" --data '{"text": "Hello"}'
echo

echo '# Send and wait for the end, at most 60 seconds. The key makes it safe to send it again when no answer came.'
"${call[@]}" "$url/messages?wait=60" --header "idempotency-key: tour-$$-$RANDOM" --data '{"text": "Are you there?"}'
echo

echo '# Send and stream: the events of this turn, up to its end.'
"${call[@]}" --no-buffer "$url/messages" --header 'accept: text/event-stream' --data '{"text": "One word after the other"}'

echo '# Follow the session from its first event, and lose the connection.'
events=$("${call[@]}" --no-buffer --max-time 1 "$url/events?after=0" --header 'accept: text/event-stream' | head -n 20 || true)
echo "$events"

last=$(sed -n 's/^id: //p' <<<"$events" | tail -n 1)
echo "# Go on behind event $last: nothing is missing and nothing comes twice. This one would go on for ever."
"${call[@]}" --no-buffer --max-time 1 "$url/events" --header 'accept: text/event-stream' --header "last-event-id: $last" || true
