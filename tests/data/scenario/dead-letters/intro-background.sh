#!/bin/bash
set -euo pipefail
mkdir -p /srv/letters
for i in {1..5}; do
    echo "letter $i" >"/srv/letters/$i"
done
chmod 000 /opt/post/rules.conf
