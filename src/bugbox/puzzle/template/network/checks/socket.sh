#!/bin/sh
[ "$(systemctl show --property Listen --value ledger.socket)" = "127.0.0.2:8000 (Stream)" ] ||
    fail "ledger.socket listens somewhere else now."
