#!/bin/sh
# Serves /www on port 3000 and ends at once on SIGTERM, which busybox httpd does not do as process 1.
trap 'kill "$server"; exit 0' TERM INT
httpd -f -p 3000 -h /www &
server=$!
wait "$server"
