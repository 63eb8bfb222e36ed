# The ways in. `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test clients soak check lint fmt bench bench-full bench-report build release audit breaking tools fuzz clean-cache

CARGO ?= cargo
# One broker for demo, tests and benchmarks: found or fetched once, checked, cached.
BROKER = NATS_SERVER="$$(sh deploy/fetch-nats-server.sh)"

help: ## list the ways in
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

demo: build ## two agents exchange one encrypted message through the real thing
	@export $(BROKER) && target/debug/murmurctl demo

test: build ## every test, against real binaries and a real broker
	@export $(BROKER) && if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --workspace --no-fail-fast; \
	else \
		$(CARGO) test --workspace --tests --lib --bins; \
	fi

soak: build ## 10,000 messages each way while every part is killed at random (MURMUR_SEED repeats a run)
	@export $(BROKER) MURMUR_SOAK_MESSAGES=$${MURMUR_SOAK_MESSAGES:-10000} MURMUR_SOAK_PAUSE_MS=$${MURMUR_SOAK_PAUSE_MS:-2000} && \
		$(CARGO) test -p murmur-tests --test scenarios random_kills -- --nocapture

clients: build ## the real Claude Code, Codex and an ACP agent against a stand-in for their models (needs npm and python3)
	@export $(BROKER) MURMUR_CLIENTS="$$(sh deploy/fetch-clients.sh)" && \
		$(CARGO) test -p murmur-tests --test scenarios clients:: -- --ignored

check: lint ## exactly what CI runs: lint, doc tests, then every test
	$(CARGO) test --workspace --doc
	$(MAKE) --no-print-directory test

lint: ## formatting, clippy, dependency rules, contract rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --workspace --log-level error check bans licenses sources
	sh deploy/tool.sh buf lint

fmt: ## format everything
	$(CARGO) fmt --all
	sh deploy/tool.sh buf format -w

build: ## debug binaries of the whole workspace
	$(CARGO) build --workspace

# The curve crate multiplies with AVX-512 where it finds it when it runs, if it was told when it was built; other machines' builds fail on it.
ifeq ($(shell uname -m),x86_64)
release: export CARGO_CFG_CURVE25519_DALEK_BACKEND = avx512
endif
release: ## optimised binaries
	$(CARGO) build --release --workspace

# Where the figures of the runs are collected for the report.
FIGURES ?= target/bench.json

bench: release ## latency, throughput and memory beside the raw limits, in both modes of the broker (six minutes)
	@export $(BROKER) && target/release/murmur-bench core --json $(FIGURES)
	@export $(BROKER) && target/release/murmur-bench core --json $(FIGURES) --sync-always

bench-full: bench ## the same, then a million messages, a million waiting, a thousand agents, restarts, ten thousand live agents
	@export $(BROKER) && target/release/murmur-bench long --json $(FIGURES)

bench-report: ## docs/BENCHMARKS.md and its charts from the figures of the last runs
	@target/release/murmur-bench report $(FIGURES)

fuzz: ## every parser of strangers' bytes, SECONDS each (default 60; needs a nightly toolchain)
	sh deploy/tool.sh fuzz
	fuzz/run.sh $${SECONDS:-60}

audit: ## known vulnerabilities of the dependencies (needs the network)
	$(CARGO) deny --workspace check advisories

breaking: ## contract changes against BASE (default: the last commit)
	sh deploy/tool.sh buf breaking --against ".git#ref=$${BASE:-HEAD}"

tools: ## install what `make check` needs beside Rust, once
	sh deploy/tool.sh install
