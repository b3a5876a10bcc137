import assert from "node:assert/strict";
import fc from "fast-check";
import type { ContainerRow } from "@jiji/core/corrosion";
import { decide, type Zone } from "../src/answer.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { type DnsAnswer, type DnsQuery, parseQuery, RCODE, TYPE } from "../src/dns_protocol.ts";
import { roundRobin } from "../src/dns_server.ts";

const ZONE: Zone = { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" };

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

Deno.test("decide(): a service has a short name inside its project's domain", () => {
  const cache = cacheOf(
    row(1),
    row(2),
    row(3, { project: "casa-api", service: "x", instance: "s3" }),
  );
  assert.equal(own(cache, "api.casa.jiji", TYPE.A).answers.length, 2);
  assert.equal(own(cache, "api-s1.casa.jiji", TYPE.A).answers.length, 1);
  assert.equal(own(cache, "_3000._tcp.api.casa.jiji", TYPE.SRV).answers.length, 2);
  assert.equal(own(cache, "x.casa.jiji", TYPE.A).rcode, RCODE.NXDOMAIN);
  assert.ok(isNodata(own(cache, "casa.jiji", TYPE.A)), "RFC 8020: names stand below it");
  assert.equal(own(cache, "nope.jiji", TYPE.A).rcode, RCODE.NXDOMAIN);
});

Deno.test("decide(): nearest names give this server's instances, others when it has none fit", () => {
  const near = (health: ContainerRow["health"]) => {
    const answer = own(cacheOf(row(1, { health }), row(2)), "nearest.casa-api.jiji", TYPE.A);
    return answer.answers.map((one) => one.data.type === "A" ? one.data.address : "");
  };
  assert.deepEqual(near("healthy"), ["10.210.1.4"]);
  assert.deepEqual(near("unhealthy"), ["10.210.2.4"]);
  const cache = cacheOf(row(1), row(2));
  assert.equal(own(cache, "nearest.api.casa.jiji", TYPE.A).answers.length, 1);
  assert.equal(own(cache, "_3000._tcp.nearest.casa-api.jiji", TYPE.SRV).answers.length, 1);
  assert.equal(own(cache, "nearest.casa-nope.jiji", TYPE.A).rcode, RCODE.NXDOMAIN);
});

Deno.test("decide(): no question is answered with a record of another name or type", () => {
  const cache = cacheOf(row(1), row(2, { service: "web" }), row(3, { health: "unhealthy" }));
  const label = fc.constantFrom("casa-api", "casa-web", "api", "casa", "nearest", "_3000", "_tcp");
  const types = fc.constantFrom(1, 2, 5, 6, 12, 15, 16, 28, 33, 64, 65, 255, 65_535);
  fc.assert(fc.property(fc.array(label, { maxLength: 5 }), types, (labels, type) => {
    const answer = own(cache, [...labels, "jiji"].join("."), type);
    assert.ok(answer.authoritative || answer.rcode === RCODE.REFUSED);
    for (const { data } of answer.answers) {
      assert.equal(TYPE[data.type], type === TYPE.ANY ? TYPE.HINFO : type);
      if (data.type === "A") assert.notEqual(data.address, "10.210.3.4");
    }
    if (answer.answers.length === 0 && answer.rcode !== RCODE.REFUSED) {
      assert.equal(answer.authority[0]?.data.type, "SOA");
    }
  }));
});
