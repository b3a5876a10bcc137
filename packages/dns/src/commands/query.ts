/** `jiji-dns query`: what the server answers to a name. */
import { renderData, renderType } from "../dns_message.ts";
import type { Asked } from "./ask.ts";

/** An answer as `--json` prints it. */
export interface QueryReport {
  readonly rcode: string;
  readonly authoritative: boolean;
  readonly records: readonly {
    readonly section: string;
    readonly name: string;
    readonly ttl_s: number;
    readonly type: string;
    readonly data: string;
  }[];
}

const RCODE_NAMES = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/** The answer as data, without EDNS' pseudo record. */
export function reportAnswer(asked: Asked): QueryReport {
  return {
    rcode: RCODE_NAMES[asked.message.rcode] ?? `RCODE${asked.message.rcode}`,
    authoritative: asked.message.authoritative,
    records: asked.message.records
      .filter((record) => renderType(record.type) !== "OPT")
      .map((record) => ({
        section: record.section,
        name: record.name,
        ttl_s: record.ttlS,
        type: renderType(record.type),
        data: renderData(asked.packet, record),
      })),
  };
}

/** The answer as lines for a person. */
export function renderAnswer(report: QueryReport): string {
  const head = `${report.rcode}${report.authoritative ? " (from jiji)" : " (forwarded)"}`;
  const lines = report.records.map((record) =>
    `${record.name}. ${record.ttl_s} ${record.type} ${record.data}` +
    (record.section === "answer" ? "" : `  ; ${record.section}`)
  );
  return [head, ...lines].join("\n");
}
