# shellcheck shell=bash
# A network of the benchmark's own: its loopback alone, with TCP as Linux sets it up by default. What the machine's
# administrator has chosen for real networks, BBR say, moves bulk rows over loopback by a third from run to run
# (docs/profile.md), whatever the server.

# Linux's default (CONFIG_DEFAULT_TCP_CONG).
BENCH_CONGESTION_CONTROL=cubic

# in_own_network COMMAND ARG…: becomes the command; in the machine's network where only root may make another.
in_own_network() {
  if ! unshare --net true 2>/dev/null; then
    say "measuring in the machine's own network: only root may make another"
    exec "$@"
  fi
  # shellcheck disable=SC2016
  exec unshare --net -- sh -c '
    ip link set lo up
    echo "$1" >/proc/sys/net/ipv4/tcp_congestion_control || echo "==> TCP stays with the default of the machine" >&2
    shift
    exec env LAMINA_BENCH_NETWORK=own "$@"' sh "$BENCH_CONGESTION_CONTROL" "$@"
}
