/** Who has which key, identity and addresses of the mesh. Pure. */
import type { PeerSeed } from "@jiji/core/cluster";
import { type Cidr, cidrHas, cidrSize, parseCidr } from "@jiji/core/net";

/** What a server claims for itself. */
export type Claim = Pick<PeerSeed, "server_id" | "public_key" | "block" | "management_ip">;

interface Held extends Cidr {
  readonly serverId: string;
}

/** Prefix of all identities; see `managementIp`. */
const IDENTITY = /^fdcc:/;

/** Claims that were granted; none of them shares a key, an identity or an address with another. */
export class Claims {
  readonly #keys = new Map<string, string>();
  readonly #identities = new Map<string, string>();
  /** By their first address: of networks without overlap only the neighbours must be looked at. */
  readonly #blocks: Held[] = [];

  readonly #cluster: Cidr | undefined;

  /** @param clusterCidr what blocks are cut from: a row must not lead other traffic into the mesh. */
  constructor(clusterCidr: string) {
    this.#cluster = parseCidr(clusterCidr);
  }

  /** Grants a claim, or says why not. */
  grant(claim: Claim): string | undefined {
    const block = parseCidr(claim.block);
    if (!block) return "block does not parse";
    if (!isWithin(block, this.#cluster)) return "its block is not of the cluster's network";
    if (!IDENTITY.test(claim.management_ip)) return "its identity is not one of the mesh";
    const key = this.#keys.get(claim.public_key);
    if (key !== undefined) return `has the key of ${key}`;
    const identity = this.#identities.get(claim.management_ip);
    if (identity !== undefined) return `has the identity of ${identity}`;
    const at = this.#placeOf(block);
    const [before, after] = [this.#blocks[at - 1], this.#blocks[at]];
    if (before && before.base + cidrSize(before) > block.base) {
      return `its block overlaps that of ${before.serverId}`;
    }
    if (after && block.base + cidrSize(block) > after.base) {
      return `its block overlaps that of ${after.serverId}`;
    }
    this.#keys.set(claim.public_key, claim.server_id);
    this.#identities.set(claim.management_ip, claim.server_id);
    this.#blocks.splice(at, 0, { ...block, serverId: claim.server_id });
    return undefined;
  }

  /** Index of the first block that begins after this one does. */
  #placeOf({ base }: Cidr): number {
    let [low, high] = [0, this.#blocks.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#blocks[middle]!.base <= base) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Whether all of a block lies in the cluster's network. */
export function isWithin(block: Cidr, cluster: Cidr | undefined): boolean {
  return cluster !== undefined && cidrHas(cluster, block.base) &&
    cidrHas(cluster, block.base + cidrSize(block) - 1);
}
