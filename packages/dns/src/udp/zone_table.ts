/** Keeps the threads' table equal to the cache. */
import { parseIpv4 } from "@jiji/core/net";
import { TTL_S, type Zone } from "../answer.ts";
import type { DnsCache } from "../dns_cache.ts";
import { encodeName, encodeQuery, encodeResponse } from "../dns_encode.ts";
import {
  type DnsAnswer,
  HEADER_BYTES,
  parseQuery,
  TYPE,
  UDP_BYTES_MAX,
  UDP_BYTES_PLAIN,
} from "../dns_protocol.ts";
import {
  AnswerTable,
  ENTRY_HEADER_WORDS,
  FLAG,
  KEY_BYTES_MAX,
  SLOTS,
  TABLE_CONTROL,
  TABLE_STATE,
  type TableEntry,
} from "./answer_table.ts";
import type { NegativeTemplate, TableReaderInit } from "./table_reader.ts";

/** What a key leads to now; undefined when nothing has this name. */
export function tableEntry(
  key: string,
  o: { readonly cache: DnsCache; readonly serverId: string },
): TableEntry | undefined {
  const found = o.cache.lookup(key);
  const isProject = o.cache.hasProject(key);
  if (found.kind !== "known" && !isProject) return undefined;
  const containers = found.kind === "known" ? found.containers : [];
  const near = new Set<number>();
  const far = new Set<number>();
  for (const { ip, serverId } of containers) {
    const address = parseIpv4(ip);
    if (address !== undefined) (serverId === o.serverId ? near : far).add(address);
  }
  return {
    addresses: [...near.union(far)],
    near: near.size,
    project: o.cache.projectOf(key),
    isName: found.kind === "known",
    isProject,
  };
}

/** The table with what fills it. */
export class ZoneTable {
  readonly #table = new AnswerTable();
  readonly #cache: DnsCache;
  readonly #zone: Zone;
  #isOpen = false;

  constructor(o: { readonly cache: DnsCache; readonly zone: Zone }) {
    this.#cache = o.cache;
    this.#zone = o.zone;
    this.update(o.cache.keys());
  }

  /** The answers of these keys may have changed. */
  update(keys: Iterable<string>): void {
    if (!this.#cache.isFilled) return;
    const { serverId } = this.#zone;
    // What came before the first fill was complete is put in now.
    for (const key of this.#isOpen ? keys : this.#cache.keys()) {
      this.#table.put(key, tableEntry(key, { cache: this.#cache, serverId }));
    }
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#table.open();
  }

  /** The table itself. */
  get answers(): AnswerTable {
    return this.#table;
  }

  /** What a thread needs to answer; `negative` is an answer that says no. */
  readerInit(negative: DnsAnswer): TableReaderInit {
    return {
      table: this.#table.shared,
      control: TABLE_CONTROL,
      state: TABLE_STATE,
      flag: FLAG,
      headerWords: ENTRY_HEADER_WORDS,
      slots: SLOTS,
      keyBytesMax: KEY_BYTES_MAX,
      domain: Uint8Array.from(encodeName(this.#zone.domain).slice(0, -1)),
      negative: negativeTemplate(negative, this.#zone.domain),
      ttlS: TTL_S,
      bytesPlain: UDP_BYTES_PLAIN,
      bytesMax: UDP_BYTES_MAX,
    };
  }
}

/** The authority section of `negative`, and where it depends on the length of the question. */
export function negativeTemplate(negative: DnsAnswer, domain: string): NegativeTemplate {
  const sections = ["a", "bc"].map((label) => {
    const query = parseQuery(encodeQuery(0, {
      name: `${label}.${domain}`,
      type: TYPE.A,
      edns: false,
    }));
    if (query.kind !== "query") throw new Error(`"${domain}" is no domain`);
    const answer = encodeResponse(query, negative, { bytesMax: UDP_BYTES_MAX });
    return answer.subarray(HEADER_BYTES + query.question.length);
  });
  const [bytes = new Uint8Array(), other] = sections;
  const pointers = [...bytes.keys()].filter((index) => bytes[index] !== other?.[index]);
  return { bytes: bytes.slice(), pointers };
}
