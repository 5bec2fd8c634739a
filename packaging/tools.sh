#!/bin/sh
# Installs the programs of packaging/tools.txt into target/static/tools, once; --boms adds what reads bills of materials.
set -eu
cd "$(dirname "$0")/.."

# Reads what others wrote and writes nothing that is shipped, so its version is enough.
BOMS='cyclonedx-python-lib[json-validation]==11.12.0'
tools=target/static/tools

python3 -c 'import ensurepip, venv' 2>/dev/null || {
    echo "tools.sh: needs python3 and python3-venv" >&2
    exit 1
}
if ! cmp -s packaging/tools.txt "$tools/pins"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r packaging/tools.txt
    cp packaging/tools.txt "$tools/pins"
fi
if [ "${1-}" = --boms ] && [ "$(cat "$tools/boms" 2>/dev/null)" != "$BOMS" ]; then
    "$tools/bin/pip" install -q --disable-pip-version-check "$BOMS"
    echo "$BOMS" >"$tools/boms"
fi
