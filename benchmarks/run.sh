#!/usr/bin/env bash
# The benchmarks: the stages by criterion, then whole imports beside chDB and
# DuckDB, then erasures beside these and delta-rs, then metrics beside DuckDB. EVENTS=small for a quick look. Tables go to
# the page named by WRITE, or to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${AMELES_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ameles/tools}"
target="${CARGO_TARGET_DIR:-target}"
case "${EVENTS:-full}" in
    full) devices=173000 rounds="${ROUNDS:-3}" ;;   # 10.1 million events, 3.6 GiB
    small) devices=10000 rounds="${ROUNDS:-1}" ;;   # 0.6 million
    *) echo "EVENTS is full or small, not $EVENTS" >&2; exit 2 ;;
esac
fleet="${FLEET:-$tools/bench/fleet-$devices}"
scratch="${SCRATCH:-$tools/bench}"
mkdir -p "$scratch"
write=()
if [ -n "${WRITE:-}" ]; then write=(--write "$WRITE"); fi

. benchmarks/environment.sh
if [ ! -e "$fleet/part-0.ndjson" ]; then
    echo "bench: making a fleet of $devices devices in $fleet" >&2
    rm -rf "$fleet.partial"
    "$peers/bin/python" tests/python/fleet.py "$fleet.partial" --devices "$devices" --files 4 >&2
    mv "$fleet.partial" "$fleet"
fi

# The binary and the stages are one build, as for the tests.
cargo build --release --package ameles --bins --bench stages
TMPDIR="$scratch" AMELES_BENCH_FLEET="$fleet" cargo bench --package ameles --bench stages
"$peers/bin/python" benchmarks/tables.py "$target" ${write[@]+"${write[@]}"}
"$peers/bin/python" benchmarks/compare.py "$fleet" --ameles "$target/release/ameles" --rounds "$rounds" --scratch "$scratch" ${write[@]+"${write[@]}"}
case "${EVENTS:-full}" in full) erased=100,10000 ;; *) erased=100 ;; esac
"$peers/bin/python" benchmarks/erase.py "$fleet" --ameles "$target/release/ameles" --devices "$erased" --rounds "$rounds" --scratch "$scratch" ${write[@]+"${write[@]}"}

home="$(mktemp -d "$scratch/ameles-metrics.XXXXXX")"
trap 'rm -rf "$home"' EXIT
"$target/release/ameles" -q --home "$home/home" init
"$target/release/ameles" -q --home "$home/home" ingest "$fleet" >/dev/null
"$peers/bin/python" benchmarks/metrics.py "$home/home" --ameles "$target/release/ameles" ${write[@]+"${write[@]}"}
