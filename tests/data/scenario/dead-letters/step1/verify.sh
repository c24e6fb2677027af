#!/bin/bash
set -e
[[ "$(</root/count)" -eq 5 ]]
