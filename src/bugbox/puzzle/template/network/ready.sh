#!/bin/sh
# Runs as root on an untouched machine: 0 = it is broken as told. Changes nothing.
systemctl is-active --quiet ledger.socket && [ "$(getent hosts ledger.example)" != "" ]
