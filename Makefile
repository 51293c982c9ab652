# What a developer types. Everything runs from a fresh checkout; nothing outside of this directory and the caches of cargo
# and go is written, but for the Debian packages of `deps`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
PREFIX ?= /usr/local

# Debian package and the command or file by which its presence is seen: what the local market runs, and what the tests need beside it.
PACKAGES := redis-server:redis-server iproute2:ip nftables:nft tini:tini proxychains4:proxychains4
TEST_PACKAGES := faketime:faketime buildah:buildah debootstrap:debootstrap systemd:systemd-analyze python3-pip:pip3 python3-redis:/usr/lib/python3/dist-packages/redis/sentinel.py nodejs:node npm:npm maven:mvn default-jdk-headless:javac

# Installs those of the packages $(1) that are missing, or names them.
define install
	@missing=(); \
	for pair in $(1); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair#*:}" >/dev/null || [ -e "$${pair#*:}" ] || missing+=("$${pair%:*}"); \
	done; \
	if [ "$${#missing[@]}" -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "these packages are missing: $${missing[*]}; install them (on Debian: sudo apt-get install $${missing[*]}) and try again" >&2; \
	  exit 1; \
	fi; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: deps peers ## A cluster on a market and a tailnet on this machine, with a failover to watch
	$(CARGO) build --profile demo --locked
	target/demo/akash-redis demo

.PHONY: deps
deps: ## Install the Debian packages that the local market needs
	$(call install,$(PACKAGES))

.PHONY: test-deps
test-deps: ## Install the Debian packages that the tests need
	$(call install,$(PACKAGES) $(TEST_PACKAGES))

.PHONY: bench-deps
bench-deps: ## Install the Debian packages that the measurements need
	$(call install,$(PACKAGES) haproxy:haproxy zstd:zstd)

.PHONY: peers
peers: ## Build tailscaled and the test control server (Go)
	tests/peers/build.sh

.PHONY: kube-peers
kube-peers: ## Build the Kubernetes that the tests run on: etcd, kube-apiserver, kubectl, helm, and a kubelet for `kubectl exec` (Go). A quarter of an hour, once per version
	tests/kube-peers/build.sh

.PHONY: s3
s3: ## Build the S3 server that backups are tested with (Go)
	tests/s3/build.sh

.PHONY: servers
servers: ## Bring Redis and Valkey servers of other versions into the cache, for the test of the table of versions
	tests/servers/fetch.sh

.PHONY: clients
clients: ## Build a program with each real client of Sentinel into the cache: npm, go, cargo, pip and maven
	tests/clients/build.sh

.PHONY: servers-all
servers-all: ## Bring every version into the cache that somebody has built, eleven with Debian's own: the test of the table takes whatever is there
	tests/servers/fetch-all.sh

.PHONY: image
image: ## Build the node image with buildah, podman or docker; variables are in image/build.sh
	image/build.sh

.PHONY: image-operator
image-operator: ## Build the operator's image, for Kubernetes
	image/build.sh operator

.PHONY: test
test: test-deps peers kube-peers s3 servers clients ## All tests
	$(CARGO) test --all-targets

.PHONY: test-fast
test-fast: ## Tests without Go, namespaces or packages
	$(CARGO) test --lib --test plan --test sim --test wire

.PHONY: test-crashes
test-crashes: ## Every crash point of the simulations, and 200 random walks; takes a quarter of an hour
	SIM_STRIDE=1 SIM_SEEDS=200 $(CARGO) test --test sim

.PHONY: soak-market
soak-market: ## Twenty markets for a year each, with random faults: the books close to the last unit. Takes half an hour
	SOAK_DAYS=365 SOAK_SEEDS=20 $(CARGO) test --release --test sim soak:: -- --nocapture

.PHONY: soak
soak: test-deps peers ## Three clusters, a million confirmed writes and 300 faults from a printed seed, with real servers; then a crash of the operator at every call of its simulation. Takes three quarters of an hour
	SOAK_WRITES=$(or $(SOAK_WRITES),1000000) SOAK_FAULTS=$(or $(SOAK_FAULTS),300) SOAK_MINUTES=$(or $(SOAK_MINUTES),30) \
	  $(CARGO) test --release --test live soak:: -- --nocapture
	SIM_STRIDE=1 SIM_SEEDS=200 $(CARGO) test --test sim

.PHONY: soak-stalls
soak-stalls: test-deps peers ## What passes by itself (stalled paths, starved nodes, outages) moves no master: a simulated month, and an hour with real servers
	for seed in 710 711 712 713; do \
	  STALL_SEED=$$seed STALL_MINUTES=10800 $(CARGO) test --release --test sim stalls:: -- --nocapture; \
	done
	STALL_LIVE_MINUTES=$(or $(STALL_LIVE_MINUTES),60) $(CARGO) test --release --test live stalls:: -- --nocapture

.PHONY: mutants
mutants: ## Breaks planner, model, store and what agents obey, one place at a time; names what no test sees. Takes hours
	tests/mutants/run.sh

.PHONY: bench
bench: bench-deps peers ## What the mesh costs, what the proxy costs beside HAProxy, what a change of master costs beside Sentinel, what the market costs in time, and what a thousand clusters do; figures in target/bench/*.json
	$(CARGO) bench --bench mesh
	$(CARGO) bench --bench ha
	$(CARGO) bench --bench scale
	$(CARGO) bench --bench market
	$(CARGO) bench --bench proxy

# What the pages are looked at with: installed once per lock file.
WEB_ROOT := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/akash-redis/web-check
.PHONY: web-check
web-check: ## The operator's page in Chromium, at 1280 and 390 pixels: pictures in target/web, and what axe-core finds
	$(call install,chromium:chromium nodejs:node npm:npm)
	mkdir -p $(WEB_ROOT)
	cmp -s tests/web/package-lock.json $(WEB_ROOT)/package-lock.json || { \
	  cp tests/web/package.json tests/web/package-lock.json $(WEB_ROOT)/ && npm ci --prefix $(WEB_ROOT) --no-audit --no-fund; \
	}
	WEB_CHECK_MODULES=$(WEB_ROOT)/node_modules $(CARGO) test --lib web::tests::the_pages_in_a_browser -- --ignored --nocapture

.PHONY: alerts-check
alerts-check: ## The alert rules by Prometheus' own promtool, which is in Debian's package prometheus: their form, and what they say of series over time
	@command -v promtool >/dev/null || { echo "promtool is missing; it is in Debian's package prometheus" >&2; exit 1; }
	promtool check rules charts/akash-redis/rules/alerts.yaml
	promtool test rules tests/alerts/rules.yaml

.PHONY: bench-backup
bench-backup: bench-deps ## What a backup and a restore of 1 GiB cost beside redis-cli and zstd, what the master's clients notice, and the agent's memory; a table, and target/bench/backup.json
	$(CARGO) bench --bench backup

.PHONY: bench-distances
bench-distances: bench-deps peers ## How long writes stand still in a planned change, and when Redis is killed, at 60, 150 and 250 ms of round trip and at 150 ± 50 ms with 1 % of packets lost, beside the aims; a table, and target/bench/distances.json. Takes 25 minutes at most
	$(CARGO) bench --bench ha -- distances

.PHONY: bench-connections
bench-connections: bench-deps peers ## What 1,000 and 5,000 connections through one proxy over the mesh notice of planned changes; a table, and target/bench/connections.json. Takes some minutes
	$(CARGO) bench --bench ha -- connections

.PHONY: bench-build
bench-build: ## How long the build of the demo takes from nothing, in seconds and in seconds of processors, and the ten crates that take most; a table, and target/bench/build.json
	benches/build/measure.py

.PHONY: bench-kube
bench-kube: kube-peers ## What a thousand and three thousand clusters cost the operator on Kubernetes, beside SQLite; a table, and target/bench/kube.json. Takes a quarter of an hour
	$(CARGO) bench --bench scale -- kube

.PHONY: client-table
client-table: test-deps peers clients ## What applications notice of each change of master, over a real mesh: each client, and one connection behind the proxy; tables, and target/bench/clients.json. Takes a quarter of an hour
	$(CARGO) build --release
	AKASH_REDIS_PROGRAM=$(CURDIR)/target/release/akash-redis $(CARGO) test --test live client_table:: -- --ignored --nocapture --test-threads=1

# What checks the licences and sources of dependencies: built once per version.
DENY_VERSION := 0.20.2
DENY_ROOT := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/akash-redis/cargo-deny-$(DENY_VERSION)
DENY := $(DENY_ROOT)/bin/cargo-deny

$(DENY):
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(DENY_ROOT)

.PHONY: lint
lint: $(DENY) ## Format, lints, the build without the local market, documentation, who may know whom, dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) check --no-default-features
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib
	$(CARGO) test --test sim arrows::
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources

PREFIX ?= /usr/local
UNIT_DIR ?= /etc/systemd/system
DIST := target/dist
# What is packed; another one where it was built before.
PROGRAM ?= target/release/akash-redis

.PHONY: package
package: ## Build the program, its completions and its manual pages into target/dist/akash-redis
	[ $(PROGRAM) != target/release/akash-redis ] || $(CARGO) build --release --locked --bin akash-redis
	rm -rf $(DIST)/akash-redis
	install -D -s -m 0755 $(PROGRAM) $(DIST)/akash-redis/bin/akash-redis
	install -D -m 0644 manifests/systemd/akash-redis.service $(DIST)/akash-redis/akash-redis.service
	install -D -m 0644 LICENSE $(DIST)/akash-redis/LICENSE
	mkdir -p $(DIST)/akash-redis/completions
	for shell in bash zsh fish; do \
	  $(PROGRAM) completion $$shell > $(DIST)/akash-redis/completions/akash-redis.$$shell; \
	done
	$(PROGRAM) man $(DIST)/akash-redis/man

.PHONY: install
install: package ## Install what `package` builds below PREFIX, also as a plugin of kubectl, and the unit into UNIT_DIR; DESTDIR goes before both
	install -D -m 0755 $(DIST)/akash-redis/bin/akash-redis $(DESTDIR)$(PREFIX)/bin/akash-redis
	ln -sf akash-redis $(DESTDIR)$(PREFIX)/bin/kubectl-akash_redis
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 $(DIST)/akash-redis/man/*.1
	install -D -m 0644 $(DIST)/akash-redis/completions/akash-redis.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/akash-redis
	install -D -m 0644 $(DIST)/akash-redis/completions/akash-redis.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_akash-redis
	install -D -m 0644 $(DIST)/akash-redis/completions/akash-redis.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/akash-redis.fish
	install -D -m 0644 $(DIST)/akash-redis/akash-redis.service $(DESTDIR)$(UNIT_DIR)/akash-redis.service

.PHONY: dist
dist: package ## A tarball of what `package` builds, with its checksum, in target/dist
	version=$$($(PROGRAM) --version | cut -d' ' -f2); \
	name=akash-redis-$$version-$$(uname -m)-linux; \
	tar -C $(DIST) --transform "s,^akash-redis,$$name," --sort=name --owner=0 --group=0 --numeric-owner -czf $(DIST)/$$name.tar.gz akash-redis; \
	cd $(DIST) && sha256sum $$name.tar.gz > $$name.tar.gz.sha256 && cat $$name.tar.gz.sha256

.PHONY: reference
reference: ## Write the generated pages and golden files anew; read the difference before committing it
	UPDATE_REFERENCE=1 $(CARGO) test --lib api::
	UPDATE_REFERENCE=1 $(CARGO) test --test wire sdl
