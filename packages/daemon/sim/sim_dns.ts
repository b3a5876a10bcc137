/** What a simulated server answers to questions for names: jiji-dns' own code over its rows. */
import type { ContainerRow } from "@jiji/core/corrosion";
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

/** The resolver of one server. */
export class SimDns {
  readonly #cache = new DnsCache();
  readonly #zone: Zone;
  readonly #id: string;
  #silent: ReadonlySet<string> = new Set();

  constructor(serverId: string) {
    this.#id = serverId;
    this.#zone = { domain: "jiji", clusterCidr: CLUSTER_CIDR, serverId };
  }

  /** All rows anew, as after a start or a lost database. */
  fill(replica: Replica, nowMs: number): void {
    this.#cache.replaceServers([...replica.servers.values()].map((one) => one.row), nowMs);
    const rows = [...replica.containers.values()].flatMap((one) => one.row ?? []);
    this.#cache.replaceContainers(rows, nowMs);
  }

  /** A row has changed. */
  take(change: Change, o: { readonly replica: Replica; readonly nowMs: number }): void {
    if (change.table === "containers") {
      if (change.value.row) this.#cache.putContainer(change.value.row);
      else this.#cache.removeContainer(change.id);
    } else if (change.table === "servers") {
      const row = o.replica.servers.get(change.id)?.row;
      if (row) this.#cache.putServer(row, o.nowMs);
    }
  }

  /** Who does not answer probes, and that time has passed. */
  tick(silent: ReadonlySet<string>, nowMs: number): void {
    this.#silent = silent;
    this.#cache.setSilent(silent);
    this.#cache.sweep(nowMs);
  }

  /** Addresses that a question for the service is answered with. */
  answered(): string[] {
    const context = { zone: this.#zone, cache: this.#cache, rotation: { next: () => 0 } };
    const verdict = decide(QUESTION, context);
    if (verdict.kind === "forward") return [];
    return verdict.answer.answers.flatMap((one) => one.data.type === "A" ? [one.data.address] : []);
  }

  /** What is wrong with its answers, by the rows that it has. */
  problems(replica: Replica): string[] {
    const found: string[] = [];
    const answered = new Set(this.answered());
    const isMember = (row: ContainerRow) =>
      (replica.servers.get(row.serverId)?.row.removedAtMs ?? null) === null;
    const rows = [...replica.containers.values()].flatMap((one) => one.row ?? []);
    const live = rows.filter(isMember);
    const best = newestPerInstance(live.filter((row) => row.health === "healthy"));
    const newest = new Map(best.map((row) => [`${row.serverId} ${row.instance}`, row]));
    const linked = best.some((row) => !this.#silent.has(row.serverId));
    for (const row of rows) {
      if (!answered.has(row.ip)) continue;
      const same = rows.filter((other) => other.ip === row.ip);
      if (!same.some(isMember)) found.push(`answers with ${row.serverId}, which was removed`);
      const newer = newest.get(`${row.serverId} ${row.instance}`);
      if (newer && newer.ip !== row.ip && newer.startedAtMs > row.startedAtMs) {
        found.push(`answers with an older container of ${row.serverId}`);
      }
      if (linked && same.every((other) => this.#silent.has(other.serverId))) {
        found.push(`answers with ${row.serverId}, which is silent`);
      }
    }
    if (best.length > 0 && answered.size === 0) found.push("answers with nothing");
    const own = newest.get(`${this.#id} ${this.#id}`);
    if (own && !answered.has(own.ip)) found.push("leaves out its own container");
    return found;
  }
}
