#!/usr/bin/env bash
# Breaks the code on purpose, one place at a time, and names the changes that no test sees. Without arguments all sets
# are run; with the name of a set that one; what follows goes to cargo-mutants, e.g. `-f src/plan/death.rs` or `--list`.
#
# The whole crate takes minutes to build. Rooms know only whom they may (tests/sim/arrows.rs), so the rooms that a set
# breaks are put, with those that they know, into a crate of their own, which is built anew for each change in seconds.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$root/target/mutants
version=27.1.0

install_tool() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/akash-redis
  local dir=$cache/cargo-mutants-$version
  if [ ! -x "$dir/bin/cargo-mutants" ]; then
    mkdir -p "$cache"
    local tmp
    tmp=$(mktemp -d "$cache/.mutants-XXXXXX")
    CARGO_TARGET_DIR=$tmp/target cargo install cargo-mutants --version "$version" --locked --root "$tmp/installed" >&2
    mv -T "$tmp/installed" "$dir" 2>/dev/null || [ -x "$dir/bin/cargo-mutants" ]
    rm -rf "$tmp"
  fi
  echo "$dir/bin/cargo-mutants"
}

# The tests of plans, and no debug information.
with_plan_tests() {
  mkdir -p tests
  cp -r "$root/tests/plan" "$root/tests/vectors" tests/
  printf '[[test]]\nname = "plan"\npath = "tests/plan/main.rs"\n[profile.dev]\ndebug = 0\n' >>Cargo.toml
}

# Lines of a section of Cargo.toml for these dependencies, so that each set has the versions of the crate.
lines_of() {
  local section=$1 name
  shift
  for name in "$@"; do
    awk -v section="[$section]" -v start="$name = " '/^\[/ { here = ($0 == section) } here && index($0, start) == 1' "$root/Cargo.toml"
  done
}
dependencies() { lines_of dependencies "$@"; }
dev_dependencies() { echo '[dev-dependencies]' && lines_of dev-dependencies "$@"; }

manifest() { # name; the sections on stdin
  printf '[package]\nname = "%s"\nversion = "0.1.0"\nedition = "2024"\npublish = false\n' "$1"
  cat
}

# What `api` and `model` need.
base=(chrono croner secrecy cosmrs hex schemars serde serde-saphyr serde_json sha2 strsim strum thiserror time)

# The planner. `api` and `model` stay as they are meanwhile: a crate of their own, which is built once.
planner() {
  mkdir -p src base/src docs
  cp -r "$root/src/plan" src/
  cp -r "$root/src/api" "$root/src/model" base/src/
  printf 'pub mod api;\npub mod model;\n' >base/src/lib.rs
  printf 'pub use base::{api, model};\npub mod plan;\n' >src/lib.rs
  { echo '[dependencies]' && dependencies "${base[@]}"; } | manifest base >base/Cargo.toml
  {
    printf '[workspace]\nmembers = ["base"]\n[dependencies]\nbase = { path = "base" }\n'
    dependencies hex serde serde_json sha2
    dev_dependencies insta
  } | manifest akash-redis >Cargo.toml
  with_plan_tests
  files=(-f 'src/plan/*.rs' -e 'src/plan/invariants*' -e 'src/plan/invariants/*')
  tests=(--test plan)
}

# What else decides: the model, what an agent obeys, and the store.
rooms() {
  mkdir -p src/node
  cp -r "$root"/src/{api,model,plan,store} src/
  cp "$root"/src/node/{commands,nonces}.rs src/node/
  cp "$root/src/changes.rs" src/
  cp -r "$root"/{docs,manifests} .
  printf 'pub mod api;\npub mod changes;\npub mod model;\npub mod node {\n    pub mod commands;\n    pub mod nonces;\n}\n' >src/lib.rs
  printf 'pub mod plan;\npub mod store;\n' >>src/lib.rs
  {
    printf '[workspace]\n[dependencies]\n'
    dependencies "${base[@]}" async-trait rand rusqlite rustix tokio tracing
    dev_dependencies insta proptest regex tempfile
  } | manifest akash-redis >Cargo.toml
  with_plan_tests
  files=(-f 'src/model/*.rs' -f 'src/node/commands.rs' -f 'src/store/**')
  tests=(--lib --test plan)
}

# How transactions come to their end. The generated messages stay as they are: a crate of their own, which is built once.
chain() {
  mkdir -p src base/src tests/wire
  cp -r "$root/src/chain" src/
  cp -r "$root"/{build.rs,proto} base/
  cp -r "$root"/src/{model,wire} "$root"/src/{error_chain,retry}.rs base/src/
  cp -r "$root/tests/vectors" tests/
  cp -r "$root"/tests/wire/{chain,chain.rs} tests/wire/
  echo 'mod chain;' >tests/wire/main.rs
  printf 'pub mod error_chain;\npub mod model;\npub mod retry;\npub mod wire;\n' >base/src/lib.rs
  printf 'pub use base::{error_chain, model, retry, wire};\npub mod chain;\n' >src/lib.rs
  {
    echo '[dependencies]' && dependencies "${base[@]}" backoff prost prost-types rand rustix tokio tonic tonic-prost tracing
    echo '[build-dependencies]' && lines_of build-dependencies protox tonic-prost-build
  } | manifest base >base/Cargo.toml
  {
    printf '[workspace]\nmembers = ["base"]\n[dependencies]\nbase = { path = "base" }\n'
    dependencies async-trait axum base64 bip39 cosmrs futures hex http k256 prost prost-types rand rustls secrecy serde serde_json sha2 thiserror
    dependencies time tokio tokio-stream tonic tonic-prost tower tracing webpki-roots
    dev_dependencies proptest tokio
    printf '[profile.dev]\ndebug = 0\n'
  } | manifest akash-redis >Cargo.toml
  files=(-f src/chain/broadcast.rs)
  tests=(--lib --test wire)
}

# Makes the crate of a set, keeping what is built of it, and breaks it.
run() {
  local set=$1 dir=$out/$1/crate
  shift
  mkdir -p "$dir"
  cd "$dir"
  find . -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
  cp "$root/Cargo.lock" .
  "$set"
  # Whoever names files means these alone.
  [[ " $* " != *" -f "* ]] || files=()
  export CARGO_TARGET_DIR=$dir/target INSTA_WORKSPACE_ROOT=$dir INSTA_UPDATE=no TMPDIR=$out
  # 2 = some were missed, 3 = some ran out of time: both are looked at below.
  "$tool" mutants -d "$dir" --in-place -o "$out/$set" --cap-lints true --timeout 120 "${files[@]}" "$@" -- "${tests[@]}" ||
    [[ $? == [23] ]]
}

# Caught of all that could be built, file by file; a survivor that is not accepted, with its reason, is a failure.
report() {
  local found=$out/$1/mutants.out
  cat "$found"/{caught,timeout,missed}.txt | cut -d: -f1 | sort | uniq -c | while read -r all file; do
    missed=$(grep -c "^$file:" "$found/missed.txt" || true)
    printf '%5d of %5d  %3d %%  %s\n' $((all - missed)) "$all" $(((all - missed) * 100 / all)) "$file"
  done
  # Places move; what is done there stays.
  sed -E 's/:[0-9]+:[0-9]+: /: /' "$found/missed.txt" | grep -vxFf <(grep -v '^#' "$root/tests/mutants/accepted.txt") >"$out/$1/new.txt" || true
  if [ -s "$out/$1/new.txt" ]; then
    echo "no test sees these changes; add one, or say in tests/mutants/accepted.txt why none is needed:" >&2
    cat "$out/$1/new.txt" >&2
    return 1
  fi
}

tool=$(install_tool)
sets=(planner rooms chain)
case ${1:-} in planner | rooms | chain) sets=("$1") && shift ;; esac
status=0
for set in "${sets[@]}"; do
  (run "$set" "$@")
  [[ " $* " == *" --list "* ]] || report "$set" || status=1
done
exit $status
