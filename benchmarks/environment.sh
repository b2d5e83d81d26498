# Sourced: makes the Python environment of the peers once, and names it `peers`. Wants `tools`, the folder that keeps it.
mkdir -p "$tools/bench"
peers="$tools/bench/python-$(sha256sum benchmarks/requirements.txt | head -c 8)"
if [ ! -e "$peers/complete" ]; then
    echo "bench: installing chDB, DuckDB and delta-rs" >&2
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet --requirement benchmarks/requirements.txt
    touch "$peers/complete"
fi
