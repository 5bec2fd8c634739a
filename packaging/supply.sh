#!/bin/sh
# What the executable is made of, judged: licences, sources, doubles and banned crates (deny.toml), known faults of crates, the
# table of what is used directly (DEPENDENCIES.md), the licences that go along (licences).
#
# Known faults need the advisory database of RustSec. Where it cannot be had that is said: not checked is not passed.
set -eu
cd "$(dirname "$0")/.."

# A database that answers does so in seconds.
PATIENCE=60

packaging/tools.sh
deny() { target/static/tools/bin/cargo-deny --config packaging/deny.toml "$@"; }

deny check licenses bans sources
python3 packaging/linked.py dependencies packaging/DEPENDENCIES.md
python3 packaging/linked.py licences --compare packaging/licences/crates.txt

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout $PATIENCE target/static/tools/bin/cargo-deny --config packaging/deny.toml fetch db >"$log" 2>&1; then
    deny check advisories
    echo "advisories: checked"
else
    sed 's/^/  /' "$log" | tail -n 3
    echo "advisories: not checked (the database cannot be had from here)"
fi
