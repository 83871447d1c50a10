# shellcheck shell=bash
# Node, its headers, the npm packages and the build, each made only when it is missing or stale.

NODE_LEAST=20.19

check_node() {
  have node || die "node is missing" "install Node $NODE_LEAST or later (nodejs.org, or: apt-get install nodejs npm)"
  have npm || die "npm is missing" "install npm, which comes with Node (Debian: apt-get install npm)"
  node -e '
    const [least, own] = [process.argv[1], process.versions.node].map((v) => v.split(".").map(Number));
    process.exit(own[0] > least[0] || (own[0] === least[0] && own[1] >= least[1]) ? 0 : 1);
  ' "$NODE_LEAST" || die "Node $(node --version) is too old" "install Node $NODE_LEAST or later"
}

# The addon is compiled against the headers of the very node that runs it; nothing is fetched for that.
headers_are_there() {
  local prefix=$1
  [ -e "$prefix/include/node/node_api.h" ] || return 1
  # Debian's own Node has libuv's header apart.
  [ -e "$prefix/include/node/uv.h" ] || [ -e /usr/include/uv.h ]
}

check_node_headers() {
  local prefix
  prefix=$(node -p 'path.dirname(path.dirname(process.execPath))')
  headers_are_there "$prefix" && return 0
  # Debian's own nodejs keeps them in packages of their own.
  if dpkg-query -W -f '${Depends}' nodejs 2>/dev/null | grep -q libnode; then
    install_missing "the headers of Node" $'no-such-command libnode-dev\nno-such-command libuv1-dev'
    headers_are_there "$prefix" && return 0
  fi
  die "the headers of Node $(node --version) are not in $prefix/include/node" \
    "install them with Node (nodejs.org's archives have them; Debian: apt-get install libnode-dev libuv1-dev)"
}

# npm ci only when what is installed is not what the lock file says: the folder may be in use by others.
install_dependencies() {
  node "$ROOT/scripts/lib/dependencies-current.mjs" "$ROOT" && return 0
  say "installing npm packages"
  (cd "$ROOT" && npm ci --no-audit --no-fund --loglevel=error >&2) || die "npm ci failed" "see the lines above"
}

# What a build is made of, in one number: every source's name, size and time, and the version of Node's binary
# interface. Anything that changes, appears or goes makes it another one.
build_inputs() {
  local path
  local -a sources=()
  for path in lib addon scripts test package-lock.json package.json tsconfig.json tsconfig.base.json; do
    [ ! -e "$ROOT/$path" ] || sources+=("$ROOT/$path")
  done
  {
    node -p 'process.versions.modules'
    find "${sources[@]}" \( -name dist -o -name build -o -name node_modules \) -prune -o \
      -type f -printf '%p %s %T@\n' | sort
  } | sha256sum
}

build() {
  local stamp=$ROOT/dist/.built-from inputs
  # Taken before: what changes during the build is built next time.
  inputs=$(build_inputs)
  [ "$(cat "$stamp" 2>/dev/null)" != "$inputs" ] || return 0
  say "building"
  (cd "$ROOT" && npm run --silent build >&2) || die "the build failed" "see the lines above"
  mkdir -p "$ROOT/dist"
  printf '%s\n' "$inputs" >"$stamp"
}
