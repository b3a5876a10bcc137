/** Programs that resolve names as others do, for the story of jiji-dns. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { exists, runCommand } from "../tools/prepare/command.ts";
import { CHECKOUT } from "./lab.ts";
import type { Shop } from "./shop.ts";

/** C libraries whose resolvers are tried; each is a service of that name on s1. */
export const LIBRARIES = ["glibc", "musl"] as const;

/** One of them. */
export type Library = typeof LIBRARIES[number];

/** What `resolve --for` prints. */
export interface Asked {
  readonly asked: number;
  readonly failed: number;
  readonly slowestMs: number;
}

/** What a name resolved to, or why not. */
export interface Resolved {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly error: string | undefined;
}

const DOCKERFILE = 'FROM scratch\nCOPY root /\nCMD ["/bin/resolve", "--wait"]\n';

/** Makes a folder to build from for each library, in the project. */
export async function makeResolvers(folder: string): Promise<void> {
  if (!await exists("/usr/bin/musl-gcc")) {
    const apt = ["apt-get", "-q", "-y", "--no-install-recommends", "install", "musl-tools"];
    await runCommand(apt, { env: { DEBIAN_FRONTEND: "noninteractive" }, timeoutMs: 300_000 });
  }
  const source = `${CHECKOUT}/e2e/resolver/resolve.c`;
  for (const library of LIBRARIES) {
    const root = join(folder, library, "root");
    const program = join(root, "bin/resolve");
    await Deno.mkdir(dirname(program), { recursive: true });
    await Deno.writeTextFile(join(folder, library, "Dockerfile"), DOCKERFILE);
    const flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source];
    const compiler = library === "glibc" ? ["gcc"] : ["musl-gcc", "-static"];
    await runCommand([...compiler, ...flags], { timeoutMs: 60_000 });
    if (library === "glibc") await copyLibraries(program, root);
  }
}

/** The loader and the C library that a program names, to the same places below `root`. */
async function copyLibraries(program: string, root: string): Promise<void> {
  const text = await runCommand(["ldd", program], { timeoutMs: 10_000 });
  for (const [path] of text.matchAll(/\/\S+/g)) {
    await Deno.mkdir(dirname(root + path), { recursive: true });
    await Deno.copyFile(await Deno.realPath(path), root + path);
  }
}

/** Services of the libraries, for deploy.yml. */
export function resolverServices(): string {
  return LIBRARIES.map((one) => `\n  ${one}:\n    build: ./${one}\n    hosts: [s1]\n`).join("");
}

/** Containers that resolve. */
export class Resolvers {
  readonly #shop: Shop;
  readonly #engine: string;

  constructor(shop: Shop, engine: string) {
    this.#shop = shop;
    this.#engine = engine;
  }

  /** What a library finds for names. */
  async resolve(library: Library, ...names: readonly string[]): Promise<Resolved[]> {
    const text = await this.#run(library, names);
    return text.trim().split("\n").map((line) => {
      const [name = "", , ...found] = line.split(" ");
      const error = found[0]?.startsWith("!") ? found.join(" ").slice(1) : undefined;
      return { name, addresses: error === undefined ? found : [], error };
    });
  }

  /** Addresses of one name. @throws {AssertionError} when it does not resolve. */
  async addresses(library: Library, name: string): Promise<readonly string[]> {
    const [found] = await this.resolve(library, name);
    assert.equal(found?.error, undefined, `${library} ${name}: ${found?.error}`);
    return found?.addresses ?? [];
  }

  /** Asks without a pause. */
  async askFor(library: Library, name: string, seconds: number): Promise<Asked> {
    const asked: Asked = JSON.parse(await this.#run(library, ["--for", String(seconds), name]));
    return asked;
  }

  async #run(library: Library, args: readonly string[]): Promise<string> {
    const argv = [this.#engine, "exec", `shop-${library}`, "/bin/resolve", ...args];
    return await this.#shop.lab.on("s1", argv);
  }
}

/** A row as Corrosion has it, of a server that is in no lab: none of the daemons minds it. */
export function strangerStatement(
  row: { readonly index: number; readonly project: string; readonly service: string },
): readonly [string, readonly (string | number)[]] {
  const columns = "id, project, service, server_id, instance_id, name, version, ip, ports, " +
    "started_at, health_status";
  const { index, project, service } = row;
  const cells = [
    ...[(0x100000 + index).toString(16).padStart(12, "0"), project, service, "s9", `s9-${index}`],
    ...[`${project}-${service}`, "1", `10.210.9.${index}`, '["80/tcp"]', 1, "healthy"],
  ];
  const places = cells.map(() => "?").join(", ");
  return [`INSERT OR REPLACE INTO containers (${columns}) VALUES (${places})`, cells];
}

/** Writes to the Corrosion of a server. */
export async function writeRows(
  shop: Shop,
  server: string,
  statements: readonly unknown[],
): Promise<void> {
  const script = "printf %s \"$1\" | curl -sS -f -m 10 -H 'content-type: application/json' " +
    '-H "authorization: Bearer $(cat /etc/jiji/corrosion.token)" --data-binary @- ' +
    "http://127.0.0.1:31220/v1/transactions";
  await shop.lab.on(server, ["sh", "-c", script, "sh", JSON.stringify(statements)]);
}
