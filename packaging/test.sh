#!/bin/sh
# Installs what the tests need (a real sshd and ssh; Python, for other people's programs; tools that people use over ssh; shells
# and mandoc, for completions and manual pages), then runs all of them.
# The bench of outages (tests/faults) needs root, network namespaces and /dev/net/tun; it fails where they are missing.
# The Python programs themselves are fetched by their tests, once, into target/tmp.
set -eu
cd "$(dirname "$0")/.."

missing=
command -v ssh >/dev/null && command -v scp >/dev/null && command -v sftp >/dev/null || missing="$missing openssh-client"
[ -x /usr/sbin/sshd ] || command -v sshd >/dev/null || missing="$missing openssh-server"
{ command -v ss && command -v ip; } >/dev/null || missing="$missing iproute2"
{ command -v unshare && command -v nsenter && command -v mount; } >/dev/null || missing="$missing util-linux mount"
for tool in bash busybox curl dash fish git mandoc minisign rsync zsh; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "the tests need:$missing (install them with your package manager)" >&2
        exit 1
    fi
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -q
    # The service itself is not wanted: the tests start their own, unprivileged, on a free loopback port.
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing
fi

# Tests wait for processes far more than they work: with as many threads as processors these are idle three quarters of the time.
: "${RUST_TEST_THREADS:=$((3 * $(nproc)))}"
export RUST_TEST_THREADS

# What only root can do is ignored otherwise.
[ "$(id -u)" != 0 ] || cargo test --locked --features held --lib -- --ignored

# Programs that can be held to an older generation are for the tests alone.
exec cargo test --locked --features held "$@"
