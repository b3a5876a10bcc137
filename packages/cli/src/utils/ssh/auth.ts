import { basename, join } from "node:path";
import type { AnyAuthMethod } from "ssh2";
import { ConnectionError } from "@jiji/core/runtime";
import type { ServerConnection } from "../../types/server_connection.ts";
import { parsePrivateKey } from "./key.ts";

/** Ways to log in, in the order to try, and how errors name them. */
export interface AuthPlan {
  readonly methods: readonly AnyAuthMethod[];
  /** One entry a method: `the agent`, `id_ed25519`, `key_data[0]`. */
  readonly tried: readonly string[];
  /** Keys that could not be used, with the reason. */
  readonly unusable: readonly string[];
}

/** What ssh(1) tries by itself, as far as it can be used here. Source: ssh(1), option -i. */
const DEFAULT_IDENTITIES = ["id_ed25519", "id_ecdsa", "id_rsa"];

/**
 * Reads the keys of a server. Named keys come first, then the agent; without named keys, the agent
 * and the user's default identities.
 *
 * @throws {ConnectionError} phase `auth` when a named key can't be read or opened, or nothing is
 * left to try.
 */
export async function planAuth(
  server: ServerConnection,
  env: Readonly<Record<string, string>>,
): Promise<AuthPlan> {
  const { ssh } = server;
  const plan: { methods: AnyAuthMethod[]; tried: string[]; unusable: string[] } = {
    methods: [],
    tried: [],
    unusable: [],
  };
  const add = (text: string, name: string): void => {
    const outcome = parsePrivateKey(text, ssh.passphrase);
    if (!outcome.ok) {
      plan.unusable.push(`${name}: ${outcome.reason}`);
      return;
    }
    plan.methods.push({ type: "publickey", username: ssh.user, key: outcome.key });
    plan.tried.push(name);
  };
  const named = ssh.keyPaths.length > 0 || ssh.keyData.length > 0;
  for (const path of ssh.keyPaths) {
    const text = await readKey(path);
    if (text === undefined) plan.unusable.push(`${path}: there is no such file`);
    else add(text, basename(path));
  }
  ssh.keyData.forEach((secret, index) => add(secret.reveal(), `key_data[${index}]`));
  const agent = env["SSH_AUTH_SOCK"];
  if (!ssh.keysOnly && agent !== undefined && agent !== "") {
    plan.methods.push({ type: "agent", username: ssh.user, agent });
    plan.tried.push("the agent");
  }
  const home = env["HOME"];
  if (!named && !ssh.keysOnly && home !== undefined) {
    for (const name of DEFAULT_IDENTITIES) {
      const text = await readKey(join(home, ".ssh", name));
      if (text !== undefined) add(text, name);
    }
  }
  if (plan.methods.length === 0) throw nothingToTry(server, plan.unusable);
  return plan;
}

function nothingToTry(server: ServerConnection, unusable: readonly string[]): ConnectionError {
  const reasons = unusable.length === 0 ? "" : ` (${unusable.join("; ")})`;
  return new ConnectionError(
    `there is no key to log in to ${server.name} as ${server.ssh.user}${reasons}`,
    {
      host: server.host,
      phase: "auth",
      hint: "name a key with ssh.key_path, start an agent, or make one with: ssh-keygen",
    },
  );
}

/** A file's text, or undefined when it is not there. */
async function readKey(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new ConnectionError(`the key ${path} can't be read: ${(error as Error).message}`, {
      host: path,
      phase: "auth",
      cause: error,
    });
  }
}
