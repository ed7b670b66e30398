#!/bin/sh
# Runs inside image builds only: puts the built dashboard into /dashboard. Quick where the working
# tree has it in build/dashboard (`make images` sees to that); otherwise, as in a fresh clone, with
# Node.js of this image's release and the packages of the lock file.
#
#   dashboard.sh SOURCE_TREE
set -eu

tree=$1

if [ ! -f "$tree/build/dashboard/index.html" ]; then
    echo "dashboard: building" >&2
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends ca-certificates nodejs npm >/dev/null
    sh "$tree/images/trust/apply.sh"
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
    [ -n "${NPM_CONFIG_REGISTRY:-}" ] || unset NPM_CONFIG_REGISTRY
    cd "$tree/app/dashboard"
    npm ci --ignore-scripts --silent
    npm run --silent build -- --logLevel warn
fi
mkdir /dashboard
cp -r "$tree/build/dashboard/." /dashboard/
rm -f /dashboard/Makefile
