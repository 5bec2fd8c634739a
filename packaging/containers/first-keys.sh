#!/bin/sh
# Keys for the world of compose.yaml: starts its atServer, adds three atSigns there, and activates them.
# A second run does what is missing.
set -eu
cd "$(dirname "$0")"
umask 077
engine=${ENGINE:-podman}
# compose makes a folder of what is not there.
[ -f ca.pem ] || { rmdir ca.pem 2>/dev/null || true; : >ca.pem; }
"$engine" compose up -d --build atserver
until "$engine" compose cp atserver:/data/ca.pem ca.pem 2>/dev/null && [ -s ca.pem ]; do sleep 1; done
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
    secret=$("$engine" compose exec -T atserver /noports atserver add "@$who" --data /data) || {
        echo "first-keys: @$who is there already, or cannot be added: see above" >&2
        continue
    }
    if [ -n "$service" ]; then
        printf '%s\n' "$secret" | "$engine" compose run --rm -T --no-deps "$service" \
            activate "@$who" --root localhost:6400 --ca /ca.pem --keys "/keys/@${who}_key.atKeys"
    else
        printf '%s\n' "$secret" | noports activate "@$who" --root localhost:6400 --ca ca.pem --keys "keys/@${who}_key.atKeys"
    fi
done
for file in keys/*.atKeys; do
    [ ! -e "$file" ] || chmod 600 "$file"
done
