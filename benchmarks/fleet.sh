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
mkdir -p "$tools/bench"

peers="$tools/bench/python-$(sha256sum benchmarks/requirements.txt | head -c 8)"
if [ ! -e "$peers/complete" ]; then
    echo "bench: installing chDB and DuckDB" >&2
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet --requirement benchmarks/requirements.txt
    touch "$peers/complete"
fi
cargo build --release
"$peers/bin/python" benchmarks/fleet.py "$home" --ameles "$target/release/ameles" --devices "$devices" --rounds "${ROUNDS:-3}" ${write[@]+"${write[@]}"}
