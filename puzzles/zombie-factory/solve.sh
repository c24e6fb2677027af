#!/bin/sh
# Tell the kernel that nobody will ask what became of the workers; then they leave no trace.
sudo sed -i "/^my (\$page/a \$SIG{CHLD} = 'IGNORE';" /usr/local/lib/print-shop/print-shop
sudo systemctl restart print-shop
sleep 1
