#!/bin/sh
# The way a visitor goes: from the name to an address, from there to the page.
address=$(getent hosts ledger.example | head -n 1 | cut -d ' ' -f 1)
[ -n "$address" ] || fail "The name ledger.example leads nowhere."
page=$(printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 "$address" 8000 2>/dev/null)
case $page in
*"LEDGER: nothing owed."*) ;;
*) fail "At $address, where ledger.example leads, nobody shows the ledger." ;;
esac
