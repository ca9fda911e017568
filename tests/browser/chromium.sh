#!/usr/bin/env bash
# Make sure of a Chromium for the tests of this folder: CHROMIUM=PATH, or one on the PATH, or
# Debian's, which is installed where that is possible; else says what is missing and ends with 2.
set -euo pipefail

if [ -n "${CHROMIUM:-}" ]; then
    [ -x "$CHROMIUM" ] && exit 0
    echo "tests/browser: CHROMIUM=$CHROMIUM is no program" >&2
    exit 2
fi
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests/browser: no Chromium. As root: apt-get install chromium; or give one: CHROMIUM=PATH" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends chromium >/dev/null
