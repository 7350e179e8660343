# syntax=docker/dockerfile:1
# tokgate in a container: explicit proxy on 8080. See deploy/README.md for volumes and for a transparent gateway.
# Both stages share the base image, so that the virtual environment finds the same interpreter in both.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/tokgate
ENV PATH=/opt/tokgate/bin:$PATH

# Dependencies first: this layer changes only with the lock. Every file is checked against its hash, and nothing is compiled from source.
COPY requirements.lock /src/
RUN pip install --require-hashes --only-binary=:all: --no-deps -r /src/requirements.lock

# The build tools stay in this stage, in an environment of their own.
COPY deploy/requirements-build.lock /src/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary=:all: --no-deps -r /src/requirements-build.lock

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY addons addons
RUN /opt/build/bin/python -m hatchling build -t wheel \
 && pip install --no-deps --no-index dist/*.whl \
 && pip check \
 && tokgate --version

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="tokgate" \
      org.opencontainers.image.description="TLS egress filter: time-limited bans on named services" \
      org.opencontainers.image.licenses="MIT"

# A fixed number, so that a volume's owner can be set without knowing this image's names.
RUN groupadd --gid 10451 tokgate \
 && useradd --uid 10451 --gid tokgate --home-dir /var/lib/tokgate --create-home --shell /usr/sbin/nologin tokgate \
 && install -d -o tokgate -g tokgate -m 0750 /var/log/tokgate \
 && install -d -m 0755 /etc/tokgate/policies

COPY --from=build /opt/tokgate /opt/tokgate
COPY policies /etc/tokgate/policies
# Nothing below /opt is written at run time: the root file system can be read-only.
ENV PATH=/opt/tokgate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

USER 10451:10451
WORKDIR /var/lib/tokgate
VOLUME ["/etc/tokgate/policies", "/var/log/tokgate", "/var/lib/tokgate"]
EXPOSE 8080
STOPSIGNAL SIGTERM

# A connection that ends before it says anything: cheap, and proof that the event loop accepts.
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8080), 2).close()"]

ENTRYPOINT ["tokgate"]
CMD ["run", "--listen-host", "", "--policies", "/etc/tokgate/policies", "--log", "/var/log/tokgate/block.ndjson"]
