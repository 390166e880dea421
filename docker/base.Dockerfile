# seatrial/base:bookworm where a registry can be reached; docker/base-image.sh makes the same without one.
#
#   docker build -f docker/base.Dockerfile -t seatrial/base:bookworm docker
ARG BASE=debian:bookworm-slim
FROM ${BASE}

ENV LANG=C.UTF-8
COPY base-packages.txt /tmp/
RUN apt-get -q update && \
    xargs -a /tmp/base-packages.txt apt-get -q -y install --no-install-recommends && \
    rm -rf /var/lib/apt/lists/* /tmp/base-packages.txt
CMD ["bash"]
