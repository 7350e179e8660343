#!/bin/sh
# build.sh [DIR] [EXTRAS]: writes tokgate_VERSION_ARCHITECTURE.deb into DIR (dist), with the extras of pyproject.toml (all).
# Needs Debian's python3.13 and python3.13-venv. All that is installed is checked against the hashes of the locks.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p "${1:-dist}"
target=$(realpath "${1:-dist}")
extras=${2:-all}
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root prefix=/opt/tokgate

/usr/bin/python3.13 -m venv "$work/tools"
pip() { "$work/tools/bin/pip" --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --only-binary=:all: --no-deps -r deploy/requirements-build.lock
pip download --require-hashes --only-binary=:all: --no-deps --dest "$work/wheels" -r requirements.lock
"$work/tools/bin/python" -m hatchling build --target wheel --directory "$work/wheels" 2> /dev/null

/usr/bin/python3.13 -m venv --without-pip "$root$prefix"
pip --isolated --python "$root$prefix/bin/python" install --no-index --find-links "$work/wheels" --no-compile "tokgate[$extras]"
pip --python "$root$prefix/bin/python" check > /dev/null
# As it will stand on the machine: scripts and compiled modules name their place.
rm "$root$prefix"/bin/[Aa]ctivate*
sed -i "s|$root||g" "$root$prefix/pyvenv.cfg" $(grep -lI "$root" "$root$prefix"/bin/*)
"$root$prefix/bin/python" -m compileall -q -s "$root" -p / --invalidation-mode unchecked-hash "$root$prefix/lib"

install -d "$root/usr/bin" "$root/usr/share/man/man1" "$root/etc/tokgate/policies" "$root/DEBIAN"
ln -s "$prefix/bin/tokgate" "$root/usr/bin/tokgate"
gzip -9n < deploy/man/tokgate.1 > "$root/usr/share/man/man1/tokgate.1.gz"
install -D -m 0644 -t "$root/usr/lib/systemd/system" deploy/systemd/*.service deploy/systemd/*.timer
install -D -m 0644 deploy/systemd/tokgate.sysusers "$root/usr/lib/sysusers.d/tokgate.conf"
install -D -m 0644 deploy/deb/tokgate.conf "$root/etc/tokgate/tokgate.conf"
install -D -m 0644 LICENSE "$root/usr/share/doc/tokgate/copyright"
# The licence texts of what is bundled, as its packages bring them.
(cd "$root$prefix"/lib/python3.13/site-packages && find . -path '*.dist-info/*' -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \
  -o -iname 'authors*' -o -path '*/licenses/*' \) -exec install -D -m 0644 {} "$root/usr/share/doc/tokgate/bundled/{}" \;)

install -m 0755 -t "$root/DEBIAN" deploy/deb/postinst deploy/deb/prerm deploy/deb/postrm
units=$(cd "$root/usr/lib/systemd/system" && echo *)
sed -i "s/@UNITS@/$units/" "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
echo /etc/tokgate/tokgate.conf > "$root/DEBIAN/conffiles"
version=$("$root$prefix/bin/python" -c 'from importlib.metadata import version; print(version("tokgate"))')
# Debian sorts a pre-release before its release by the tilde.
version=$(echo "$version" | sed -E 's/(a|b|rc|\.dev)([0-9])/~\1\2/')
{
  sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$(dpkg --print-architecture)/" deploy/deb/control
  echo "Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)"
} > "$root/DEBIAN/control"
dpkg-deb --root-owner-group -Zzstd -z10 --build "$root" "$target"
