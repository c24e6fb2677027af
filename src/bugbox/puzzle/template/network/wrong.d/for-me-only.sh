#!/bin/sh
# refused by: page
# curl is told the address; everybody else still asks for the name.
curl --silent --resolve ledger.example:8000:127.0.0.2 http://ledger.example:8000/
