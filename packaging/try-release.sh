#!/bin/sh
# Signs what lies in dist/ with a key of the moment, checks the signature with all that is here, installs from it as people do, and
# lets what it installed show the demo of the README: packaging/try-release.sh
set -eu
cd "$(dirname "$0")/.."

die() {
    printf 'try-release: %s\n' "$*" >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
arch=$(uname -m)
noports=target/static/$arch/noports
version=$(cat dist/VERSION)
archive=dist/noports-$version-$arch.tar.gz

target/static/tools/bin/python packaging/sbom.py check "dist/noports-$version.cdx.json" "target/static/$arch"

mkdir "$work/keys"
FLAGS=-W packaging/sign.sh new-key "$work/keys" >/dev/null
packaging/sign.sh dist "$work/keys/noports.key"
key=$(tail -n 1 "$work/keys/noports.pub")
checked=
for with in minisign signify-openbsd; do
    command -v $with >/dev/null || continue
    case $with in
    minisign) minisign -Vqm dist/SHA256SUMS -P "$key" ;;
    signify-openbsd) signify-openbsd -Vq -p "$work/keys/noports.pub" -x dist/SHA256SUMS.minisig -m dist/SHA256SUMS ;;
    esac
    checked="$checked $with"
done
"$noports" verify dist/SHA256SUMS --key "$work/keys/noports.pub" >&2
{ cat dist/SHA256SUMS && echo; } >"$work/SHA256SUMS"
! "$noports" verify "$work/SHA256SUMS" --signature dist/SHA256SUMS.minisig --key "$key" 2>/dev/null ||
    die "a list that was changed passes for the one that was signed"

sh install.sh --prefix "$work/prefix" --local "$archive" --public-key "$key"
"$work/prefix/bin/noports" --version --verbose >"$work/version"
grep -qx "commit    $(sed -n 's/^commit=//p' "target/static/$arch/build.txt")" "$work/version" || die "it does not say its commit"
"$work/prefix/bin/noports" selftest >&2
"$work/prefix/bin/noports" demo >"$work/demo" 2>&1 || { cat "$work/demo" >&2 && die "no demo"; }
grep -q 'hello from .* of an sshd' "$work/demo" || die "the demo shows no session"
tar -tzf "$archive" | grep -q '/man/noports-daemon\.1$' || die "no manual pages in $archive"
tar -tzf "$archive" | grep -q '/licences/crates\.txt$' || die "no licences in $archive"
# It was signed by nobody: nothing of it stays.
rm dist/SHA256SUMS.minisig
echo "release: $version, checked by noports$checked, installed, shown"
