#!/usr/bin/env bash
# check.sh [formatting|lints]: formatting; licences and lints; both without an argument.
source "$(dirname "$0")/lib.sh"

scripts/deps.sh --check
formatting() {
    stage "rustfmt" cargo fmt --all --check
}
lints() {
    # The crates themselves are read; on an empty cache nobody has fetched them yet.
    stage "crates" cargo fetch --locked --target x86_64-unknown-linux-gnu
    # Advisories need their database; without network access only a local one can be asked.
    local checks=(licenses bans sources)
    [ ! -d "$HOME/.cargo/advisory-dbs" ] || checks+=(advisories)
    stage "cargo deny ${checks[*]}" cargo deny --offline check "${checks[@]}"
    stage "clippy" cargo clippy --workspace --all-targets -- -D warnings
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
