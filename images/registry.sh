#!/bin/sh
# The sample images in Debian's docker-registry, read-only, on loopback.
#
#   images/registry.sh fill     build the images into the storage (needs apt; on the host)
#   images/registry.sh start    serve them, and wait until they are served
#   images/registry.sh stop
#   images/registry.sh status   exit code 0 if it serves
#
# HULL_REGISTRY_PORT (default 5000) picks the port, HULL_CACHE_DIR (default ~/.cache/hull)
# the storage, registry/ below it. Both `start` and the storage work inside a testnode.
. "$(dirname "$0")/lib.sh"

port=${HULL_REGISTRY_PORT:-5000}
storage=$HULL_CACHE_DIR/registry
# Outside of the cache, which is read-only inside a testnode.
state=/tmp/hull-registry-$(id -u)-$port
start_timeout_s=$(scaled 20)

serves() { curl -sf -o /dev/null --max-time 5 "http://127.0.0.1:$port/v2/"; }

# The process that we started, if it still is that one.
pid() {
    [ -f "$state/pid" ] || return 1
    read -r pid <"$state/pid"
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = docker-registry ] && echo "$pid"
}

start() {
    [ -d "$storage/docker" ] || fail "no images in $storage: run images/registry.sh fill"
    if pid >/dev/null && serves; then
        return
    fi
    ! serves || fail "something else answers on 127.0.0.1:$port; set HULL_REGISTRY_PORT"
    mkdir -p -m 700 "$state"
    cat >"$state/config.yml" <<CONFIG
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: $storage}
  # Other bytes may be put under a digest on purpose: nothing is remembered.
  maintenance: {uploadpurging: {enabled: false}, readonly: {enabled: true}}
http: {addr: "127.0.0.1:$port"}
CONFIG
    setsid docker-registry serve "$state/config.yml" >"$state/log" 2>&1 </dev/null &
    echo $! >"$state/pid"
    waited=0
    until serves; do
        pid >/dev/null || [ "$waited" -lt 5 ] || fail "docker-registry ended: $(tail -n 5 "$state/log")"
        [ "$waited" -lt $((start_timeout_s * 5)) ] || fail "docker-registry does not answer: $(tail -n 5 "$state/log")"
        sleep 0.2
        waited=$((waited + 1))
    done
}

stop() {
    if pid=$(pid); then
        kill "$pid"
        while [ -d "/proc/$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = docker-registry ]; do
            sleep 0.1
        done
    fi
    rm -rf "$state"
}

case ${1:-} in
fill) testnode images ;;
start | stop) "$1" ;;
status) pid >/dev/null && serves ;;
*) fail "usage: registry.sh fill|start|stop|status" ;;
esac
