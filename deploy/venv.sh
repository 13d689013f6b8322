#!/bin/sh
# Builds or completes .venv from the requirements file named; installs Debian's venv module where it is missing.
set -eu
if [ ! -x .venv/bin/pip ]; then
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        echo "python3 has no venv module: installing Debian's python3-venv"
        sudo=""; [ "$(id -u)" -eq 0 ] || sudo="sudo"
        $sudo apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q python3-venv >/dev/null
    fi
    rm -rf .venv
    python3 -m venv .venv
fi
.venv/bin/pip install --quiet --disable-pip-version-check -r "$1"
