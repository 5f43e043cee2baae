#!/bin/sh
# From raw CT scans to Table II with one command; ./run_all.sh --help says what else it does.
# Needs Python 3.11, 3.12 or 3.13 with pip; lensnb/run/environment.py sets up the rest, lensnb/run/engine.py runs.
set -eu
# what is written to a closed stream would land in the next file that is opened
(true 3>&1) 2>/dev/null || exec >/dev/null
(true 3>&2) || exec 2>/dev/null

refuse() {
    printf 'run_all.sh: %s\n' "$1" >&2
    exit 1
}

case $0 in
*/*) here=${0%/*}/ ;;
*) here=./ ;;
esac
here=$(CDPATH='' cd -- "$here" 2>/dev/null && pwd && echo /) || here=""
here=${here%??} # a name may end with a newline, which $(...) would lose
[ -f "$here/lensnb/run/environment.py" ] || refuse "call it by its place beside lensnb/, not as a copy, a link or from a folder that was removed"
case $here in
*:*) refuse "$here has a colon in its name, which PYTHONPATH and PATH cannot hold; rename that folder" ;;
esac

# prints its version; status 0 if it will do
probe='
import sys
version, fits = "%d.%d.%d" % sys.version_info[:3], (3, 11) <= sys.version_info[:2] <= (3, 13)
try:
    import pip
except Exception:
    version, fits = version + " without pip", False
sys.stdout.write(version)
sys.exit(not fits)
'
# with Ctrl-C held back until start.py can answer it, also while Python itself starts
begin='
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
os.execv(sys.executable, [sys.executable, "-m", "lensnb.run.start", "environment", *sys.argv[1:]])
'
# neither the user's settings nor files in the present folder change what is imported; text is UTF-8 in every locale
unset PYTHONHOME PYTHONOPTIMIZE PYTHONINSPECT PYTHONWARNINGS
export PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 PYTHONUTF8=1

found=""
for python in python3.11 python3.12 python3.13 python3 python python3.14 python3.10; do
    command -v "$python" >/dev/null 2>&1 || continue
    if version=$("$python" -Es -c "$probe" 2>/dev/null); then
        export PYTHONPATH="$here"
        exec "$python" -ISc "$begin" "$@"
    elif [ $? -ne 127 ]; then # 127: a name that stands for nothing, as pyenv has them
        found="$found${found:+, }$python (${version:-does not start})"
    fi
done
refuse "needs Python 3.11, 3.12 or 3.13 with pip; found ${found:-none on the PATH}. Install one, or activate an environment that has it."
