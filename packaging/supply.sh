#!/bin/sh
# What the executable is made of, judged: licences, sources, doubles and banned crates (deny.toml), known faults of crates, the
# table of what is used directly (DEPENDENCIES.md), the licences that go along (licences), the tests that SECURITY.md names.
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

# What SECURITY.md names is there: tests and budgets.
# shellcheck disable=SC2016
names=$(grep -o '`[a-z0-9]*_[a-z0-9_]*`' packaging/SECURITY.md | tr -d '\`' | sort -u)
for name in $names; do
    git grep -qE "fn $name\(|\"$name\"" -- tests src || {
        echo "supply.sh: SECURITY.md names $name, which is not there" >&2
        exit 1
    }
done
echo "security: $(echo "$names" | wc -l) tests and budgets that are named are there"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout $PATIENCE target/static/tools/bin/cargo-deny --config packaging/deny.toml fetch db >"$log" 2>&1; then
    deny check advisories
    echo "advisories: checked"
else
    sed 's/^/  /' "$log" | tail -n 3
    echo "advisories: not checked (the database cannot be had from here)"
fi
