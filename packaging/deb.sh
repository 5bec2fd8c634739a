#!/bin/sh
# Makes a Debian package of an executable that runs anywhere: packaging/deb.sh ARCH [EXECUTABLE] [OUT]
#
#   ARCH         x86_64 aarch64 armv7 armv6 (Debian's armhf is armv7, armel takes armv6)
#   EXECUTABLE   default: target/static/ARCH/noports, as packaging/build-static.sh makes it
#   OUT          default: dist
#
# It has no dependencies. Services are not started by it: `noports daemon install` makes them, an upgrade starts anew those that
# run (a rendezvous that carries sessions goes on), removing the package removes them. Manual pages are printed by the executable, so this runs where it runs, or
# where NOPORTS names another one of the same version that does. MAINTAINER is who answers for the package.
set -eu
cd "$(dirname "$0")/.."

arch=${1:?ARCH}
executable=${2:-target/static/$arch/noports}
out=${3:-dist}
runs=${NOPORTS:-$executable}
maintainer=${MAINTAINER:-The noports project <noports@example.org>}
case $arch in
x86_64) debian=amd64 ;;
aarch64) debian=arm64 ;;
armv7) debian=armhf ;;
armv6) debian=armel ;;
*)
    echo "deb.sh: no Debian for $arch" >&2
    exit 2
    ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
stage=target/deb/$arch
rm -rf "$stage"
mkdir -p "$stage/DEBIAN" "$stage/usr/bin" "$stage/usr/share/doc/noports" "$out"

install -m 755 "$executable" "$stage/usr/bin/noports"
for link in sshnp npt sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate; do
    ln -s noports "$stage/usr/bin/$link"
done
SOURCE_DATE_EPOCH=$epoch "$runs" docs all "$stage/usr/share" >/dev/null
# Debian looks for these in places of its own.
mkdir -p "$stage/usr/share/zsh/vendor-completions"
mv "$stage/usr/share/zsh/site-functions/_noports" "$stage/usr/share/zsh/vendor-completions/"
rmdir "$stage/usr/share/zsh/site-functions"
gzip -n9 "$stage"/usr/share/man/man1/*.1
{
    printf 'noports, by its authors, under the BSD-3-Clause licence:\n\n'
    cat LICENSE
    printf '\nThe executable holds these works, too:\n\n'
    cat packaging/licences/crates.txt packaging/licences/musl-and-zig.txt
} >"$stage/usr/share/doc/noports/copyright"
{
    printf 'noports (%s) unstable; urgency=medium\n\n  * Release %s.\n\n' "$version" "$version"
    printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$epoch")"
} | gzip -n9 >"$stage/usr/share/doc/noports/changelog.gz"

mkdir -p "$stage/etc/noports"
cat >"$stage/etc/noports/daemon.conf" <<'END'
# Flags of "noports daemon", one per line, as on the command line without the two dashes; it wins over this.
#as          @my_device
#manager     @me
#device      pi
#permit-open localhost:22
END
echo /etc/noports/daemon.conf >"$stage/DEBIAN/conffiles"

mkdir -p "$stage/usr/share/lintian/overrides"
{
    echo '# A static executable, on purpose; one that is loaded anywhere looks like a library that names no other.'
    case $debian in
    amd64) echo 'noports: shared-library-lacks-prerequisites [usr/bin/noports]' ;;
    *) echo 'noports: statically-linked-binary [usr/bin/noports]' ;;
    esac
} >"$stage/usr/share/lintian/overrides/noports"

cat >"$stage/DEBIAN/control" <<END
Package: noports
Version: $version
Architecture: $debian
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size "$stage/usr" | cut -f 1)
Section: net
Priority: optional
Suggests: openssh-client, openssh-server
Conflicts: sshnoports
Description: reach a device that has no open port
 Ssh and any TCP service on a device that has no open port, end-to-end
 encrypted, with outbound connections only: client, daemon, rendezvous,
 policy and atServer in one executable.
 .
 Installing starts nothing. "noports daemon install" makes a service.
END
cat >"$stage/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
# After an upgrade what runs goes on with the new version, people's own services too. Sessions that run are left alone by that,
# and so is a rendezvous that carries some; what goes on as it was is said.
if [ "$1" = configure ] && [ -n "$2" ]; then
    noports service restart --after-upgrade || true
fi
END
cat >"$stage/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
# All services of this executable, whatever they are called and whosever they are; those of another one stay. Keys and data stay.
if [ "$1" = remove ]; then
    noports service uninstall || true
fi
END
cat >"$stage/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
# What OpenRC's services have written there.
if [ "$1" = purge ]; then
    rm -f /var/log/noports-*.log
fi
END
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/prerm" "$stage/DEBIAN/postrm"
( cd "$stage" && find etc usr -type f -exec md5sum {} + | sort -k 2 >DEBIAN/md5sums )
find "$stage" -type d -exec chmod 755 {} +
find "$stage/etc" "$stage/usr/share" -type f -exec chmod 644 {} +
find "$stage" -exec touch -h -d "@$epoch" {} +
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group -Zxz --build "$stage" "$out/noports_${version}_$debian.deb"
