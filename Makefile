# `make demo` and `make test` are all that a newcomer needs; the rest are their parts.

SHELL := /bin/bash
CLUSTER ?= bundlerun
STATIC := target/static
CARGO_DENY := 0.20.2

.PHONY: bench-snapshots help demo test static lint supply-chain advisories test-pure test-cgroup2 test-large test-million test-gpu-simulated test-real-gpu test-cluster test-cluster-long test-registries test-chart test-chart-cluster crd docs chart down clean bench test-bench test-sweep

help: ## The targets, and what each does.
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)$$/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target what; do printf '%-20s %s\n' "$$target" "$$what"; done

demo: ## A local cluster, the operator in it, the examples run, their records printed. CLUSTER=current: your own context.
	deploy/demo --cluster $(CLUSTER)

PARTS := lint supply-chain test-pure static test-cgroup2 test-gpu-simulated test-chart-cluster test-cluster

test: ## All that CI runs, and how long each part took.
	@trap 'printf "\n%s%s s in all\n" "$$times" $$SECONDS' EXIT; for part in $(PARTS); do \
	  start=$$SECONDS; $(MAKE) --no-print-directory $$part || exit; times+="$$((SECONDS - start)) s $$part"$$'\n'; \
	done

static: ## The binaries of the image, and kubectl-bundle: static, so that they work in any image and on any Linux.
	deploy/build $(STATIC)

lint: ## Formatting, clippy and the documentation of the code; warnings are errors.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test bundle --test cgroup2 --test cluster -- -D warnings
	cargo clippy --locked --features faults --lib --test sweep -- -D warnings
	cargo clippy --locked --no-default-features --bin bundle-runner -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

supply-chain: ## Licences, sources and versions of the crates, by deny.toml.
	PATH="$$(deploy/cargo-tool cargo-deny $(CARGO_DENY)):$$PATH" cargo deny --locked check bans licenses sources --hide-inclusion-graph

advisories: ## Known vulnerabilities of the crates, by today's RustSec database: needs GitHub.
	PATH="$$(deploy/cargo-tool cargo-deny $(CARGO_DENY)):$$PATH" cargo deny --locked check advisories

test-pure: ## All tests that need no cluster.
	cargo test --locked

test-cgroup2: ## The runner and the helper on cgroup v2 and out of memory, in user-mode Linux: no cluster.
	tests/cgroup2/run

test-million: ## The test of many files with a million of them, and 247 MiB for the helper: three quarters of an hour and more, 5 GiB of disk, no part of CI.
	MANY_FILES=1000000 BOOT_SECONDS=14400 PATIENCE_SECONDS=7200 tests/cgroup2/run many_files --nocapture

test-real-gpu: static ## The runner with this machine's NVIDIA GPUs: no cluster, no part of CI. Exit code 77: it has none.
	tests/real-gpu/run

test-gpu-simulated: static ## The script of test-real-gpu with a made-up host: seconds.
	tests/real-gpu/run --simulate

test-cluster: static ## Tests of bundles in registries, and of the operator, on a local cluster of its own.
	tests/cluster/run

test-cluster-long: static ## Tests of lost nodes, of long waits and of a hundred kills that take minutes each, and whole tables of cases of which make test tries a part, on a local cluster of its own: no part of CI.
	tests/cluster/run --ignored node_loss budgets snapshots
	LONG=1 tests/cluster/run ha::two_operators hostile_archives:: limits::who_handles matrix:: security:: store_outages::

test-registries: ## All tests of bundles in registries, on each registry that can be had: no cluster, no part of CI, which has the tests that registries answer differently.
	tests/bundle/run

test-large: ## A file of 12 GiB (LARGE_FILE_GIB) in parts of 1 GiB, saved, staged and read by range: a quarter of an hour, three times its size of disk, no part of CI.
	BUNDLE_TEST_REGISTRY=distribution tests/bundle/run --ignored a_file_of_many_gibibytes

test-chart: ## The Helm chart, plain manifests, alerts and GitOps health: what needs no cluster.
	env -u KUBECONFIG tests/chart/run

test-chart-cluster: static ## The same on a local cluster of its own, with the operator's image: install, upgrade, uninstall, alerts.
	tests/chart/run --cluster bundlerun-chart

bench: static ## What a run costs beside a Job and a bare pod, on a control plane of its own without kubelets: N of each (1000), ROUNDS rounds (3).
	tests/bench/runs $(or $(N),1000) $(or $(ROUNDS),3)

bench-snapshots: static ## How soon the GPUs are free after a command, and what snapshots cost one, on a local cluster of its own: half an hour, 45 GiB of disk.
	tests/cluster/run --ignored early::bench snapshots::bench

test-bench: static ## The counts of make bench, which no load stretches: what a run and an idle operator ask of the API server. Three minutes, no part of CI.
	PROFILE=dev tests/bench/runs 100 1

test-sweep: ## The operator dies at each of its requests once, and each answer is lost once, on a control plane of its own: docs/crash-sweep.md.
	tests/sweep/run

crd: ## Generates crds/bundlerun.yaml from the types.
	cargo run --locked --quiet -- crd >crds/bundlerun.yaml
	cp crds/bundlerun.yaml charts/bundle-operator/files/crd.yaml

docs: ## Generates the pages endings, metrics and reference of docs.
	for page in endings metrics reference; do cargo run --locked --quiet -- page $$page >docs/$$page.md; done

chart: ## Generates the plain manifests and the chart's README from the chart and the definition.
	charts/generate

down: ## Ends the local cluster.
	deploy/local/cluster down --name $(CLUSTER)

clean: down ## Ends the local cluster, and removes what was built.
	cargo clean
