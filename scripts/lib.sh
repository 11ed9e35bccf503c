# Shared by the scripts: where things are, and how progress is shown. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
export HULL_CACHE_DIR=${HULL_CACHE_DIR:-$HOME/.cache/hull}
PROFILE=${PROFILE:-dev}
# Clean-checkout runs keep the compiled dependencies outside of the checkout, and compile
# nothing twice: what makes a second compilation fast makes the first one slow.
if [ "${CI:-}" = true ]; then
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HULL_CACHE_DIR/target} CARGO_INCREMENTAL=0
fi
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
# Cargo takes our own crates of another checkout for those of this one when their files
# are newer: of a target directory that changes its checkout only the dependencies stay.
if [ "$(cat "$TARGET_DIR/checkout" 2>/dev/null)" != "$ROOT" ]; then
    if [ -d "$TARGET_DIR" ]; then
        cargo clean --quiet --workspace
    fi
    mkdir -p "$TARGET_DIR"
    [ -f "$TARGET_DIR/CACHEDIR.TAG" ] || echo "Signature: 8a477f597d28d172789f06886806bc55" >"$TARGET_DIR/CACHEDIR.TAG"
    echo "$ROOT" >"$TARGET_DIR/checkout"
fi
# Cargo calls the dev profile's directory "debug".
BIN=$TARGET_DIR/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")
TOOLS=$HULL_CACHE_DIR/tools
export PATH=$BIN:$TOOLS/bin:$HOME/.cargo/bin:$PATH
mkdir -p "$HULL_CACHE_DIR" "$TOOLS/bin"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# stage NAME COMMAND...: runs it and says how long it took. In a function given as the
# command a failure does not end it: join its commands by &&.
stage() {
    local name=$1 start=$SECONDS status=0
    shift
    say "== $name"
    "$@" || status=$?
    if [ "$status" -ne 0 ]; then
        say "== $name: FAILED (exit $status) after $((SECONDS - start)) s"
        return "$status"
    fi
    say "== $name: done in $((SECONDS - start)) s"
    STAGES+=("$(printf '%5d s  %s' "$((SECONDS - start))" "$name")")
}
STAGES=()
print_stages() { say "-- time per stage"; printf '%s\n' "${STAGES[@]}" >&2; }

# quiet COMMAND...: shows a dot every few seconds, and the output only when it fails.
quiet() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null && sleep 0.5; done
        printf . >&2
    done
    wait "$pid" || status=$?
    printf '\n' >&2
    [ "$status" -eq 0 ] || tail -n 60 "$log" >&2
    rm -f "$log"
    return "$status"
}
