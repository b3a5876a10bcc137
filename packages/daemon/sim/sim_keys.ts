/** Keys of simulated servers: what follows from one is worked out at once, without cryptography. */
import type { MeshSecret } from "@jiji/core/cluster";
import { Secret } from "@jiji/core/runtime";
import type { KeyMaker } from "../src/daemon_context.ts";
import { identityOf, keyIndexOf, keyOf } from "./facts.ts";

/** Pairs get keys from here on: no server has one of these. */
const PAIRS_FROM = 1 << 20;

/** The same for all servers of a cluster. */
export class SimKeys implements KeyMaker {
  readonly #pairs = new Map<string, Secret>();

  /** Tells one secret from another. */
  meshSecretId(secret: MeshSecret): Promise<string> {
    return Promise.resolve(keyIndexOf(secret.reveal()).toString(16).padStart(16, "0"));
  }

  /** One key for each pair and secret. */
  pairKey(secret: MeshSecret, a: string, b: string): Promise<Secret> {
    const pair = `${[a, b].sort().join(" ")} ${secret.reveal()}`;
    const known = this.#pairs.get(pair) ?? new Secret(keyOf(PAIRS_FROM + this.#pairs.size));
    this.#pairs.set(pair, known);
    return Promise.resolve(known);
  }

  /** Identities count like keys. */
  managementIp(publicKey: string): Promise<string> {
    return Promise.resolve(identityOf(keyIndexOf(publicKey)));
  }
}
