# Verbs of the project; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# local: the harness's own cluster. existing: the current kubeconfig context
# (then IMAGE_PREFIX names a registry path that it can pull from).
export CLUSTER ?= local
RELEASE := target/x86_64-unknown-linux-gnu/release
ENV := eval "$$(tests/cluster/cluster env)" &&
ifeq ($(CLUSTER),existing)
ENV :=
endif

.PHONY: help
help: ## Show this help
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-22s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what is missing on this machine (asks first on a terminal; YES=1 does not)
	@tools/deps

.PHONY: demo
demo: deps images cluster ## The main job: cluster, operator, stock clients, a load and the autoscaler, live
	@$(ENV) $(RELEASE)/demo

.PHONY: test
test: deps ## Everything CI runs: lint, unit, property, real Redis, real clients, one smoke on a real cluster
	@tools/suite lint 600 $(MAKE) -s lint
	@tools/suite unit-and-redis 600 cargo test --workspace --quiet
	@tools/suite images 900 $(MAKE) -s images
	@tools/suite cluster 900 $(MAKE) -s cluster
	@tools/suite generated 180 tools/check-generated
	@tools/suite smoke 180 $(MAKE) -s smoke
	@$(MAKE) -s cluster-down

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Format check, clippy, documentation
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

.PHONY: deny
deny: ## Licences, advisories and sources of all crates (needs cargo-deny)
	cargo deny check

.PHONY: gen
gen: ## Write generated files: CRD, chart copy, kubectl bundle
	tools/generate

.PHONY: images
images: deps ## Build the container images without a Docker daemon
	@images/build

.PHONY: cluster
cluster: ## Local cluster with the operator installed (keeps a running one)
	@if [[ $(CLUSTER) == local ]]; then tests/cluster/cluster ensure; fi
	@$(ENV) tests/cluster/install

.PHONY: cluster-up
cluster-up: deps ## Start a local Kubernetes: control plane and three real nodes, no Docker
	@tests/cluster/cluster up

.PHONY: cluster-down
cluster-down: ## Stop the local cluster and clean up, also after a crash
	@if [[ $(CLUSTER) == local ]]; then tests/cluster/cluster down; fi

.PHONY: cluster-status
cluster-status: ## Nodes and pods of the local cluster
	@tests/cluster/cluster status

.PHONY: smoke
smoke: ## The smoke scenarios on the running cluster
	@$(ENV) $(RELEASE)/scenarios smoke

.PHONY: verify-skeleton
verify-skeleton: deps images cluster ## All scenarios of "A RealtimeCluster that runs"; RESUME=1 goes on after a cut
	@$(ENV) $(RELEASE)/scenarios skeleton $(if $(RESUME),--resume) $(if $(ONLY),--only $(ONLY))

.PHONY: gateway
gateway: ## The gateway alone: a complete server without any dependency, on :8080
	cargo run --release -p gateway
