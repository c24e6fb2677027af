set -o errexit
test -e /srv/sorted
