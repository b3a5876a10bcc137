import assert from "node:assert/strict";
import type { ContainerRow } from "@jiji/core/corrosion";
import { decide, type Zone } from "../src/answer.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { type DnsAnswer, type DnsQuery, parseQuery, RCODE, TYPE } from "../src/dns_protocol.ts";
import { roundRobin } from "../src/dns_server.ts";

const ZONE: Zone = { domain: "jiji", clusterCidr: "10.210.0.0/16" };

function row(index: number, facts: Partial<ContainerRow> = {}): ContainerRow {
  return {
    id: index.toString(16).padStart(12, "0"),
    project: "casa",
    service: "api",
    serverId: `s${index}`,
    instance: `s${index}`,
    name: "casa-api",
    version: "7",
    ip: `10.210.${index}.4`,
    ports: ["3000/tcp"],
    startedAtMs: index,
    health: "healthy",
    unhealthySinceMs: null,
    ...facts,
  };
}

function cacheOf(...rows: ContainerRow[]): DnsCache {
  const cache = new DnsCache();
  cache.replaceServers([], 0);
  cache.replaceContainers(rows, 0);
  return cache;
}

function query(name: string, type: number): DnsQuery {
  const parsed = parseQuery(encodeQuery(1, { name, type }));
  assert.ok(parsed.kind === "query");
  return parsed;
}

const rotation = roundRobin();

function ask(cache: DnsCache, name: string, type: number): DnsAnswer | "forward" {
  const verdict = decide(query(name, type), { zone: ZONE, cache, rotation });
  return verdict.kind === "forward" ? "forward" : verdict.answer;
}

function own(cache: DnsCache, name: string, type: number): DnsAnswer {
  const answer = ask(cache, name, type);
  assert.notEqual(answer, "forward");
  return answer as DnsAnswer;
}

function isNodata(answer: DnsAnswer): boolean {
  return answer.rcode === RCODE.NOERROR && answer.answers.length === 0 &&
    answer.authority[0]?.data.type === "SOA" && answer.authoritative;
}

Deno.test("decide(): A answers rotate and live five seconds", () => {
  const cache = cacheOf(row(1), row(2), row(3));
  const firsts = [1, 2, 3].map(() => {
    const answer = own(cache, "casa-api.jiji", TYPE.A);
    assert.equal(answer.answers.length, 3);
    assert.equal(answer.answers[0]?.ttlS, 5);
    const data = answer.answers[0]?.data;
    return data?.type === "A" ? data.address : "";
  });
  assert.equal(new Set(firsts).size, 3);
});

Deno.test("decide(): a known name without such a record is NODATA, an unknown one NXDOMAIN", () => {
  const cache = cacheOf(row(1), row(2, { service: "sick", health: "unhealthy" }));
  assert.ok(isNodata(own(cache, "casa-api.jiji", TYPE.AAAA)));
  assert.ok(isNodata(own(cache, "casa-sick.jiji", TYPE.A)));
  assert.ok(isNodata(own(cache, "_tcp.casa-api.jiji", TYPE.A)));
  const unknown = own(cache, "casa-nope.jiji", TYPE.A);
  assert.equal(unknown.rcode, RCODE.NXDOMAIN);
  assert.equal(unknown.authority[0]?.data.type, "SOA");
});

Deno.test("decide(): before the first fill the answer is SERVFAIL, never a false NXDOMAIN", () => {
  assert.equal(own(new DnsCache(), "casa-api.jiji", TYPE.A).rcode, RCODE.SERVFAIL);
  assert.equal(own(new DnsCache(), "4.1.210.10.in-addr.arpa", TYPE.PTR).rcode, RCODE.SERVFAIL);
});

Deno.test("decide(): other names are forwarded, ours never", () => {
  const cache = cacheOf(row(1));
  assert.equal(ask(cache, "example.com", TYPE.A), "forward");
  assert.equal(ask(cache, "notjiji", TYPE.A), "forward");
  assert.equal(ask(cache, "1.0.0.127.in-addr.arpa", TYPE.PTR), "forward");
  for (const name of ["jiji", "x.jiji", "a.b.c.jiji", "9.9.210.10.in-addr.arpa"]) {
    assert.notEqual(ask(cache, name, TYPE.A), "forward", name);
  }
});

Deno.test("decide(): ANY gets one small record, transfers are refused", () => {
  const cache = cacheOf(row(1));
  const any = own(cache, "casa-api.jiji", TYPE.ANY);
  assert.deepEqual(any.answers.map((record) => record.data.type), ["HINFO"]);
  assert.equal(own(cache, "jiji", 252).rcode, RCODE.REFUSED);
});

Deno.test("decide(): SRV names the port and each instance, with its address beside it", () => {
  const cache = cacheOf(row(1), row(2));
  const srv = own(cache, "_3000._tcp.casa-api.jiji", TYPE.SRV);
  assert.deepEqual(
    srv.answers.map((record) => record.data.type === "SRV" ? record.data.target : "").sort(),
    ["casa-api-s1.jiji", "casa-api-s2.jiji"],
  );
  assert.equal(srv.additional.length, 2);
  assert.ok(isNodata(own(cache, "_9999._tcp.casa-api.jiji", TYPE.SRV)));
});

Deno.test("decide(): PTR leads back to the instance's name", () => {
  const cache = cacheOf(row(1));
  const ptr = own(cache, "4.1.210.10.in-addr.arpa", TYPE.PTR);
  assert.deepEqual(ptr.answers[0]?.data, { type: "PTR", target: "casa-api-s1.jiji" });
  const none = own(cache, "5.1.210.10.in-addr.arpa", TYPE.PTR);
  assert.equal(none.rcode, RCODE.NXDOMAIN);
  assert.equal(none.authority[0]?.name, "210.10.in-addr.arpa");
});

Deno.test("decide(): TXT tells server and version", () => {
  const txt = own(cacheOf(row(1)), "casa-api.jiji", TYPE.TXT).answers[0]?.data;
  assert.ok(
    txt?.type === "TXT" && txt.texts.includes("server=s1") &&
      txt.texts.includes("version=7"),
  );
});

Deno.test("decide(): the zone itself has an SOA and nothing else", () => {
  const cache = cacheOf(row(1));
  assert.equal(own(cache, "jiji", TYPE.SOA).answers[0]?.data.type, "SOA");
  assert.ok(isNodata(own(cache, "jiji", TYPE.A)));
});
