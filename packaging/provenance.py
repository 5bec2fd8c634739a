#!/usr/bin/env python3
"""How a release was made: an in-toto statement with SLSA's provenance, on stdout.

    packaging/provenance.py DIST VERSION EPOCH BUILD…    a BUILD is what build-static.sh leaves in target/static/ARCH

It says what somebody needs who wants to make the same bytes: commit, lock file, toolchain, flags. No machine, no person, no time but
the commit's; so it is the same bytes itself.
"""

import datetime
import hashlib
import json
import os
import sys

sys.dont_write_bytecode = True
from sbom import read

# What this statement calls the way of building; the way itself is in the commit.
TYPE = "noports/packaging/build-static.sh"
HOW = ["target", "std", "rustc", "rustc_commit", "cargo", "zig", "zigbuild", "musl", "flags", "config", "last"]


def digest(path):
    with open(path, "rb") as file:
        return {"sha256": hashlib.sha256(file.read()).hexdigest()}


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    dist, version, epoch, builds = sys.argv[1], sys.argv[2], int(sys.argv[3]), [read(one) for one in sys.argv[4:]]
    commits = {build["commit"] for build in builds}
    if len(commits) != 1:
        sys.exit(f"provenance: executables of different commits: {' '.join(sorted(commits))}")
    files = [{"name": name, "digest": digest(os.path.join(dist, name))} for name in sorted(os.listdir(dist))]
    programs = [{"name": f"{build['arch']}/noports", "digest": {"sha256": build["sha256"]}} for build in builds]
    commit = commits.pop()
    sources = [
        {"name": "noports", "digest": {"gitCommit": commit.removesuffix("-dirty")}},
        {"name": "Cargo.lock", "digest": digest("Cargo.lock")},
        {"name": "packaging/tools.txt", "digest": digest("packaging/tools.txt")},
    ]
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": files + programs,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": TYPE,
                "externalParameters": {
                    "version": version,
                    "command": "packaging/build-static.sh " + " ".join(build["arch"] for build in builds),
                    "changedSinceCommit": commit.endswith("-dirty"),
                },
                "internalParameters": {build["arch"]: {key: build[key] for key in HOW} for build in builds},
                "resolvedDependencies": sources,
            },
            # Nobody vouches for the machine; whoever doubts it makes the same bytes on another one.
            "runDetails": {"builder": {"id": "noports/anybody"}, "metadata": {"startedOn": when}},
        },
    }
    json.dump(made, sys.stdout, indent=1)
    print()


main()
