/**
 * The catalogue of errors that a person can see. Each has a stable code, one sentence that says what is
 * wrong (with the numbers), and the next step. `docs/errors.md` lists them; a test compares the two.
 *
 * Data-path results are Status numbers (status.ts), not these.
 */

interface Entry {
  /** {name} stands for a parameter. */
  readonly message: string;
  readonly next: string;
  /** Exit code of a command that ends with it: 1 failed, 64 wrong usage. */
  readonly exit: 1 | 64;
  /** Status of the admin API's answer. */
  readonly http: 400 | 401 | 403 | 404 | 405 | 409 | 500 | 503 | 507;
}

export const CATALOGUE = {
  // Usage
  SIZE_INVALID: {
    message: "'{size}' is not a size",
    next: "use a positive number with K, M, G, T or P (powers of 1024), for example 10G",
    exit: 64,
    http: 400,
  },
  SIZE_UNALIGNED: {
    message: "size {size} is not a multiple of 4096",
    next: "use {next} instead",
    exit: 64,
    http: 400,
  },
  SIZE_TOO_LARGE: {
    message: "size {size} is over the limit of {limit} bytes",
    next: "use a smaller size",
    exit: 64,
    http: 400,
  },
  NAME_INVALID: {
    message: "'{name}' is not a volume name",
    next: "use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    exit: 64,
    http: 400,
  },
  ARGUMENT_INVALID: { message: "{what}", next: "{hint}", exit: 64, http: 400 },
  // Volumes
  VOLUME_EXISTS: {
    message: "a volume named '{name}' exists already",
    next: "choose another name, or remove it first with: lamina volume rm {name}",
    exit: 1,
    http: 409,
  },
  VOLUME_UNKNOWN: {
    message: "there is no volume named '{name}'",
    next: "list them with: lamina volume ls",
    exit: 1,
    http: 404,
  },
  VOLUME_IN_USE: {
    message: "volume '{name}' is open on {connections} connection(s)",
    next: "detach its clients first",
    exit: 1,
    http: 409,
  },
  VOLUME_SHRINK: {
    message: "volume '{name}' has {size} bytes and cannot shrink to {wanted}",
    next: "create a smaller volume and copy the data",
    exit: 1,
    http: 409,
  },
  VOLUMES_FULL: {
    message: "the store has room for {limit} volumes and all are taken",
    next: "remove a volume first",
    exit: 1,
    http: 507,
  },
  REPLICAS_TOO_MANY: {
    message: "{replicas} replicas were asked for, and the number of nodes is {nodes}",
    next: "use --replicas {nodes}, or add nodes first",
    exit: 1,
    http: 409,
  },
  VOLUME_READ_ONLY: {
    message: "volume '{name}' is read-only",
    next: "make it writable first with: lamina volume set {name} --read-only=false",
    exit: 1,
    http: 409,
  },
  DESCRIPTION_TOO_LONG: {
    message: "the description has {bytes} bytes, more than {limit}",
    next: "shorten it",
    exit: 64,
    http: 400,
  },
  ACCESS_RULE_INVALID: {
    message: "'{rule}' is not an access rule: {what}",
    next: "use cert:NAME, psk:IDENTITY or address:PREFIX (10.0.0.0/8), each with :ro behind it to allow reading only",
    exit: 64,
    http: 400,
  },
  ACCESS_LIST_REQUIRED: {
    message: "this server listens beyond its machine, so volume '{name}' needs an access list",
    next: "say who may use it, for example with --allow cert:NAME",
    exit: 1,
    http: 409,
  },
  ACCESS_LIST_MISSING: {
    message:
      "volume '{name}' has no access list: listening on {address} would open it to everyone who gets in",
    next: "serve on 127.0.0.1 first and give it one (lamina volume set {name} --allow cert:NAME), or say --insecure",
    exit: 1,
    http: 409,
  },
  RECORD_TOO_LARGE: {
    message: "the record of volume '{name}' would have {bytes} bytes, more than {limit}",
    next: "use fewer or shorter access rules, or a shorter description",
    exit: 1,
    http: 507,
  },
  RECORD_DAMAGED: {
    message: "the record of volume {id} cannot be read: {what}",
    next: "look at the device with: lamina fsck",
    exit: 1,
    http: 500,
  },
  STRIPE_INVALID: {
    message: "a stripe of {count} × {unit} bytes is not possible",
    next: "use a stripe count of 1 to {countMax} and a stripe unit that is a power of two from 4K to {unitMax} bytes",
    exit: 64,
    http: 400,
  },
  // Devices
  DEVICE_NOT_BLANK: {
    message: "{path} is not blank: it begins with {found}",
    next: "if its data may be destroyed: lamina format --force {path}",
    exit: 1,
    http: 409,
  },
  DEVICE_FOREIGN: {
    message: "{path} is not a Lamina device",
    next: "check the path, or format it with: lamina format {path}",
    exit: 1,
    http: 409,
  },
  DEVICE_DAMAGED: {
    message: "{path} is damaged: {what}",
    next: "look at it with: lamina fsck {path}",
    exit: 1,
    http: 500,
  },
  DEVICE_NEWER: {
    message: "{path} has format version {found}; this program reads up to {known}",
    next: "use a newer Lamina",
    exit: 1,
    http: 409,
  },
  DEVICE_OLDER: {
    message: "{path} has format version {found}, which this program neither reads nor upgrades to {known}",
    next: "open it once with a Lamina that upgrades from version {found}",
    exit: 1,
    http: 409,
  },
  DEVICE_TOO_SMALL: {
    message: "{path} has {size} bytes, too few for a store",
    next: "give it at least {least} bytes",
    exit: 1,
    http: 409,
  },
  DEVICE_BUSY: {
    message: "{path} is in use by {holder}",
    next: "stop that process first, or use another --data directory",
    exit: 1,
    http: 409,
  },
  DEVICE_FAILED: {
    message: "device {path} has failed: {what}",
    next: "check the disk; afterwards verify with lamina fsck and start again",
    exit: 1,
    http: 503,
  },
  // TLS
  TLS_FILES: {
    message: "TLS cannot be set up from {directory}: {what}",
    next: "put server-cert.pem and server-key.pem (with ca-cert.pem to verify clients), or keys.psk, there",
    exit: 1,
    http: 500,
  },
  CLIENT_TLS_FILES: {
    message: "TLS cannot be set up from {path}: {what}",
    next: "name a directory with ca-cert.pem (and client-cert.pem with client-key.pem), or a file of IDENTITY:HEXKEY lines",
    exit: 1,
    http: 400,
  },
  // Redis
  REDIS_URL_INVALID: {
    message: "the Redis URL cannot be used: {what}",
    next: "use redis://HOST:PORT/DB, rediss://, unix:///PATH, redis-sentinel://HOST,HOST/MASTER or redis-cluster://HOST,HOST",
    exit: 64,
    http: 400,
  },
  REDIS_SERVER_MISSING: {
    message: "redis-server is not installed: it is not on PATH",
    next: "install it (apt-get install redis-server), name a running one with --redis URL, or serve without: --redis none",
    exit: 1,
    http: 503,
  },
  REDIS_UNREACHABLE: {
    message: "Redis at {redis} cannot be reached: {what}",
    next: "start it or correct --redis; volumes do not need it",
    exit: 1,
    http: 503,
  },
  REDIS_TOO_OLD: {
    message: "Redis at {redis} has version {found}",
    next: "use Redis {least} or later",
    exit: 1,
    http: 503,
  },
  REDIS_EVICTS: {
    message: "Redis at {redis} may drop keys: its maxmemory-policy is {policy}",
    next: "set it to noeviction: redis-cli config set maxmemory-policy noeviction",
    exit: 1,
    http: 503,
  },
  REDIS_READ_ONLY: {
    message: "Redis at {redis} is a replica and takes no writes",
    next: "name its master, or its sentinels with redis-sentinel://",
    exit: 1,
    http: 503,
  },
  REDIS_FOREIGN: {
    message: "Redis at {redis} belongs to another Lamina store ({found}, this one is {own})",
    next: "use another Redis or database number, or empty this one with FLUSHDB if that store is gone",
    exit: 1,
    http: 409,
  },
  // The I/O engine
  ADDON_MISSING: {
    message: "the native addon cannot be loaded from {path}: {what}",
    next: "build it with: npm run build:addon",
    exit: 1,
    http: 500,
  },
  RING_REFUSED: {
    message: "io_uring cannot be used: {what}",
    next: "use --io-engine threads, or a kernel (6.0 or later) and a container profile that allow io_uring",
    exit: 1,
    http: 500,
  },
  THREAD_FAILED: {
    message: "connection thread {thread} failed: {what}",
    next: "start the server again, nothing acknowledged is lost; please report it with the log",
    exit: 1,
    http: 500,
  },
  POOL_REFUSED: {
    message: "a buffer pool of {size} bytes cannot be had: {what}",
    next: "give the process more memory, or make the pool smaller",
    exit: 1,
    http: 500,
  },
  DEVICE_UNOPENABLE: {
    message: "{path} cannot be opened: {what}",
    next: "check the path and its permissions",
    exit: 1,
    http: 409,
  },
  LISTEN_REFUSED: {
    message: "cannot listen on {address}: {what}",
    next: "choose another address, or stop whoever uses this one",
    exit: 1,
    http: 409,
  },
  CONNECT_REFUSED: {
    message: "cannot connect to {address}: {what}",
    next: "check that the server runs and that the address is right",
    exit: 1,
    http: 503,
  },
  // The admin API
  UNAUTHORIZED: {
    message: "the admin API needs the token of this server",
    next: "send it as 'Authorization: Bearer TOKEN' (it is in admin.token of the data directory; the CLI takes LAMINA_TOKEN)",
    exit: 1,
    http: 401,
  },
  HOST_REFUSED: {
    message: "the admin API does not answer to the host name '{host}'",
    next: "use its address, or the name that --admin was given",
    exit: 1,
    http: 403,
  },
  BODY_INVALID: {
    message: "the body of the request cannot be used: {what}",
    next: "send JSON as lib/admin/openapi.yaml says",
    exit: 1,
    http: 400,
  },
  LOCAL_ONLY: {
    message: "{path} is answered on the unix socket of the data directory only",
    next: "run the command on the server's machine, with --data",
    exit: 1,
    http: 403,
  },
  PATH_UNKNOWN: {
    message: "the admin API has nothing at {path}",
    next: "see lib/admin/openapi.yaml for what there is",
    exit: 1,
    http: 404,
  },
  METHOD_UNKNOWN: {
    message: "the admin API has no {method} for {path}",
    next: "see lib/admin/openapi.yaml for what there is",
    exit: 1,
    http: 405,
  },
  EVENT_STREAMS_FULL: {
    message: "all event streams are taken",
    next: "close one, or ask for events without streaming",
    exit: 1,
    http: 503,
  },
  // Commands
  USAGE: { message: "{what}", next: "see: {help}", exit: 64, http: 400 },
  CONFIG_INVALID: {
    message: "the configuration file {path} cannot be used: {what}",
    next: "correct it; it is JSON with the names of the options of lamina serve",
    exit: 64,
    http: 400,
  },
  LISTEN_INSECURE: {
    message: "listening on {address} would let everyone who reaches it read and write all volumes",
    next: "listen on 127.0.0.1 or a unix socket, use --tls require, or say --insecure if the network is trusted",
    exit: 64,
    http: 400,
  },
  ADMIN_INSECURE: {
    message: "the admin API on {address} would send its token unencrypted",
    next: "use 127.0.0.1 (and ssh, or a proxy with TLS, from elsewhere), or say --insecure if the network is trusted",
    exit: 64,
    http: 400,
  },
  DATA_DIRECTORY_UNUSABLE: {
    message: "the data directory {path} cannot be used: {what}",
    next: "check the path and its permissions, or name another with --data",
    exit: 1,
    http: 500,
  },
  DATA_DIRECTORY_BUSY: {
    message: "the data directory {path} is in use by {holder}",
    next: "stop that server first (lamina stop --data {path}), or use another --data directory",
    exit: 1,
    http: 409,
  },
  NO_SPACE: {
    message: "{path} has {free} free bytes, too few for a store",
    next: "free some space, or name another directory with --data",
    exit: 1,
    http: 507,
  },
  REPLACE_REFUSED: {
    message: "the running server cannot be replaced: {what}",
    next: "{hint}",
    exit: 1,
    http: 409,
  },
  REPLACE_FAILED: {
    message: "process {pid} has ended for this one, which cannot serve: {what}",
    next: "{hint}; nothing acknowledged is lost",
    exit: 1,
    http: 500,
  },
  SERVER_NOT_RUNNING: {
    message: "no server runs on {data}",
    next: "start one with: lamina serve --data {data}",
    exit: 1,
    http: 503,
  },
  SERVER_UNREACHABLE: {
    message: "the server at {server} cannot be reached: {what}",
    next: "check that it runs and that the address is its admin address",
    exit: 1,
    http: 503,
  },
  SERVER_STILL_STOPPING: {
    message: "process {pid} has not ended after {seconds} seconds",
    next: "wait for it, or end it at once with: kill -9 {pid} (nothing acknowledged is lost)",
    exit: 1,
    http: 503,
  },
  SERVER_ANSWER: {
    message: "the server at {server} answered {status} without a reason",
    next: "see its log",
    exit: 1,
    http: 500,
  },
  FILE_UNUSABLE: {
    message: "{path} cannot be used: {what}",
    next: "check the path and its permissions",
    exit: 1,
    http: 409,
  },
  FILE_EXISTS: {
    message: "{path} exists already",
    next: "name another file, or overwrite it with --force",
    exit: 1,
    http: 409,
  },
  IMAGE_TOO_LARGE: {
    message: "the image has {size} bytes but volume '{name}' only {limit}",
    next: "grow it first with: lamina volume resize {name} --size {wanted}",
    exit: 1,
    http: 409,
  },
  PROGRAM_MISSING: {
    message: "{program} is not installed",
    next: "install it: apt-get install {package}",
    exit: 1,
    http: 503,
  },
  PROGRAM_FAILED: {
    message: "{program} failed: {what}",
    next: "see its message",
    exit: 1,
    http: 500,
  },
  TRANSFER_FAILED: {
    message: "copying stopped at byte {offset}: {what}",
    next: "check the server with lamina status, then start again",
    exit: 1,
    http: 500,
  },
  // Clusters
  CLUSTER_KEY_INVALID: {
    message: "the cluster key {path} cannot be used: {what}",
    next: "make one with lamina cluster init, and give every node and gateway a copy of it",
    exit: 1,
    http: 500,
  },
  LINK_TLS_FILES: {
    message: "links cannot be encrypted with {directory}: {what}",
    next: "put link-cert.pem, link-key.pem and ca-cert.pem of the cluster's authority there (docs/security.md)",
    exit: 1,
    http: 500,
  },
  LINK_LISTEN_INSECURE: {
    message:
      "listening on {address} would let everyone on the way read and change what nodes say to one another",
    next: "listen on 127.0.0.1, use --link-tls, or say --insecure if the network is trusted",
    exit: 64,
    http: 400,
  },
  CLUSTER_KEY_WRONG: {
    message: "{address} has another cluster key",
    next: "give every node and gateway of the cluster the same key file; nothing was changed",
    exit: 1,
    http: 503,
  },
  CLUSTER_NODE_STRANGE: {
    message: "{address} is not the node that this cluster knows: {what}",
    next: "start the node with the data directory that it had",
    exit: 1,
    http: 409,
  },
  CLUSTER_FILE_DAMAGED: {
    message: "{path} cannot be read: {what}",
    next: "copy it from the data directory of another node of the cluster",
    exit: 1,
    http: 500,
  },
  CLUSTER_UNREACHABLE: {
    message: "no majority of the config nodes answers: {what}",
    next: "start them, or correct --cluster",
    exit: 1,
    http: 503,
  },
  CLUSTER_UNDECIDED: {
    message: "the config nodes have not decided within {seconds} s: {what}",
    next: "see lamina cluster status; the change may still happen",
    exit: 1,
    http: 503,
  },
  CLUSTER_DEVICE_FOREIGN: {
    message: "{path} belongs to another cluster ({found}, this one is {own})",
    next: "use the key of its cluster, or another --data directory",
    exit: 1,
    http: 409,
  },
  NODE_UNKNOWN: {
    message: "no node of the cluster is '{node}'",
    next: "list them with: lamina node ls; name one by its address or the beginning of its id",
    exit: 1,
    http: 404,
  },
  NODE_IS_CONFIG: {
    message: "node {node} is a config node, whose vote the cluster needs",
    next: "give its vote to another node first: lamina cluster config replace {node} NODE",
    exit: 1,
    http: 409,
  },
  CONFIG_NODE_NOT: {
    message: "node {node} is no config node",
    next: "see which ones are with: lamina node ls",
    exit: 1,
    http: 409,
  },
  CONFIG_NODE_ALREADY: {
    message: "node {node} is a config node already",
    next: "name a node that is none: lamina node ls; or start a further one with: lamina node --data DIR --listen HOST:PORT --cluster ADDRESSES --key FILE",
    exit: 1,
    http: 409,
  },
  CONFIG_NODE_UNUSABLE: {
    message:
      "node {node} cannot become a config node: it does not answer, or its device has failed or is not registered",
    next: "see what is wrong with: lamina cluster status; or name another node",
    exit: 1,
    http: 409,
  },
  CONFIG_NODE_COPIES: {
    message: "node {node} joined the config nodes last and does not vote yet",
    next: "wait until it has copied, see lamina cluster status; or replace that node: lamina cluster config replace {node} NODE",
    exit: 1,
    http: 409,
  },
  NODE_HOLDS_VOLUMES: {
    message: "node {node} has a seat in {volumes}",
    next: "give its seats to others first: lamina node drain {node}",
    exit: 1,
    http: 409,
  },
  NODE_SPARE_MISSING: {
    message: "no node that can be used and has no seat in volume '{name}' yet can take the one of {node}",
    next: "start a further node with: lamina node --data DIR --listen HOST:PORT --cluster ADDRESSES --key FILE",
    exit: 1,
    http: 409,
  },
  SEAT_KEPT: {
    message: "volume '{name}' keeps its seat on {node}: {what}",
    next: "see what it waits for with: lamina status; then try again",
    exit: 1,
    http: 409,
  },
  SEAT_NOT_ADDED: {
    message: "volume '{name}' gets no further seat on {node}: {what}",
    next: "see what it waits for with: lamina status; then try again",
    exit: 1,
    http: 409,
  },
  VOLUME_ELSEWHERE: {
    message: "volume '{name}' is owned by another gateway, or by one that died with it",
    next: "ask that gateway; if it is gone, attach the volume here once and detach it",
    exit: 1,
    http: 409,
  },
  VOLUME_MOVED: {
    message: "volume '{name}' was taken over by another gateway a moment ago",
    next: "use that gateway, or try again in {seconds} s",
    exit: 1,
    http: 409,
  },
  VOLUME_UNSERVABLE: {
    message: "volume '{name}' cannot be served: {what}",
    next: "see lamina cluster status",
    exit: 1,
    http: 503,
  },
  // Attaching
  ATTACH_MISSING: {
    message: "the program lamina-attach is not there",
    next: "build it with: npm run build:attach",
    exit: 1,
    http: 500,
  },
  ATTACH_NO_LISTENER: {
    message: "the server has no NBD listener for '{name}' that can be reached from here",
    next: "start it with --listen 127.0.0.1:10809",
    exit: 1,
    http: 503,
  },
  ATTACH_UNKNOWN: {
    message: "no volume named '{name}' is attached",
    next: "see what is: lamina attached",
    exit: 1,
    http: 404,
  },
  ATTACH_AMBIGUOUS: {
    message: "volumes named '{name}' are attached as {first} and as {second}",
    next: "name the device instead",
    exit: 1,
    http: 409,
  },
  TRANSFER_NEEDS_TLS: {
    message: "the server at {server} serves over TLS only",
    next: "say --tls-certificates DIRECTORY, or --tls-psk-file FILE, as docs/security.md shows",
    exit: 1,
    http: 409,
  },
  TRANSFER_NO_LISTENER: {
    message: "the server at {server} has no NBD listener that can be reached from here",
    next: "start it with --listen 127.0.0.1:10809",
    exit: 1,
    http: 503,
  },
} as const satisfies Record<string, Entry>;

export type ErrorCode = keyof typeof CATALOGUE;

export class LaminaError extends Error {
  override readonly name = "LaminaError";
  /** Stable; part of the interface. Printed as LAMINA_<code>. */
  readonly code: ErrorCode;
  /** The next step, one clause. */
  readonly next: string;
  readonly params: Readonly<Record<string, string | number>>;

  constructor(code: ErrorCode, params: Readonly<Record<string, string | number>> = {}, cause?: unknown) {
    super(fill(CATALOGUE[code].message, params), cause === undefined ? undefined : { cause });
    this.code = code;
    this.next = fill(CATALOGUE[code].next, params);
    this.params = params;
  }

  get exitCode(): number {
    return CATALOGUE[this.code].exit;
  }

  get httpStatus(): number {
    return CATALOGUE[this.code].http;
  }
}

function fill(template: string, params: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = params[name];
    return value === undefined ? whole : String(value);
  });
}
