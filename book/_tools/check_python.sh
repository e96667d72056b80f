#!/bin/sh
# One line that says what to install, instead of a traceback, when a prerequisite of `make venv` is missing.
# Usage: check_python.sh PYTHON
python=$1
if ! command -v "$python" >/dev/null 2>&1; then
    echo "$python was not found; install Python 3.11 or newer: apt install python3 python3-venv make git" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo unknown)
    echo "$python is Python $version; sqlib needs 3.11 or newer: install one and say make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$python cannot create virtual environments; install what it lacks: apt install python3-venv make git" >&2
    exit 1
fi
