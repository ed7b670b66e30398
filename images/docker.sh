#!/bin/sh
# Makes this machine able to run the docker runtime and compose.yaml: Docker with its compose and
# buildx plugins, a running daemon, the base image. Called by `make images`, `make test` and `make
# run`; safe to call again, and done in a moment where nothing is missing.
#
#   images/docker.sh             all of it
#   images/docker.sh packages    install what is missing (Debian; needs root)
#   images/docker.sh daemon      start dockerd where none answers
#   images/docker.sh check       say what is missing, change nothing; exit status 1 if anything is
#
# Debian 12 has no compose v2 and no buildx. They are then taken from Debian 13's archive, from the
# same servers that this machine's own apt configuration names, without adding a source to it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$here/../build/docker
newer_suite=trixie

say() { echo "docker.sh: $*" >&2; }
die() { say "$*"; exit 1; }

has_docker() { command -v docker >/dev/null && command -v dockerd >/dev/null; }
has_compose() { docker compose version --short 2>/dev/null | grep -q '^v\{0,1\}[2-9]'; }
has_buildx() { docker buildx version >/dev/null 2>&1; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# apt_entries FROM TO: this machine's apt entries for suites of release FROM, rewritten to TO.
# Entries of other vendors (their suites are named otherwise) are left out.
apt_entries() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        sed -n -E "/^deb /s/ $1(-updates|-security)? / $2\\1 /p" "$file" >>"$work/parts/debian.list"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk -v from="$1" -v to="$2" 'BEGIN { RS = ""; FS = "\n" } {
            wanted = 0
            for (i = 1; i <= NF; i++)
                if ($i ~ "^Suites:.* " from "(-updates|-security)?( |$)") {
                    gsub(" " from, " " to, $i)
                    wanted = 1
                }
            if (wanted) { for (i = 1; i <= NF; i++) print $i; print "" }
        }' "$file" >>"$work/parts/debian.sources"
    done
}

# newer_apt COMMAND …: apt-get with only the newer release's archive, in a directory of its own.
newer_apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}

install_plugins_from_newer() {
    . /etc/os-release
    [ "${ID:-}" = debian ] || die "install docker compose (v2) and docker buildx by hand on ${ID:-this system}"
    rm -rf "$work/parts"
    mkdir -p "$work/parts" "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
    apt_entries "$VERSION_CODENAME" "$newer_suite"
    newer_apt update
    (cd "$work/packages" && newer_apt download "$@")
    for package in "$@"; do
        dpkg --install --refuse-downgrade "$work/packages/${package}"_*.deb >/dev/null
    done
}

packages() {
    missing=
    has_docker || missing="docker.io docker-cli"
    command -v debootstrap >/dev/null || missing="$missing debootstrap"
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || die "missing: $missing; run this as root, or install them"
        apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; going on with the lists there are"
        # docker-cli is a package of its own from Debian 13 on
        apt-cache show docker-cli >/dev/null 2>&1 || missing=$(echo "$missing" | sed 's/docker-cli//')
        say "installing $missing"
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    fi
    missing=
    has_compose || missing=docker-compose
    has_buildx || missing="$missing docker-buildx"
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || die "missing: $missing (v2); run this as root, or install them"
        say "installing $missing"
        # shellcheck disable=SC2086
        install_plugins_from_newer $missing
    fi
    has_compose || die "'docker compose version' still fails after installing docker-compose"
    has_buildx || say "no buildx: images are built by the classic builder"
}

daemon() {
    answers && return
    [ "$(id -u)" = 0 ] || die "no Docker daemon answers; start it as root: images/docker.sh daemon"
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker
    else
        log=/var/log/cse-dockerd.log
        setsid nohup dockerd >>"$log" 2>&1 </dev/null &
        say "started dockerd (pid $!, log $log); to end it: kill $!"
    fi
    tries=0
    until answers; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || die "dockerd does not answer after 30 s; see ${log:-journalctl -u docker}"
        sleep 0.5
    done
}

# Behind a proxy that signs with its own authority, image builds need that authority too. Where this
# machine's environment names a bundle of certificates, builds get it (images/trust/apply.sh).
trust() {
    for bundle in "${CSE_BUILD_CA:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${SSL_CERT_FILE:-}"; do
        [ -n "$bundle" ] && [ -f "$bundle" ] || continue
        cmp -s "$bundle" "$here/trust/host.crt" || cp "$bundle" "$here/trust/host.crt"
        return
    done
}

check() {
    status=0
    for what in has_docker:docker.io has_compose:docker-compose has_buildx:docker-buildx; do
        ${what%%:*} || { say "missing: ${what#*:}"; status=1; }
    done
    answers || { say "no Docker daemon answers"; status=1; }
    docker image inspect debian:trixie-slim >/dev/null 2>&1 || { say "missing: base image"; status=1; }
    return $status
}

mkdir -p "$work"
case ${1:-all} in
all) packages; daemon; trust; "$here/base.sh" ;;
packages) packages ;;
daemon) daemon ;;
check) check ;;
*) die "unknown: $1; one of packages, daemon, check" ;;
esac
