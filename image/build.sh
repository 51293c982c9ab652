#!/usr/bin/env bash
# Builds an image and prints its name: `build.sh` the one of the nodes (./Containerfile), `build.sh operator` the operator's own
# (./Containerfile.operator). Variables:
#   IMAGE         its name (akash-redis-node, akash-redis)
#   BUILDER       buildah, podman or docker (the first of them that is installed)
#   BASE, *_VERSION   build arguments of the same name, see the Containerfile
#   REVISION      for the label (the git revision of this checkout)
#   AKASH_REDIS, TAILSCALED   programs that are built already, instead of building them
# Further arguments are passed on to the builder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

file=image/Containerfile name=akash-redis-node
if [ "${1:-}" = operator ]; then
  file=image/Containerfile.operator name=akash-redis
  shift
fi

fail() {
  echo "image/build.sh: $1" >&2
  exit 1
}

# The program without the local market, in a target directory of its own: `target/release` stays what `cargo build` made it.
build_agent() {
  cargo build --release --locked --no-default-features --target-dir "$target/image-build" >&2
  echo "$target/image-build/release/akash-redis"
}

# tailscaled with its CLI in the same binary and all of its features: the tests' own build leaves out what a sandbox does not have, the
# way through home routers (port mapping) for one.
build_tailscaled() {
  command -v go >/dev/null || fail "go is not installed; tailscaled is built from source, so install Go $(sed -n 's/^go //p' tests/peers/go.mod) or newer"
  local version ldflags key dir tmp
  version=$(sed -n 's/^\ttailscale\.com v//p' tests/peers/go.mod | head -1)
  # Without the stamps it calls itself a faulty build.
  ldflags="-s -w -X tailscale.com/version.shortStamp=$version -X tailscale.com/version.longStamp=$version"
  key=$( (echo "$ldflags" && cat tests/peers/go.mod tests/peers/go.sum) | sha256sum | cut -c1-12)
  dir=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis/tailscaled-$version-$key
  if [ ! -x "$dir/tailscaled" ]; then
    mkdir -p "$dir"
    tmp=$(mktemp "$dir/.tailscaled-XXXXXX")
    # GOTOOLCHAIN=local: a Go that is too old shall say so instead of fetching another one behind our back.
    (cd tests/peers && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -mod=readonly -trimpath -buildvcs=false" \
      go build -tags ts_include_cli -ldflags "$ldflags" -o "$tmp" tailscale.com/cmd/tailscaled >&2) || {
      rm -f "$tmp"
      fail "tailscaled $version cannot be built; what go says is above"
    }
    chmod 755 "$tmp"
    mv "$tmp" "$dir/tailscaled"
  fi
  echo "$dir/tailscaled"
}

builder=${BUILDER:-}
for name in buildah podman docker; do
  if [ -z "$builder" ] && command -v "$name" >/dev/null; then builder=$name; fi
done
[ -n "$builder" ] || fail "none of buildah, podman and docker is installed, and one of them has to build the image; install one (on Debian: apt-get install buildah)"

target=${CARGO_TARGET_DIR:-target}
context=$target/image
agent=${AKASH_REDIS:-$(build_agent)}
tailscaled=${TAILSCALED:-$(build_tailscaled)}
mkdir -p "$context"
install -m 0755 "$agent" "$context/akash-redis"
install -m 0755 "$tailscaled" "$context/tailscaled"
install -m 0755 image/with-redis-proxy.sh "$context/with-redis-proxy"

arguments=()
for argument in BASE REDIS_VERSION PROXYCHAINS_VERSION TINI_VERSION CA_CERTIFICATES_VERSION; do
  # Those that the image knows.
  if [ -n "${!argument:-}" ] && grep -q "^ARG $argument=" "$file"; then arguments+=(--build-arg "$argument=${!argument}"); fi
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=${REVISION:-$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)}
image=${IMAGE:-$name}
"$builder" build "${arguments[@]}" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --file "$file" --tag "$image" "$@" "$context" >&2
echo "$image"
