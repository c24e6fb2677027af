#!/bin/sh
# Lines of the service's own workers.
pages=/run/print-shop/pages

count() { wc -l 2>/dev/null <"$pages"; }
more() { now=$(count) && [ "${now:-0}" -ge $((before + 4)) ]; }
of_the_service() { grep -qs '/print-shop\.service$' /proc/[0-9]*/cgroup; }

of_the_service || fail "print-shop.service does not run."
before=$(count)
before=${before:-0}
eventually 12 more || fail "No four pages have come out for twelve seconds."
