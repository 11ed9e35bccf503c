# Shared by the scripts of images/. Sourced, not run.
set -eu

images=$(cd "$(dirname "$0")" && pwd)
HULL_CACHE_DIR=${HULL_CACHE_DIR:-$HOME/.cache/hull}
export HULL_CACHE_DIR
. "$images/../scripts/timeouts.sh"

fail() { echo "error: $*" >&2; exit 1; }

# The program that packs kernels and images: from PATH, or built now.
testnode() {
    if command -v hull-testnode >/dev/null 2>&1; then
        hull-testnode "$@"
    else
        (cd "$images/.." && cargo run --quiet -p hull-testnode -- "$@")
    fi
}
