#!/bin/sh
# Runs the command of its own name with what stands in for a backend and a model: the services
# `backend` and `model` of compose.yaml, where its profile `stand-ins` runs them and neither is
# configured. For `docker compose exec` too, which knows of no entrypoint.
#
# The secrets are known to everybody: they guard a backend that only this machine reaches.
set -eu
stands_in() { getent hosts "$1" >/dev/null 2>&1; }

if [ -z "${BACKEND_URL:-}" ] && stands_in backend; then
  export BACKEND_URL=http://backend:9001
  export AGENT_JWT_SECRET="${AGENT_JWT_SECRET:-for-local-development-only-32-bytes}"
  export INTERNAL_API_TOKEN="${INTERNAL_API_TOKEN:-for-local-development-only}"
fi
if [ "${LLM_PROVIDER:-openai}" = openai ] && [ -z "${OPENAI_API_KEY:-}${OPENAI_BASE_URL:-}" ] &&
  stands_in model; then
  export OPENAI_BASE_URL=http://model:9100/v1 OPENAI_API_KEY=offline
  export LLM_MODEL_DEFAULT="${LLM_MODEL_DEFAULT:-clasper-offline}"
fi
exec "${VENV:-/venv}/bin/$(basename "$0")" "$@"
