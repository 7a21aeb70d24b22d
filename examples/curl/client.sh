#!/usr/bin/env bash
# Agent turns over HTTP with curl (7.82 or newer), jq and openssl.
#
#   ./client.sh wait   "Hello"     send, and wait for the reply in the same request
#   ./client.sh poll   "Hello"     send, and ask for the result until it is there
#   ./client.sh stream "Hello"     send, and print the text as the model writes it
#   ./client.sh verify SECRET "$X_CLASPER_SIGNATURE" < body     check a webhook's signature
#
# Reads AGENT_DAEMON_URL (http://127.0.0.1:8081) and AGENT_DAEMON_API_KEY.
set -euo pipefail

base=${AGENT_DAEMON_URL:-http://127.0.0.1:8081}

# call PATH [CURL'S OPTIONS]: the key comes from a file, as others on the machine see command lines.
call() {
  curl --silent --show-error --fail-with-body "${@:2}" "$base$1" \
    --header @<(printf 'X-Agent-Daemon-Key: %s\n' "${AGENT_DAEMON_API_KEY:-}")
}

# send MESSAGE [SECONDS TO WAIT]. Under its idempotency key it is one turn, so that curl may try again.
send() {
  local answer
  answer=$(jq --null-input --arg message "$1" --arg key "$(openssl rand -hex 16)" \
    '{user_id: "u1", agent_role: "writer", message: $message, task_title: "Examples",
      stream: true, idempotency_key: $key}' |
    call "/api/agents/send?wait=${2:-0}" --json @- --retry 3 --retry-connrefused) ||
    { jq -r '"\(.code): \(.error)"' <<<"$answer" >&2 && return 1; }
  echo "$answer"
}

poll() {
  local job
  job=$(call "/api/jobs/$1")
  until jq -e '.result // .error' <<<"$job" >/dev/null; do
    sleep 0.5
    job=$(call "/api/jobs/$1")
  done
  jq -re '.result.response // (.error.error | halt_error(1))' <<<"$job"
}

# follow JOB: print the text. A connection that breaks is made again, after the last event that came.
follow() {
  local last='' id='' name value ended='' failures=0
  until [ "$ended" ]; do
    [ $((++failures)) -le 60 ] || { echo 'the events cannot be followed' >&2 && return 1; }
    while IFS= read -r line; do # a last line that is not whole is not read, and comes again
      line=${line%$'\r'}
      name=${line%%: *} value=${line#*: }
      case $name in
        id) id=$value ;;
        data)
          last=$id failures=0
          case $(jq -r .type <<<"$value") in
            chunk) jq -j .data <<<"$value" ;;
            retry) printf '\n[what came of this step is void]\n' ;;
            done) echo && ended=yes ;;
            error) jq -r .error <<<"$value" >&2 && return 1 ;;
          esac
          ;;
      esac
    done < <(call "/api/jobs/$1/events" --no-buffer ${last:+--header "Last-Event-ID: $last"} 2>/dev/null)
    [ "$ended" ] || sleep 0.5
  done
}

# verify SECRET HEADER < body: the secret stands in a command line here; a server does this in memory.
verify() {
  local time digest body
  time=$(grep -oE '(^|,)t=[0-9]{1,14}' <<<"$2" | cut -d= -f2) || return 1
  [ $(($(date +%s) - time)) -le 300 ] && [ $((time - $(date +%s))) -le 300 ] || return 1
  digest=$({ printf '%s.' "$time" && cat; } | openssl dgst -sha256 -hmac "$1" -r | cut -d' ' -f1)
  grep -qE "(^|,)v1=$digest(,|$)" <<<"$2"
}

case ${1:-} in
  wait) send "$2" 60 | jq -r .response ;;
  poll) job=$(send "$2" | jq -r .job_id) && poll "$job" ;;
  stream) job=$(send "$2" | jq -r .job_id) && follow "$job" ;;
  verify) if verify "$2" "$3"; then echo good; else echo bad && exit 1; fi ;;
  *) echo 'usage: client.sh wait|poll|stream MESSAGE, or verify SECRET HEADER < body' >&2 && exit 2 ;;
esac
