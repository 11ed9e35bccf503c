#!/usr/bin/env bash
# check.sh [formatting|lints]: formatting; licences and lints; both without an argument.
source "$(dirname "$0")/lib.sh"

scripts/deps.sh --check
formatting() {
    stage "rustfmt" cargo fmt --all --check
}
# What rustc and clippy said as they compiled our crates and their tests (scripts/rustc.sh);
# of what is compiled already Cargo repeats it.
no_warnings() {
    command -v clippy-driver >/dev/null || die "clippy is not installed: rustup component add clippy"
    local log status=0
    log=$(mktemp)
    cargo test --workspace --no-run --color never 2>&1 | tee "$log" || status=$?
    ! grep -q '^warning' "$log" || { say "error: warnings, see above"; status=1; }
    rm -f "$log"
    return "$status"
}
lints() {
    # The crates themselves are read; on an empty cache nobody has fetched them yet.
    stage "crates" cargo fetch --locked --target x86_64-unknown-linux-gnu
    # Advisories need their database; without network access only a local one can be asked.
    local checks=(licenses bans sources)
    [ ! -d "$HOME/.cargo/advisory-dbs" ] || checks+=(advisories)
    stage "cargo deny ${checks[*]}" cargo deny --offline check "${checks[@]}"
    stage "test programs and lints" no_warnings
}
case ${1:-} in
formatting | lints) "$1" ;;
"")
    formatting
    lints
    ;;
*) die "usage: check.sh [formatting|lints]" ;;
esac
print_stages
