#!/bin/sh
# Makes the cluster and the database `cse` where there is none yet, then is the server.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
data=/var/lib/postgresql/data

if [ ! -s $data/PG_VERSION ]; then
    # Half-made by a start that was cut off: nothing of it is used.
    rm -rf $data/new
    initdb -D $data/new -U cse -A trust -E UTF8 --locale C.UTF-8 >/dev/null
    echo "CREATE DATABASE cse;" | postgres --single -D $data/new postgres >/dev/null
    mv $data/new/* $data/
fi
exec postgres -D $data -c listen_addresses= -c unix_socket_directories=/run/postgresql
