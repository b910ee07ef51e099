# `make demo` and `make test` are all that a newcomer needs; the rest are their parts.

SHELL := /bin/bash
TARGET := $(shell uname -m)-unknown-linux-gnu
CLUSTER ?= bundlerun
STATIC := target/static

.PHONY: demo test static lint test-pure test-cluster test-chart test-chart-cluster crd docs chart down clean

demo: ## A local cluster, the operator in it, the examples run, their records printed. CLUSTER=current: your own context.
	deploy/demo --cluster $(CLUSTER)

test: lint test-pure test-chart test-cluster ## All that CI runs.

static: ## The binaries of the image: static, so that the runner works in any image.
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --bin bundle-operator --target $(TARGET)
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile runner --no-default-features --bin bundle-runner --target $(TARGET)
	mkdir -p $(STATIC)
	cp target/$(TARGET)/release/bundle-operator target/$(TARGET)/runner/bundle-runner $(STATIC)/

lint: ## Formatting and clippy, warnings are errors.
	cargo fmt --check
	cargo clippy --locked --all-targets --features cluster-tests -- -D warnings
	cargo clippy --locked --no-default-features --bin bundle-runner -- -D warnings

test-pure: ## Needs no cluster.
	cargo test --locked

test-cluster: static ## On a local cluster of its own.
	tests/cluster/run

test-chart: ## The Helm chart, plain manifests, alerts and GitOps health: what needs no cluster.
	env -u KUBECONFIG tests/chart/run

test-chart-cluster: ## The same, and what only an API server can tell, on a local cluster of its own.
	tests/chart/run --cluster bundlerun-chart

crd: ## Writes crds/bundlerun.yaml anew.
	cargo run --locked --quiet -- crd >crds/bundlerun.yaml
	cp crds/bundlerun.yaml charts/bundle-operator/files/crd.yaml

docs: ## Writes the generated pages of docs anew.
	for page in endings reference; do cargo run --locked --quiet -- page $$page >docs/$$page.md; done

chart: ## Writes what follows from the chart and the definition: plain manifests, the chart's README.
	charts/generate

down: ## Takes the local cluster away.
	deploy/local/cluster down --name $(CLUSTER)

clean: down
	cargo clean
