#!/bin/sh
# Runs inside image builds only: puts every element's libraries into /elements, and
# the programs that runtimes start beside applications into /programs.
# Called by the first stage of images/control/Dockerfile and images/<element>/Dockerfile, which is
# the same in all of them, so that the builder runs it once.
#
# Two ways. Quick: build/elements of the working tree, where `make native` has made it (`make
# images` does that first). Otherwise, as in a fresh clone, or with the build argument
# NATIVE=source: from source, with the tools and third-party sources of this image's release.
#
#   native.sh SOURCE_TREE [TARGET …]
set -eu

tree=$1
shift
targets=${*:-glibc-$(uname -m)}
here=$(cd "$(dirname "$0")" && pwd)

prebuilt() {
    [ "${NATIVE:-auto}" != source ] || return 1
    ls "$tree"/build/bin/"$(uname -m)"/cse-* >/dev/null 2>&1 || return 1
    for manifest in "$tree"/images/*/element.json; do
        element=$(basename "$(dirname "$manifest")")
        [ -f "$tree/build/elements/$element/element.json" ] || return 1
        ! grep -q '"provided_by": "kernel"' "$manifest" || continue # has no libraries
        for target in $targets; do
            ls "$tree/build/elements/$element/lib/$target"/*.so* >/dev/null 2>&1 || return 1
        done
    done
}

build() {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends bzip2 ca-certificates make patch python3 \
        python3-venv xz-utils zstd >/dev/null
    sh "$here/trust/apply.sh"
    python3 -m venv /opt/native
    # the version that the project is tested with, checked by its hashes
    sed -n '/^ziglang==/,/^[^ ]/{/^ziglang/p;/^ /p}' "$tree/requirements-dev.lock" >/tmp/ziglang.txt
    /opt/native/bin/pip install -q --no-cache-dir --require-hashes -r /tmp/ziglang.txt
    for target in $targets; do
        make -C "$tree/images" -j"$(nproc)" TARGET="$target" VARIANT=release PYTHON=/opt/native/bin/python
    done
}

if prebuilt; then
    echo "native: taking build/elements as it is" >&2
else
    echo "native: building from source" >&2
    build
fi

# Only what is delivered: no other variants; other libcs and machines where they were built.
for manifest in "$tree"/build/elements/*/element.json; do
    element=$(basename "$(dirname "$manifest")")
    mkdir -p "/elements/$element/lib"
    cp "$manifest" "/elements/$element/"
    for place in "$tree/build/elements/$element"/lib/*-*; do
        [ -d "$place" ] || continue
        case ${place##*/} in
        *-debug | *-asan) ;;
        *) cp -r "$place" "/elements/$element/lib/" ;;
        esac
    done
done
cp -r "$tree/build/bin" /programs
