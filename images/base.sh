#!/bin/sh
# Makes the image debian:trixie-slim, which every Dockerfile here starts from, where it is missing:
# pulled from a registry, or, where none can be reached, made by debootstrap from the archive that
# this machine's apt configuration names. Called by docker.sh and `make images`.
#
#   images/base.sh            nothing to do where the tag exists
#   images/base.sh --local    do not try a registry
#
# The tarball is kept in build/base/, so that a new Docker data directory costs a second.
set -eu

suite=trixie
tag=debian:$suite-slim
here=$(cd "$(dirname "$0")" && pwd)
work=$here/../build/base
machine=$(dpkg --print-architecture)
tarball=$work/debian-$suite-slim-$machine.tar

say() { echo "base.sh: $*" >&2; }

# The URI from which this machine gets its release's suite, one with packages of this machine.
archive_of() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "main" { print $3; exit }'
}

# What the official slim image leaves out too; and what keeps apt's caches out of layers.
slim() {
    root=$1
    cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<'END'
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
END
    cat >"$root/etc/apt/apt.conf.d/docker" <<'END'
APT::Install-Recommends "false";
Acquire::Languages "none";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
END
    # A mirror frozen at some date, or one behind a proxy, needs here what it needs on the host.
    apt-config dump --format '%f "%v";%n' Acquire::Check-Valid-Until Acquire::Check-Date \
        Acquire::http::Proxy Acquire::https::Proxy >"$root/etc/apt/apt.conf.d/host" 2>/dev/null || true
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    find "$root/usr/share/doc" -type f ! -name copyright -delete
    rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* \
        "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
        "$root"/var/log/bootstrap.log "$root"/etc/resolv.conf "$root"/etc/hostname
}

bootstrap() {
    [ "$(id -u)" = 0 ] || { say "$tag cannot be pulled, and making it needs root"; exit 1; }
    . /etc/os-release
    main=$(archive_of "${VERSION_CODENAME:-$suite}")
    security=$(archive_of "${VERSION_CODENAME:-$suite}-security")
    [ -n "$main" ] || { say "no Debian archive in this machine's apt configuration"; exit 1; }
    say "making $tag by debootstrap (once; kept in build/base)"
    mkdir -p "$work"
    root=$(mktemp -d "$work/root.XXXXXX")
    trap 'rm -rf "$root" "$tarball.part"' EXIT
    debootstrap --variant=minbase --arch="$machine" "$suite" "$root" "$main" >"$work/debootstrap.log" 2>&1 ||
        { tail -5 "$work/debootstrap.log" >&2; exit 1; }
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    {
        echo "deb [signed-by=$keyring] $main $suite main"
        echo "deb [signed-by=$keyring] $main $suite-updates main"
        [ -z "$security" ] || echo "deb [signed-by=$keyring] $security $suite-security main"
    } >"$root/etc/apt/sources.list"
    slim "$root"
    tar -C "$root" --numeric-owner --one-file-system --exclude=./dev/* -cf "$tarball.part" .
    mv "$tarball.part" "$tarball"
    rm -rf "$root"
    trap - EXIT
}

docker image inspect "$tag" >/dev/null 2>&1 && exit 0
if [ "${1:-}" != --local ] && timeout 60 docker pull -q "$tag" >/dev/null 2>&1; then
    exit 0
fi
[ -s "$tarball" ] || bootstrap
docker import --change 'CMD ["bash"]' "$tarball" "$tag" >/dev/null
say "$tag imported"
