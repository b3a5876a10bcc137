/** Duty: changes this server's own WireGuard key, once every member has agreed. */
import {
  MESH_INTERFACE,
  parseServerConfig,
  SERVER_PATHS,
  SERVER_UNITS,
  WIREGUARD_CONF,
} from "@jiji/core/cluster";
import { isWireguardKey } from "@jiji/core/net";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  SYSTEM_KEYS,
  tellDoc,
  tryRun,
} from "../daemon_context.ts";
import { changingBefore, missingAccepts, withIdentities, withKey } from "../mesh/key_change.ts";

/** Prefix of identities. */
const IDENTITY = /^fdcc:/;
/** While a key waits for the others, this duty looks this often, milliseconds. */
const WAITING_LOOK_MS = 300;

/**
 * A next key in its file is the operator's wish. It is announced in this server's row; peers take it
 * beside the old one and say so in theirs; then this server changes over, and its files, its
 * identity and Corrosion's address follow. Every step can be done again: what a crash leaves, the
 * next start finishes.
 */
export class KeyChangeDuty {
  readonly #context: DaemonContext;
  #next: { readonly text: string; readonly publicKey: string } | undefined;
  #waitsFor = "";
  #isTidy = false;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at the file. */
  async run(signal: AbortSignal): Promise<number | void> {
    const { files, facts, config, wake } = this.#context;
    if (facts.standsDown) return;
    const text = await files.read(SERVER_PATHS.wireguardNextKey);
    if (text === undefined) {
      this.#next = undefined;
      if (tellDoc(facts, { next_key: undefined })) wake("heartbeat");
      return await this.#tidy(signal);
    }
    const publicKey = await this.#publicKey(text, signal);
    // A change that was cut off after its files were written is finished first.
    if (publicKey === config.wireguard_public_key) return await this.#change(publicKey, signal);
    if (tellDoc(facts, { next_key: publicKey })) wake("heartbeat");
    if (!this.#isAgreed(publicKey)) return WAITING_LOOK_MS;
    await this.#change(publicKey, signal);
  }

  async #publicKey(text: string, signal: AbortSignal): Promise<string> {
    if (this.#next?.text === text) return this.#next.publicKey;
    const result = await this.#context.process.run(["wg", "pubkey"], {
      timeoutMs: COMMAND_TIMEOUT_MS,
      stdin: text,
      signal,
    });
    const publicKey = result.stdout.trim();
    if (result.exitCode !== 0 || !isWireguardKey(publicKey)) {
      throw new Error(`${SERVER_PATHS.wireguardNextKey} holds no WireGuard key: delete it`);
    }
    this.#next = { text, publicKey };
    return publicKey;
  }

  /** Nobody's view counts before it is whole and shows this server's own announcement. */
  #isAgreed(nextKey: string): boolean {
    const { view, config, logger, facts } = this.#context;
    const { peers } = facts;
    const own = view.servers.get(config.server_id);
    if (!view.filled.servers || !facts.isMeshKnown || own?.doc.next_key !== nextKey) return false;
    const missing = missingAccepts(view.servers.values(), {
      self: config.server_id,
      nextKey,
      peers,
    });
    const before = changingBefore(view.servers.values(), config.server_id);
    const waitsFor = `${missing.join()} ${before.join()}`;
    if (waitsFor !== this.#waitsFor) {
      this.#waitsFor = waitsFor;
      logger.info("next key announced", { waitingFor: missing, after: before });
    }
    return missing.length === 0 && before.length === 0;
  }

  async #change(publicKey: string, signal: AbortSignal): Promise<void> {
    const { config, files, facts, logger, wake } = this.#context;
    const present = await (this.#context.keys ?? SYSTEM_KEYS).managementIp(publicKey);
    const former = config.management_ip;
    logger.info("changing the key", { publicKey, identity: present, former });
    const ip = (...words: string[]) => mustRun(this.#context, ["ip", ...words], signal);
    await ip("-6", "addr", "replace", `${present}/128`, "dev", MESH_INTERFACE);
    const place = await files.read(SERVER_PATHS.serverConfig) ?? "";
    const changed = withKey(place, { publicKey, managementIp: present });
    await files.replace(SERVER_PATHS.serverConfig, changed, { mode: 0o644, keepFacts: true });
    const old = parseServerConfig(place).management_ip;
    for (const path of [SERVER_PATHS.corrosionConfig, WIREGUARD_CONF]) {
      const text = await files.read(path) ?? "";
      const followed = withIdentities(text, new Map([[old, present]]));
      if (followed !== text) await files.replace(path, followed, { mode: 0o600, keepFacts: true });
    }
    const next = SERVER_PATHS.wireguardNextKey;
    await mustRun(this.#context, ["wg", "set", MESH_INTERFACE, "private-key", next], signal);
    this.#context.config = parseServerConfig(changed);
    await mustRun(this.#context, ["mv", "-f", next, SERVER_PATHS.wireguardKey], signal);
    tellDoc(facts, { next_key: undefined });
    this.#next = undefined;
    this.#isTidy = false;
    ["topology", "path-mtu", "heartbeat"].forEach(wake);
    await this.#tidy(signal);
    logger.info("key changed", { publicKey });
    wake("heartbeat");
  }

  /** An identity of a former key on the interface: Corrosion still listens there. */
  async #tidy(signal: AbortSignal): Promise<void> {
    if (this.#isTidy) return;
    const { config, logger } = this.#context;
    const argv = [
      "ip",
      "-o",
      "-6",
      "addr",
      "show",
      "dev",
      MESH_INTERFACE,
      "scope",
      "global",
    ] as const;
    const { stdout, exitCode } = await tryRun(this.#context, argv, signal);
    if (exitCode !== 0) return;
    const former = [...stdout.matchAll(/ inet6 ([0-9a-f:]+)\/128 /g)].map((match) => match[1]!)
      .filter((ip) => IDENTITY.test(ip) && ip !== config.management_ip);
    if (former.length > 0) {
      logger.info("corrosion moves to this server's identity", { former });
      await mustRun(this.#context, ["systemctl", "restart", SERVER_UNITS.corrosion], signal);
      for (const ip of former) {
        await tryRun(
          this.#context,
          ["ip", "-6", "addr", "del", `${ip}/128`, "dev", MESH_INTERFACE],
          signal,
        );
      }
    }
    this.#isTidy = true;
  }
}
