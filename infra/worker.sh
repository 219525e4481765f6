#!/bin/sh
# The worker's container: a checkout of its own (of SOURCE, in WORK), its DVC remote, the deployments, then the worker.
set -eu
SOURCE=${SOURCE:-/source}
WORK=${WORK:-/srv/gapbridge}
export GAPBRIDGE_STACK="$WORK/stack"
mkdir -p "$GAPBRIDGE_STACK"
# The mounted checkout belongs to another user than this one.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="*"
if [ -d "$WORK/checkout" ]; then
    git -C "$WORK/checkout" pull --quiet --ff-only
else
    rm -rf "$WORK/checkout.partial"
    git clone --quiet "$SOURCE" "$WORK/checkout.partial"
    mv "$WORK/checkout.partial" "$WORK/checkout"
fi
cd "$WORK/checkout"
python -m infra.remote
prefect work-pool inspect gapbridge > /dev/null 2>&1 || prefect work-pool create gapbridge --type process
prefect --no-prompt deploy --all
exec prefect worker start --pool gapbridge --type process --limit 2 --with-healthcheck
