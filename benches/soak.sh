#!/usr/bin/env bash
# Runs the daemon for some time among faults and hostile callers. See README.md beside this file.
#
#   benches/soak.sh [SECONDS]      (default: 600)
#
# Without SAFECONDUCT_BIN it builds and runs `cargo build --release`. Fails (exit 1) if memory grew, if a caller got no
# token at a time when one could exist, or if the daemon does not end well.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
cargo build --quiet --release --locked --manifest-path "$root/benches/tools/Cargo.toml" --bin upstream
if [ -z "${SAFECONDUCT_BIN:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --bin safeconduct
    SAFECONDUCT_BIN=$CARGO_TARGET_DIR/release/safeconduct
fi
exec python3 "$root/benches/tools/soak.py" --upstream "$CARGO_TARGET_DIR/release/upstream" --daemon "$SAFECONDUCT_BIN" \
    --seconds "${1:-600}"
