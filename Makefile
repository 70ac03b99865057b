# The commands for developers and CI; `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export GOFLAGS := -buildvcs=false

SERVICES := audit-service auth-service email-service gateway user-service
MODULES  := pkg deploy/local tests tools $(addprefix services/,$(SERVICES))
LAUNCHER := .local/bin/headgate-local
LINT     := .bin/golangci-lint
FUZZTIME ?= 20s

.PHONY: help
help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(LAUNCHER) ## start Postgres, Redis, the five services and a mailbox on this machine
	@GOFLAGS="$(GOFLAGS) -ldflags=$$(tools/commit.sh)" exec $(LAUNCHER) up

.PHONY: up
up: ## build and start docker-compose.yml, and wait until it is ready; run make env first
	@COMMIT=$$(tools/commit.sh --id) docker compose up --build --detach --wait
	@echo "ready: http://localhost:8080 and the mailbox at http://localhost:8025, unless .env says otherwise"

.PHONY: compose-test
compose-test: ## bring docker-compose.yml up under a name of its own, use, break and change it (needs Docker; 10 minutes)
	@go build -o .local/bin/compose ./tests/compose
	@exec .local/bin/compose $(COMPOSEFLAGS)

.PHONY: test
test: $(LAUNCHER) ## run every test on real Postgres and Redis, with the race detector
	@$(LAUNCHER) servers -- go test -race -parallel 8 -timeout 30m $(TESTFLAGS) work

.PHONY: chaos
chaos: ## inject faults into every part under load; check that nothing is lost or done twice (8 minutes; CHAOS_FOR=1h repeats it with other seeds)
	@go build -o .local/bin/chaos ./tests/chaos
	@exec .local/bin/chaos $(if $(CHAOS_FOR),-for $(CHAOS_FOR)) $(CHAOSFLAGS)

.PHONY: bench
bench: ## compare events with raw Redis, auth-service with its password hash, the gateway with a bare proxy and nginx, the profile cache with a constant (20 minutes)
	@go build -o .local/bin/bench ./tests/bench
	@exec .local/bin/bench $(BENCHFLAGS)

.PHONY: check
check: $(LAUNCHER) ## run what CI checks besides the tests: format, lint, single modules, vocabulary, generated text
	@$(LAUNCHER) servers -- tools/check.sh

.PHONY: lint
lint: $(LINT) ## run only the linters
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && GOWORK=off GOFLAGS="-buildvcs=false -race" "$(CURDIR)/$(LINT)" run --config "$(CURDIR)/.golangci.yml" ./...) || exit 1; done

.PHONY: generate
generate: ## rewrite the environment tables in the services' READMEs
	@tools/readme.sh write

.PHONY: fuzz
fuzz: ## fuzz each parser of untrusted input for FUZZTIME (20s)
	@tools/fuzz.sh $(FUZZTIME)

.PHONY: build
build: ## build static binaries of the services into .bin/
	@mkdir -p .bin
	@for s in $(SERVICES); do (cd services/$$s && GOWORK=off CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $$(../../tools/commit.sh)" -o "$(CURDIR)/.bin/$$s" .) || exit 1; done
	@ls -lh $(addprefix .bin/,$(SERVICES))

.PHONY: env
env: ## write a .env with new secrets for docker compose, or add to it what an upgrade requires
	@tools/env.sh

.PHONY: erasure-report
erasure-report: $(LAUNCHER) ## print what the services of make run have about a user: make erasure-report USER=<id>
	@$(LAUNCHER) erasure-report "$(USER)"

.PHONY: reset
reset: $(LAUNCHER) ## delete the data of make run in .local/
	@$(LAUNCHER) reset

.PHONY: clean
clean: ## delete built binaries (.bin/ and .local/bin), but no data
	@rm -rf .bin .local/bin

# Built every time: the build cache knows whether it is up to date. It is not started
# with go run, because go run does not pass SIGTERM on.
.PHONY: $(LAUNCHER)
$(LAUNCHER):
	@[ -x $@ ] || echo "building the launcher; the first build on a machine takes a minute or two"
	@go build -o $(LAUNCHER) ./deploy/local

# The version is that of tools/go.mod.
$(LINT): tools/go.mod
	@echo "building golangci-lint; this happens once for each version"
	@mkdir -p .bin && cd tools && GOWORK=off GOFLAGS=-buildvcs=false go build -o "$(CURDIR)/$(LINT)" github.com/golangci/golangci-lint/v2/cmd/golangci-lint && touch "$(CURDIR)/$(LINT)"
