#!/usr/bin/env bash
# Installs what the checks need and is not there yet: a browser, the Python
# clients of the end-to-end tests, cargo-deny. Says what it does.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${AMELES_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ameles/tools}"
mkdir -p "$tools"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

if ! command -v chromedriver >/dev/null; then
    echo "setup: installing chromium and its driver"
    as_root apt-get update -qq
    as_root apt-get install -y -qq chromium chromium-driver >/dev/null
fi

if ! "$tools/python/bin/python" -c 'import duckdb, deltalake, polars, pyarrow' 2>/dev/null; then
    echo "setup: installing the Python clients"
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --requirement tests/requirements.txt
fi

# A real Kafka for the tests: its jars, by their pom.
kafka="$tools/kafka/$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' tests/kafka/pom.xml)"
if [ ! -e "$kafka/complete" ]; then
    if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
        echo "setup: installing Java and Maven"
        as_root apt-get update -qq
        as_root apt-get install -y -qq openjdk-17-jre-headless maven >/dev/null
    fi
    echo "setup: fetching Kafka"
    mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$kafka"
    touch "$kafka/complete"
fi

if ! cargo deny --version >/dev/null 2>&1 && [ ! -x "$tools/bin/cargo-deny" ]; then
    echo "setup: building cargo-deny"
    CARGO_TARGET_DIR="$tools/target-deny" cargo install --locked --quiet --root "$tools" cargo-deny
    rm -rf "$tools/target-deny"
fi
