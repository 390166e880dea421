# seatrial/app:1 - Seatrial itself: `web`, `sweeper`, `worker` or any other command of `seatrial`.
#
# docker/app-image.sh builds it on seatrial/base:bookworm without a registry, and hands in the host's CA bundle, which
# is used by the first stage only. With a registry, from the repository's root:
#   docker build -f docker/app.Dockerfile --build-arg BASE=python:3.13-slim-bookworm -t seatrial/app:1 .
ARG BASE=python:3.13-slim-bookworm
FROM ${BASE} AS build

# A certificate bundle of the host's when the context has one: proxies and mirrors that re-sign TLS need it.
COPY requirements.txt ca-bundle.cr[t] /tmp/
RUN python3 -m venv /opt/seatrial && \
    if [ -e /tmp/ca-bundle.crt ]; then export PIP_CERT=/tmp/ca-bundle.crt; fi && \
    /opt/seatrial/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes -r /tmp/requirements.txt
COPY runner /opt/seatrial/app/runner
COPY jobs /opt/seatrial/app/jobs
COPY web /opt/seatrial/app/web
# The packages are used where they lie; the command is what an entry point would generate.
RUN echo /opt/seatrial/app >"$(/opt/seatrial/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/seatrial.pth" && \
    printf '#!/opt/seatrial/bin/python\nimport sys\nfrom jobs.cli import main\nsys.exit(main())\n' >/opt/seatrial/bin/seatrial && \
    chmod 755 /opt/seatrial/bin/seatrial && \
    /opt/seatrial/bin/python -m compileall -q /opt/seatrial/app

FROM ${BASE}
# The mirrors of the projects' repositories are kept with git. An image that lacks it gets it from its own package sources.
RUN command -v git >/dev/null || { \
        apt-get -q update && apt-get -q -y install --no-install-recommends git && rm -rf /var/lib/apt/lists/*; \
    }
RUN groupadd --gid 10100 seatrial && \
    useradd --uid 10100 --gid 10100 --create-home --home-dir /var/lib/seatrial --shell /usr/sbin/nologin seatrial
COPY --from=build /opt/seatrial /opt/seatrial
ENV PATH=/opt/seatrial/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 PYTHONUNBUFFERED=1
USER 10100:10100
WORKDIR /var/lib/seatrial
ENTRYPOINT ["seatrial"]
CMD ["--help"]
