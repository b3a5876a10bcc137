/** The servers under test, each with the same names, on loopback ports of their own. */
import type { ContainerRow } from "@jiji/core/corrosion";
import { renderSnapshot, SNAPSHOT_FILE } from "../../packages/dns/src/snapshot.ts";
import type { Peers } from "./peers.ts";

/** A name with its addresses. */
export interface BenchName {
  readonly label: string;
  readonly rows: readonly ContainerRow[];
}

/** A server to start. */
export interface Contender {
  readonly name: "jiji-dns" | "dnsmasq" | "coredns";
  readonly port: number;
  readonly argv: readonly [string, ...string[]];
}

/** `count` services of two instances each, in the cluster's network. */
export function benchNames(count: number): BenchName[] {
  return Array.from({ length: count }, (_, index) => {
    const project = `p${index % 100}`;
    const service = `service${index}`;
    const row = (server: number): ContainerRow => ({
      id: (index * 2 + server).toString(16).padStart(12, "0"),
      project,
      service,
      serverId: `s${server}`,
      instance: `s${server}`,
      name: `${project}-${service}`,
      version: "1",
      ip: `10.${64 + server * 64 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`,
      ports: ["3000/tcp"],
      startedAtMs: index,
      health: "healthy",
      unhealthySinceMs: null,
    });
    return { label: `${project}-${service}`, rows: [row(0), row(1)] };
  });
}

const SERVER_CONFIG = {
  format: 1,
  server_id: "s0",
  engine: "docker",
  cluster_cidr: "10.0.0.0/8",
  block: "10.64.0.0/24",
  management_ip: "fdcc::1",
  wireguard_public_key: "",
  wireguard_port: 31820,
  endpoints: [],
  service_domain: "jiji",
};

/** Writes what each server needs into `folder` and says how to start them. */
export async function writeContenders(
  names: readonly BenchName[],
  o: {
    readonly folder: string;
    readonly peers: Peers;
    readonly jijiDns: string;
    readonly port: number;
  },
): Promise<Contender[]> {
  const { folder, peers, port } = o;
  const containers = names.flatMap((name) => name.rows);
  const hosts = containers.map((row) => `${row.ip} ${row.name}.jiji`).join("\n");
  await Deno.writeTextFile(`${folder}/hosts`, `${hosts}\n`);
  await Deno.writeTextFile(`${folder}/server.json`, JSON.stringify(SERVER_CONFIG));
  await Deno.writeTextFile(`${folder}/token`, "none\n");
  await Deno.writeTextFile(
    `${folder}/${SNAPSHOT_FILE}`,
    [...renderSnapshot({ servers: [], containers })].join(""),
  );
  await Deno.writeTextFile(
    `${folder}/Corefile`,
    `jiji:${
      port + 2
    } {\n  bind 127.0.0.1\n  hosts ${folder}/hosts {\n    ttl 5\n    reload 0\n  }\n}\n`,
  );
  return [
    { name: "jiji-dns", port, argv: jijiArgv(o) },
    {
      name: "dnsmasq",
      port: port + 1,
      argv: dnsmasqArgv({ folder, program: peers.dnsmasq, port: port + 1 }),
    },
    {
      name: "coredns",
      port: port + 2,
      argv: [peers.coredns, "-quiet", "-conf", `${folder}/Corefile`],
    },
  ];
}

function jijiArgv(
  o: { readonly folder: string; readonly jijiDns: string; readonly port: number },
): [string, ...string[]] {
  return [
    ...[o.jijiDns, "serve", "--config", `${o.folder}/server.json`] as const,
    ...["--token-file", `${o.folder}/token`, "--listen", `127.0.0.1:${o.port}`],
    ...["--corrosion", "http://127.0.0.1:1", "--state", o.folder],
    ...["--liveness", `${o.folder}/liveness.json`],
  ];
}

function dnsmasqArgv(
  o: { readonly folder: string; readonly program: string; readonly port: number },
): [string, ...string[]] {
  return [
    ...[o.program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"] as const,
    ...["--no-hosts", `--addn-hosts=${o.folder}/hosts`, `--port=${o.port}`, "--user=root"],
    ...["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/jiji/", "--local-ttl=5"],
    ...["--cache-size=10000", `--pid-file=${o.folder}/dnsmasq.pid`],
  ];
}
