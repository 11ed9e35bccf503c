#!/bin/sh
# Cargo's way to rustc for our own crates (.cargo/config.toml): the guest has no libraries,
# so the program hull-agent is linked statically. Its crates are those of the other
# programs; only this last step differs.
case " $* " in
*" --crate-name hull_agent "*" --crate-type bin "*) exec "$@" -C target-feature=+crt-static -C strip=symbols ;;
esac
exec "$@"
