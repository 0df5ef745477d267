#!/bin/sh
# Puts Ephemeral into /opt/ephemeral on a bare Debian or Ubuntu, and then prepares the machine as the arguments say
# (those of `ephemeral host init`; none: only the first half). As root; may be run again.
set -eu
export DEBIAN_FRONTEND=noninteractive HOME="$${HOME:-/root}"
home=/opt/ephemeral
if ! [ -x "$$home/boot/bin/uv" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || {
        apt-get update -q
        apt-get install -y -q --no-install-recommends python3-venv ca-certificates
    }
    python3 -m venv "$$home/boot"
    "$$home/boot/bin/python" -m pip install --quiet --disable-pip-version-check uv
fi
# Its Python too lies there: services do not see /root.
export UV_PYTHON_INSTALL_DIR="$$home/python"
[ -x "$$home/venv/bin/python" ] || "$$home/boot/bin/uv" venv --quiet --python 3.13 "$$home/venv"
"$$home/boot/bin/uv" pip install --quiet --upgrade --python "$$home/venv/bin/python" $package
ln -sf "$$home/venv/bin/ephemeral" /usr/local/bin/ephemeral
[ $$# -eq 0 ] || exec "$$home/venv/bin/ephemeral" "$$@"
