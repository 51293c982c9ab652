#!/usr/bin/env bash
# Makes the base of the node image from the Debian packages of this machine's own mirror, without any registry, once, and prints the
# directory that holds it as base.tar. It needs root: packages are unpacked with their owners.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "tests/image/base.sh: $1" >&2
  exit 1
}

suite=$(sed -n 's/^ARG BASE=debian:\(.*\)-slim$/\1/p' ../../image/Containerfile)
[ -n "$suite" ] || fail "image/Containerfile names no Debian release as its base any more; teach this script the new one"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis
dir=$cache/base-$suite-$(dpkg --print-architecture)-$(sha256sum < base.sh | cut -c1-12)
if [ -f "$dir/base.tar" ]; then
  echo "$dir"
  exit 0
fi

[ "$(id -u)" -eq 0 ] || fail "only root can unpack packages with their owners; run the image test as root"
command -v debootstrap >/dev/null || fail "debootstrap is not installed; run make test-deps"
# This machine's mirror: what it gets its own packages from.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
[ -n "$mirror" ] || fail "apt knows no mirror to take packages from; write one into /etc/apt/sources.list and run apt-get update"

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.base-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
debootstrap --variant=minbase "$suite" "$tmp/root" "$mirror" > "$tmp/log" 2>&1 || {
  tail -20 "$tmp/log" >&2
  fail "debootstrap cannot make $suite from $mirror; the end of its log is above"
}
# As a slim image is: no package files, and devices are the container runtime's.
rm -rf "$tmp"/root/var/cache/apt/archives/*.deb "$tmp"/root/var/lib/apt/lists/* "$tmp"/root/dev/*
mkdir "$tmp/base"
tar --numeric-owner -C "$tmp/root" -cf "$tmp/base/base.tar" .
# Whoever renames first wins; a second one of the same release is as good.
mv -T "$tmp/base" "$dir" 2>/dev/null || [ -f "$dir/base.tar" ] || fail "cannot put the base into $dir"
echo "$dir"
