# shellcheck shell=bash
# What every script shares: where the checkout is, how to speak, how to stop.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Downloads and built images; git does not see it, and it may be removed at any time.
CACHE=${LAMINA_CACHE:-$ROOT/.cache}

say() { printf '==> %s\n' "$*" >&2; }

# One sentence with the cause, one with the next step.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  [ $# -lt 2 ] || printf '  next: %s\n' "$2" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Administrators' tools are not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
