#!/usr/bin/env bash
# build.sh [NAME]: builds the image with buildah, on a base of Debian's packages that mmdebstrap makes once: no registry is
# asked. BASE=IMAGE takes another base. Options of buildah, such as --build-arg EXTRAS=all, follow the name.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:-tokgate}
[ $# -eq 0 ] || shift
local_base=localhost/tokgate-base:trixie
limits="--ulimit nofile=$(ulimit -Hn):$(ulimit -Hn) --ulimit nproc=$(ulimit -Hu):$(ulimit -Hu)"  # none above this machine's

if [ -z "${BASE:-}" ] && ! buildah inspect --type image "$local_base" > /dev/null 2>&1; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$folder/base.tar"
  printf 'FROM scratch\nADD base.tar /\n' > "$folder/Dockerfile"
  buildah build --quiet --isolation chroot --tag "$local_base" "$folder" > /dev/null
fi
certificates=/etc/ssl/certs/ca-certificates.crt  # this machine's, which may be more than Debian's
[ ! -e "$certificates" ] || trust="--volume $certificates:/run/certificates.pem:ro --build-arg PIP_CERT=/run/certificates.pem"
# Docker's format: OCI's has no health check. shellcheck disable=SC2086
buildah build --format docker --isolation chroot $limits ${trust:-} --build-arg BASE="${BASE:-$local_base}" --tag "$name" "$@" .
