/** Programs the benchmark compares with, made on demand and kept in the cache. */
import { cacheRoot, ensureSlot, recipeKey, slotPath } from "../../tools/prepare/cache.ts";
import { exists, runCommand } from "../../tools/prepare/command.ts";

/** CoreDNS that is compared with. */
export const COREDNS_VERSION = "v1.15.0";

const DEBIAN_PROGRAMS = [
  { program: "/usr/bin/dnsperf", name: "dnsperf" },
  { program: "/usr/sbin/dnsmasq", name: "dnsmasq-base" },
] as const;

/** Where the peers' programs lie. */
export interface Peers {
  readonly coredns: string;
  readonly dnsmasq: string;
  readonly dnsperf: string;
}

/**
 * Builds CoreDNS once and installs what is missing of dnsmasq and dnsperf.
 *
 * @throws {Error} with the failed command's last lines.
 */
export async function preparePeers(say: (line: string) => void): Promise<Peers> {
  const missing: string[] = [];
  for (const { program, name } of DEBIAN_PROGRAMS) if (!await exists(program)) missing.push(name);
  if (missing.length > 0) {
    say(`installing ${missing.join(", ")}`);
    const apt = ["apt-get", "-q", "-y", "--no-install-recommends"];
    const env = { DEBIAN_FRONTEND: "noninteractive" };
    await runCommand([...apt, "update"], { env, timeoutMs: 180_000 });
    await runCommand([...apt, "install", ...missing], { env, timeoutMs: 300_000 });
  }
  const module = `github.com/coredns/coredns@${COREDNS_VERSION}`;
  const root = cacheRoot((name) => Deno.env.get(name));
  const slot = slotPath(root, "coredns", { key: await recipeKey([module]) });
  await ensureSlot({
    slot,
    onWait: () => say("another run builds CoreDNS, waiting"),
    build: async (stage) => {
      say(`building CoreDNS ${COREDNS_VERSION} (minutes, once)`);
      await runCommand(["nice", "go", "install", "-trimpath", "-ldflags=-s -w", module], {
        env: { GOBIN: stage, CGO_ENABLED: "0" },
        timeoutMs: 30 * 60_000,
      });
    },
  });
  return {
    coredns: `${slot}/coredns`,
    dnsmasq: "/usr/sbin/dnsmasq",
    dnsperf: "/usr/bin/dnsperf",
  };
}
