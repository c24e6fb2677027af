#!/bin/sh
# refused by: resolves
# The server was never asked, so a better one is not asked either.
echo 'nameserver 9.9.9.9' | sudo tee /etc/resolv.conf >/dev/null
