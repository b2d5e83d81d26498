#!/usr/bin/env bash
# Metrics over a fleet of 132 million devices beside DuckDB. DEVICES=1320000 for
# a quick look. The table goes to the page named by WRITE, or to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${AMELES_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ameles/tools}"
target="${CARGO_TARGET_DIR:-target}"
devices="${DEVICES:-132000000}"                      # 18 GiB, and minutes to write
home="${FLEET_HOME:-$tools/bench/home-$devices}"
write=()
if [ -n "${WRITE:-}" ]; then write=(--write "$WRITE"); fi

. benchmarks/environment.sh
cargo build --release
"$peers/bin/python" benchmarks/fleet.py "$home" --ameles "$target/release/ameles" --devices "$devices" --rounds "${ROUNDS:-3}" ${write[@]+"${write[@]}"}
