# Needs Rust (see rust-version in Cargo.toml), make and, for the real clients, Node.js and Python.

CARGO ?= cargo

.PHONY: demo test build-tests fmt lint doc unit postgres instructions clients browser pictures soak fuzz bench \
	bench-placement floods deploy-check dist dist-check site

# Three simulated backends and the gateway: http://127.0.0.1:8180
demo:
	$(CARGO) run --locked --release -- demo

# All that must pass before a change is taken, and how long each step took. All that the tests run is
# built first, with both cores. What only counts goes on beside what mostly waits, and gives way to
# it: a browser that starves fails. It locks Cargo's folder meanwhile, so nothing else builds then.
# The integration tests come last, so that the last lines are theirs; they say themselves how long
# they took. They mostly wait too, so several run at a time.
timed = start=$$(date +%s); $(MAKE) --no-print-directory $(1) || exit 1; \
	echo "== $(1): $$(($$(date +%s) - start)) s"

test:
	@for step in fmt lint doc build-tests unit postgres; do $(call timed,$$step); done
	@(renice -n 19 $$(sh -c 'echo $$PPID') >/dev/null; \
	$(call timed,instructions)) >target/beside.log 2>&1 & \
	beside=$$!; \
	export MOORING_BIN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/mooring; \
	(for step in site deploy-check clients browser; do $(call timed,$$step); done); waited=$$?; \
	wait $$beside; counted=$$?; cat target/beside.log; \
	[ $$waited = 0 ] && [ $$counted = 0 ]
	RUST_TEST_THREADS=6 $(CARGO) test --locked --test it

# The executable too: the integration tests run it.
build-tests:
	$(CARGO) test --locked --lib --bins --test it --no-run

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@[ -d "$${ADVISORY_DB:-../shared/advisory-db}" ] || echo "SKIPPED: the crates are not checked" \
	  "against known vulnerabilities: ADVISORY_DB may name a copy of" \
	  "https://github.com/rustsec/advisory-db"

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

unit:
	$(CARGO) test --locked --lib --bins

# PostgreSQL for the integration tests, if there is none: the programs of Debian's package.
postgres:
	@tests/postgres/install

# Real clients from their registries, and a real browser, against the gateway.
clients browser:
	@if [ -x tests/$@/run ]; then tests/$@/run; fi

# The hot paths' instructions, against benches/instructions/baseline.json.
instructions:
	benches/instructions/run

# What is under deploy/, with the tools that can be had; DOCKER=1 also builds the image.
deploy-check:
	@tests/deploy/check

# The documentation as a site in target/site. Fails on a broken link, a page that is not in the
# navigation, and a page that would load something from elsewhere.
site:
	@packaging/site/build

# Packages in target/dist. MOORING_BINARY=FILE packs that executable and builds none.
dist:
	@packaging/build

# Builds them, installs each where nothing of it is, and uses it for one prompt; writes
# docs/dist-check.md. Needs Debian and root; minutes.
dist-check:
	@packaging/check

# Builds the image of the Dockerfile with buildah, without a registry, and uses it for one prompt.
# Needs Debian and root; a quarter of an hour.
image-check:
	@packaging/image

# The pictures of the README, as the browser tests take them.
pictures:
	tests/browser/run demo dashboard
	cp .cache/browser/dashboard-light-1280.png docs/pictures/dashboard.png
	cp .cache/browser/playground.png docs/pictures/playground.png

# The scenarios of `test` at their full counts, and a minute with each fuzz target. SEEDS=200 or
# SEEDS=400..600 runs other seeds.
soak:
	SOAK=1 $(CARGO) test --locked --profile soak -- --nocapture
	$(MAKE) --no-print-directory fuzz SECONDS=60

# Each fuzz target for SECONDS; TARGETS="chunks frames" for some. docs/fuzzing.md tells more.
fuzz: SECONDS ?= 60
fuzz:
	fuzz/run $(SECONDS) $(TARGETS)

# Mooring beside nginx and HAProxy; writes docs/performance.md. ROUNDS=1 SECONDS=1 for a look.
bench:
	bench/run

# The queue's rule beside what others do, on simulated fleets; writes docs/placement.md. A minute at
# most, after the build; fails if placement has become worse than it may be.
bench-placement:
	$(CARGO) bench --locked --profile soak --bench placement

# What floods do to the gateway's memory and to an honest client; writes docs/floods.md.
floods:
	bench/floods
