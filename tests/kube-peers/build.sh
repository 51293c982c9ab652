#!/usr/bin/env bash
# Builds the real Kubernetes peers that the tests of the Kubernetes home need - etcd, kube-apiserver, kubectl, helm and
# a kubelet that answers `exec` - once per version, and prints the directory that holds them. A cold build takes ten to
# twenty minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "tests/kube-peers/build.sh: $1" >&2
  exit 1
}

version=$(sed -n 's/^\tk8s\.io\/kubernetes v//p' go.mod | sed 's/ .*//' | head -1)
minor=$(cut -d. -f2 <<<"$version")
# Without these the server calls itself v0.0.0, and clients go by its word.
of=k8s.io/component-base/version
ldflags="-s -w -X $of.gitVersion=v$version -X $of.gitMajor=1 -X $of.gitMinor=$minor"
key=$( (echo "$ldflags" && cat go.mod go.sum exec-kubelet/main.go) | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis
dir=$cache/kube-peers-$version-$key
programs="etcd kube-apiserver kubectl helm exec-kubelet"
whole() {
  for program in $programs; do [ -x "$dir/$program" ] || return 1; done
}
if whole; then
  touch "$dir" # whoever looks without asking takes the newest
  echo "$dir"
  exit 0
fi

need=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || fail "go is not installed; the peers are built from source, so install Go $need or newer"
# GOTOOLCHAIN=local: a Go that is too old shall be named here instead of fetching another one behind our back.
have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
[ "$(printf '%s\n' "$need" "$have" | sort -V | head -1)" = "$need" ] || fail "go ${have:-of an unknown version} is too old; install Go $need or newer"

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.kube-peers-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -mod=readonly -trimpath -buildvcs=false"
build() { go build -ldflags "$ldflags" -o "$tmp/$1" "$2" >&2; }
build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kubectl k8s.io/kubernetes/cmd/kubectl
build helm helm.sh/helm/v4/cmd/helm
build exec-kubelet ./exec-kubelet
chmod 755 "$tmp"
# Whoever renames first wins; a second build of the same inputs is the same.
mv -T "$tmp" "$dir" 2>/dev/null || whole || fail "cannot put the build into $dir"
echo "$dir"
