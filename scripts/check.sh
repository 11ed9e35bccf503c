#!/usr/bin/env bash
# check.sh [formatting|lints]: formatting and licences; lints; both without an argument.
source "$(dirname "$0")/lib.sh"

scripts/deps.sh --check
formatting() {
    stage "rustfmt" cargo fmt --all --check
    # Advisories need their database; without network access only a local one can be asked.
    local checks=(licenses bans sources)
    [ ! -d "$HOME/.cargo/advisory-dbs" ] || checks+=(advisories)
    stage "cargo deny ${checks[*]}" cargo deny --offline check "${checks[@]}"
}
# In a target directory of their own: who builds or tests meanwhile does not wait.
lints() {
    export CARGO_TARGET_DIR=$TARGET_DIR/lints
    own_target_dir "$CARGO_TARGET_DIR"
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
