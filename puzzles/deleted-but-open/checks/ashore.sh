#!/bin/sh
# Wait for two more shipments. One proves little: the first after a restart always works, and
# only the one after it shows whether the gauge went on in a file that can be found.

receipts() {
    # shellcheck disable=SC2046  # two words are wanted
    set -- $(wc -l /run/tide-ashore/receipts 2>/dev/null)
    echo "${1:-0}"
}

before=$(receipts)
for second in $(seq 18); do
    [ "$(receipts)" -ge $((before + 2)) ] && exit 0
    sleep 1
done
case $(($(receipts) - before)) in
0) fail "For $second seconds no shipment has arrived ashore." ;;
*) fail "One shipment has arrived ashore, and then no more for the rest of $second seconds." ;;
esac
