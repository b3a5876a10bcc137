import { SCHEMA_FILE, SCHEMA_SQL } from "../src/corrosion/schema.ts";
import { type CorrosionAddress, corrosionHttpApi } from "../src/corrosion/api.ts";
import { systemClock } from "../src/runtime/clock.ts";
import { waitFor } from "../src/runtime/retry.ts";
import { Secret } from "../src/runtime/secret.ts";

/** A real Corrosion agent of one server, in a folder of its own. */
export interface RealCorrosion extends AsyncDisposable {
  readonly address: CorrosionAddress;
}

/**
 * Path of a corrosion binary to test against, or undefined: `JIJI_CORROSION`, else the newest one in
 * the cache that `bin/lab prepare corrosion` fills.
 */
export async function findCorrosion(): Promise<string | undefined> {
  const named = Deno.env.get("JIJI_CORROSION");
  if (named) return named;
  const cache = Deno.env.get("JIJI_CACHE") ?? `${Deno.env.get("HOME")}/.cache/jiji`;
  const found: string[] = [];
  for (const folder of await entries(`${cache}/corrosion`)) {
    for (const path of ["corrosion", "bin/corrosion"]) {
      const full = `${cache}/corrosion/${folder}/${path}`;
      if (await isFile(full)) found.push(full);
    }
  }
  return found.sort().at(-1);
}

/**
 * Starts an agent on free loopback ports and waits until it answers.
 *
 * @throws {Error} when it does not within 20 s.
 */
export async function startCorrosion(binary: string): Promise<RealCorrosion> {
  const folder = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "jiji-corrosion-" });
  const [api, gossip] = [freePort(), freePort()];
  const address = { url: `http://127.0.0.1:${api}`, token: new Secret("contract-token") };
  await Deno.mkdir(`${folder}/schemas`);
  await Deno.mkdir(`${folder}/tmp`);
  await Deno.writeTextFile(`${folder}/schemas/${SCHEMA_FILE}`, SCHEMA_SQL);
  await Deno.writeTextFile(
    `${folder}/config.toml`,
    `[db]
path = "${folder}/state.db"
schema_paths = ["${folder}/schemas"]
subscriptions_path = "${folder}/subscriptions"
[gossip]
addr = "127.0.0.1:${gossip}"
plaintext = true
[api]
addr = "127.0.0.1:${api}"
authz.bearer-token = "contract-token"
[admin]
path = "${folder}/admin.sock"
`,
  );
  const agent = new Deno.Command(binary, {
    args: ["agent", "-c", `${folder}/config.toml`],
    clearEnv: true,
    env: { TMPDIR: `${folder}/tmp` },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const stop = async () => {
    agent.kill("SIGKILL");
    await agent.status;
    await Deno.remove(folder, { recursive: true });
  };
  const client = corrosionHttpApi(address);
  const up = await waitFor(
    () => client.query(["SELECT key FROM cluster_metadata", []]).catch(() => undefined),
    { clock: systemClock, timeoutMs: 20_000, everyMs: 100 },
  );
  if (up) return { address, [Symbol.asyncDispose]: stop };
  await stop();
  throw new Error(`${binary} did not answer within 20 s`);
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function entries(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) names.push(entry.name);
  } catch {
    // No such folder: nothing was prepared.
  }
  return names;
}

async function isFile(path: string): Promise<boolean> {
  return await Deno.stat(path).then((found) => found.isFile, () => false);
}
