/** From a question to jiji-dns' own answer. Pure; nothing here waits or reads a clock. */
import { cidrHas, parseCidr, parseIpv4, renderIpv4 } from "@jiji/core/net";
import { dnsLabels, serviceLabel } from "@jiji/core/cluster";
import type { ContainerRow } from "@jiji/core/corrosion";
import type { DnsCache } from "./dns_cache.ts";
import {
  CLASS_IN,
  type DnsAnswer,
  type DnsQuery,
  type DnsRecord,
  plainAnswer,
  RCODE,
  type RecordData,
  TYPE,
} from "./dns_protocol.ts";

/** Answers may be kept this long, seconds: the longest a client can miss a switch. */
export const TTL_S = 5;

/** What this server answers for by itself. */
export interface Zone {
  /** `jiji`. */
  readonly domain: string;
  /** The cluster's network: PTR questions below it are ours. */
  readonly clusterCidr: string;
  /** This server: whose containers `nearest.` names prefer. */
  readonly serverId: string;
}

/** What to do with a question. */
export type Verdict =
  | { readonly kind: "answer"; readonly answer: DnsAnswer }
  | { readonly kind: "forward" };

/** Chooses where an answer's list begins; grows by one with each answer (RFC 1794 section 3). */
export interface Rotation {
  next(name: string): number;
}

/** Where this name stands in the zones that are ours. */
type Place =
  | { readonly kind: "service"; readonly label: string }
  | { readonly kind: "apex" }
  | { readonly kind: "reverse"; readonly ip: string | undefined; readonly zone: string }
  | { readonly kind: "foreign" };

/** Decides on a query: our own zones from memory, everything else to the host's resolvers. */
export function decide(
  query: DnsQuery,
  context: { readonly zone: Zone; readonly cache: DnsCache; readonly rotation: Rotation },
): Verdict {
  const answer = (answer: DnsAnswer): Verdict => ({ kind: "answer", answer });
  // RFC 6891 section 6.1.3: only version 0 is spoken here.
  if (query.edns && query.edns.version > 0) return answer(plainAnswer(RCODE.BADVERS));
  // Zone transfers (251–252) and mail types (253–254; RFC 1035 section 3.2.3) are for no client.
  if (query.type >= 251 && query.type <= 254) return answer(plainAnswer(RCODE.REFUSED));
  const place = placeOf(query.name, context.zone);
  if (place.kind === "foreign") return { kind: "forward" };
  // RFC 1035 section 3.2.4: our names are of class Internet alone.
  if (query.qclass !== CLASS_IN) return answer(plainAnswer(RCODE.REFUSED));
  // RFC 1035 section 4.1.1: a server that cannot tell says SERVFAIL, never "no such name".
  if (!context.cache.isFilled) return answer(plainAnswer(RCODE.SERVFAIL));
  if (place.kind === "reverse") return answer(answerReverse(query, { ...context, place }));
  const soa = soaRecord(context.zone.domain);
  if (place.kind === "apex") {
    return answer(query.type === TYPE.SOA ? positive([soa]) : negative(RCODE.NOERROR, soa));
  }
  return answer(answerService(query, { ...context, label: place.label }));
}

function answerService(
  query: DnsQuery,
  context: {
    readonly zone: Zone;
    readonly cache: DnsCache;
    readonly rotation: Rotation;
    readonly label: string;
  },
): DnsAnswer {
  const { cache, zone } = context;
  const soa = soaRecord(zone.domain);
  const service = parseServiceLabel(context.label);
  const found = cache.lookup(service.label, service.nearest ? { nearest: zone.serverId } : {});
  if (found.kind !== "known") {
    // RFC 8020 section 2: a name with names below it (`api.casa.jiji`) exists, if without records.
    const isParent = service.kind !== "port" && cache.hasProject(service.label);
    return negative(isParent ? RCODE.NOERROR : RCODE.NXDOMAIN, soa);
  }
  const containers = rotate(found.containers, context.rotation.next(service.label));
  if (service.kind === "underscore") {
    // `_tcp.casa-api` exists as soon as something stands below it (RFC 8020): known, but empty.
    return negative(RCODE.NOERROR, soa);
  }
  if (query.type === TYPE.ANY) {
    // RFC 8482 section 4.2: one small record instead of all.
    const data: RecordData = { type: "HINFO", cpu: "RFC8482", os: "" };
    return positive([{ ttlS: TTL_S, data }]);
  }
  if (service.kind === "port") {
    return query.type === TYPE.SRV
      ? answerSrv(containers, { zone, port: service.port, soa })
      : negative(RCODE.NOERROR, soa);
  }
  if (containers.length === 0) return negative(RCODE.NOERROR, soa);
  if (query.type === TYPE.A) {
    const addresses = [...new Set(containers.map((container) => container.ip))];
    return positive(
      addresses.map((address) => ({ ttlS: TTL_S, data: { type: "A", address } as const })),
    );
  }
  if (query.type === TYPE.TXT) return positive(containers.map(textRecord));
  // RFC 2308 section 2.2: NODATA; also for AAAA, as RFC 4074 section 3 asks of names with an A.
  return negative(RCODE.NOERROR, soa);
}

/** RFC 1464 section 2: a text for each fact, `name=value`. */
function textRecord(container: ContainerRow): DnsRecord {
  const texts = [
    `server=${container.serverId}`,
    `version=${container.version}`,
    `address=${container.ip}`,
    `health=${container.health}`,
  ];
  return { ttlS: TTL_S, data: { type: "TXT", texts } };
}

/** RFC 2782: port and target of each instance, its address in the additional section. */
function answerSrv(
  containers: readonly ContainerRow[],
  o: { readonly zone: Zone; readonly port: string; readonly soa: DnsRecord },
): DnsAnswer {
  const offering = containers.filter((container) => container.ports.includes(o.port));
  if (offering.length === 0) return negative(RCODE.NOERROR, o.soa);
  const target = (container: ContainerRow) => `${instanceLabel(container)}.${o.zone.domain}`;
  const port = Number(o.port.split("/")[0]);
  const targets = [...new Set(offering.map(target))];
  return {
    ...positive(targets.map((name) => ({
      ttlS: TTL_S,
      data: { type: "SRV", priority: 0, weight: 0, port, target: name } as const,
    }))),
    additional: offering.map((container) => ({
      name: target(container),
      ttlS: TTL_S,
      data: { type: "A", address: container.ip } as const,
    })),
  };
}

function answerReverse(
  query: DnsQuery,
  context: {
    readonly zone: Zone;
    readonly cache: DnsCache;
    readonly place: Place & { readonly kind: "reverse" };
  },
): DnsAnswer {
  const { place, zone, cache } = context;
  const soa = { ...soaRecord(zone.domain), name: place.zone };
  const container = place.ip === undefined ? undefined : cache.lookupAddress(place.ip);
  if (!container) return negative(place.ip === undefined ? RCODE.NOERROR : RCODE.NXDOMAIN, soa);
  if (query.type !== TYPE.PTR) return negative(RCODE.NOERROR, soa);
  const target = `${instanceLabel(container)}.${zone.domain}`;
  return positive([{ ttlS: TTL_S, data: { type: "PTR", target } }]);
}

function instanceLabel(container: ContainerRow): string {
  return dnsLabels(container, container.instance).at(-1) ?? serviceLabel(container);
}

function placeOf(name: string, zone: Zone): Place {
  if (name === zone.domain) return { kind: "apex" };
  if (name.endsWith(`.${zone.domain}`)) {
    return { kind: "service", label: name.slice(0, -zone.domain.length - 1) };
  }
  return placeInReverse(name, zone);
}

/** The reverse zone is the cluster's network cut down to whole octets (RFC 1035 section 3.5). */
function placeInReverse(name: string, zone: Zone): Place {
  const suffix = ".in-addr.arpa";
  const cluster = parseCidr(zone.clusterCidr);
  if (!name.endsWith(suffix) || !cluster) return { kind: "foreign" };
  const octets = name.slice(0, -suffix.length).split(".").reverse();
  if (octets.length > 4 || !octets.every((octet) => /^(0|[1-9]\d{0,2})$/.test(octet))) {
    return { kind: "foreign" };
  }
  const whole = Math.floor(cluster.prefix / 8);
  if (octets.length < Math.max(whole, 1)) return { kind: "foreign" };
  const ip = [...octets, "0", "0", "0"].slice(0, 4).join(".");
  const address = parseIpv4(ip);
  if (address === undefined || !cidrHas(cluster, address)) return { kind: "foreign" };
  const apex = renderIpv4(cluster.base).split(".").slice(0, Math.max(whole, 1)).reverse();
  return {
    kind: "reverse",
    ip: octets.length === 4 ? ip : undefined,
    zone: `${apex.join(".")}${suffix}`,
  };
}

/** A label below the domain: a service, or one of a service's ports (`_3000._tcp.casa-api`). */
type ServiceLabel =
  & { readonly label: string; readonly nearest: boolean }
  & (
    | { readonly kind: "service" | "underscore" }
    | { readonly kind: "port"; readonly port: string }
  );

/** `_port._protocol.` (RFC 2782) and `nearest.` before a service's label. */
function parseServiceLabel(text: string): ServiceLabel {
  const match = /^(?:(?:_(\d{1,5})\.)?_(tcp|udp)\.)?(nearest\.)?(.+)$/.exec(text);
  const [, port, protocol, near, label = text] = match ?? [];
  const common = { label, nearest: near !== undefined };
  if (protocol === undefined) return { ...common, kind: "service" };
  return port === undefined
    ? { ...common, kind: "underscore" }
    : { ...common, kind: "port", port: `${Number(port)}/${protocol}` };
}

function rotate<T>(items: readonly T[], by: number): T[] {
  const start = items.length === 0 ? 0 : by % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}

/** RFC 1035 section 4.1.1: AA, since these names are ours alone. */
function positive(answers: readonly DnsRecord[]): DnsAnswer {
  return { ...plainAnswer(RCODE.NOERROR), authoritative: true, answers };
}

/**
 * RFC 2308 section 3: a negative answer carries the zone's SOA; it may be kept for the lesser of the
 * SOA's TTL and its last field (section 5), both {@link TTL_S}.
 */
function negative(rcode: number, soa: DnsRecord): DnsAnswer {
  return { ...plainAnswer(rcode), authoritative: true, authority: [soa] };
}

/** The answer to a name below the domain that nothing has. */
export function noSuchName(zone: Pick<Zone, "domain">): DnsAnswer {
  return negative(RCODE.NXDOMAIN, soaRecord(zone.domain));
}

function soaRecord(domain: string): DnsRecord {
  return {
    name: domain,
    ttlS: TTL_S,
    data: {
      type: "SOA",
      primary: `ns.${domain}`,
      mailbox: `hostmaster.${domain}`,
      serial: 1,
      refreshS: 3_600,
      retryS: 600,
      expireS: 86_400,
      minimumS: TTL_S,
    },
  };
}
