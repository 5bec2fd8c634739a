#!/usr/bin/env python3
"""Bill of materials of the executable: CycloneDX JSON on stdout.

    packaging/sbom.py VERSION EPOCH TARGET…

What cargo says is linked for these targets (no build scripts' and no tests' crates), with licence and checksum. The same
input makes the same bytes.
"""

import datetime
import json
import re
import subprocess
import sys


def metadata(targets):
    command = ["cargo", "metadata", "--format-version=1", "--locked"]
    for target in targets:
        command += ["--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def checksums(lock):
    """(name, version) → SHA-256 of the crate file, from Cargo.lock."""
    found = {}
    for entry in lock.split("[[package]]"):
        fields = dict(re.findall(r'^(name|version|checksum) = "(.*)"$', entry, re.MULTILINE))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def linked(graph):
    """Package id → ids of what it is linked with, for everything under the root."""
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    macros = {
        package["id"]
        for package in graph["packages"]
        if any("proc-macro" in target["kind"] for target in package["targets"])
    }
    found, waiting = {}, [graph["resolve"]["root"]]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found[one] = [
            dep["pkg"]
            for dep in nodes[one]["deps"]
            if dep["pkg"] not in macros and any(kind["kind"] is None for kind in dep["dep_kinds"])
        ]
        waiting += found[one]
    return found


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    made = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # An old way of writing OR.
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (package["name"], package["version"]) in sums:
        made["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
    return made


def main():
    version, epoch, targets = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    graph = metadata(targets)
    packages = {package["id"]: package for package in graph["packages"]}
    deps = linked(graph)
    with open("Cargo.lock", encoding="utf-8") as lock:
        sums = checksums(lock.read())
    root = packages[graph["resolve"]["root"]]
    if root["version"] != version:
        sys.exit(f"sbom: Cargo.toml says {root['version']}, not {version}")
    program = component(root, sums) | {"type": "application"}
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    made = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program,
            "properties": [{"name": "target", "value": target} for target in targets],
        },
        "components": sorted(
            (component(packages[one], sums) for one in deps if one != root["id"]),
            key=lambda each: each["bom-ref"],
        ),
        "dependencies": sorted(
            (
                {"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[dep]) for dep in what})}
                for one, what in deps.items()
            ),
            key=lambda each: each["ref"],
        ),
    }
    json.dump(made, sys.stdout, indent=1)
    print()


main()
