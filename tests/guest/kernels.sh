#!/bin/sh
# Debian's kernels for test_machine_linux.py, as DIRECTORY/vmlinuz-ARCHITECTURE: kernels.sh DIRECTORY.
# Needs no root, and leaves this system's package lists and architectures alone.
set -eu
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# The kernel that the package $2 of architecture $1 depends on.
fetch() {
    state=$directory/$1
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    for option in APT::Architecture="$1" APT::Architectures="$1" APT::Sandbox::User="" \
        Dir::State::lists="$state/lists" Dir::State::status=/dev/null Dir::Cache="$state/cache"; do
        set -- "$@" -o "$option"
    done
    architecture=$1 wanted=$2
    shift 2
    apt-get "$@" -qq update || echo "$architecture: perhaps the lists that are there are enough" >&2
    package=$(apt-cache "$@" depends "$wanted" | awk '$1 == "Depends:" { print $2; exit }') &&
        (cd "$state" && apt-get "$@" -qq download "$package") &&
        dpkg-deb -x "$state"/*.deb "$state/image" &&
        mv "$state"/image/boot/vmlinuz-* "$directory/vmlinuz-$architecture" &&
        rm -rf "$state"
}

failed=0
fetch arm64 linux-image-cloud-arm64 || failed=1
fetch armhf linux-image-armmp || failed=1
exit $failed
