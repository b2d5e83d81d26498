# Two commands do all the set-up: `make demo` and `make test`.
.PHONY: demo build test bench bench-fleet check setup fmt clippy deny doc unit

demo: build ## Build, then run the whole of Ameles on a bundled synthetic fleet
	cargo run --release -- demo

build:
	cargo build --release

test: ## Every check, installing what it needs
	scripts/test.sh

bench: ## Stages, whole imports and erasures beside chDB, DuckDB and delta-rs; EVENTS=small for a quick look, WRITE=docs/benchmarks.md keeps the tables
	benchmarks/run.sh

bench-fleet: ## Metrics over 132 million devices beside DuckDB (18 GiB of disk); DEVICES=1320000 for a quick look, WRITE=docs/benchmarks.md keeps the table
	benchmarks/fleet.sh

setup:
	scripts/setup.sh

fmt:
	cargo fmt --all --check
clippy:
	cargo clippy --release --workspace --all-targets -- -D warnings
unit:
	cargo test --release --workspace
