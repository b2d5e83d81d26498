#!/usr/bin/env bash
# All checks, in the order in which they fail fastest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
export AMELES_TOOLS="${AMELES_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ameles/tools}"
export PATH="$AMELES_TOOLS/bin:$PATH"
export AMELES_TEST_PYTHON="$AMELES_TOOLS/python/bin/python"
export AMELES_TEST_KAFKA_JARS="$(dirname "$(ls "$AMELES_TOOLS"/kafka/*/complete | tail -1)")"

step() { echo "== $1 ($(date +%H:%M:%S))"; shift; "$@"; }
step "format" cargo fmt --all --check
step "licences and bans" cargo deny --log-level error check licenses bans sources
step "lints" cargo clippy --release --workspace --all-targets --quiet -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --quiet
step "build" cargo build --release --workspace
step "tests" cargo test --release --workspace
# TLS and SASL towards Kafka are a feature, with OpenSSL and Kerberos built from source: last, because it builds the binary once more.
step "TLS towards Kafka" env AMELES_TEST_KAFKA_TLS=1 cargo test --release -p ameles --features kafka-tls --test main -- kafka::a_broker_is_read_over_tls
