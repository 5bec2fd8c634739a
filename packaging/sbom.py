#!/usr/bin/env python3
"""Bill of materials of the executables: CycloneDX JSON.

    packaging/sbom.py make VERSION EPOCH BUILD…    on stdout; a BUILD is what build-static.sh leaves in target/static/ARCH
    packaging/sbom.py check BOM BUILD…             is it valid, and is it what was linked? (target/static/tools/bin/python)

Made of what cargo says would be linked, and compared with what it did link: the artefacts that it told of while it built, and the
names of crates that stand in the executable itself. The same input makes the same bytes.
"""

import datetime
import json
import os
import re
import sys
import tomllib
import uuid

sys.dont_write_bytecode = True
import linked

# In the executable of a usual build a hundred names are found; with none the comparison would say nothing.
LEAST_NAMES = 20
# Compiled beside the standard library, for proc_macro, and handed to no linker.
BESIDE = {"rustc-literal-escaper"}


def read(build):
    """What build-static.sh says of one executable."""
    with open(os.path.join(build, "build.txt"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file)


def checksums(path):
    """(name, version) → SHA-256 of the crate file, from a Cargo.lock."""
    with open(path, encoding="utf-8") as file:
        entries = file.read().split("[[package]]")
    fields = [dict(re.findall(r'^(name|version|checksum) = "(.*)"$', entry, re.MULTILINE)) for entry in entries]
    return {(each["name"], each["version"]): each["checksum"] for each in fields if "checksum" in each}


def reference(one):
    return f"pkg:cargo/{one[0]}@{one[1]}"


def crate(one, licence, sums):
    made = {"type": "library", "bom-ref": reference(one), "name": one[0], "version": one[1], "purl": reference(one)}
    if one in sums:
        made["hashes"] = [{"alg": "SHA-256", "content": sums[one]}]
    if licence:
        made["licenses"] = [{"expression": licence}]
    return made


def other(name, version, licence, why):
    made = {"type": "library", "bom-ref": name, "name": name, "licenses": [{"expression": licence}], "description": why}
    return made | ({"version": version, "purl": f"pkg:generic/{name}@{version}"} if version else {})


def standard_library(build):
    """Its components, and what each is linked with. All that lies in its own folder is one: they have no versions."""
    version, source = build["rustc"], build["std_source"]
    std = other("rust-std", version, "MIT OR Apache-2.0", f"Rust's standard library, {build['std']}")
    if build["std"] != "source":
        return [std], {}
    env = os.environ | {"RUSTC_BOOTSTRAP": "1", "RUSTC": build["rustc_path"]}
    more = ["--manifest-path", f"{source}/library/sysroot/Cargo.toml", "-p", "std", "-p", "panic_unwind"]
    deps, known = linked.tree([build["target"]], more, build["cargo_path"], env)
    sums = checksums(f"{source}/library/Cargo.lock")
    made, edges = [], {}
    for one in deps:
        if known[one]["path"]:
            continue
        made.append(crate(one, known[one]["licence"], sums) | {"description": "part of Rust's standard library"})
        edges[reference(one)] = []
    edges["rust-std"] = sorted(edges)
    return [std] + made, edges


def libc(build):
    why = f"linked statically, as zig {build['zig']} has it"
    unwind = other("libunwind", "", "Apache-2.0 WITH LLVM-exception", why)
    return [other("musl", build["musl"], "MIT", why), other("zig-compiler-rt", build["zig"], "MIT", why), unwind]


def tools(build):
    rows = [("rustc", build["rustc"]), ("zig", build["zig"]), ("cargo-zigbuild", build["zigbuild"])]
    return [{"type": "application", "name": name, "version": version} for name, version in rows]


def known_faults(parts):
    """Those of deny.toml, with the reason why each cannot be used here: what is called VEX."""
    with open("packaging/deny.toml", "rb") as file:
        known = tomllib.load(file)["advisories"]["ignore"]
    faults = []
    for each in known:
        said = re.fullmatch(r"(\S+?):? (.*) VEX: (\w+)", each["reason"])
        if not said and "not developed any more" in each["reason"]:
            continue
        affected = [ref for ref, part in parts.items() if said and part["name"] == said[1]]
        if not affected:
            sys.exit(f"deny.toml: {each['id']} says no crate that is linked, or not why its fault cannot be used (VEX: …)")
        faults.append({
            "id": each["id"],
            "source": {"name": "RustSec", "url": f"https://rustsec.org/advisories/{each['id']}.html"},
            "affects": [{"ref": ref} for ref in sorted(affected)],
            "analysis": {"state": "not_affected", "justification": said[3], "detail": said[2]},
        })
    return faults


def make(version, epoch, builds):
    builds = [read(build) for build in builds]
    targets = [build["target"] for build in builds]
    deps, known = linked.tree(targets)
    sums = checksums("Cargo.lock")
    root = ("noports", version)
    if root not in deps:
        sys.exit(f"sbom: Cargo.toml does not say {version}")
    parts = {each["bom-ref"]: each for each in (crate(one, known[one]["licence"], sums) for one in deps) if each["name"] != "noports"}
    edges = {reference(one): {reference(dep) for dep in what} for one, what in deps.items()}
    apart = set()
    for build in builds:
        std, std_edges = standard_library(build)
        for each in std + libc(build):
            parts.setdefault(each["bom-ref"], each)
            apart.add(each["bom-ref"])
        for one, what in std_edges.items():
            edges.setdefault(one, set()).update(what)
    edges[reference(root)] |= {"rust-std", "musl", "zig-compiler-rt", "libunwind"}
    for one in apart:
        edges.setdefault(one, set())
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    made = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [one for build in builds[:1] for one in tools(build)]},
            "component": crate(root, known[root]["licence"], sums) | {"type": "application"},
            "properties": [{"name": "noports:target", "value": target} for target in targets],
        },
        "components": sorted(parts.values(), key=lambda each: each["bom-ref"]),
        "dependencies": [{"ref": one, "dependsOn": sorted(edges[one])} for one in sorted(edges)],
        "vulnerabilities": known_faults(parts),
    }
    # Its name is made of what it says.
    made["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))}"
    json.dump(made, sys.stdout, indent=1)
    print()


# --- the comparison --------------------------------------------------------------------------------------------------


def artefacts(build):
    """(name, version) of the crates that were compiled for the machine, as cargo told while it built."""
    target, found = read(build)["target"], set()
    with open(os.path.join(build, "linked.json"), encoding="utf-8") as file:
        for line in file:
            told = json.loads(line) if line.startswith("{") else {}
            its = told.get("reason") == "compiler-artifact" and any(f"/{target}/" in name for name in told["filenames"])
            if not its or not {"lib", "rlib"} & set(told["target"]["kind"]):
                continue
            # registry+https://…#libc@0.2.1, path+file:///…/ciphers#noports-ciphers@0.1.0, path+file:///…/std#0.0.0
            where, _, last = told["package_id"].partition("#")
            name, _, version = last.rpartition("@")
            if name in BESIDE:
                continue
            found.add((name or os.path.basename(where), version, where.startswith("path+") and "/library/" in where))
    return found


def names(executable):
    """(name, version) of crates whose files the executable names, for where a panic happened."""
    with open(executable, "rb") as file:
        found = re.findall(rb"crates/([A-Za-z0-9_-]+?)-([0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]*)/", file.read())
    return {(name.decode(), version.decode()) for name, version in found}


def valid(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with open(path, encoding="utf-8") as file:
        text = file.read()
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if fault:
        sys.exit(f"{path} is no CycloneDX 1.5: {fault}")
    return json.loads(text)


def check(path, builds):
    bom = valid(path)
    refs = [each["bom-ref"] for each in bom["components"]] + [bom["metadata"]["component"]["bom-ref"]]
    told = {one["ref"] for one in bom["dependencies"]}
    wanted = {ref for one in bom["dependencies"] for ref in one["dependsOn"]}
    if len(set(refs)) != len(refs) or told != set(refs) or not wanted <= set(refs):
        sys.exit(f"{path}: a reference leads nowhere, or stands twice")
    if not {"rust-std", "musl"} <= set(refs):
        sys.exit(f"{path}: neither a standard library nor a C library")
    said = {(each["name"], each["version"]) for each in bom["components"] if each["bom-ref"].startswith("pkg:cargo/")}
    said.add(("noports", bom["metadata"]["component"]["version"]))
    built = {(name, version) for build in builds for name, version, is_std in artefacts(build) if not is_std}
    for one in sorted(built ^ said):
        print(f"{path}: {' '.join(one)} is {'linked, and missing' if one in built else 'named, and not linked'}", file=sys.stderr)
    seen = {one for build in builds for one in names(os.path.join(build, "noports"))}
    for one in sorted(seen - said):
        print(f"{path}: {' '.join(one)} stands in the executable, and is missing", file=sys.stderr)
    if built != said or seen - said or len(seen) < LEAST_NAMES:
        sys.exit(f"{path} is not what is linked ({len(built)} crates linked, {len(said)} named, {len(seen)} seen)")
    faults = len(bom["vulnerabilities"])
    print(f"bill of materials: valid, {faults} known faults with reasons, {len(said)} crates named, {len(built)} linked, {len(seen)} seen in the executable")


def main():
    match sys.argv[1:]:
        case ["make", version, epoch, *builds] if builds:
            make(version, int(epoch), builds)
        case ["check", path, *builds] if builds:
            check(path, builds)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
