#!/bin/bash
# Cargo's way to rustc for our own crates (.cargo/config.toml): the guest has no libraries,
# so the program hull-agent is linked statically. Its crates are those of the other
# programs; only this last step differs.
# bash, since dash does not hand on variables such as CARGO_BIN_EXE_hull-fsd.
case " $* " in
*" --crate-name hull_agent "*" --crate-type bin "*) exec "$@" -C target-feature=+crt-static -C strip=symbols ;;
esac
exec "$@"
