#!/usr/bin/env bash
# Builds the programs of the clients named (all when none is), each with its library in the version of its lock file, into the cache, once
# per content of its directory, and prints a line for each: how it is started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "tests/clients/build.sh: $1" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null || fail "$1 is not installed, and $2"
}

# Builds the client in the present directory; what it was before is there.
build() {
  case $1 in
  ioredis | bullmq)
    has npm "brings ioredis and BullMQ; install nodejs (20 or newer) and npm"
    npm ci --silent --ignore-scripts --omit=dev --no-audit --no-fund
    ;;
  go-redis)
    has go "builds go-redis; install Go"
    GOTOOLCHAIN=local CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o app .
    ;;
  redis-rs)
    has cargo "builds redis-rs"
    CARGO_TARGET_DIR=$PWD/target cargo build --quiet --locked
    mv target/debug/client app
    rm -rf target
    ;;
  redis-py)
    has python3 "brings redis-py; install python3 and python3-pip"
    python3 -m pip install --quiet --root-user-action ignore --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --target lib -r requirements.txt
    ;;
  jedis)
    has mvn "brings Jedis; install maven and a JDK (17 or newer)"
    has javac "builds the program of Jedis; install a JDK (17 or newer)"
    mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies -DoutputDirectory=lib
    javac -cp 'lib/*' App.java
    ;;
  *) fail "there is no client $1" ;;
  esac
}

# How it is started. Where a client has no SOCKS5 of its own, proxychains carries it.
line() {
  local through="proxychains4 -q -f /etc/proxychains.conf"
  case $1 in
  ioredis | bullmq) echo "$through node $2/app.mjs" ;;
  go-redis) echo "$2/app" ;;
  redis-rs) echo "$through $2/app" ;;
  redis-py) echo "$through env PYTHONPATH=$2/lib /usr/bin/python3 $2/app.py" ;;
  jedis) echo "java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -DsocksProxyHost=127.0.0.1 -DsocksProxyPort=1055 -cp $2:$2/lib/* App" ;;
  esac
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis/clients
[ $# -gt 0 ] || set -- ioredis go-redis redis-rs redis-py bullmq jedis
for name in "$@"; do
  files=$(cd "$name" && find . -type f ! -path './target/*' ! -path './node_modules/*' | LC_ALL=C sort)
  key=$(cd "$name" && (declare -f build && echo "$files" && xargs -d '\n' cat <<<"$files") | sha256sum | cut -c1-12)
  dir=$cache/$name-$key
  if [ ! -e "$dir/done" ]; then
    mkdir -p "$cache"
    tmp=$(mktemp -d "$cache/.$name-XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    (cd "$name" && xargs -d '\n' cp --parents -t "$tmp" <<<"$files")
    (cd "$tmp" && build "$name") >&2 || fail "the client $name cannot be built; what was said is above"
    touch "$tmp/done"
    chmod 755 "$tmp"
    # Whoever renames first wins; a second build of the same inputs is the same.
    mv -T "$tmp" "$dir" 2>/dev/null || [ -e "$dir/done" ] || fail "cannot put the build into $dir"
  fi
  echo "$name $(line "$name" "$dir")"
done
