#!/usr/bin/env bash
# Builds the real S3 server that the tests of backups need - versitygw, an S3 gateway over a directory - once per version,
# and prints the directory that holds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "tests/s3/build.sh: $1" >&2
  exit 1
}

version=$(sed -n 's/.*github\.com\/versity\/versitygw v//p' go.mod | sed 's/ .*//' | head -1)
ldflags="-s -w"
key=$( (echo "$ldflags" && cat go.mod go.sum) | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis
dir=$cache/s3-$version-$key
if [ -x "$dir/versitygw" ]; then
  touch "$dir" # whoever looks without asking takes the newest
  echo "$dir"
  exit 0
fi

need=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || fail "go is not installed; the S3 server is built from source, so install Go $need or newer"
# GOTOOLCHAIN=local: a Go that is too old shall be named here instead of fetching another one behind our back.
have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
[ "$(printf '%s\n' "$need" "$have" | sort -V | head -1)" = "$need" ] || fail "go ${have:-of an unknown version} is too old; install Go $need or newer"

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.s3-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -mod=readonly -trimpath -buildvcs=false"
go build -ldflags "$ldflags" -o "$tmp/versitygw" github.com/versity/versitygw/cmd/versitygw >&2
chmod 755 "$tmp"
# Whoever renames first wins; a second build of the same inputs is the same.
mv -T "$tmp" "$dir" 2>/dev/null || [ -x "$dir/versitygw" ] || fail "cannot put the build into $dir"
echo "$dir"
