# One line a target says what it does: make help
GOLANGCI_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
FUZZTIME ?= 30s
BENCH_ROUNDS ?= 5
KEYS ?= 1000000
IMAGE ?= gatehouse:dev
SOAK ?= TestFaultMatrix|TestThreeGateways|TestSiege|TestRevocationBound
export CGO_ENABLED ?= 1

.PHONY: help build test soak siege deploytest lint fuzz bench size cover golden image vuln deps run

help: ## say what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## build bin/gatehouse
	CGO_ENABLED=0 go build -trimpath -o bin/gatehouse ./cmd/gatehouse

run: ## run the demo
	go run ./cmd/gatehouse demo

deps: ## install what the tests need beside Go (Debian packages)
	./.ci/deps

test: deps ## run all tests, with nothing left out
	GATEHOUSE_TEST_REQUIRE=1 go test -race -shuffle=on -count=1 -timeout=30m ./...

soak: deps ## the fault matrix and the bounds at length (15 minutes); writes docs/reliability.md
	GATEHOUSE_SOAK=1 GATEHOUSE_TEST_REQUIRE=1 go test -count=1 -parallel=2 -timeout=20m -v -run '$(SOAK)' ./cmd/gatehouse -reliability $(CURDIR)/docs/reliability.md

siege: deps ## kill -9 of gateways and of Redis, again and again, while changes are acknowledged
	GATEHOUSE_SOAK=1 GATEHOUSE_TEST_REQUIRE=1 go test -count=1 -timeout=20m -v -run TestSiege ./cmd/gatehouse

deploytest: deps ## check deploy/: chart, Compose project, units, image (builds Helm and more: some minutes)
	cd deploy/check && GATEHOUSE_TEST_REQUIRE=1 go test -vet=off -shuffle=on -count=1 -timeout=20m ./...

lint: bin/golangci-lint ## vet, golangci-lint and module hygiene
	go vet ./...
	go mod tidy -diff
	bin/golangci-lint run ./...
	cd deploy/check && go mod tidy -diff && ../../bin/golangci-lint run ./...

bin/golangci-lint:
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

fuzz: ## run every fuzz test for FUZZTIME (30s)
	@for package in $$(go list ./...); do \
		for name in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

bench: deps ## compare Gatehouse with a bare reverse proxy, side by side
	go run ./cmd/bench --rounds $(BENCH_ROUNDS)

size: deps ## fill a Redis with KEYS keys (1000000), an embedded store with 100000, and say what they take and how fast they are (minutes, 1 GB)
	GATEHOUSE_SIZE_KEYS=$(KEYS) GATEHOUSE_TEST_FIGURES=100000 go test -count=1 -timeout=60m -run 'TestSize$$|TestEmbeddedFigures$$' -v ./keystore

cover: deps ## statement coverage over unit and end-to-end tests together
	./.ci/cover

golden: ## rewrite the golden files of the tests; look at the difference
	cp config.example.yaml cmd/gatehouse/config/example.yaml
	mkdir -p deploy/helm/gatehouse/rules && cp deploy/prometheus/recording.yaml deploy/prometheus/alerts.yaml deploy/helm/gatehouse/rules/
	go test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' proxy cmd | xargs -n1 dirname | sort -u | sed 's|^|./|') -run 'Golden' -update

image: ## build the container image
	docker build -t $(IMAGE) --build-arg VERSION=$$(git describe --tags --always) --build-arg REVISION=$$(git rev-parse HEAD) .

vuln: ## look for known vulnerabilities (asks the vulnerability database)
	@go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./... || \
		{ code=$$?; if [ $$code -eq 3 ]; then exit 3; fi; echo "SKIPPED: the vulnerability database could not be asked"; }
