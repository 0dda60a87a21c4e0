#!/bin/sh
# Starts the web page and the API; takes the options of `i2v-lab serve` (--open, --port, --host, --background, --stop, ...).
here=$(cd "$(dirname "$0")" && pwd) || exit 1
cd "$here" || exit 1
if [ -x .venv/bin/i2v-lab ]; then
    exec .venv/bin/i2v-lab serve "$@"
elif command -v i2v-lab >/dev/null; then
    exec i2v-lab serve "$@"
fi
echo "i2v-lab is not installed: run make lab, or pip install -c constraints.txt -e '.[lab]'" >&2
exit 1
