#!/bin/sh
# Create or complete .venv from the given requirements file, whose hashes pip checks; install Debian's venv module if it is missing.
# Ask for a password only on a terminal, and fail after a time-out if the network does not answer.
set -eu
if [ ! -x .venv/bin/pip ]; then
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        echo "python3 has no venv module: installing Debian's python3-venv"
        sudo=""
        if [ "$(id -u)" -ne 0 ]; then
            sudo="sudo -n"
            [ ! -t 0 ] || sudo="sudo"
        fi
        apt="$sudo env DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -q -o Acquire::Retries=1 -o DPkg::Lock::Timeout=60"
        if ! { $apt update && $apt install -y python3-venv; } >/dev/null; then
            echo "installing python3-venv failed; run as root: apt-get update && apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    rm -rf .venv
    python3 -m venv .venv
fi
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r "$1"
