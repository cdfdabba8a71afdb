SHELL := /bin/bash
GO ?= go
KILLS ?= 20
FUZZTIME ?= 60s
DIR ?= ./demo-months

.DEFAULT_GOAL := help

.PHONY: help run demo-months build test test-kills fuzz bench lint lint-api lint-events vuln test-tools clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

run: build ## Build and start the service, everything in one process; data lies in ./data
	@exec bin/api

demo-months: build ## Build a ledger of three archived months to play with, in DIR (./demo-months)
	@$(GO) run ./demo $(DIR)

build: ## Build bin/api and bin/projector
	$(GO) build -o bin/ ./cmd/...

test: test-tools ## Run all tests under the race detector
	$(GO) test -race -timeout 30m ./...

test-kills: test-tools ## Kill the service under load KILLS times (20) and check every answer it gave
	$(GO) test -race -count=1 -v -run Kill ./cmd/api -args -kills $(KILLS) -relay-kills $(KILLS)

fuzz: test-tools ## Fuzz every fuzz test for FUZZTIME (60s) each, and the API with 100,000 requests of a new seed
	@set -e; grep -rhoE --include='*_test.go' '^func (Fuzz[A-Za-z]+)' -H internal | while IFS=: read -r file line; do \
	  echo "== $${line#func } in $$(dirname $$file)"; \
	  $(GO) test -run '^$$' -fuzz "^$${line#func }$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); done
	$(GO) test -run TestAnyRequestIsAnsweredByTheContract -v ./cmd/api -args -seed 0 -requests 100000

bench: ## Measure against baselines of the same run, about 14 minutes, and write bench/RESULTS.md
	$(GO) run ./bench

lint: bin/staticcheck lint-api lint-events ## Check format, vet, staticcheck, the contract of the API and that of events
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on the files above'; exit 1; }
	$(GO) vet ./...
	bin/staticcheck ./...

lint-api: ## Check docs/openapi.yaml with the linter of Redocly
	@.ci/lint-api

lint-events: ## Check docs/asyncapi.yaml and docs/schemas with the parser of AsyncAPI and with ajv
	@.ci/lint-events

vuln: ## Look the code up in the Go vulnerability database, which has to be reached
	@.ci/vuln

bin/staticcheck: tools/go.mod
	$(GO) -C tools build -o ../$@ honnef.co/go/tools/cmd/staticcheck

bin/govulncheck: tools/go.mod
	$(GO) -C tools build -o ../$@ golang.org/x/vuln/cmd/govulncheck

# The end-to-end tests run the clients that users have: curl, Node.js and Python with requests; and the commands of the documents.
test-tools:
	@need=; \
	command -v curl >/dev/null || need="$$need curl"; \
	command -v jq >/dev/null || need="$$need jq"; \
	command -v xxd >/dev/null || need="$$need xxd"; \
	command -v node >/dev/null || need="$$need nodejs"; \
	command -v npm >/dev/null || need="$$need npm"; \
	python3 -c 'import requests' 2>/dev/null || need="$$need python3 python3-requests"; \
	test -z "$$need" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && apt-get install -qy --no-install-recommends $$need; \
	else echo "the end-to-end tests need these Debian packages, or their like:$$need"; exit 1; fi

clean: ## Remove what was built; ./data stays
	rm -rf bin
