# `make test` is what CI runs and what has to pass. It needs Rust (rustup takes the version from
# rust-toolchain.toml), Go, Python 3 with venv, Node.js with npm, readelf (binutils), git and GNU make, and
# either Debian's apt-get and dpkg or an installed promtool and prometheus. What else it uses is fetched or
# built once, into .cache/. CARGO_TARGET_DIR and the like work as everywhere.

ifeq ($(filter oneshell,$(.FEATURES)),)
$(error GNU make 3.82 or newer is needed (on macOS: brew install make, then gmake))
endif

SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TERM_COLOR ?= always
export PIP_NO_INPUT := 1
export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export GIT_TERMINAL_PROMPT := 0

CACHE := $(CURDIR)/.cache
CARGO_DENY_VERSION := 0.20.2
CARGO_MUTANTS_VERSION := 27.0.0
# Version 0.1, for whoever wants to see what has changed.
VERSION_0_1 := d60ce7e
# Version 0.1.1, to come from and to go back to.
VERSION_0_1_1 := 33eed08
# The worlds of `make simulation`.
SEEDS ?= 0..100000
PARTS := fmt clippy unit docs deny clients cloudformation manifests control-plane monitoring walk
# The binary that the parts in Python run.
BINARY := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/offramp

# The first line of every part: says what it does, and when it ends, how long it took and how it went.
begin = @exec </dev/null; trap 'code=$$?; verdict=ok; [ $$code = 0 ] || verdict=FAILED; \
	printf -- "--- %s: %s after %d s\n" "$@" "$$verdict" "$$SECONDS"' EXIT; printf '\n--- %s: %s\n' '$@'

.PHONY: help test test-long $(PARTS) simulation comparison mutations mutants clean-tree bench bench-cluster demo

define HELP
make test        all of these in this order, until the first failure:
    fmt          the form of the Rust code
    clippy       lints, warnings are errors
    unit         the tests of all crates, the scenarios, two minutes of random worlds, the tidy rules
    docs         the API documentation, warnings are errors
    deny         licences, duplicates, sources and advisories of the dependencies
    clients      boto3 and kubectl against the sandbox
    cloudformation  the stacks: form, rules of their own, an emulator, the worker on their queue
    manifests    Helm chart, plain manifests and Dockerfile
    control-plane  chart, manifests and worker on a real Kubernetes
    monitoring   alerts, dashboards and a real Prometheus
    walk         every command of docs/install.md, in its order
    clean-tree   building and testing has changed no file
make test-long   what is slow and rarely breaks:
    simulation   random worlds on all cores: SEEDS=$(SEEDS)
    comparison   version 0.1 and this one side by side, where 0.1 would hurt; upgrade from 0.1.1 and rollback
    mutations    witnesses and brakes taken away one at a time: a test or a random world notices
    mutants      cargo mutants on triggers, goals and walk
make demo        a fleet, a scale-in and a spot storm in this terminal
make bench       the storm and the decision, measured (release build)
make bench-cluster  beside a bare client on a real control plane, over an hour; STORIES="spot lone" for some
endef

help:
	@:$(info $(HELP))

test:
	@before=$$($(tree))
	for part in $(PARTS); do $(MAKE) "$$part"; done
	$(MAKE) clean-tree BEFORE="$$before"
	printf '\n=== make test: all parts passed in %d min %02d s\n' $$((SECONDS / 60)) $$((SECONDS % 60))

test-long: simulation comparison mutations mutants

fmt:
	$(begin) 'cargo fmt --check'
	cargo fmt --all --check

clippy:
	$(begin) 'cargo clippy, warnings are errors'
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit:
	$(begin) 'cargo test over the workspace'
	cargo test --workspace --locked

docs:
	$(begin) 'cargo doc, warnings are errors'
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# The advisory database lies on GitHub. Where it cannot be reached the other checks still count, and the
# output says what was left out.
deny:
	$(begin) 'cargo deny: bans, licenses, sources, and advisories where their database can be had'
	deny=$(CACHE)/bin/cargo-deny
	if ! "$$deny" --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY_VERSION)'; then
		cargo install --locked --force --debug --config profile.dev.debug=false --root $(CACHE) \
			--version $(CARGO_DENY_VERSION) cargo-deny
	fi
	"$$deny" --locked check bans licenses sources
	if "$$deny" fetch db 2>/dev/null; then
		"$$deny" --locked check --disable-fetch advisories
	else
		echo 'NOT CHECKED: advisories (https://github.com/RustSec/advisory-db cannot be fetched from here)'
	fi

# Clients that nobody here wrote. E2E_KUBECTL and E2E_PYTHON (with boto3) can name others.
clients:
	$(begin) 'boto3 and kubectl against the sandbox'
	if [ -z "$${E2E_PYTHON:-}" ]; then
		tests/tools/python-env.sh $(CACHE)/python tests/clients/requirements.txt
		export E2E_PYTHON=$(CACHE)/python/bin/python
	fi
	if [ -z "$${E2E_KUBECTL:-}" ]; then
		export E2E_KUBECTL=$(CACHE)/bin/kubectl
		tests/tools/build-kubernetes.sh $(CACHE)/bin kubectl
	fi
	cargo test --locked -p offramp --test e2e_clients

# Everything in infra/ is held against its own field's checkers and against servers that nobody here wrote.
cloudformation:
	$(begin) 'the stacks: form, rules of their own, an emulator, the worker on their queue'
	cargo build --locked -p offramp
	tests/tools/python-env.sh $(CACHE)/cloudformation tests/infra/cloudformation/requirements.txt
	tests/tools/python-env.sh $(CACHE)/checkov tests/infra/cloudformation/checkov.txt
	export E2E_OFFRAMP=$(BINARY) E2E_CHECKOV=$(CACHE)/checkov/bin/checkov
	$(CACHE)/cloudformation/bin/python -m pytest -q -p no:cacheprovider tests/infra/cloudformation

manifests:
	$(begin) 'Helm chart, plain manifests and Dockerfile'
	cargo build --locked -p offramp
	tests/tools/python-env.sh $(CACHE)/manifests tests/infra/kubernetes/requirements.txt
	tests/tools/build-helm.sh $(CACHE)/bin
	tests/tools/build-kubernetes.sh $(CACHE)/bin kubectl
	E2E_OFFRAMP=$(BINARY) PATH=$(CACHE)/manifests/bin:$(CACHE)/bin:$$PATH \
		python -m pytest -q -p no:cacheprovider tests/infra/kubernetes

# etcd, the API server, its controllers and its scheduler, built from Go modules; kwok plays the kubelets.
control-plane:
	$(begin) 'chart, manifests and worker on a real Kubernetes'
	cargo build --locked -p offramp
	tests/tools/python-env.sh $(CACHE)/control-plane tests/infra/control_plane/requirements.txt
	tests/tools/build-helm.sh $(CACHE)/bin
	tests/tools/build-kubernetes.sh $(CACHE)/bin \
		kubectl etcd kube-apiserver kube-controller-manager kube-scheduler kwok
	E2E_OFFRAMP=$(BINARY) PATH=$(CACHE)/control-plane/bin:$(CACHE)/bin:$$PATH \
		python -m pytest -q -p no:cacheprovider tests/infra/control_plane

monitoring:
	$(begin) 'alerts, dashboards and a real Prometheus'
	cargo build --locked -p offramp --bins --examples
	tests/tools/python-env.sh $(CACHE)/monitoring tests/infra/monitoring/requirements.txt
	tests/infra/monitoring/install-prometheus.sh $(CACHE)/bin
	tests/infra/monitoring/types/install.sh $(CACHE)/grafana-schema
	E2E_OFFRAMP=$(BINARY) E2E_GRAFANA_SCHEMA=$(CACHE)/grafana-schema \
		PATH=$(CACHE)/monitoring/bin:$(CACHE)/bin:$$PATH \
		python -m pytest -q -p no:cacheprovider tests/infra/monitoring

# Every seed is a world of its own. Which ones, says SEEDS=0..100000, or SEEDS=17 for one.
simulation:
	$(begin) 'random worlds: seeds $(SEEDS)'
	OFFRAMP_SEEDS=$(SEEDS) cargo test --locked --profile worlds -p offramp-worlds --test simulation invariants -- --nocapture

# Builds versions 0.1 and 0.1.1 from their commits. In a clone that does not have them, only this version is looked at.
comparison:
	$(begin) 'version 0.1 and this one side by side'
	cargo build --locked -p offramp
	tests/tools/python-env.sh $(CACHE)/comparison tests/infra/comparison/requirements.txt
	old=$(CACHE)/versions/$(VERSION_0_1)/offramp
	tests/infra/comparison/build-version.sh $(VERSION_0_1) $(CACHE)/versions || { [ $$? = 3 ] && old=; }
	before=$(CACHE)/versions/$(VERSION_0_1_1)/offramp
	tests/infra/comparison/build-version.sh $(VERSION_0_1_1) $(CACHE)/versions || { [ $$? = 3 ] && before=; }
	E2E_OFFRAMP=$(BINARY) E2E_OFFRAMP_OLD=$$old E2E_OFFRAMP_BEFORE=$$before PATH=$(CACHE)/comparison/bin:$$PATH \
		python -m pytest -q -p no:cacheprovider tests/infra/comparison

mutations:
	$(begin) 'witnesses and brakes taken away one at a time'
	python3 tests/tools/mutations.py $(CACHE)/mutations

# The enumeration takes longer than all other tests together: only what these miss is held against it. Of the first round
# the exit codes 2 (missed) and 3 (no end) say so.
MUTANTS = "$$mutants" mutants --package offramp-core --jobs 1 --output $(CACHE)
mutants:
	$(begin) 'cargo mutants on triggers, goals and walk'
	mutants=$(CACHE)/bin/cargo-mutants
	if ! "$$mutants" mutants --version 2>/dev/null | grep -qx 'cargo-mutants $(CARGO_MUTANTS_VERSION)'; then
		cargo install --locked --force --debug --config profile.dev.debug=false --root $(CACHE) \
			--version $(CARGO_MUTANTS_VERSION) cargo-mutants
	fi
	export CARGO_TARGET_DIR=$(CACHE)/mutants
	rm -rf $(CACHE)/mutants.out
	CARGO_PROFILE_DEV_OPT_LEVEL=0 $(MUTANTS) --timeout 120 -- --lib -- --skip enumeration || [ $$? = 2 ] || [ $$? = 3 ]
	$(MUTANTS) --iterate --timeout 600 -- --lib

# kubectl and helm are looked for in .cache/bin, because others of that name stand in for them on the walk.
walk:
	$(begin) 'every command of docs/install.md, in its order'
	cargo build --locked -p offramp
	tests/tools/python-env.sh $(CACHE)/docs tests/infra/docs/requirements.txt
	tests/tools/build-kubernetes.sh $(CACHE)/bin kubectl
	tests/tools/build-helm.sh $(CACHE)/bin
	E2E_OFFRAMP=$(BINARY) PATH=$(CACHE)/docs/bin:$$PATH \
		python -m pytest -q -s -p no:cacheprovider tests/infra/docs

# Compares with the state that `make test` began with; by itself it asks for a clean checkout.
tree = { git status --porcelain --untracked-files=all; git diff HEAD; } 2>/dev/null | git hash-object --stdin
BEFORE = $(shell git hash-object --stdin </dev/null)

clean-tree:
	$(begin) 'git sees the same files as before'
	if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		echo 'NOT CHECKED: this is no git checkout'
	elif [ "$$($(tree))" != '$(BEFORE)' ]; then
		echo 'building or testing changed these files: commit them, ignore them, or write them elsewhere'
		git status --short
		exit 1
	fi

bench:
	$(begin) 'the decision and the storm, release build'
	cargo bench --locked -p offramp-engine --bench step
	cargo bench --locked -p offramp --bench storm

bench-cluster:
	$(begin) 'offramp beside a bare client on a real control plane, release build'
	tests/tools/python-env.sh $(CACHE)/control-plane tests/infra/control_plane/requirements.txt
	tests/tools/build-kubernetes.sh $(CACHE)/bin \
		kubectl etcd kube-apiserver kube-controller-manager kube-scheduler kwok
	program=$$(cargo build --locked --release -p offramp --bench cluster --message-format json-render-diagnostics \
		| sed -n 's/.*"executable":"\([^"]*cluster[^"]*\)".*/\1/p')
	PYTHONPATH=tests/infra PATH=$(CACHE)/control-plane/bin:$(CACHE)/bin:$$PATH \
		python tests/infra/control_plane/bench_cluster.py "$$program" $(STORIES)

demo:
	@cargo run --locked -- demo
