/** Keys of the mesh as the topology duty needs them: read, derived once, remembered. */
import { parseMeshSecret, type PeerSeed, SERVER_PATHS } from "@jiji/core/cluster";
import type { Secret } from "@jiji/core/runtime";
import { type DaemonContext, type KeyMaker, SYSTEM_KEYS, tellDoc } from "../daemon_context.ts";
import type { PskFacts, Sessions } from "../mesh/sessions.ts";

/** Preshared keys, and the identities of keys that servers are about to change to. */
export class MeshKeys {
  readonly #context: DaemonContext;
  readonly #keys: KeyMaker;
  #text: string | undefined;
  #secret: Secret | undefined;
  #secretId: string | undefined;
  readonly #pairKeys = new Map<string, Secret>();
  readonly #identities = new Map<string, string>();

  constructor(context: DaemonContext) {
    this.#context = context;
    this.#keys = context.keys ?? SYSTEM_KEYS;
  }

  /** Reads the secret anew and makes the keys that are missing. */
  async psk(peers: readonly PeerSeed[], sessions: Sessions): Promise<PskFacts> {
    const { config, files, clock } = this.#context;
    const text = await files.read(SERVER_PATHS.meshSecret) ?? "";
    if (text !== this.#text) {
      this.#text = text;
      this.#pairKeys.clear();
      this.#secret = parseMeshSecret(text);
      this.#secretId = this.#secret && await this.#keys.meshSecretId(this.#secret);
      this.#tell();
    }
    if (this.#secret) {
      for (const { server_id } of peers) {
        if (this.#pairKeys.has(server_id)) continue;
        this.#pairKeys.set(
          server_id,
          await this.#keys.pairKey(this.#secret, config.server_id, server_id),
        );
      }
    }
    return {
      self: config.server_id,
      secretId: this.#secretId,
      pairKeys: this.#pairKeys,
      sessions,
      nowMs: clock.monotonicMs(),
    };
  }

  #tell(): void {
    const { facts, wake, logger } = this.#context;
    if (!tellDoc(facts, { psk: this.#secretId })) return;
    logger.info("mesh secret", { name: this.#secretId ?? "none" });
    wake("heartbeat");
  }

  /** Identities of next keys, by key. */
  async identities(peers: readonly PeerSeed[]): Promise<ReadonlyMap<string, string>> {
    for (const { next_key } of peers) {
      if (next_key === undefined || this.#identities.has(next_key)) continue;
      this.#identities.set(next_key, await this.#keys.managementIp(next_key));
    }
    return this.#identities;
  }
}
