#!/bin/sh
# Builds noports from this checkout and installs it with its links. Usage: sh install.sh [--prefix DIR]
set -eu

main() {
    prefix=/usr/local
    [ "$(id -u)" = 0 ] || prefix=$HOME/.local
    while [ $# -gt 0 ]; do
        case $1 in
        --prefix)
            [ $# -ge 2 ] || { echo "install.sh: --prefix needs a folder" >&2; exit 2; }
            prefix=$2
            shift 2
            ;;
        *)
            echo "usage: sh install.sh [--prefix DIR]" >&2
            exit 2
            ;;
        esac
    done
    command -v cargo >/dev/null || { echo "install.sh: needs a Rust toolchain (cargo)" >&2; exit 1; }
    cd "$(dirname "$0")"
    cargo build --release --locked
    mkdir -p "$prefix/bin"
    # To a temporary name first: a cut-off copy must not take the place of a working file.
    cp target/release/noports "$prefix/bin/.noports.new"
    mv -f "$prefix/bin/.noports.new" "$prefix/bin/noports"
    for link in sshnp sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate; do
        if [ -e "$prefix/bin/$link" ] && [ ! -L "$prefix/bin/$link" ]; then
            echo "install.sh: $prefix/bin/$link is another program's, left alone" >&2
            continue
        fi
        ln -sf noports "$prefix/bin/$link"
    done
    echo "installed $prefix/bin/noports"
}

main "$@"
