# The checks that need only Rust. `.ci/run` runs everything that CI runs.
check: fmt clippy test doc deny

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets --test others -- -D warnings
    cargo clippy --workspace --lib --examples --no-default-features -- -D warnings

test:
    cargo test

# Tests against software of other projects. Installs pinned packages into target/others, and GNOME Keyring.
others:
    tests/others/install
    tests/others/install-packages
    cargo build --example adapted-client
    cargo test --test others

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

deny:
    cargo deny check

bench:
    cargo bench -p safeconduct-benches
    benches/compare.sh
