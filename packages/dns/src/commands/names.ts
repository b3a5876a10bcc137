/** `jiji-dns names`: what the running server knows, and why it answers what it answers. */
import { ageOfNames, type DnsNames, parseDnsNames } from "@jiji/core/cluster";
import { JijiError, messageOf } from "@jiji/core/runtime";
import * as v from "valibot";

const Resolvers = v.object({ resolvers: v.array(v.string()) });

/** A running server has this long to tell, milliseconds. */
const NAMES_TIMEOUT_MS = 3_000;

/**
 * Asks the status port of a running jiji-dns; for one name when `name` is given.
 *
 * @throws {JijiError} when it does not answer.
 */
export async function fetchNames(
  o: { readonly hostname: string; readonly port: number; readonly name?: string },
): Promise<DnsNames> {
  const query = o.name === undefined ? "" : `?name=${encodeURIComponent(o.name)}`;
  return parseDnsNames(await fetchText(`http://${o.hostname}:${o.port}/names${query}`));
}

async function fetchText(url: string): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(NAMES_TIMEOUT_MS) });
    const text = await response.text();
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return text;
  } catch (error) {
    throw new JijiError(`${url}: ${messageOf(error)}`, {
      hint: "is jiji-dns running? see: systemctl status jiji-dns",
    });
  }
}

/** Resolvers that a running jiji-dns forwards a name to, in order. @throws {JijiError} as above. */
export async function fetchResolvers(
  o: { readonly hostname: string; readonly port: number; readonly name: string },
): Promise<readonly string[]> {
  const url = `http://${o.hostname}:${o.port}/resolvers?name=${encodeURIComponent(o.name)}`;
  return v.parse(Resolvers, JSON.parse(await fetchText(url))).resolvers;
}

/** One line a container, under its name. */
export function renderNames(report: DnsNames): string {
  if (!report.filled) return "the cluster's state is not known yet";
  const age = ageOfNames(report);
  const notes = age === undefined ? [] : [age];
  if (report.names.length === 0) return [...notes, "no names yet"].join("\n");
  const lines = report.names.flatMap(({ name, containers }) => {
    if (containers.length === 0) return [`${name}  no container has this name`];
    const healthy = containers.filter((one) => one.health === "healthy").length;
    const lines = containers.map((one) =>
      `  ${one.answered ? "+" : "-"} ${one.address}  ${one.server}  ${one.version}  ${one.why}`
    );
    return [`${name}  ${healthy}/${containers.length} healthy`, ...lines];
  });
  return [...notes, ...lines].join("\n");
}
