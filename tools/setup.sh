#!/bin/sh
# setup.sh VENV REQUIREMENT: make the environment where there is none, and install into it, showing a dot every two seconds.
set -eu
venv=$1 requirement=$2 log=$1/install.log

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "nasedu needs Python 3.11 or newer, and found none: \`python3 --version\` says" \
            "'$(python3 --version 2>&1 || true)'. Install it from https://www.python.org/downloads/," \
            "then run make again." >&2
        exit 1
    fi
    "$python" -m venv --clear "$venv"
fi

printf 'Installing %s into %s; the first time this takes minutes, and PyTorch is most of it ' "$requirement" "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check --editable "$requirement" >"$log" 2>&1 &
pip=$!
trap 'kill $pip 2>/dev/null; echo; exit 130' INT TERM
while kill -0 $pip 2>/dev/null; do
    printf .
    sleep 2
done
if ! wait $pip; then
    printf '\nThe installation failed. The end of %s:\n\n' "$log" >&2
    tail -n 15 "$log" >&2
    exit 1
fi
echo ' done.'
