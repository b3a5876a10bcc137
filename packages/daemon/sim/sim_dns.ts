/** What a simulated server answers to questions for names: jiji-dns' own code over its rows. */
import type { ContainerRow } from "@jiji/core/corrosion";
import { cidrHas, parseCidr, parseIpv4 } from "@jiji/core/net";
import { newestPerInstance } from "@jiji/core/cluster";
import { decide, type Zone } from "../../dns/src/answer.ts";
import { DnsCache } from "../../dns/src/dns_cache.ts";
import { CLASS_IN, type DnsQuery, TYPE } from "../../dns/src/dns_protocol.ts";
import { CLUSTER_CIDR } from "./facts.ts";
import type { Change, Replica } from "./replica.ts";

/** For the name that every server's container has. */
const QUESTION: DnsQuery = {
  kind: "query",
  id: 1,
  recursionDesired: true,
  checkingDisabled: false,
  name: "casa-web.jiji",
  type: TYPE.A,
  qclass: CLASS_IN,
  question: new Uint8Array(),
  edns: undefined,
};

const CLUSTER = parseCidr(CLUSTER_CIDR)!;

/** The resolver of one server. */
export class SimDns {
  readonly #cache = new DnsCache(CLUSTER_CIDR);
  readonly #zone: Zone;
  readonly #id: string;
  #silent: ReadonlySet<string> = new Set();
  /** Whether anything has changed since the last look that answers may depend on. */
  #isDirty = true;
  #hadHeld = false;
  #shape: Shape | undefined;

  constructor(serverId: string) {
    this.#id = serverId;
    this.#zone = { domain: "jiji", clusterCidr: CLUSTER_CIDR, serverId };
  }

  /** All rows anew, as after a start or a lost database. */
  fill(replica: Replica, nowMs: number): void {
    this.#cache.replaceServers([...replica.servers.values()].map((one) => one.row), nowMs);
    const rows = [...replica.containers.values()].flatMap((one) => one.row ?? []);
    this.#cache.replaceContainers(rows, nowMs);
    this.#isDirty = true;
    this.#shape = undefined;
  }

  /** A row has changed; of a server's row `isBeat` says that it is only seen again. */
  take(
    change: Change,
    o: { readonly replica: Replica; readonly nowMs: number; readonly isBeat: boolean },
  ): void {
    const row = change.table === "servers" && o.replica.servers.get(change.id)?.row;
    if (row) this.#cache.putServer(row, o.nowMs);
    if (o.isBeat) return;
    this.#isDirty = true;
    this.#shape = undefined;
    if (change.table !== "containers") return;
    if (change.value.row) this.#cache.putContainer(change.value.row);
    else this.#cache.removeContainer(change.id);
  }

  /** Time has passed; what is wrong with the answers now, if they can be others than before. */
  look(
    replica: Replica,
    o: { readonly silent: ReadonlySet<string>; readonly nowMs: number },
  ): string[] {
    if (!isSame(o.silent, this.#silent)) {
      this.#silent = o.silent;
      this.#cache.setSilent(o.silent);
      this.#isDirty = true;
    }
    const hasHeld = this.#cache.sweep(o.nowMs) > 0;
    if (!this.#isDirty && !this.#hadHeld) return [];
    this.#isDirty = false;
    this.#hadHeld = hasHeld;
    return this.#problems(replica);
  }

  /** Addresses that a question for the service is answered with. */
  answered(): string[] {
    const context = { zone: this.#zone, cache: this.#cache, rotation: { next: () => 0 } };
    const verdict = decide(QUESTION, context);
    if (verdict.kind === "forward") return [];
    return verdict.answer.answers.flatMap((one) => one.data.type === "A" ? [one.data.address] : []);
  }

  /** What is wrong with its answers, by the rows that it has. */
  #problems(replica: Replica): string[] {
    const found: string[] = [];
    const shape = this.#shape ??= shapeOf(replica);
    const answered = new Set(this.answered());
    const linked = shape.serving.some((serverId) => !this.#silent.has(serverId));
    for (const ip of answered) {
      const place = shape.places.get(ip);
      if (!place) continue;
      const { servers, isOfMember, outdated } = place;
      if (!isOfMember) found.push(`answers with ${servers[0]}, which was removed`);
      if (linked && servers.every((id) => this.#silent.has(id))) {
        found.push(`answers with ${servers[0]}, which is silent`);
      }
      if (outdated) found.push(`answers with an older container of ${outdated}`);
    }
    if (shape.serving.length > 0 && answered.size === 0) found.push("answers with nothing");
    const own = shape.newest.get(`${this.#id} ${this.#id}`);
    if (own !== undefined && !answered.has(own.ip)) found.push("leaves out its own container");
    return found;
  }
}

/** What rows say, whoever is silent. */
interface Shape {
  /** Servers of all containers that members have healthy, the newest of each instance. */
  readonly serving: readonly string[];
  /** Those containers, by server and instance. */
  readonly newest: ReadonlyMap<string, ContainerRow>;
  readonly places: ReadonlyMap<string, Place>;
}

/** What is known of an address. */
interface Place {
  readonly servers: string[];
  isOfMember: boolean;
  /** Server that has a newer container elsewhere. */
  outdated: string | undefined;
}

function shapeOf(replica: Replica): Shape {
  const isMember = (row: ContainerRow) =>
    (replica.servers.get(row.serverId)?.row.removedAtMs ?? null) === null;
  // A stranger's row may name any address; jiji-dns leads nobody out of the cluster's network.
  const rows = [...replica.containers.values()].flatMap((one) => one.row ?? [])
    .filter((row) => cidrHas(CLUSTER, parseIpv4(row.ip) ?? 0));
  const best = newestPerInstance(rows.filter((row) => row.health === "healthy" && isMember(row)));
  const newest = new Map(best.map((row) => [`${row.serverId} ${row.instance}`, row]));
  const places = new Map<string, Place>();
  for (const row of rows) {
    const place = places.get(row.ip) ?? { servers: [], isOfMember: false, outdated: undefined };
    places.set(row.ip, place);
    place.servers.push(row.serverId);
    place.isOfMember ||= isMember(row);
    const newer = newest.get(`${row.serverId} ${row.instance}`);
    if (newer && newer.ip !== row.ip && newer.startedAtMs > row.startedAtMs) {
      place.outdated = row.serverId;
    }
  }
  return { serving: best.map((row) => row.serverId), newest, places };
}

function isSame(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a === b) return true;
  if (a.size !== b.size) return false;
  for (const one of a) if (!b.has(one)) return false;
  return true;
}
