// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * How long names lead to what is not there any more: three servers with a container each, their
 * resolvers asked a hundred times a second, while
 *
 * - a container is killed (SIGKILL to its process), until no server answers with it;
 * - a server is cut off (its link goes down, so that nothing of it is heard), until neither of the
 *   others answers with its container; and the same with real losses of power, of which there are
 *   fewer since a boot takes time.
 *
 * The clock starts at the kill itself and stops with the last resolver's first answer without it.
 *
 * Usage: deno task bench:failover [--tries 50] [--power 5] [--part container|server|power]
 */
import { parseArgs } from "node:util";
import { SERVERS } from "../../e2e/healing.ts";
import { CHECKOUT } from "../../e2e/lab.ts";
import { Shop } from "../../e2e/shop.ts";
import { labPaths, namespaceName } from "../../tools/lab/names.ts";
import { runCommand } from "../../tools/prepare/command.ts";
import type { Seen } from "./watch.ts";

const LAB = "bench-failover";
const NAME = "shop-web.jiji";
/** Nothing takes longer, milliseconds. */
const PATIENCE_MS = 60_000;

type Server = typeof SERVERS[number];

/** The resolver of one server, asked all the time. */
class Watch implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #done: Promise<void>;
  #seen: Seen = { atMs: 0, addresses: [] };
  #ended = false;
  #wake = Promise.withResolvers<void>();

  constructor(server: Server) {
    const address = `10.210.${SERVERS.indexOf(server)}.1`;
    const watch = [`${CHECKOUT}/bench/failover/watch.ts`, address, NAME];
    const deno = [Deno.execPath(), "run", "--quiet", "--unstable-net", "--allow-net", ...watch];
    this.#child = new Deno.Command("ip", {
      args: ["netns", "exec", namespaceName(LAB, server), ...deno],
      stdout: "piped",
      stdin: "null",
    }).spawn();
    this.#done = this.#read().finally(() => {
      this.#ended = true;
      this.#wake.resolve();
    });
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const seen: Seen = JSON.parse(line);
        this.#seen = seen;
        this.#wake.resolve();
        this.#wake = Promise.withResolvers();
      }
    }
  }

  /** When the answers became such that `holds`, Unix ms; at once when they are. */
  async until(what: string, holds: (addresses: readonly string[]) => boolean): Promise<number> {
    const deadlineMs = performance.now() + PATIENCE_MS;
    while (!holds(this.#seen.addresses)) {
      if (this.#ended) throw new Error(`${what}: the watch has ended`);
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) throw new Error(`not in time: ${what}; ${this.#seen.addresses.join(" ")}`);
      const over = Promise.withResolvers<void>();
      const timer = setTimeout(over.resolve, leftMs);
      await Promise.race([this.#wake.promise, over.promise]);
      clearTimeout(timer);
    }
    return this.#seen.atMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#done;
    await this.#child.status;
  }
}

/** What is measured in turns, server by server. */
interface Measured {
  readonly what: string;
  readonly how: string;
  readonly targetMs: number;
  /** Milliseconds of each try, until the last resolver had left it out. */
  readonly triesMs: number[];
}

/** A lab with its watches. */
interface Scene {
  readonly shop: Shop;
  readonly watches: Map<Server, Watch>;
}

function others(server: Server): Server[] {
  return SERVERS.filter((other) => other !== server);
}

async function allSee(scene: Scene, servers: readonly Server[], count: number): Promise<void> {
  for (const server of servers) {
    await scene.watches.get(server)?.until(
      `${server} answers with ${count}`,
      (addresses) => addresses.length === count,
    );
  }
}

/** Milliseconds from an instant until the last of these resolvers leaves a server's container out. */
async function goneFrom(
  scene: Scene,
  o: { readonly servers: readonly Server[]; readonly gone: Server; readonly sinceMs: number },
): Promise<number> {
  const block = `10.210.${SERVERS.indexOf(o.gone)}.`;
  const instants = await Promise.all(o.servers.map((server) =>
    scene.watches.get(server)!.until(
      `${server} leaves out ${o.gone}`,
      (addresses) => addresses.length > 0 && !addresses.some((one) => one.startsWith(block)),
    )
  ));
  return Math.max(...instants) - o.sinceMs;
}

async function killContainer(scene: Scene, server: Server): Promise<number> {
  const { lab } = scene.shop;
  const script = 'pid=$(docker inspect -f "{{.State.Pid}}" shop-web); date +%s.%N; kill -9 "$pid"';
  const sinceMs = Number(await lab.on(server, ["sh", "-c", script])) * 1_000;
  const tookMs = await goneFrom(scene, { servers: SERVERS, gone: server, sinceMs });
  await lab.on(server, ["docker", "start", "shop-web"]);
  await allSee(scene, SERVERS, 3);
  return tookMs;
}

async function setLink(server: Server, state: "up" | "down"): Promise<void> {
  await runCommand(["ip", "-n", namespaceName(LAB, "switch"), "link", "set", server, state]);
}

async function cutServer(scene: Scene, server: Server): Promise<number> {
  const sinceMs = Date.now();
  await setLink(server, "down");
  const tookMs = await goneFrom(scene, { servers: others(server), gone: server, sinceMs });
  await setLink(server, "up");
  await allSee(scene, SERVERS, 3);
  return tookMs;
}

/** Where a server writes the time, so that its last moment can be read from its disk. */
const BEAT = "/var/lib/beat";

async function losePower(scene: Scene, server: Server): Promise<number> {
  const { lab } = scene.shop;
  const script = `while :; do date +%s.%N > ${BEAT}.new; mv ${BEAT}.new ${BEAT}; sleep 0.02; done`;
  await lab.on(server, ["systemd-run", "--quiet", "sh", "-c", script]);
  await lab.kill(server);
  const disk = `${labPaths(LAB).state}/${server}/upper`;
  const sinceMs = Number(await Deno.readTextFile(`${disk}${BEAT}`)) * 1_000;
  const tookMs = await goneFrom(scene, { servers: others(server), gone: server, sinceMs });
  await lab.boot(server);
  // Its network is another one than before.
  await scene.watches.get(server)?.[Symbol.asyncDispose]();
  scene.watches.set(server, new Watch(server));
  await allSee(scene, SERVERS, 3);
  return tookMs;
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}

/** One line of the table. */
export function renderMeasured(measured: Measured): string {
  const { triesMs, targetMs } = measured;
  const seconds = (ms: number) => `${(ms / 1_000).toFixed(2)} s`;
  const p99 = percentile(triesMs, 0.99);
  const cells = [
    measured.what,
    String(triesMs.length),
    ...[percentile(triesMs, 0.5), p99, Math.max(...triesMs)].map(seconds),
    `${seconds(targetMs)} ${p99 <= targetMs ? "held" : "MISSED"}`,
    measured.how,
  ];
  return `| ${cells.join(" | ")} |`;
}

async function measure(
  scene: Scene,
  measured: Measured,
  o: { readonly tries: number; readonly once: (scene: Scene, server: Server) => Promise<number> },
): Promise<void> {
  for (let count = 0; count < o.tries; count++) {
    const server = SERVERS[count % SERVERS.length]!;
    const tookMs = await o.once(scene, server);
    measured.triesMs.push(tookMs);
    console.log(`${measured.what}  ${server}  ${Math.round(tookMs)} ms`);
  }
}

/** What a server knows when a try fails: the reason must be found afterwards. */
async function tellState(shop: Shop, server: Server): Promise<string> {
  const script = [
    "date +%T.%N",
    "cat /run/jiji/liveness.json",
    "echo",
    `/opt/jiji/bin/jiji-dns query ${NAME}`,
    "journalctl -q --no-pager -o short-precise -u jiji-daemon -u jiji-dns --since -3min",
  ].join("; ");
  const text = await shop.lab.on(server, ["sh", "-c", script]).catch(String);
  return `--- ${server}\n${text}`;
}

const { values } = parseArgs({
  options: {
    tries: { type: "string", default: "50" },
    power: { type: "string", default: "5" },
    part: { type: "string" },
  },
});
const tries = Number(values.tries);

const container: Measured = {
  what: "container killed",
  how: "SIGKILL to its process; all three resolvers",
  targetMs: 1_000,
  triesMs: [],
};
const server: Measured = {
  what: "server cut off",
  how: "its link goes down; both other resolvers",
  targetMs: 4_000,
  triesMs: [],
};
const power: Measured = {
  what: "server powered off",
  how: "SIGKILL to everything on it; both other resolvers",
  targetMs: 4_000,
  triesMs: [],
};

await using shop = await Shop.serving({ name: LAB, engine: "docker" });
const watches = new Map(SERVERS.map((name) => [name, new Watch(name)]));
try {
  const scene = { shop, watches };
  await allSee(scene, SERVERS, 3);
  const wanted = (part: string) => values.part === undefined || values.part === part;
  // A container that came back by itself would hide that it was gone.
  const stay = ["docker", "update", "--restart=no", "shop-web"];
  if (wanted("container")) {
    for (const name of SERVERS) await shop.lab.on(name, stay);
    await measure(scene, container, { tries, once: killContainer });
    for (const name of SERVERS) {
      await shop.lab.on(name, ["docker", "update", "--restart=unless-stopped", "shop-web"]);
    }
  }
  if (wanted("server")) await measure(scene, server, { tries, once: cutServer });
  if (wanted("power")) {
    await measure(scene, power, { tries: Number(values.power), once: losePower });
  }
} catch (error) {
  console.error(String(error));
  for (const name of SERVERS) console.error(await tellState(shop, name));
  throw error;
} finally {
  for (const watch of watches.values()) await watch[Symbol.asyncDispose]();
}
console.log("\n| what | tries | p50 | p99 | max | p99 wanted | how |");
console.log("| --- | --- | --- | --- | --- | --- | --- |");
const all = [container, server, power].filter(({ triesMs }) => triesMs.length > 0);
for (const measured of all) console.log(renderMeasured(measured));
