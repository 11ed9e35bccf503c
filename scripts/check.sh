#!/usr/bin/env bash
# Formatting, lints, licences.
source "$(dirname "$0")/lib.sh"

scripts/deps.sh --check
stage "rustfmt" cargo fmt --all --check
stage "clippy" cargo clippy --workspace --all-targets -- -D warnings
# Advisories need their database; without network access only a local one can be asked.
deny_checks=(licenses bans sources)
[ -d "$HOME/.cargo/advisory-dbs" ] && deny_checks+=(advisories)
stage "cargo deny ${deny_checks[*]}" cargo deny --offline check "${deny_checks[@]}"
print_stages
