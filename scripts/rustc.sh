#!/bin/bash
# Cargo's way to rustc for our own crates (.cargo/config.toml).
# - The guest has no libraries, so the program hull-agent is linked statically. Its crates are
#   those of the other programs; only this last step differs.
# - Test programs run once: optimising them takes three times as long as compiling them (what
#   they test of other crates is as optimised as ever). Clippy compiles them, which lints all
#   of our code without compiling it once more, since each crate's unit tests hold all of it;
#   scripts/check.sh makes errors of what it says. Examples are tools of tests.
# bash, since dash does not hand on variables such as CARGO_BIN_EXE_hull-fsd.
case " $* " in
*" --crate-name hull_agent "*" --crate-type bin "*)
    exec "$@" -C target-feature=+crt-static -C strip=symbols ;;
*" opt-level=3 "*) ;;
*" --test "* | *" --cfg test "* | *"/examples/"*".rs "*)
    set -- "$@" -C opt-level=0
    ! command -v clippy-driver >/dev/null || exec clippy-driver "$@" ;;
esac
exec "$@"
