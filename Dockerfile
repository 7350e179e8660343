# syntax=docker/dockerfile:1
# tokgate in a container: explicit proxy on 8080. See deploy/README.md for volumes and for a transparent gateway.
# It is Debian with tokgate's package. `make image` builds it where there is no registry.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3.13-venv ca-certificates > /dev/null
WORKDIR /src
COPY . .
# `--build-arg EXTRAS=all` for `tokgate review`, `log summary`, `query` and `report`, whose DuckDB alone has 69 MB.
ARG EXTRAS=calendar,metrics,gateway
# Certificates to trust while packages are fetched, on networks that need it.
ARG PIP_CERT
RUN --mount=type=cache,target=/var/cache/pip PIP_CACHE_DIR=/var/cache/pip deploy/deb/build.sh /deb "$EXTRAS"

FROM ${BASE} AS system
ARG DEBIAN_FRONTEND=noninteractive
# A fixed number, so that a volume's owner can be set without knowing this image's names.
RUN groupadd --gid 10451 tokgate \
 && useradd --uid 10451 --gid tokgate --home-dir /var/lib/tokgate --create-home --shell /usr/sbin/nologin tokgate \
 && install -d -o tokgate -g tokgate -m 0750 /var/log/tokgate
COPY --from=build /deb /deb
# What only installing takes does not stay, but the licences do: who needs a package more builds an image of their own.
RUN apt-get update -qq && apt-get install -qq --no-install-recommends /deb/*.deb > /dev/null \
 && dpkg --purge --force-all apt libapt-pkg7.0 perl-base sqv systemd-standalone-sysusers debconf diffutils tar util-linux mount \
    passwd openssl > /dev/null 2>&1 \
 && find /usr/share/doc -type f ! -name copyright ! -path '*/bundled/*' -delete \
 && rm -rf /deb /usr/share/man /usr/share/locale /usr/share/info /usr/lib/*/gconv /usr/lib/python3.13/test \
    /var/cache/* /var/lib/apt /var/log/apt /var/log/*.log
COPY policies/default.yaml /etc/tokgate/policies/

FROM scratch
LABEL org.opencontainers.image.title="tokgate" \
      org.opencontainers.image.description="TLS egress filter: time-limited bans on named services" \
      org.opencontainers.image.licenses="MIT"
COPY --from=system / /
# Nothing below /opt is written at run time: the root file system can be read-only.
ENV PATH=/opt/tokgate/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

USER 10451:10451
WORKDIR /var/lib/tokgate
VOLUME ["/etc/tokgate/policies", "/var/log/tokgate", "/var/lib/tokgate"]
EXPOSE 8080
STOPSIGNAL SIGTERM

# Asks the supervisor, whose processes report each second, and then the proxy itself.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["tokgate", "status", "--probe"]

ENTRYPOINT ["tokgate"]
# Drains for 5 s, so that all is written and signed when Docker's ten seconds end.
CMD ["run", "--listen-host", "", "--drain", "5", "--policies", "/etc/tokgate/policies", "--log", "/var/log/tokgate/block.ndjson"]
