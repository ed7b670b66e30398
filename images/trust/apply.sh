#!/bin/sh
# Runs inside image builds: adds the certificates beside this file to those that the image trusts.
# Behind a proxy that signs with its own authority, put that authority here as NAME.crt (PEM, also
# several in one file); `images/docker.sh` does so with what this machine's environment names.
# Nothing here: nothing happens. The files are not committed, and stay out of the images that run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for file in "$here"/*.crt; do
    [ -f "$file" ] || continue
    cat "$file" >>/etc/ssl/certs/ca-certificates.crt
done
