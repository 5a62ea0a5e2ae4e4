# What a developer types. `just` lists it; it is a crate: cargo install just. Each recipe is a plain command, so nobody
# needs it, and CI does without.

[private]
default:
    @just --list

# Formatting, lints, unit tests: within two minutes once built.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo test --lib

# Everything that needs no network, no root and no cluster, or tests whose names have NAME.
test NAME='':
    cargo test {{NAME}}

# The whole chain on this machine, without a cluster.
demo:
    cargo build --bins
    target/debug/hushpod demo

# A real Kubernetes on this machine; wants Debian and root: eval "$(just cluster)".
cluster:
    tests/cluster/up

# The promises on real pods, or tests by name.
e2e *NAME:
    tests/e2e/run {{NAME}}

# The figures, or sections of them.
bench *SECTION:
    tests/bench/run {{SECTION}}

# What CI runs, or steps of it: .ci/run --list.
ci *STEP:
    .ci/run {{STEP}}

# The version, or a new one in all places.
version *VERSION:
    deploy/version {{VERSION}}
