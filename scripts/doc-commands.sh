#!/usr/bin/env bash
# Runs every command of README.md and docs/: the lines of their ```sh blocks, file by
# file, README.md first, as a reader would type them. `make test`
# itself is left out, since this is part of it; what `make run` and `make stop` promise is
# checked.
source "$(dirname "$0")/lib.sh"

# The ```sh blocks of a file, one after the other.
commands_of() {
    awk '/^```sh$/ {inside = 1; next} /^```/ {inside = 0} inside' "$1" |
        sed -e '/^make test$/d' -e 's:^make \(run\|stop\)$:scripts/check-\1.sh:'
}

# The first `make run` of the documents is to be one.
make stop

failed=0
count=0
for file in README.md $(ls docs/*.md); do
    script=$(commands_of "$file")
    [ -n "$script" ] || continue
    say "-- $file"
    if bash -euo pipefail -x -c "$script"; then
        count=$((count + 1))
    else
        say "-- $file: FAILED"
        failed=1
    fi
done
say "$count documents' commands ran"
exit "$failed"
