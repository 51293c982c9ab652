#!/bin/sh
# Runs an application beside a proxy that is always the present master, in a container without a network device: a tailscaled in
# userspace mode joins the tailnet, `akash-redis proxy` listens on 127.0.0.1:6379 and starts the application when it knows the master.
#
#   with-redis-proxy [FLAGS OF akash-redis proxy ...] -- COMMAND [ARGUMENTS ...]
#
# Variables: TS_AUTHKEY, with which the container joins (make it reusable, ephemeral, and tagged: the tailnet's policy lets the tag in);
# AKASH_REDIS_CLUSTER, AKASH_REDIS_NODES, AKASH_REDIS_PUBLIC_KEY; if wanted TS_HOSTNAME, TS_LOGIN_SERVER, and TS_STATE_DIR (a directory
# on a volume: the container stays the same device).
set -eu

fail() {
  echo "with-redis-proxy: $1" >&2
  exit 1
}

[ $# -gt 0 ] || fail "no application is named; write with-redis-proxy -- COMMAND, as in the image's CMD"
key=${TS_AUTHKEY:-}
[ -n "$key" ] || [ -n "${TS_STATE_DIR:-}" ] || fail "TS_AUTHKEY is not set, so the container cannot join the tailnet; set it in the manifest's env"
# The application gets neither the key nor what it stands for.
unset TS_AUTHKEY
# Nobody else may look into it.
run=$(mktemp -d)
printf %s "$key" > "$run/key"
socks5=127.0.0.1:1055
if [ -n "${TS_STATE_DIR:-}" ]; then state=--statedir=$TS_STATE_DIR; else state=--state=mem:; fi

up() {
  set -- --hostname="${TS_HOSTNAME:-redis-client}" --accept-dns=false --timeout=20s
  [ ! -s "$run/key" ] || set -- "$@" --auth-key="file:$run/key"
  [ -z "${TS_LOGIN_SERVER:-}" ] || set -- "$@" --login-server="$TS_LOGIN_SERVER"
  tailscale --socket="$run/tailscaled.sock" up "$@"
}

# A tailscaled that ends is started again.
mesh() {
  while :; do
    GOMEMLIMIT=100MiB TS_NETSTACK_KEEPALIVE_IDLE=60s TS_NETSTACK_KEEPALIVE_INTERVAL=15s \
      tailscaled --tun=userspace-networking --socks5-server=$socks5 "$state" --socket="$run/tailscaled.sock" --no-logs-no-support &
    daemon=$!
    until up; do
      kill -0 $daemon 2>/dev/null || break
      echo "with-redis-proxy: not in the tailnet yet; it is tried again" >&2
      sleep 1
    done
    wait $daemon || true
    echo "with-redis-proxy: tailscaled ended; it is started again" >&2
    sleep 1
  done
}

mesh &
# It ends with the application, and the container with it.
exec akash-redis proxy --socks5 "$socks5" "$@"
