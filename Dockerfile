# All of Shoal's services in one image; the first argument chooses. docs/containers.md says how.
#   docker build -t shoal .
#   docker run --rm shoal registry --help
ARG BASE=python:3.13-slim
# The first stage may want more than the last one has: a compiler, or wheels that lie at hand.
ARG BUILDER=${BASE}

FROM ${BUILDER} AS builder
WORKDIR /src
COPY deploy/container/wanted.py requirements/lock.txt pyproject.toml ./
# The image's environment has no pip of its own: what builds it stays in this stage. Everything is
# pinned, and checked against the hashes of the lock file, which constraints bring along.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/shoal/venv \
 && python3 wanted.py pin lock.txt pip > pip.txt \
 && /build/bin/pip install --no-cache-dir --require-hashes -r pip.txt \
 && /build/bin/pip install --no-cache-dir -c lock.txt hatchling
ARG EXTRAS=gateway,postgres,aws
RUN python3 wanted.py extras pyproject.toml "$EXTRAS" > wanted.txt \
 && /build/bin/pip --python /opt/shoal/venv/bin/python install --no-cache-dir -c lock.txt \
      -r wanted.txt
COPY . .
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w dist . \
 && /build/bin/pip --python /opt/shoal/venv/bin/python install --no-cache-dir --no-deps dist/*.whl

FROM ${BASE}
# By number, so that whoever forbids root can see that this is none.
# Named volumes take over whom these belong to.
RUN mkdir -p /var/lib/shoal /srv/shoal && chown 10001:10001 /var/lib/shoal /srv/shoal
COPY deploy/container/entrypoint /usr/local/bin/shoal-entrypoint
COPY --from=builder /opt/shoal/venv /opt/shoal/venv
USER 10001:10001
# Every option of a service is a variable; these fit a container with an address of its own.
ENV PATH=/opt/shoal/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/shoal USER=shoal \
    SHOAL_ADVERTISE=auto \
    SHOAL_BIND=0.0.0.0:7400 \
    SHOAL_CACHE_DIR=/var/lib/shoal/cache \
    SHOAL_ROOT=/var/lib/shoal
# The only place that is written to, but for /tmp: the root may be read-only.
VOLUME ["/var/lib/shoal"]
EXPOSE 7400
# It drains on SIGTERM. That takes 50 s at most; docker stop waits for 10 unless told.
HEALTHCHECK --interval=15s --timeout=15s --start-period=90s --retries=3 \
  CMD ["python", "-m", "shoal.health"]
ENTRYPOINT ["shoal-entrypoint"]
CMD ["shoal", "--help"]
