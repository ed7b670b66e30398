#!/bin/sh
# Makes this machine able to build, test and run the project: Debian packages, then .venv with the
# locked Python packages. Called by `make setup` (and so by run, test, check, bench); done in well
# under a second where nothing is missing.
#
#   ./bootstrap.sh                 all of it
#   ./bootstrap.sh packages        only the Debian packages
#   ./bootstrap.sh missing         list the Debian packages that are missing, install nothing
#   PYTHON=python3.12 ./bootstrap.sh
#
# Without root, or not on Debian, it says what is missing and what will not work without it, and
# goes on with the rest. It never removes, upgrades or starts anything, and of what it installs
# nothing starts by itself.
set -eu

top=$(cd "$(dirname "$0")" && pwd)
venv=$top/.venv
stamp=$venv/.cse-installed

# What each package is for; the word after the colon is shown where it is missing.
packages='
make:build gcc:build libc6-dev:build clang:build lld:build llvm:build patch:build xz-utils:build
bzip2:build zstd:build ca-certificates:build
python3:all python3-venv:all
nodejs:dashboard npm:dashboard chromium:test
bubblewrap:run iproute2:run nftables:run procps:run curl:run nginx-light:example
redis-server:example redis-tools:example
sqlite3:test git:test strace:test tcpdump:test patchelf:test gdb:test iperf3:test socat:test memcached:test wrk:test
apache2-bin:test apache2-utils:test haproxy:test rsync:test
iputils-ping:test traceroute:test bind9-dnsutils:test openssh-server:test openssh-client:test
openssl:test zip:test unzip:test p7zip-full:test cpio:test genisoimage:test squashfs-tools:test lz4:test lzip:test
ncompress:test musl:test busybox-static:test vim:test postgresql:test gunicorn:test
xinetd:test vsftpd:test
'
# The runtime of clang's sanitizers: a package of its own name in each release.
sanitizer_packages='libclang-rt-dev libclang-rt-19-dev libclang-rt-14-dev'

say() { echo "setup: $*" >&2; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Words NAME:PURPOSE of what is not there. A program that came from elsewhere counts as well.
missing_packages() {
    for entry in $packages; do
        name=${entry%:*}
        installed "$name" && continue
        case $name in
        nodejs) command -v node >/dev/null && continue ;;
        npm | chromium) command -v "$name" >/dev/null && continue ;;
        python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null && continue ;;
        python3 | git | curl | gcc | clang | make) command -v "$name" >/dev/null && continue ;;
        esac
        echo "$entry"
    done
    for name in $sanitizer_packages; do installed "$name" && return; done
    echo "sanitizer-runtime:test"
}

# Packages of this release's archive only: names differ between releases.
available() {
    if [ "$1" = sanitizer-runtime ]; then
        for name in $sanitizer_packages; do
            if candidate "$name"; then echo "$name"; return; fi
        done
    elif candidate "$1"; then
        echo "$1"
    fi
}
candidate() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [0-9]'; }

# Debian starts a service as soon as its package is there, and again at each boot. The programs are
# what is wanted here, not daemons on this machine's ports: policy-rc.d forbids the start while we
# install, and what came with an enabled service has it disabled.
install_quietly() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    fi
    log=$top/build/apt-install.log
    mkdir -p "$top/build"
    before=$top/build/packages-before
    present_packages >"$before"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null; then
        tail -5 "$log" >&2
        say "apt-get install failed; the whole of it is in build/apt-install.log"
        return 1
    fi
    disable_services "$(present_packages | comm -13 "$before" -)"
}

present_packages() { dpkg-query -W -f '${Package}\n' | LC_ALL=C sort -u; }

disable_services() {
    command -v systemctl >/dev/null || return 0
    for name in $1; do dpkg -L "$name"; done |
        sed -nE 's,^(/usr)?/lib/systemd/system/([^@/]+\.(service|socket))$,\2,p' |
        while read -r unit; do
            [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ] || continue
            systemctl disable --quiet "$unit" >>"$log" 2>&1 && say "  $unit does not start by itself"
        done
}

debian_packages() {
    command -v dpkg-query >/dev/null || {
        say "not a Debian system: install what the list in bootstrap.sh names by hand"
        return 0
    }
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "these Debian packages are missing, and installing them needs root ('sudo make setup'):"
        for entry in $missing; do say "  ${entry%:*} (needed to ${entry#*:})"; done
        return 0
    fi
    say "looking for $(echo $missing | wc -w) missing Debian packages"
    apt-get update -q >/dev/null 2>&1 || say "apt-get update failed; going on with the lists there are"
    wanted=
    for entry in $missing; do
        found=$(available "${entry%:*}")
        if [ -n "$found" ]; then
            wanted="$wanted $found"
        else
            say "  ${entry%:*} is not in this release; needed to ${entry#*:}"
        fi
    done
    [ -n "$wanted" ] || return 0
    say "installing$wanted"
    # shellcheck disable=SC2086 # a list of words
    install_quietly $wanted || say "going on without them"
}

python_packages() {
    python=${PYTHON:-python3}
    wanted=$(cat "$top/requirements-dev.lock" "$top/pyproject.toml" | sha256sum | cut -d' ' -f1)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null && return
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        say "$python is not Python 3.11 or newer; say PYTHON=… to use another"
        exit 1
    }
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        say "making .venv with $("$python" --version)"
        "$python" -m venv "$venv" || { say "python3-venv is missing"; exit 1; }
    fi
    say "installing the locked Python packages into .venv (about a minute the first time)"
    pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"
    $pip --require-hashes --no-deps -r "$top/requirements-dev.lock"
    $pip --no-deps --no-build-isolation --editable "$top"
    echo "$wanted" >"$stamp"
}

case ${1:-all} in
all) debian_packages; python_packages ;;
packages) debian_packages ;;
missing) missing_packages ;;
*) say "unknown: $1; one of packages, missing"; exit 2 ;;
esac
