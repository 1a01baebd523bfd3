# Two commands are enough: make run, make test. A bare make says what there is.
NC_SOURCE := $(CURDIR)
include openwrt/flags.mk
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X $(NC)/internal/buildinfo.Version=$(VERSION)
# musl, where it is installed (musl-tools): smaller, and free of the duties of a
# statically linked LGPL library. It is what routers have.
export CC := $(or $(shell command -v musl-gcc),gcc)
STATIC  := -linkmode=external "-extldflags=-static $(NC_LDFLAGS)"
export CGO_CFLAGS := -Os $(NC_CFLAGS)
export GOFLAGS := -tags=$(NC_TAGS)
export PATH := $(PATH):/usr/sbin:/sbin
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help run test build demo-test score bench soak vm fuzz lint clean
help: ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: ## build, then watch a made-up house on this machine, live (Ctrl-C ends it)
	@scripts/setup run
	@$(MAKE) --no-print-directory build
	@exec scripts/root ./netcurtain demo $(ARGS)

test: ## unit tests with -race, the root ring, the real binary in namespaces
	@scripts/setup test
	@scripts/test

build: ## the binary, static and stripped
	@[ -x netcurtain ] || echo "first build: 2-4 minutes (SQLite and CoreDNS are large); later ones take seconds" >&2
	CGO_ENABLED=1 go build -v -trimpath $(NC_GCFLAGS) -ldflags '$(LDFLAGS)$(if $(filter Linux,$(shell uname -s)), $(STATIC))' -o netcurtain ./cmd/netcurtain 2>&1 | scripts/progress

demo-test: ## the demo for a bounded time; fails unless its ledger holds what it must
	@scripts/setup run
	@$(MAKE) --no-print-directory build
	@exec scripts/root ./netcurtain demo --for 40s --verify

score: ## names, protocols and protection against real captures, compared with docs/scores.md
	@go run ./cmd/score

bench: ## size, memory and speed beside the limits
	@scripts/setup bench
	@scripts/bench

soak: ## a hundred thousand connections (N=…) through the real daemon, which must leave nothing behind
	@scripts/setup test
	@$(MAKE) --no-print-directory build
	@env -u CC go test -c -o build/e2e.test ./e2e
	@cd e2e && exec ../scripts/root env NETCURTAIN_SOAK=$(or $(N),100000) NETCURTAIN_BINARY=$(CURDIR)/netcurtain ../build/e2e.test -test.run TestStories/soak -test.v

vm: ## the stories beside a real flow table, in a virtual machine with Debian's kernel
	@scripts/setup vm
	@$(MAKE) --no-print-directory build
	@env -u CC go test -c -o build/e2e.test ./e2e
	@cd e2e && exec ../scripts/vm env NETCURTAIN_NEED_ROOT=1 NETCURTAIN_BINARY=$(CURDIR)/netcurtain ../build/e2e.test -test.run TestOffload -test.v

fuzz: ## every fuzz target for FUZZTIME (default 5s)
	@scripts/fuzz $(or $(FUZZTIME),5s)

lint: ## gofmt, vet, staticcheck, shellcheck
	@scripts/lint

clean: ## remove what was built
	rm -rf netcurtain build
