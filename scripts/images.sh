#!/usr/bin/env bash
# Sample images, built from Debian packages, in the storage of the local registry.
source "$(dirname "$0")/lib.sh"

progress "sample images" images/registry.sh fill
