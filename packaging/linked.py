#!/usr/bin/env python3
"""What is linked into the executable, and what follows from that.

    packaging/linked.py dependencies FILE          does this table name what Cargo.toml names?
    packaging/linked.py licences [--compare FILE]  the licences that go along with the executable
    packaging/linked.py sizes EXECUTABLE FILE      writes into this table what each costs in an executable with symbols, which
                                                   packaging/build-static.sh --symbols x86_64 makes

sbom.py makes the bill of materials of the same. What cargo says is linked: no build scripts, no macros, no tests' crates.
"""

import difflib
import json
import os
import re
import subprocess
import sys

# Every kind of machine that there are releases for.
TARGETS = [
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-musleabihf",
    "arm-unknown-linux-musleabihf",
]
# Whoever forgot to say it in Cargo.toml; deny.toml looks at the file's checksum.
UNSAID = {"webpki": "ISC"}
# One text for all who offer it.
COMMON = "Apache-2.0"


def run(command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def tree(targets, more=(), cargo="cargo", env=None):
    """(name, version) → those it is linked with, and (name, version) → what cargo knows of it, for all of these targets."""
    deps, known = {}, {}
    for target in targets:
        command = [cargo, "tree", "--locked", "-e", "normal,no-proc-macro", "--target", target, "--prefix", "depth"]
        above = []
        for line in run(command + ["--format", "\t{p}\t{l}\t{r}"] + list(more), env=env).splitlines():
            if not line:
                continue
            depth, package, licence, home = line.split("\t")
            name, version, path = re.match(r"(\S+) v(\S+)(?: \((/.*)\))?$", package).groups()
            one = (name, version)
            deps.setdefault(one, set())
            home = home.removesuffix(" (*)")
            known[one] = {"licence": UNSAID.get(name, licence.replace("/", " OR ")), "home": home, "path": path}
            del above[int(depth):]
            if above:
                deps[above[-1]].add(one)
            above.append(one)
    if len(deps) < 2:
        sys.exit("linked.py: cargo tree names nothing")
    return deps, known


def metadata():
    return json.loads(run(["cargo", "metadata", "--format-version=1", "--locked"]))


# --- the table -------------------------------------------------------------------------------------------------------


def check_table(path):
    package = next(one for one in metadata()["packages"] if one["name"] == "noports")
    want = {dep["name"] for dep in package["dependencies"] if dep["kind"] != "build"}
    with open(path, encoding="utf-8") as file:
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", file.read(), re.MULTILINE)
    said = {name for name, what in rows if what.strip()}
    for name in sorted(want - said):
        print(f"{path}: {name} is in Cargo.toml, and has no row", file=sys.stderr)
    for name in sorted(said - want):
        print(f"{path}: {name} has a row, and is not in Cargo.toml", file=sys.stderr)
    if want != said or len(rows) != len(said):
        sys.exit(f"{path} is not what Cargo.toml says")
    print(f"dependencies: {len(want)} direct ones, each with a row")


# --- licences --------------------------------------------------------------------------------------------------------

HEAD = """\
noports itself is under the BSD-3-Clause licence, see LICENSE. The executable also holds the works below.

Made by `packaging/linked.py licences` from the sources of the crates; packaging/supply.sh compares it with them. Where a crate
offers a choice, and Apache-2.0 is among it, that is taken. The source of each crate, unchanged, is in Rust's registry under its
name and version.
"""


def texts(folder, names):
    found = []
    for name in sorted(os.listdir(folder)):
        if re.match(names, name, re.IGNORECASE) and os.path.isfile(os.path.join(folder, name)):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found.append("\n".join(line.rstrip() for line in file.read().strip().splitlines()))
    return found


def licences():
    _, known = tree(TARGETS)
    folders = {(one["name"], one["version"]): os.path.dirname(one["manifest_path"]) for one in metadata()["packages"]}
    common, own = [], {}
    apache = None
    for one in sorted(known):
        if known[one]["path"]:
            continue
        words = known[one]["licence"]
        choices = words.split(" OR ")
        if COMMON in choices or f"{COMMON} " in words:
            common.append((one, words))
            texts_here = texts(folders[one], r"notice|copyright|license-third-party")
            apache = apache or next(iter(texts(folders[one], r"license-apache$")), None)
            if " AND " in words:
                texts_here = texts(folders[one], r"licen[cs]e|copyright|notice")
        else:
            texts_here = texts(folders[one], r"licen[cs]e|copying|copyright|notice|unlicense")
            if not texts_here:
                sys.exit(f"{one[0]} {one[1]}: no licence in {folders[one]}")
        for text in texts_here:
            own.setdefault(text, []).append((one, words))
    if apache is None:
        sys.exit("no text of Apache-2.0 in any crate")
    parts = [HEAD]
    parts.append("Rust's standard library, by The Rust Project Contributors, under Apache-2.0, and its crates: compiler_builtins,\n"
                 "hashbrown, libc, cfg-if, rustc-demangle (Apache-2.0). Of musl, zig's runtime and LLVM's unwinder: musl-and-zig.txt.\n")
    parts.append("Under Apache-2.0, with the text that follows:\n\n"
                 + "".join(f"  {name} {version}{'' if words == COMMON else f' ({words})'}\n" for (name, version), words in common))
    parts.append(apache + "\n")
    for text, users in sorted(own.items(), key=lambda item: item[1]):
        names = "".join(f"{name} {version} ({words})\n" for (name, version), words in users)
        parts.append(names + "\n" + text + "\n")
    return ("\n" + "-" * 100 + "\n\n").join(parts)


def check_licences(path):
    with open(path, encoding="utf-8") as file:
        there = file.read()
    made = licences()
    if there != made:
        lines = difflib.unified_diff(there.splitlines(), made.splitlines(), path, "what is linked", lineterm="", n=1)
        print("\n".join(list(lines)[:40]), file=sys.stderr)
        sys.exit(f"{path} is not what is linked: packaging/linked.py licences >{path}")
    print(f"licences: {path} is what is linked")


# --- sizes -----------------------------------------------------------------------------------------------------------


def owner(symbol, crates):
    """Whose this code is: the first crate that it names which is not the standard library; of C, ring's."""
    if symbol.startswith("ring_core_"):
        return "ring"
    named = [word for word in re.findall(r"(?<![\w:])(\w+)(?=::|\[)", symbol) if word in crates]
    return named[0] if named else "rest"


def library_names():
    """Package → what its symbols begin with."""
    kinds = {"lib", "rlib", "proc-macro"}
    found = {}
    for package in metadata()["packages"]:
        for target in package["targets"]:
            if kinds & set(target["kind"]):
                found[package["name"]] = target["name"].replace("-", "_")
    return found


def sizes(executable):
    """Package → bytes with its name, and with those of the crates that only it brings; and the sum of all symbols."""
    deps, _ = tree(TARGETS[:1])
    library = library_names()
    crates = {library[one[0]] for one in deps}
    bytes_of = {}
    for line in run(["nm", "-C", "-S", "--defined-only", executable]).splitlines():
        fields = line.split(" ", 3)
        if len(fields) == 4 and len(fields[1]) == 16:
            name = owner(fields[3], crates)
            bytes_of[name] = bytes_of.get(name, 0) + int(fields[1], 16)
    if "ring" not in bytes_of:
        sys.exit(f"linked.py: {executable} has no symbols")
    root = next(one for one in deps if one[0] == "noports")

    def reached(without=None):
        found, waiting = set(), [root]
        while waiting:
            one = waiting.pop()
            if one not in found and one != without:
                found.add(one)
                waiting += deps[one]
        return found

    costs = {}
    for direct in deps[root]:
        alone = {library[one[0]] for one in reached() - reached(direct)}
        costs[direct[0]] = sum(bytes_of.get(one, 0) for one in alone)
    return costs, bytes_of


def write_sizes(executable, path):
    costs, bytes_of = sizes(executable)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    row = re.compile(r"^(\| `([^`]+)` \| [^|]+ \|) [^|]* \|$", re.MULTILINE)
    text = row.sub(lambda found: f"{found[1]} {costs.get(found[2], 0):,} |", text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{path}: of {sum(bytes_of.values()):,} bytes with a name {bytes_of['noports']:,} are ours")


def main():
    match sys.argv[1:]:
        case ["dependencies", path]:
            check_table(path)
        case ["licences"]:
            sys.stdout.write(licences())
        case ["licences", "--compare", path]:
            check_licences(path)
        case ["sizes", executable, path]:
            write_sizes(executable, path)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
