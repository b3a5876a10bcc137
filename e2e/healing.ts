/** Words for stories in which something breaks and nobody mends it. */
import assert from "node:assert/strict";
import { eventually } from "./lab.ts";
import { secondsSince, type Shop, STORY_ENGINE, tell } from "./shop.ts";

/** The servers of these stories. */
export const SERVERS = ["s1", "s2", "s3"] as const;

/**
 * Limits are for Docker on a machine with other work on it. Every look into a container costs podman
 * a second there, so that finding out takes longer than what is looked at.
 */
const PATIENCE = STORY_ENGINE === "podman" ? 3 : 1;

/** One of them. */
export type Server = typeof SERVERS[number];

/** Who asks whom across the mesh. */
export type Pair = readonly [from: Server, to: Server];

/** Pairs between these servers, both ways. */
export function pairsAmong(...servers: readonly Server[]): Pair[] {
  return servers.flatMap((from) =>
    servers.filter((to) => to !== from).map((to): Pair => [from, to])
  );
}

/** A loop in the web container of a server. */
interface Loop {
  readonly server: Server;
  /** One look: shell words on `$2` and further; adds a word to `vain` where it was in vain. */
  readonly look: string;
  /** `$2` and further. */
  readonly args: readonly string[];
}

/** How often a loop looked, and when in vain. */
interface Looked {
  readonly looks: number;
  readonly vain: readonly string[];
}

/** Runs loops, ten looks a second at most, until `work` has ended; gives how each went. */
async function whileLooking<T>(
  shop: Shop,
  loops: readonly Loop[],
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly looked: readonly Looked[] }> {
  const flags = loops.map(() => `/tmp/stop-${crypto.randomUUID()}`);
  const looking = loops.map(async ({ server, look, args }, index): Promise<Looked> => {
    const script = `looks=0; vain=
while [ ! -e "$1" ]; do looks=$((looks + 1)); ${look}; sleep 0.1; done
rm "$1"; echo "$looks$vain"`;
    const argv = ["sh", "-c", script, "sh", flags[index]!, ...args];
    const [looks, ...vain] = (await shop.lab.on(server, inWeb(...argv))).trim().split(" ");
    return { looks: Number(looks), vain };
  });
  let result: T;
  try {
    result = await work();
  } finally {
    await Promise.all(
      loops.map(({ server }, index) => shop.lab.on(server, inWeb("touch", flags[index]!))),
    );
  }
  return { result, looked: await Promise.all(looking) };
}

/** Asserts that requests between containers of these pairs do not fail while `work` runs. */
export async function underMesh<T>(
  shop: Shop,
  o: { readonly what: string; readonly pairs: readonly Pair[] },
  work: () => Promise<T>,
): Promise<T> {
  const look = 'timeout 5 wget -q -O /dev/null "$2" || vain="$vain $(date +%T)"';
  const loops = o.pairs.map(([server, to]): Loop => {
    return { server, look, args: [`http://shop-web-${to}.jiji:3000/up`] };
  });
  const { result, looked } = await whileLooking(shop, loops, work);
  const names = o.pairs.map(([from, to]) => `${from}→${to}`);
  const asked = looked.reduce((sum, { looks }) => sum + looks, 0);
  tell(`${o.what}: ${asked} requests across the mesh (${names.join(" ")})`);
  for (const [index, { looks, vain }] of looked.entries()) {
    assert.ok(looks > 5, `${names[index]}: only ${looks} requests`);
    const what = `${o.what}: ${names[index]}: ${vain.length} of ${looks} failed`;
    assert.deepEqual(vain, [], what);
  }
  return result;
}

/** Asserts that containers of these servers see an instance on every server while `work` runs. */
export async function namesKept<T>(
  shop: Shop,
  o: { readonly what: string; readonly by: readonly Server[] },
  work: () => Promise<T>,
): Promise<T> {
  const look = 'found=$(nslookup "$2" | grep -c "Address: 10[.]210[.]"); ' +
    '[ "$found" -ge "$3" ] || vain="$vain $(date +%T):$found"';
  const args = ["shop-web.jiji", `${SERVERS.length}`];
  const loops = o.by.map((server): Loop => ({ server, look, args }));
  const { result, looked } = await whileLooking(shop, loops, work);
  for (const [index, { looks, vain }] of looked.entries()) {
    tell(`${o.what}: ${o.by[index]} looked ${looks} times, ${vain.length} in vain`);
    assert.ok(looks > 5, `only ${looks} looks`);
    assert.deepEqual(vain, [], `${o.what}: ${o.by[index]} missed some`);
  }
  return result;
}

/** A command in the web container of a server. */
export function inWeb(...argv: readonly string[]): string[] {
  return [STORY_ENGINE, "exec", "shop-web", ...argv];
}

/** Addresses that a server's jiji-dns gives to a container of it, sorted. */
export async function addresses(
  shop: Shop,
  server: string,
  name = "shop-web.jiji",
): Promise<string[]> {
  const outcome = await shop.lab.tryOn(server, inWeb("nslookup", name));
  const answer = outcome.stdout.split("\n\n").slice(1).join("\n");
  return [...answer.matchAll(/Address: +([0-9.]+)/g)].map((match) => match[1]!).sort();
}

/** Waits until servers see instances of web on exactly these servers; tells how long it took. */
export async function sees(
  shop: Shop,
  o: {
    readonly what: string;
    readonly by: readonly string[];
    readonly instances: readonly string[];
    /** Everything must be so within this time, seconds. */
    readonly withinS: number;
    /** Since when, of `performance.now()`. */
    readonly sinceMs: number;
  },
): Promise<void> {
  const withinS = o.withinS * PATIENCE;
  const wanted = o.instances.map((server) => `10.210.${Number(server.slice(1)) - 1}`).sort();
  for (const server of o.by) {
    let last = "";
    await eventually(`${o.what}: ${server} sees web on ${o.instances.join(" ")}`, async () => {
      const found = await addresses(shop, server);
      last = found.join(" ");
      const blocks = found.map((address) => address.split(".").slice(0, 3).join("."));
      return blocks.join() === wanted.join() ? true : undefined;
    }, { timeoutMs: withinS * 1_000 }).catch((error) => {
      throw new Error(`${error.message}; it sees ${last}`);
    });
  }
  const seconds = secondsSince(o.sinceMs);
  tell(`${o.what}: after ${seconds} s (limit ${withinS} s)`);
  assert.ok(Number(seconds) <= withinS, `${o.what} took ${seconds} s`);
}

/** Waits until containers of every server reach those of every other. */
export async function meshIsWhole(shop: Shop, withinS: number): Promise<void> {
  await Promise.all(
    pairsAmong(...SERVERS).map(async ([from, to]) => {
      const url = `http://shop-web-${to}.jiji:3000/up`;
      await eventually(`${from} reaches ${to} over the mesh`, async () => {
        const outcome = await shop.lab.tryOn(
          from,
          inWeb("timeout", "2", "wget", "-q", "-O", "-", url),
        );
        return outcome.code === 0 ? true : undefined;
      }, { timeoutMs: withinS * 1_000 * PATIENCE });
    }),
  );
}

/** Waits until every server sees every instance and reaches it, and every page is whole again. */
export async function allIsWell(
  shop: Shop,
  o: { readonly sinceMs: number; readonly withinS: number; readonly what?: string },
): Promise<void> {
  const what = o.what ?? "all was as before, without a command";
  const timeoutMs = o.withinS * 1_000 * PATIENCE;
  await Promise.all(SERVERS.map((server) => shop.servesAgain(server, timeoutMs)));
  await meshIsWhole(shop, o.withinS);
  await sees(shop, { ...o, what, by: SERVERS, instances: SERVERS });
}

/** Drops all packets from one server on their arrival at another, and nothing the other way. */
export async function dropFrom(
  shop: Shop,
  o: { readonly from: Server; readonly at: Server; readonly verb?: "-I" | "-D" },
): Promise<void> {
  const rule = ["-s", shop.lab.address(o.from), "-j", "DROP"];
  await shop.lab.on(o.at, ["iptables", "-w", "-t", "raw", o.verb ?? "-I", "PREROUTING", ...rule]);
}

/** What a server's own view of the cluster says. */
export interface SeenServer {
  readonly id: string;
  readonly subnet: string;
  readonly lastSeenMs: number;
  readonly removedAtMs: number | null;
  readonly endpoints: readonly string[];
}

/** The servers that a server's Corrosion knows. */
export async function knownServers(shop: Shop, server: string): Promise<readonly SeenServer[]> {
  const argv = ["/opt/jiji/bin/jiji-daemon", "servers", "list", "--json"];
  const rows: readonly SeenServer[] = JSON.parse(await shop.lab.on(server, argv));
  return rows;
}

/** Rows of a question to a server's Corrosion. */
export async function query(
  shop: Shop,
  server: string,
  sql: string,
): Promise<readonly (readonly unknown[])[]> {
  const argv = ["sh", "-c", 'printf %s "$1" | /opt/jiji/bin/jiji-daemon db query', "sh", sql];
  const found: { rows: unknown[][] } = JSON.parse(await shop.lab.on(server, argv));
  return found.rows;
}
