#!/bin/sh
# Packs one executable and what belongs to it: packaging/archive.sh EXECUTABLE VERSION ARCH OUT [ONE THAT RUNS HERE]
#
#   OUT/noports-VERSION-ARCH.tar.gz   the executable; the manual pages, which the one that runs here prints (the same version);
#                                     and of LICENSE, README.md, SECURITY.md, CHANGELOG.md and the folders of packaging/ the
#                                     files that git tracks: whatever else lies there, keys among it, stays out
#
# Before the archive is there its list is looked at once more: nothing that is not on git's list, no keys, no links.
# SOURCE_DATE_EPOCH is the time that all files carry.
#
# "A && B || die" is meant as it reads: die when either of them does.
# shellcheck disable=SC2015
set -eu
cd "$(dirname "$0")/.."

die() {
    printf 'archive: %s\n' "$*" >&2
    exit 1
}

[ $# -eq 4 ] || [ $# -eq 5 ] || die "usage: packaging/archive.sh EXECUTABLE VERSION ARCH OUT [ONE THAT RUNS HERE]"
executable=$1
out=$4
name=noports-$2-$3
epoch=${SOURCE_DATE_EPOCH:?the time that all files carry}
export LC_ALL=C TZ=UTC

# An export lies where anything may lie beside it; below somebody else's checkout git would tell of that one.
[ "$(git rev-parse --show-cdup 2>/dev/null || echo none)" = "" ] ||
    die "this is no checkout, so nobody says which files belong into the archive (--only-program makes executables alone)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
stage=$work/$name
mkdir -p "$stage"

git ls-files -- LICENSE README.md packaging/SECURITY.md packaging/CHANGELOG.md 'packaging/*/*' >"$work/tracked"
[ -s "$work/tracked" ] || die "git tracks nothing here"
while IFS= read -r file; do
    case ${file##*/} in
    *.atKeys | *.key | *.pem | *_key* | id_* | *.p12) die "$file looks like a key; git should not track it" ;;
    *[!A-Za-z0-9._-]*) die "$file has a strange name" ;;
    esac
    # Deleted, and not yet committed: then it is not shipped either.
    [ -e "$file" ] || [ -L "$file" ] || continue
    [ -f "$file" ] && [ ! -L "$file" ] || die "$file is no file"
    to=$stage/${file#packaging/}
    mkdir -p "${to%/*}"
    cp "$file" "$to"
    printf '%s/%s\n' "$name" "${file#packaging/}" >>"$work/wanted"
done <"$work/tracked"
cp "$executable" "$stage/noports"
printf '%s/noports\n' "$name" >>"$work/wanted"
if [ $# -eq 5 ]; then
    "$5" docs all "$work/share" >/dev/null || die "$5 prints no manual pages"
    mkdir "$stage/man"
    cp "$work"/share/man/man1/*.1 "$stage/man/"
    (cd "$stage" && printf "$name/%s\n" man/*) >>"$work/wanted"
else
    echo "archive: nothing here prints the manual pages, so they are not in $name.tar.gz" >&2
fi

find "$stage" -type d -exec chmod 755 {} +
find "$stage" -type f -exec chmod 644 {} +
chmod 755 "$stage/noports"
find "$stage" -name '*.sh' -exec chmod 755 {} +
tar -C "$work" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -cf "$work/tar" "$name"

sort -o "$work/wanted" "$work/wanted"
tar -tf "$work/tar" | grep -v '/$' | sort >"$work/packed"
cmp -s "$work/wanted" "$work/packed" || {
    diff "$work/wanted" "$work/packed" >&2 || true
    die "the archive is not what git tracks, see above"
}
mkdir -p "$out"
gzip -n9 <"$work/tar" >"$work/archive"
chmod 644 "$work/archive"
mv "$work/archive" "$out/$name.tar.gz"
