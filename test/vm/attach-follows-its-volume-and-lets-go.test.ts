/**
 * The rest of an attached volume's life: another gateway, a server that is not the same volume any more, growth
 * under load, detaching while the server is down, and nothing left behind after a hundred rounds.
 */

import { truncateSync } from "node:fs";
import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { bytesOf, LaminaServer, type TestServer } from "../interop/support/server.js";
import { serveVolume, VOLUME } from "../interop/support/volume.js";
import { FLAGS, Flag, goodGo, greeting } from "../unit/attach/support.js";
import {
  ATTACH_NEEDS,
  attachProgram,
  keepConsole,
  NO_REDIS,
  shellTools,
  Telephone,
  withLibraries,
} from "./support/attach.js";
import { Guest } from "./support/guest.js";
import { type Impostor, Switchboard } from "./support/switchboard.js";

const SIZE = "256M";
const GROWN = "512M";
const CYCLES = Number(process.env["LAMINA_ATTACH_CYCLES"] ?? 100);
const TIMEOUT_S = 2;

/** A server of the volume's name with another volume behind it. */
function impostor(size: bigint, flags: number): Impostor {
  return (socket) => {
    socket.write(greeting());
    socket.on("data", (bytes: Buffer) => {
      // The client's flags come first; each option after them is answered as if it were GO.
      if (bytes.includes("IHAVEOPT")) socket.write(goodGo(size, flags));
    });
  };
}

const WHOLE = BigInt(bytesOf(SIZE));
/** By what `lamina-attach list` says about them. */
const IMPOSTORS: ReadonlyMap<string, Impostor> = new Map([
  ["shrunk", impostor(WHOLE / 2n, FLAGS)],
  ["read-only", impostor(WHOLE, FLAGS | Flag.ReadOnly)],
  ["several", impostor(WHOLE, FLAGS & ~Flag.MultiConn)],
  ["could", impostor(WHOLE, FLAGS & ~Flag.Flush)],
]);

async function grow(server: TestServer): Promise<void> {
  if (server instanceof LaminaServer) {
    await server.lamina("volume", "resize", VOLUME, "--size", GROWN);
    return;
  }
  // nbdkit tells a connection one size for ever.
  await server.kill();
  truncateSync(server.backingFile(VOLUME), bytesOf(GROWN));
  await server.start();
}

function job(tools: string, port: number, relay: number, nobody: number): string {
  const uri = `nbd://10.0.2.2:${port}/${VOLUME}`;
  return `${tools}
lamina-attach monitor 2>/tmp/monitor-log &
monitor=$!
sleep 1
sockets() { awk '/^sockets/ { print $3 }' /proc/net/sockstat; }
slab() { awk '/^Slab/ { print $2 }' /proc/meminfo; }
# A device's lock stays, one for each device that was ever used: a round may find the last one's still on its way out.
left_behind() {
  ls /proc/$monitor/fd | wc -l; cat /sys/module/nbd/refcnt; ls /sys/block | wc -l; ls /run/lamina/attach | grep -v '^nbd.*\\.lock$'
}

# --- a hundred rounds
round() { d=$(lamina-attach attach ${uri}); dd if=$d of=/dev/null bs=4k count=4 2>/dev/null; lamina-attach detach $d; }
set +x
for i in 1 2 3 4 5 6 7 8 9 10; do round; done
sleep 2
left_behind >/tmp/before; sockets_before=$(sockets); slab_before=$(slab)
for i in $(seq 1 ${CYCLES}); do round; done
sleep 2
left_behind >/tmp/after
set -x
cmp /tmp/before /tmp/after || { cat /tmp/before /tmp/after; false; }
echo "sockets $sockets_before $(sockets) slab $slab_before $(slab)"
[ $(($(sockets) - sockets_before)) -le 2 ]
[ $(($(slab) - slab_before)) -le 4096 ]
echo "GUEST left nothing behind"

# --- the first address answers nobody; the second relays
a=$(lamina-attach attach nbd://10.0.2.2:${nobody}/${VOLUME} --address 10.0.2.2:${relay} --address 10.0.2.2:${port} --timeout ${TIMEOUT_S})
lamina-attach list --json
address() { lamina-attach list --json | sed 's/.*"address": "10.0.2.2:\\([0-9]*\\)".*/\\1/'; }
[ $(address) = ${relay} ]
# One of two lines is cut: its successor goes to the same gateway. The cut line is known by the link's number.
numbers() { sed -n 's/.*"links": //p' /run/lamina/attach/$(basename $a).json; }
changed() { [ "$(numbers)" != "$links_before" ]; }
links_before=$(numbers)
ask cut-one
until_true 100 changed
until_true 100 is_whole $a
[ $(address) = ${relay} ]
echo "GUEST stayed with its gateway"
# It comes back as another volume, and nobody else serves it: I/O waits, and says why.
ask kill
says() { lamina-attach list | grep -q "$1"; }
for word in ${[...IMPOSTORS.keys()].join(" ")}; do
  ask impostor-$word
  ask cut-all
  until_true 300 says "$word"
done
lamina-attach list
dd if=/dev/urandom of=$a bs=4k count=16 conv=fsync 2>/dev/null & writer=$!
sleep 3
kill -0 $writer
echo "GUEST waits for the real one"
# The gateway leaves for good, the next one has the volume.
ask leave
ask start
until_true 300 is_whole $a
[ $(address) = ${port} ]
wait $writer
echo "GUEST found the other gateway"
ask return

# --- growth under load
mkfs.ext4 -q -F $a
mkdir -p /ext4
mount -t ext4 $a /ext4
(set +x; load /ext4 ext4) & writer=$!
sleep 2
ask grow
until_true 300 is_whole $a
grown() { kill -HUP $monitor; [ $(blockdev --getsize64 $a) = ${bytesOf(GROWN)} ]; }
until_true 600 grown
resize2fs $a
sleep 2
touch /stop-ext4
wait $writer
umount /ext4
e2fsck -fn $a
mount -t ext4 $a /ext4
[ $(df -m /ext4 | awk 'NR == 2 { print $2 }') -gt 400 ]
verify /ext4 ext4
umount /ext4
lamina-attach detach $a
echo "GUEST grew under load"

# --- read-only
a=$(lamina-attach attach ${uri} --read-only)
[ $(blockdev --getro $a) = 1 ]
if dd if=/dev/zero of=$a bs=4k count=1 conv=fsync; then false; fi
mount -t ext4 -o ro $a /ext4
verify /ext4 ext4
umount /ext4
lamina-attach detach $a

# --- detach while the server is down, with and without requests that wait
a=$(lamina-attach attach ${uri} --timeout ${TIMEOUT_S})
ask kill
sleep 1
lamina-attach detach $a
ask start
a=$(lamina-attach attach ${uri} --timeout ${TIMEOUT_S})
ask kill
sleep 1
dd if=/dev/zero of=$a bs=4k count=64 conv=fsync 2>/tmp/dd-log & writer=$!
sleep 3
if lamina-attach detach $a; then false; fi
lamina-attach detach --force $a
if wait $writer; then false; fi
grep -qi "error" /tmp/dd-log
[ "$(lamina-attach list)" = "" ]
# A writer that was killed leaves dirty pages: only --force gives them up.
ask start
a=$(lamina-attach attach ${uri} --timeout ${TIMEOUT_S})
ask kill
sleep 1
dd if=/dev/zero of=$a bs=4k count=64 2>/dev/null & writer=$!
sleep 1
kill -9 $writer
sleep 1
if lamina-attach detach $a; then false; fi
lamina-attach detach --force $a
echo "GUEST detached without a server"

# --- the volume's first attach waits for the server; a short dead timeout ends in an error
(sleep 3; ask start) &
a=$(lamina-attach attach ${uri} --timeout 1 --dead-timeout 3 --wait 60)
ask kill
if dd if=/dev/zero of=$a bs=4k count=64 conv=fsync; then false; fi
lamina-attach detach --force $a
echo "GUEST gave up when it was told to"
ask start

# --- a server on a unix socket of this machine
mkdir -p /tmp/nbd
truncate -s 64M /tmp/nbd/local
nbdkit -f -U /tmp/nbd/socket file dir=/tmp/nbd & server=$!
sleep 1
u='nbd+unix:///local?socket=/tmp/nbd/socket'
a=$(lamina-attach attach "$u" --timeout ${TIMEOUT_S} --wait 60)
mkfs.ext4 -q -F $a
mount -t ext4 $a /ext4
rm -f /tmp/ext4-sums /stop-ext4
(set +x; load /ext4 ext4) & writer=$!
for i in 1 2 3; do
  sleep 1
  kill -9 $server
  until_true 100 says waits
  rm -f /tmp/nbd/socket
  nbdkit -f -U /tmp/nbd/socket file dir=/tmp/nbd & server=$!
  until_true 300 is_whole $a
done
touch /stop-ext4
wait $writer
umount /ext4
e2fsck -fn $a
mount -t ext4 $a /ext4
verify /ext4 ext4
umount /ext4
lamina-attach detach "$u"
kill $server
echo "GUEST outlived a local server"

cat /tmp/monitor-log
kill $monitor
`;
}

t.test(
  "gateways, growth, detaching, a hundred rounds",
  requires({ ...ATTACH_NEEDS, commands: [...(ATTACH_NEEDS.commands ?? []), "nbdkit", "resize2fs"] }),
  async (t) => {
    const { server } = await serveVolume(t, SIZE, NO_REDIS);
    const board = await Switchboard.open(t, () => server.port);
    const nobody = await Switchboard.open(t, () => server.port);
    await nobody.leave();
    const telephone = await Telephone.open(t, {
      kill: async () => {
        await server.kill();
      },
      start: async () => {
        await server.start();
      },
      grow: async () => grow(server),
      "cut-one": async () => board.cutOne(),
      "cut-all": async () => board.cutAll(),
      ...Object.fromEntries(
        [...IMPOSTORS].map(([word, who]) => [`impostor-${word}`, async () => board.answerWith(who)]),
      ),
      leave: async () => board.leave(),
      return: async () => {
        board.answerWith(null);
        await board.raise();
      },
    });
    const plugin = "usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so";
    const guest = await Guest.boot({
      job: job(shellTools(telephone), server.port, board.port, nobody.port),
      files: {
        "usr/sbin/lamina-attach": attachProgram(),
        ...(await withLibraries("nbdkit", "resize2fs")),
        [plugin]: `/${plugin}`,
      },
    });
    t.teardown(async () => guest.dispose());
    keepConsole(guest);
    const result = await guest.ended();
    if (result.code !== 0) t.comment(result.console);
    t.equal(result.code, 0, "the job ended well");
    for (const said of [
      "left nothing behind",
      "stayed with its gateway",
      "waits for the real one",
      "found the other gateway",
      "grew under load",
      "ext4 is byte-equal",
      "detached without a server",
      "gave up when it was told to",
      "outlived a local server",
    ]) {
      t.match(result.console, new RegExp(`^GUEST ${said}$`, "m"), said);
    }
  },
);
