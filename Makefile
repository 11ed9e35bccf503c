# Hull. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help deps build guest images run stop test check bench fuzz kernel release clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Start a one-machine cluster, run the examples in it, print a summary
	@scripts/run.sh

stop: ## Stop what `make run` started
	@scripts/stop.sh

test: ## All tests: formatting, lints, licences, unit, subsystem and end-to-end
	@scripts/test.sh

check: deps ## Formatting, lints and licences only
	@scripts/check.sh

bench: ## Measure, and print the tables of docs/figures.md
	@scripts/bench.sh

fuzz: deps ## Hostile input for every decoder, device and API (FUZZ_S seconds each, default 60)
	@scripts/fuzz.sh

deps: ## Install the Debian packages and tools that are missing
	@scripts/deps.sh

build: deps ## Build every program, and the static guest agent
	@scripts/build.sh

guest: build ## Prepare the guest kernel and the initramfs
	@scripts/guest.sh

images: build ## Build the sample images and put them into the local registry's storage
	@scripts/images.sh

kernel: deps ## Build Hull's own guest kernel (about 13 minutes on 2 cores, then cached)
	@images/guest-kernel/build.sh

release: deps ## Build optimised programs into target/release
	@PROFILE=release scripts/build.sh

clean: stop ## Remove build products (the cache in ~/.cache/hull stays)
	@cargo clean
