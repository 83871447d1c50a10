# shellcheck shell=bash
# System packages: what is missing is installed, what is there is left alone.
#
#  - Nothing is asked and nothing that is installed is touched: the question is whether a command is there.
#  - No service is started or enabled. redis-server comes from redis-tools (one binary, other names), because
#    Debian's redis-server package enables a system service; packages that carry a service all the same
#    (nbd-client) are installed under a policy that forbids starting.
#  - Without root the exact command is printed and the script ends with 1.

# "command package": the command whose presence shows that the package is there.
PACKAGES_BUILD="
c++ g++
make make
python3 python3
"
PACKAGES_RUN="
redis-check-rdb redis-tools
"
PACKAGES_TEST="
nbdinfo libnbd-bin
nbdcopy libnbd-bin
nbdfuse libnbd-bin
nbdsh python3-libnbd
nbd-client nbd-client
nbdkit nbdkit
qemu-img qemu-utils
qemu-nbd qemu-utils
qemu-io qemu-utils
qemu-system-x86_64 qemu-system-x86
fio fio
mkfs.ext4 e2fsprogs
mkfs.xfs xfsprogs
losetup mount
mkfs util-linux
fusermount3 fuse3
busybox busybox-static
depmod kmod
cpio cpio
redis-cli redis-tools
ip iproute2
"

# missing_packages TABLE: the packages of the table whose command is absent, each once.
missing_packages() {
  local command package
  while read -r command package; do
    [ -n "$command" ] || continue
    have "$command" || printf '%s\n' "$package"
  done <<<"$1" | sort -u
}

# install_missing WHAT TABLE: WHAT is said to the reader.
install_missing() {
  local what=$1 packages
  mapfile -t packages < <(missing_packages "$2")
  [ ${#packages[@]} -gt 0 ] || return 0
  have apt-get || die "these commands are missing for $what, and this is not a Debian system: ${packages[*]}" \
    "install the packages of the same purpose by hand"
  local line="apt-get install -y --no-install-recommends ${packages[*]}"
  [ "$(id -u)" = 0 ] || die "packages are missing for $what" "as root run: apt-get update && $line"
  say "installing for $what: ${packages[*]}"
  with_services_forbidden apt_install "${packages[@]}"
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local -a options=(-y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
  apt-get install "${options[@]}" "$@" >"$CACHE/apt.log" 2>&1 && return 0
  # Old package lists name versions that the mirror has replaced; new machines have none.
  apt-get update -qq >>"$CACHE/apt.log" 2>&1 || true
  apt-get install "${options[@]}" "$@" >>"$CACHE/apt.log" 2>&1 ||
    die "apt-get could not install: $* ($(grep -m1 '^E:' "$CACHE/apt.log" || echo "see $CACHE/apt.log"))" \
      "see $CACHE/apt.log"
}

# Unpacks the program of a package that would enable a service, and names it in $NBD_SERVER. Says so and returns 1
# where it cannot be had: nothing depends on it but comparisons.
unpack_nbd_server() {
  local home=$CACHE/nbd-server
  if [ ! -x "$home/bin/nbd-server" ]; then
    say "unpacking nbd-server"
    mkdir -p "$home"
    download_nbd_server "$home" || {
      say "nbd-server cannot be downloaded and is left out"
      return 1
    }
  fi
  export NBD_SERVER=$home/bin/nbd-server
}

download_nbd_server() {
  have apt-get && have dpkg-deb || return 1
  (
    cd "$1" || return 1
    if ! apt-get download -q nbd-server >/dev/null 2>&1; then
      [ "$(id -u)" = 0 ] && apt-get update -qq >/dev/null 2>&1
      apt-get download -q nbd-server >/dev/null 2>&1 || return 1
    fi
    dpkg-deb -x nbd-server_*.deb . && ./bin/nbd-server -V >/dev/null 2>&1
  )
}

# Debian asks /usr/sbin/policy-rc.d before a package may start a service; 101 forbids it.
with_services_forbidden() {
  local policy=/usr/sbin/policy-rc.d
  mkdir -p "$CACHE"
  if [ -e "$policy" ]; then
    # Someone's own policy stays in force; only one that would allow a start is set aside meanwhile.
    if "$policy" redis-server start >/dev/null 2>&1; then
      (
        mv "$policy" "$policy.lamina-saved"
        trap 'mv -f "$policy.lamina-saved" "$policy"' EXIT
        write_policy "$policy"
        "$@"
      )
    else
      "$@"
    fi
    return
  fi
  (
    trap 'rm -f "$policy"' EXIT
    write_policy "$policy"
    "$@"
  )
}

write_policy() {
  printf '#!/bin/sh\n# Written by Lamina while it installs packages; removed afterwards.\nexit 101\n' >"$1"
  chmod 755 "$1"
}
