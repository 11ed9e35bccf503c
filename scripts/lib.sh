# Shared by the scripts: where things are, and how progress is shown. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/timeouts.sh
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
own_target_dir() {
    local dir=$1
    [ "$(cat "$dir/checkout" 2>/dev/null)" != "$ROOT" ] || return 0
    [ ! -d "$dir" ] || CARGO_TARGET_DIR=$dir cargo clean --quiet --workspace
    mkdir -p "$dir"
    [ -f "$dir/CACHEDIR.TAG" ] || echo "Signature: 8a477f597d28d172789f06886806bc55" >"$dir/CACHEDIR.TAG"
    echo "$ROOT" >"$dir/checkout"
}
own_target_dir "$TARGET_DIR"
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

# progress WHAT COMMAND...: runs it, and says every few seconds for how long: for commands
# that say nothing themselves. In whole lines, which suit a log as well as a terminal.
PROGRESS_EVERY_S=${PROGRESS_EVERY_S:-5}
progress() {
    local what=$1 status=0 ticker
    shift
    tick "$what" &
    ticker=$!
    ("$@") || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}
# Has no child that could outlive it, and ends when the script does.
tick() {
    local what=$1 start=$SECONDS silence
    exec {silence}<> <(:)
    while ! read -rt "$PROGRESS_EVERY_S" -u "$silence" && kill -0 $$ 2>/dev/null; do
        say "   $what: $((SECONDS - start)) s so far"
    done
}

# quiet WHAT COMMAND...: with progress; the command's output is shown only when it fails.
quiet() {
    local what=$1 log status=0
    shift
    log=$(mktemp)
    progress "$what" into "$log" "$@" || status=$?
    [ "$status" -eq 0 ] || tail -n 60 "$log" >&2
    rm -f "$log"
    return "$status"
}
into() {
    local log=$1
    shift
    "$@" >"$log" 2>&1
}

# say_place: finds where virtual machines run (PLACE: hardware or testnode), and says it in
# one line, once for a script and all those that it calls. `hull-testnode exec` leaves it
# to us then.
say_place() {
    local answer
    answer=$(hull-testnode where) || die "hull-testnode cannot tell where virtual machines run"
    PLACE=${answer%%:*}
    [ -z "${HULL_TESTNODE_SAID:-}" ] || return 0
    local where="in a testnode"
    [ "$PLACE" = testnode ] || where="on this machine"
    say "virtual machines run $where:${answer#*:}"
    export HULL_TESTNODE_SAID=1
}
