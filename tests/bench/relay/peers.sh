#!/bin/sh
# Installs the peers of the bench: socat and haproxy by the package manager, rathole and bore from the registry into target/peers.
# What cannot be had is named; its rows are left out then.
set -u
cd "$(dirname "$0")/../../.." || exit 1

missing=
for tool in socat haproxy; do
    command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || missing="$missing $tool"
done
# rathole's own TLS, which is not measured, needs OpenSSL to be built.
[ -x target/peers/bin/rathole ] || missing="$missing libssl-dev pkg-config"
if [ -n "$missing" ]; then
    apt-get update -q
    # The services themselves are not wanted.
    # shellcheck disable=SC2086
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing || failed="$missing"
fi
install() {
    [ -x "target/peers/bin/$1" ] || cargo install --quiet --root target/peers --target-dir target/peers/build "$2" --version "$3" ||
        failed="${failed-} $1"
}
install bore bore-cli 0.6.0
# Not with its own lock file: a crate that it names no longer compiles.
install rathole rathole 0.5.0
[ -z "${failed-}" ] || echo "not to be had:$failed" >&2
[ -z "${failed-}" ]
