# seatrial/gateway:1 - the door of a workspace: PgBouncer on a Unix socket, and a TCP relay for clients that
# cannot speak to a socket. Neither holds anything of its own: configuration and socket directory are mounted.
#
# `make images` builds it without a registry, on packages that docker/debian-image.sh unpacked.
# With a registry:  docker build -f docker/gateway.Dockerfile -t seatrial/gateway:1 docker
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN command -v pgbouncer >/dev/null && command -v socat >/dev/null || { \
        apt-get -q update && \
        apt-get -q -y install --no-install-recommends pgbouncer socat && \
        rm -rf /var/lib/apt/lists/*; \
    }

# A uid of its own, never root's nor a workspace's (10001): PgBouncer gives its admin console to every client that
# connects with the uid that it runs as.
RUN groupadd --gid 10101 seatgate && \
    useradd --uid 10101 --gid 10101 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin seatgate

COPY gateway-entrypoint.sh /usr/local/bin/seatgate
USER 10101:10101
WORKDIR /
ENTRYPOINT ["/usr/local/bin/seatgate"]
CMD ["pgbouncer"]
