#!/bin/sh
# Serves /www and ends at once on SIGTERM, which busybox httpd does not do as process 1.
trap 'kill "$server"; exit 0' TERM INT
httpd -f -p 8080 -h /www &
server=$!
wait "$server"
