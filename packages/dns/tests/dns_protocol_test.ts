import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import dnsPacket from "dns-packet";
import fc from "fast-check";
import { encodeQuery, encodeReject, encodeResponse, udpLimit } from "../src/dns_encode.ts";
import { parseMessage, renderData } from "../src/dns_message.ts";
import {
  type DnsAnswer,
  type DnsQuery,
  type DnsRecord,
  parseQuery,
  plainAnswer,
  RCODE,
  TYPE,
} from "../src/dns_protocol.ts";

/** A query as a client would send it, made by the second opinion. */
function clientQuery(
  name: string,
  type: dnsPacket.RecordType | "ANY",
  o: { edns?: boolean } = {},
): Uint8Array {
  return dnsPacket.encode({
    type: "query",
    id: 4711,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type: type as dnsPacket.RecordType, name }],
    additionals: o.edns
      ? [{
        type: "OPT",
        name: ".",
        udpPayloadSize: 4096,
        flags: 0,
        flag_do: false,
        extendedRcode: 0,
        ednsVersion: 0,
        options: [],
      }]
      : [],
  });
}

function parsed(packet: Uint8Array): DnsQuery {
  const query = parseQuery(packet);
  assert.equal(query.kind, "query");
  return query as DnsQuery;
}

function addresses(count: number): DnsRecord[] {
  return Array.from({ length: count }, (_, index) => ({
    ttlS: 5,
    data: { type: "A", address: `10.210.${Math.floor(index / 250)}.${index % 250}` },
  }));
}

Deno.test("parseQuery(): lowers the name and keeps the question as it came (0x20)", () => {
  const query = parsed(clientQuery("CaSa-API.jiji", "A"));
  assert.equal(query.name, "casa-api.jiji");
  assert.equal(query.id, 4711);
  assert.ok(query.recursionDesired);
  assert.match(new TextDecoder().decode(query.question), /CaSa-API/);
});

Deno.test("parseQuery(): underscores and odd octets are part of names", () => {
  assert.equal(
    parsed(clientQuery("_3000._tcp.my_app-web.jiji", "SRV")).name,
    "_3000._tcp.my_app-web.jiji",
  );
  const packet = Uint8Array.from(encodeQuery(1, { name: "a\\046b\\000.jiji", type: 1 }));
  assert.equal(parsed(packet).name, "a\\046b\\000.jiji");
});

Deno.test("parseQuery(): drops answers and fragments, refuses other malformed packets", () => {
  const query = clientQuery("casa-api.jiji", "A");
  assert.equal(parseQuery(query.subarray(0, 11)).kind, "drop");
  const answer = Uint8Array.from(query);
  answer[2] = (answer[2] ?? 0) | 0x80;
  assert.equal(parseQuery(answer).kind, "drop");
  const cut = parseQuery(query.subarray(0, 20));
  assert.ok(cut.kind === "reject" && cut.rcode === RCODE.FORMERR && cut.id === 4711);
  const update = Uint8Array.from(query);
  update[2] = 5 << 3;
  const reject = parseQuery(update);
  assert.ok(reject.kind === "reject" && reject.rcode === RCODE.NOTIMP && reject.opcode === 5);
  assert.equal(encodeReject(reject).length, 12);
});

Deno.test("parseQuery(): a compression pointer in the question is malformed", () => {
  const packet = new Uint8Array([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]);
  const query = parseQuery(packet);
  assert.ok(query.kind === "reject" && query.rcode === RCODE.FORMERR);
});

Deno.test("parseQuery(): two OPT records are malformed, a small EDNS size counts as 512", () => {
  const once = clientQuery("a.jiji", "A", { edns: true });
  const opt = once.subarray(once.length - 11);
  const twice = new Uint8Array([...once, ...opt]);
  twice[11] = 2;
  const query = parseQuery(twice);
  assert.ok(query.kind === "reject" && query.rcode === RCODE.FORMERR);
  const small = Uint8Array.from(once);
  small[small.length - 8] = 0;
  small[small.length - 7] = 100;
  assert.equal(parsed(small).edns?.udpBytes, 512);
});

Deno.test("encodeResponse(): dns-packet reads every record we write", () => {
  const query = parsed(clientQuery("casa-api.jiji", "ANY", { edns: true }));
  const answer: DnsAnswer = {
    rcode: RCODE.NOERROR,
    authoritative: true,
    answers: [
      { ttlS: 5, data: { type: "A", address: "10.210.1.4" } },
      { ttlS: 5, data: { type: "TXT", texts: ["server=one", "version=7"] } },
      { ttlS: 5, data: { type: "PTR", target: "casa-api-one.jiji" } },
      {
        ttlS: 5,
        data: { type: "SRV", priority: 1, weight: 2, port: 3000, target: "casa-api-one.jiji" },
      },
      { ttlS: 5, data: { type: "HINFO", cpu: "RFC8482", os: "" } },
    ],
    authority: [{
      name: "jiji",
      ttlS: 5,
      data: {
        type: "SOA",
        primary: "ns.jiji",
        mailbox: "hostmaster.jiji",
        serial: 1,
        refreshS: 2,
        retryS: 3,
        expireS: 4,
        minimumS: 5,
      },
    }],
    additional: [{
      name: "casa-api-one.jiji",
      ttlS: 5,
      data: { type: "A", address: "10.210.1.4" },
    }],
  };
  const other = dnsPacket.decode(Buffer.from(encodeResponse(query, answer, { bytesMax: 1232 })));
  assert.equal(other.id, 4711);
  assert.ok(other.flag_aa && other.flag_ra && other.flag_rd && !other.flag_tc);
  const data = other.answers?.map((record) => "data" in record ? record.data : undefined);
  assert.equal(data?.[0], "10.210.1.4");
  assert.deepEqual((data?.[1] as Uint8Array[]).map(String), ["server=one", "version=7"]);
  assert.equal(data?.[2], "casa-api-one.jiji");
  assert.deepEqual(data?.[3], { priority: 1, weight: 2, port: 3000, target: "casa-api-one.jiji" });
  assert.deepEqual(data?.[4], { cpu: "RFC8482", os: "" });
  const soa = other.authorities?.[0];
  assert.ok(soa?.type === "SOA" && soa.name === "jiji" && soa.data.mname === "ns.jiji");
  assert.deepEqual(other.additionals?.map((record) => record.type), ["A", "OPT"]);
});

Deno.test("encodeResponse(): what does not fit is left out with TC, over TCP it is whole", () => {
  const query = parsed(clientQuery("casa-api.jiji", "A"));
  const answer = { ...plainAnswer(0), answers: addresses(100) };
  const short = encodeResponse(query, answer, { bytesMax: udpLimit(query) });
  assert.ok(short.length <= 512);
  const message = parseMessage(short);
  assert.ok(message?.truncated && message.records.length > 20);
  const whole = parseMessage(encodeResponse(query, answer, { bytesMax: 65_535 }));
  assert.ok(whole && !whole.truncated && whole.records.length === 100);
});

Deno.test("encodeResponse(): EDNS announces our size and room for the OPT is kept", () => {
  const query = parsed(clientQuery("casa-api.jiji", "A", { edns: true }));
  const answer = { ...plainAnswer(0), answers: addresses(200) };
  const packet = encodeResponse(query, answer, { bytesMax: udpLimit(query) });
  assert.ok(packet.length <= 1232);
  const opt = parseMessage(packet)?.records.at(-1);
  assert.equal(opt?.type, TYPE.OPT);
});

Deno.test("encodeResponse(): an unsupported EDNS version is answered with BADVERS", () => {
  const query = parsed(clientQuery("a.jiji", "A", { edns: true }));
  const packet = encodeResponse(query, plainAnswer(RCODE.BADVERS), { bytesMax: 512 });
  const opt = parseMessage(packet)?.records.at(-1);
  assert.equal((opt?.ttlS ?? 0) >>> 24, 1);
});

Deno.test("parseQuery(): random bytes never throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      parseQuery(bytes);
      parseMessage(bytes);
    }),
    { numRuns: 3_000 },
  );
});

Deno.test("parseQuery(): a mutated query never throws and agrees with itself", () => {
  const base = clientQuery("_3000._tcp.casa-api.jiji", "SRV", { edns: true });
  const mutation = fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 6 });
  fc.assert(
    fc.property(mutation, (changes) => {
      const packet = Uint8Array.from(base);
      for (const [at, octet] of changes) packet[at] = octet;
      const query = parseQuery(packet);
      if (query.kind !== "query") return;
      const answer = encodeResponse(query, { ...plainAnswer(0), answers: addresses(3) }, {
        bytesMax: udpLimit(query),
      });
      const message = parseMessage(answer);
      assert.ok(message);
      assert.equal(message.name, query.name);
      assert.equal(message.records.filter((record) => record.section === "answer").length, 3);
    }),
    { numRuns: 3_000 },
  );
});

Deno.test("encodeQuery(): round trip through our parser and dns-packet", () => {
  const label = fc.stringMatching(/^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?$/);
  const name = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join("."));
  fc.assert(
    fc.property(name, fc.nat(65_535), (text, id) => {
      const packet = encodeQuery(id, { name: text, type: TYPE.A });
      const query = parsed(packet);
      assert.equal(query.name, text);
      assert.equal(query.id, id);
      assert.equal(dnsPacket.decode(Buffer.from(packet)).questions?.[0]?.name, text);
    }),
    { numRuns: 500 },
  );
});

Deno.test("parseMessage(): pointers that lead forward or to themselves end in a refusal", () => {
  const query = parsed(clientQuery("a.jiji", "A"));
  const packet = encodeResponse(query, { ...plainAnswer(0), answers: addresses(1) }, {
    bytesMax: 512,
  });
  const at = 12 + query.question.length;
  packet[at] = 0xc0;
  packet[at + 1] = at;
  assert.equal(parseMessage(packet), undefined);
});

Deno.test("renderData(): shows records as people write them", () => {
  const query = parsed(clientQuery("a.jiji", "SRV"));
  const packet = encodeResponse(query, {
    ...plainAnswer(0),
    answers: [{
      ttlS: 5,
      data: { type: "SRV", priority: 0, weight: 0, port: 80, target: "b.jiji" },
    }],
  }, { bytesMax: 512 });
  const record = parseMessage(packet)?.records[0];
  assert.ok(record);
  assert.equal(renderData(packet, record), "0 0 80 b.jiji.");
});
