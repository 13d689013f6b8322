#!/bin/sh
# Submilli in one file: this script, then an archive. Built by `make binary`.
# Needs @PYTHON@, and a folder to unpack into once: SUBMILLI_CACHE, or ~/.cache/submilli.
set -eu
cache=${SUBMILLI_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/submilli}
app=$cache/@HASH@
if ! command -v @PYTHON@ >/dev/null; then
    echo "submilli: @PYTHON@ is needed; on Debian: apt-get install @PYTHON@" >&2
    exit 1
fi
if [ ! -e "$app" ]; then
    umask 077
    if ! mkdir -p "$cache" || ! new=$(mktemp -d "$cache/new.XXXXXXXX"); then
        echo "submilli: $cache/ cannot be written; set SUBMILLI_CACHE to a folder this user may write" >&2
        exit 1
    fi
    trap 'rm -rf "$new"' EXIT
    tail -c +@OFFSET@ "$0" | tar -xz --no-same-owner -C "$new"
    mv -T "$new" "$app" 2>/dev/null || [ -e "$app" ] # another start was faster
    trap - EXIT
    rm -rf "$new"
    # remove versions older than an hour, unless a process holds their lock
    find "$cache" -mindepth 1 -maxdepth 1 -type d -mmin +60 ! -path "$app" | while read -r old; do
        if flock -n "$old/gateway.py" true; then rm -rf "$old"; fi
    done
fi
# held by this process and inherited by Python: the version is in use
exec 9<"$app/gateway.py"
flock -s 9
# the supervisor starts its children by this name, so that a reload runs the current file
case $0 in /*) SUBMILLI_PROGRAM=$0 ;; *) SUBMILLI_PROGRAM=$PWD/$0 ;; esac
export SUBMILLI_PROGRAM
exec @PYTHON@ -sE "$app/gateway.py" "$@"
