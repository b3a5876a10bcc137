import assert from "node:assert/strict";
import { inWeb } from "./healing.ts";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;
/** Where the laptop answers what it sees of the caller. */
const ADDRESS_PORT = 8_099;

interface Link {
  readonly linked: boolean;
  readonly endpoint: string | null;
  readonly mtu: number | null;
  readonly psk: boolean | null;
}

interface Status {
  readonly linked: boolean;
  readonly servers: readonly {
    readonly name: string;
    readonly nat: boolean | null;
    readonly links: Readonly<Record<string, Link>>;
  }[];
}

async function status(shop: Shop): Promise<Status> {
  const found: Status = JSON.parse(await shop.must("network", "status", "--json"));
  return found;
}

function linkOf(found: Status, from: string, to: string): Link {
  const link = found.servers.find((one) => one.name === from)?.links[to];
  assert.ok(link, `${from} knows no link to ${to}`);
  return link;
}

/** Waits until the status is as wanted; gives seconds. */
async function becomes(
  shop: Shop,
  o: { readonly what: string; readonly withinS: number },
  isSo: (found: Status) => boolean,
): Promise<string> {
  const startedMs = performance.now();
  let last: Status | undefined;
  await eventually(o.what, async () => {
    last = await status(shop);
    return isSo(last) ? true : undefined;
  }, { timeoutMs: o.withinS * 1_000 }).catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`);
  });
  return secondsSince(startedMs);
}

const everyLink = (isSo: (link: Link) => boolean) => (found: Status) =>
  found.servers.length === 3 &&
  found.servers.every((one) =>
    Object.keys(one.links).length === 2 && Object.values(one.links).every(isSo)
  );

/** Asks $2 until the file $1 is there; prints tries, failures and the longest gap, milliseconds. */
const ASK_ON = `asked=0; failed=0; longest=0; last=$(cut -d' ' -f1 /proc/uptime)
while [ ! -e "$1" ]; do
  asked=$((asked + 1))
  if timeout 1 wget -q -O /dev/null "$2"; then
    now=$(cut -d' ' -f1 /proc/uptime)
    gap=$(awk "BEGIN { print int(($now - $last) * 1000) }")
    [ "$gap" -le "$longest" ] || longest=$gap
    last=$now
  else
    failed=$((failed + 1))
  fi
  sleep 0.1
done
echo "$asked $failed $longest"`;

/** Requests from a container to another over the mesh while `work` runs; gives the longest gap. */
async function watched(
  shop: Shop,
  o: { readonly what: string; readonly from: string; readonly to: string },
  work: () => Promise<unknown>,
): Promise<number> {
  const flag = `/tmp/stop-${crypto.randomUUID()}`;
  const url = `http://shop-web-${o.to}.jiji:3000/up`;
  const asking = shop.lab.on(o.from, inWeb("sh", "-c", ASK_ON, "sh", flag, url));
  try {
    await work();
  } finally {
    await shop.lab.on(o.from, inWeb("touch", flag));
  }
  const [asked, failed, longestMs] = (await asking).trim().split(" ").map(Number);
  tell(`${o.what}: ${asked} requests ${o.from}→${o.to}, ${failed} failed, gap ${longestMs} ms`);
  assert.ok((asked ?? 0) > 10, `only ${asked} requests`);
  return longestMs ?? Infinity;
}

/** Whether a container on s1 gets 2 MB from one on s2 within three seconds. */
async function bulk(shop: Shop): Promise<boolean> {
  const fetch = "timeout 3 wget -q -O - http://shop-web-s2.jiji:8099/file | wc -c";
  const outcome = await shop.lab.tryOn("s1", inWeb("sh", "-c", fetch));
  return Number(outcome.stdout) === 2 << 20;
}

/** Drops outer packets of more than 1,400 octets in silence, as a way without ICMP does. */
const SWALLOW = [
  "INPUT",
  "-p",
  "udp",
  "--dport",
  "31820",
  "-m",
  "length",
  "--length",
  "1401:65535",
];

async function keysOf(shop: Shop): Promise<string[]> {
  return await Promise.all(
    SERVERS.map(async (server) =>
      (await shop.lab.on(server, ["sh", "-c", "wg pubkey </etc/jiji/wireguard.key"])).trim()
    ),
  );
}

/** No packet of WireGuard leaves a server's port from now on but through a NAT that lets none in. */
const BEHIND_NAT = `set -e
device=$(ip -o -4 addr show | awk '/203.0.113/ { print $2 }')
iptables -t nat -I POSTROUTING -o "$device" -p udp --sport 31820 -j MASQUERADE --to-ports 40000-40100
iptables -I INPUT -i "$device" -p udp --dport 31820 -m conntrack --ctstate NEW -j DROP
# Flows of before are forgotten a second after their next packet, which comes with the next probe.
sysctl -q -w net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_udp_timeout_stream=1
sleep 3
systemctl stop jiji-daemon wg-quick@jiji0
iptables -t raw -I PREROUTING -i "$device" -p udp --dport 31820 -j DROP
sleep 3
iptables -t raw -D PREROUTING -i "$device" -p udp --dport 31820 -j DROP
sysctl -q -w net.netfilter.nf_conntrack_udp_timeout=30 net.netfilter.nf_conntrack_udp_timeout_stream=120
systemctl start wg-quick@jiji0 jiji-daemon`;

Deno.test("mesh: keys, sizes, ways and addresses look after themselves", async (t) => {
  await using shop = await Shop.serving({
    name: "e2e-mesh",
    configure: (text) => {
      const source = `http://203.0.113.1:${ADDRESS_PORT}`;
      return `${text}\nnetwork:\n  public_ip:\n    sources: [${source}/lies, ${source}/you]\n`;
    },
  });
  const { lab } = shop;
  const answerer = lab.spawn([
    Deno.execPath(),
    "eval",
    `Deno.serve({ port: ${ADDRESS_PORT}, onListen() {} }, (request, info) => new Response(` +
    'request.url.endsWith("/lies") ? "10.0.0.1; reboot" : info.remoteAddr.hostname))',
  ]);

  try {
    await chapter(t, "every pair is linked, at full size, with a preshared key", async () => {
      const seconds = await becomes(
        shop,
        { what: "links at full size", withinS: 60 },
        everyLink((link) => link.linked && link.mtu === 1440 && link.psk === true),
      );
      tell(`links as they should be ${seconds} s after the deploy`);
      const shown = await lab.on("s1", ["sh", "-c", "ps axww; ls -l /etc/jiji/mesh.psk"]);
      const secret = (await lab.on("s2", ["cat", "/etc/jiji/mesh.psk"])).trim();
      assert.equal((await lab.on("s1", ["cat", "/etc/jiji/mesh.psk"])).trim(), secret);
      assert.ok(!shown.includes(secret));
      assert.match(shown, /-rw------- .* root root .*mesh\.psk/);
    });

    await chapter(t, "every unit has few rights", async () => {
      for (const unit of ["jiji-corrosion", "jiji-dns", "jiji-daemon", "wg-quick@jiji0"]) {
        const shown = await lab.on("s1", ["systemd-analyze", "security", "--no-pager", unit]);
        const exposure = Number(/Overall exposure level for .*: ([0-9.]+) /.exec(shown)?.[1]);
        tell(`exposure of ${unit}: ${exposure}`);
        assert.ok(exposure < 5, shown);
      }
    });

    await chapter(
      t,
      "a server's address as others see it is asked for; lies are passed over",
      async () => {
        // What was asked before the laptop answered is asked again when the daemon starts.
        await lab.on("s1", ["systemctl", "restart", "jiji-daemon"]);
        await eventually("s1 knows that no NAT is before it", async () => {
          const found = await status(shop);
          return found.servers[0]?.nat === false ? true : undefined;
        }, { timeoutMs: 30_000 });
        const seen = await lab.on("s1", ["cat", "/var/lib/jiji/daemon/addresses.json"]);
        assert.deepEqual(JSON.parse(seen).seen, ["203.0.113.11"]);
      },
    );

    await chapter(t, "a way that swallows large packets heals without a command", async () => {
      const serve = "mkdir -p /tmp/big && dd if=/dev/zero of=/tmp/big/file bs=1M count=2 " +
        "2>/dev/null && httpd -p 8099 -h /tmp/big";
      await lab.on("s2", inWeb("sh", "-c", serve));
      await eventually("2 MB pass", async () => await bulk(shop) || undefined, {
        timeoutMs: 20_000,
      });
      for (const server of ["s1", "s2"]) {
        await lab.on(server, ["iptables", "-I", ...SWALLOW, "-j", "DROP"]);
      }
      const startedMs = performance.now();
      await eventually("2 MB pass again", async () => await bulk(shop) || undefined, {
        timeoutMs: 60_000,
      });
      tell(
        `2 MB passed again ${secondsSince(startedMs)} s after packets over 1,400 were swallowed`,
      );
      await becomes(
        shop,
        { what: "the way's MTU is found", withinS: 30 },
        (found) => linkOf(found, "s1", "s2").mtu === 1328 && linkOf(found, "s2", "s1").mtu === 1328,
      );
      for (const server of ["s1", "s2"]) {
        await lab.on(server, ["iptables", "-D", ...SWALLOW, "-j", "DROP"]);
      }
    });

    await chapter(t, "keys change under traffic, also when the CLI is killed", async () => {
      const before = await keysOf(shop);
      const gapMs = await watched(shop, { what: "new keys", from: "s1", to: "s2" }, async () => {
        const argv = shop.argv("network", "rotate-keys", "--yes", "--hosts", "s1,s2");
        const killed = lab.spawn(argv, { cwd: shop.folder });
        await eventually("s1 has a next key", async () => {
          const outcome = await lab.tryOn("s1", ["test", "-e", "/etc/jiji/wireguard.key.next"]);
          return outcome.code === 0 ? true : undefined;
        }, { timeoutMs: 30_000 });
        killed.kill("SIGKILL");
        await Promise.all([killed.stdout.cancel(), killed.stderr.cancel(), killed.status]);
        const text = await shop.must("network", "rotate-keys", "--yes", "--hosts", "s1,s2");
        tell(text.trim());
      });
      const after = await keysOf(shop);
      assert.notEqual(after[0], before[0]);
      assert.notEqual(after[1], before[1]);
      assert.equal(after[2], before[2]);
      assert.ok(gapMs < 6_000, `${gapMs} ms without an answer`);
      for (const server of SERVERS) {
        const left = await lab.on(server, ["sh", "-c", "ls /etc/jiji; wg show jiji0 peers"]);
        assert.ok(!left.includes("wireguard.key.next"), left);
        assert.ok(!before.slice(0, 2).some((key) => left.includes(key)), "former keys are gone");
      }
      assert.match(await shop.must("server", "init"), /Nothing to do/);
    });

    await chapter(t, "two that disagree about preshared keys find each other", async () => {
      await lab.cut("s1");
      await lab.on("s1", ["rm", "/etc/jiji/mesh.psk"]);
      for (const server of ["s1", "s2"]) {
        await lab.on(server, ["systemctl", "restart", "wg-quick@jiji0"]);
      }
      await lab.heal();
      const seconds = await becomes(
        shop,
        { what: "s1 is linked without a preshared key", withinS: 100 },
        (found) => linkOf(found, "s1", "s2").linked && linkOf(found, "s2", "s1").psk === false,
      );
      tell(`linked without the secret that s1 lost after ${seconds} s`);
      await shop.must("server", "init");
      const again = await becomes(
        shop,
        { what: "every handshake takes a preshared key again", withinS: 100 },
        everyLink((link) => link.linked && link.psk === true),
      );
      tell(`every link has a preshared key again ${again} s after server init`);
    });

    await chapter(t, "s3 behind a NAT, s1 and s2 with nothing but IPv6 between them", async () => {
      await lab.on("s3", ["sh", "-c", BEHIND_NAT]);
      for (const [server, other] of [["s1", 12], ["s2", 11]] as const) {
        const script = `set -e
          device=$(ip -o -4 addr show | awk '/203.0.113/ { print $2 }')
          ip -6 addr add 2001:db8::1${server.slice(1)}/64 dev "$device" nodad
          iptables -I INPUT -s 203.0.113.${other} -p udp --dport 31820 -j DROP
          iptables -I OUTPUT -d 203.0.113.${other} -p udp --dport 31820 -j DROP`;
        await lab.on(server, ["sh", "-c", script]);
      }
      const isNat = (link: Link) => /^203\.0\.113\.13:40\d\d\d$/.test(link.endpoint ?? "");
      const seconds = await becomes(shop, { what: "all linked", withinS: 120 }, (found) => {
        const [one, two] = [linkOf(found, "s1", "s2"), linkOf(found, "s2", "s1")];
        return found.linked && isNat(linkOf(found, "s1", "s3")) &&
          isNat(linkOf(found, "s2", "s3")) && one.endpoint === "[2001:db8::12]:31820" &&
          two.endpoint === "[2001:db8::11]:31820" && one.mtu === 1408;
      });
      tell(`linked through the NAT and over IPv6 after ${seconds} s`);
      await lab.cut("s3");
      await becomes(
        shop,
        { what: "s3 is silent", withinS: 30 },
        (found) => !linkOf(found, "s1", "s2") || !linkOf(found, "s1", "s3").linked,
      );
      await lab.heal();
      const back = await becomes(
        shop,
        { what: "s3 is back", withinS: 60 },
        (found) => found.linked,
      );
      tell(`s3, which nobody can dial, was linked again ${back} s after it was cut off`);
    });
  } finally {
    answerer.kill("SIGKILL");
    await Promise.all([answerer.stdout.cancel(), answerer.stderr.cancel(), answerer.status]);
  }
});
