#!/bin/sh
# Keys for the world of compose.yaml: starts its atServer, adds three atSigns there, and activates them, each in the container
# that the keys are for. A second run does what is missing.
set -eu
cd "$(dirname "$0")"
umask 077
# Both words of "podman compose", or the one of podman-compose.
compose=${COMPOSE:-${ENGINE:-podman} compose}
# For the atServer to answer, seconds.
PATIENCE=60
# compose makes a folder of what is not there.
[ -f ca.pem ] || { rmdir ca.pem 2>/dev/null || true; : >ca.pem; }
$compose up -d --build atserver
waited=0
until $compose exec -T atserver /noports atserver export-ca --data /data >ca.pem.new 2>ca.pem.why && [ -s ca.pem.new ]; do
    waited=$((waited + 1))
    [ $waited -lt $PATIENCE ] || {
        echo "first-keys: the atServer does not answer: $(cat ca.pem.why)" >&2
        rm -f ca.pem.new ca.pem.why
        exit 1
    }
    sleep 1
done
# The same file: it is mounted.
cat ca.pem.new >ca.pem
rm -f ca.pem.new ca.pem.why
chmod 644 ca.pem
# Nobody else's, also where it has been there.
mkdir -p keys
chmod 700 keys
for who in me my_device my_rendezvous; do
    case $who in
    my_device) service=daemon ;;
    my_rendezvous) service=rendezvous ;;
    me) service= ;;
    esac
    secret=$($compose exec -T atserver /noports atserver add "@$who" --data /data) || {
        echo "first-keys: @$who is there already, or cannot be added: see above" >&2
        continue
    }
    if [ -n "$service" ]; then
        printf '%s\n' "$secret" | $compose run --rm -T --no-deps "$service" \
            activate "@$who" --root localhost:6400 --ca /ca.pem --keys "/keys/@${who}_key.atKeys"
    else
        printf '%s\n' "$secret" | noports activate "@$who" --root localhost:6400 --ca ca.pem --keys "keys/@${who}_key.atKeys"
    fi
done
for file in keys/*.atKeys; do
    [ ! -e "$file" ] || chmod 600 "$file"
done
