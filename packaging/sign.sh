#!/bin/sh
# Signs a release, with minisign.
#
#   packaging/sign.sh new-key FOLDER     makes noports.key (secret, with a passphrase) and noports.pub there; never in a checkout
#   packaging/sign.sh DIST KEY           writes DIST/SHA256SUMS.minisig, and reads it again as install.sh does
#
# The older of minisign's two forms is used, which signs the file itself and not a BLAKE2b sum of it: so signify, openssl and
# noports verify can check it too. The newer one is for files too big to hold in memory; SHA256SUMS has some lines.
# FLAGS=-W makes a key without a passphrase, for tests.
set -eu

die() {
    printf 'sign: %s\n' "$*" >&2
    exit 1
}

command -v minisign >/dev/null || die "this needs minisign"
here=$(cd "$(dirname "$0")/.." && pwd)

outside() { # whether a folder is none of a checkout's
    ! git -C "$1" rev-parse --is-inside-work-tree >/dev/null 2>&1 || die "$1 is in a checkout: a key there is published one day"
    case $(cd "$1" && pwd)/ in "$here"/*) die "$1 is in this checkout" ;; esac
}

new_key() {
    [ -d "$1" ] || die "there is no folder $1"
    outside "$1"
    umask 077
    # shellcheck disable=SC2086
    minisign -G -p "$1/noports.pub" -s "$1/noports.key" ${FLAGS-} >/dev/null
    printf 'the line for install.sh:\nPUBLIC_KEY=%s\n' "$(tail -n 1 "$1/noports.pub")"
}

sign() {
    [ -f "$2" ] || die "there is no key $2"
    outside "$(dirname "$2")"
    cd "$1"
    [ -f SHA256SUMS ] || die "there is no SHA256SUMS in $1"
    sha256sum --quiet --strict -c SHA256SUMS || die "SHA256SUMS is not what lies there"
    for file in *; do
        case $file in
        SHA256SUMS | SHA256SUMS.minisig) ;;
        *) grep -q "^[0-9a-f]* [ *]$file\$" SHA256SUMS || die "$file is not in SHA256SUMS" ;;
        esac
    done
    minisign -S -l -s "$2" -m SHA256SUMS -x SHA256SUMS.minisig -t "noports $(cat VERSION)"
    public=$(tail -n 1 "${2%.key}.pub") || die "its public half, ${2%.key}.pub, is not there"
    minisign -Vqm SHA256SUMS -P "$public" || die "the signature is not good"
    chmod 644 SHA256SUMS.minisig
    grep -qx "PUBLIC_KEY=$public" install.sh ||
        echo "sign: install.sh does not hold this key; who installs has to name it: --public-key $public" >&2
}

case ${1-} in
new-key) [ $# -eq 2 ] || die "usage: packaging/sign.sh new-key FOLDER" && new_key "$2" ;;
*) [ $# -eq 2 ] || die "usage: packaging/sign.sh DIST KEY" && sign "$1" "$(cd "$(dirname "$2")" && pwd)/${2##*/}" ;;
esac
