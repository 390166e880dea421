#!/bin/sh
# What a gateway container does, by its first argument:
#
#   pgbouncer [CONFIG]        run PgBouncer on a mounted configuration, default /etc/seatgate/pgbouncer.ini
#   relay [SOCKET [PORT]]     127.0.0.1:PORT (5432) to the Unix socket SOCKET (/seatrial/db/.s.PGSQL.5432);
#                             runs in the workspace's network namespace
#   pause                     only wait: holds a network namespace open
#   check                     print the versions of what is in here
set -eu

mode=${1:-pgbouncer}
[ $# -eq 0 ] || shift

case $mode in
pgbouncer)
    config=${1:-/etc/seatgate/pgbouncer.ini}
    [ -r "$config" ] || { echo "seatgate: cannot read $config as uid $(id -u): mount it" >&2; exit 78; }
    exec pgbouncer "$config"
    ;;
relay)
    # max-children bounds what one workspace can open; PgBouncer refuses beyond its pool anyway.
    exec socat -d "TCP4-LISTEN:${2:-5432},bind=127.0.0.1,fork,reuseaddr,max-children=256" \
        "UNIX-CONNECT:${1:-/seatrial/db/.s.PGSQL.5432}"
    ;;
pause)
    exec sleep infinity
    ;;
check)
    pgbouncer --version
    socat -V | head -n 2
    ;;
*)
    echo "seatgate: unknown mode '$mode' (pgbouncer, relay, pause or check)" >&2
    exit 64
    ;;
esac
