#!/usr/bin/env bash
# From raw CT scans to Table II with one command; ./run_all.sh --help says what else it does.
# Needs Python 3.11 or 3.12 with pip; lensnb/run/environment.py sets up the rest and then calls lensnb/run/engine.py.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usable() {
    "$1" -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

for python in python3.11 python3.12 python3 python; do
    if command -v "$python" >/dev/null && usable "$python"; then
        export PYTHONPATH=$here PYTHONNOUSERSITE=1
        exec "$python" -m lensnb.run.environment "$@"
    fi
done
echo "run_all.sh: found no Python 3.11 or 3.12 with pip on the PATH; install one, or activate an environment that has it." >&2
exit 1
