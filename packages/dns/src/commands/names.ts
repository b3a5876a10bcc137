/** `jiji-dns names`: what the running server knows, and why it answers what it answers. */
import { type DnsNames, parseDnsNames } from "@jiji/core/cluster";
import { JijiError, messageOf } from "@jiji/core/runtime";

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
  const url = `http://${o.hostname}:${o.port}/names${query}`;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(NAMES_TIMEOUT_MS) });
    const text = await response.text();
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return parseDnsNames(text);
  } catch (error) {
    throw new JijiError(`${url}: ${messageOf(error)}`, {
      hint: "is jiji-dns running? see: systemctl status jiji-dns",
    });
  }
}

/** One line a container, under its name. */
export function renderNames(report: DnsNames): string {
  if (!report.filled) return "the cluster's state is not known yet";
  if (report.names.length === 0) return "no names yet";
  return report.names.flatMap(({ name, containers }) => {
    const healthy = containers.filter((one) => one.health === "healthy").length;
    const lines = containers.map((one) =>
      `  ${one.answered ? "+" : "-"} ${one.address}  ${one.server}  ${one.version}  ${one.why}`
    );
    return [`${name}  ${healthy}/${containers.length} healthy`, ...lines];
  }).join("\n");
}
