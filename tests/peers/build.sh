#!/usr/bin/env bash
# Builds the peers that the mesh tests and the local development tailnet need - the control server of ./control and an
# unmodified tailscaled (with its CLI in the same binary) - once, and prints the directory that holds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Only what a userspace node needs, so that the build takes half the time and a third of the space. Worked out by
#   go run tailscale.com/cmd/featuretags --min --add=cachenetmap,tailnetlock,netstack,outboundproxy,cli,dns,serve,debug,health,ipnbus,gro,clientmetrics,unixsocketidentity,peerapiserver,peerapiclient
# It has to be worked out again when the version in go.mod changes.
tags=ts_include_cli,ts_omit_ace,ts_omit_acme,ts_omit_advertiseexitnode,ts_omit_advertiseroutes,ts_omit_appconnectors,ts_omit_aws,ts_omit_bakedroots,ts_omit_bird,ts_omit_c2n,ts_omit_captiveportal,ts_omit_capture,ts_omit_cliconndiag,ts_omit_clientupdate,ts_omit_cloud,ts_omit_colorable,ts_omit_completion,ts_omit_completion_scripts,ts_omit_conn25,ts_omit_dbus,ts_omit_debugeventbus,ts_omit_debugportmapper,ts_omit_desktop_sessions,ts_omit_doctor,ts_omit_drive,ts_omit_flashappliance,ts_omit_hujsonconf,ts_omit_identityfederation,ts_omit_iptables,ts_omit_kube,ts_omit_linkspeed,ts_omit_linuxdnsfight,ts_omit_listenrawdisco,ts_omit_logtail,ts_omit_netlog,ts_omit_networkmanager,ts_omit_oauthkey,ts_omit_osrouter,ts_omit_portlist,ts_omit_portmapper,ts_omit_posture,ts_omit_qrcodes,ts_omit_relayserver,ts_omit_remoteconfig,ts_omit_resolved,ts_omit_routecheck,ts_omit_runtimemetrics,ts_omit_sdnotify,ts_omit_serviceclientprefs,ts_omit_ssh,ts_omit_synology,ts_omit_syslog,ts_omit_syspolicy,ts_omit_systray,ts_omit_taildrop,ts_omit_tap,ts_omit_tpm,ts_omit_tundevstats,ts_omit_useexitnode,ts_omit_useproxy,ts_omit_usermetrics,ts_omit_useroutes,ts_omit_wakeonlan,ts_omit_webbrowser,ts_omit_webclient

fail() {
  echo "tests/peers/build.sh: $1" >&2
  exit 1
}

ldflags="-s -w"
key=$( (echo "$tags $ldflags" && cat go.mod go.sum control/*.go) | sha256sum | cut -c1-12)
version=$(sed -n 's/^\ttailscale\.com v//p' go.mod | head -1)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis
dir=$cache/peers-$version-$key
if [ -x "$dir/control" ] && [ -x "$dir/tailscaled" ]; then
  touch "$dir" # whoever looks without asking takes the newest
  echo "$dir"
  exit 0
fi

need=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || fail "go is not installed; tailscaled is built from source, so install Go $need or newer"
# GOTOOLCHAIN=local: a Go that is too old shall be named here instead of fetching another one behind our back.
have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
[ "$(printf '%s\n' "$need" "$have" | sort -V | head -1)" = "$need" ] || fail "go ${have:-of an unknown version} is too old; install Go $need or newer"

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.peers-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -mod=readonly -trimpath -buildvcs=false"
go build -ldflags "$ldflags" -o "$tmp/control" ./control >&2
go build -tags "$tags" -ldflags "$ldflags" -o "$tmp/tailscaled" tailscale.com/cmd/tailscaled >&2
ln -s tailscaled "$tmp/tailscale"
chmod 755 "$tmp"
# Whoever renames first wins; a second build of the same inputs is the same.
mv -T "$tmp" "$dir" 2>/dev/null || [ -x "$dir/tailscaled" ] || fail "cannot put the build into $dir"
echo "$dir"
