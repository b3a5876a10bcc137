/** Changing servers' WireGuard keys: what is to be done, and how far it is. Pure. */
import { SERVER_PATHS, type ServerStatus } from "@jiji/core";

/** What happens to one server's key. */
export interface KeyStep {
  readonly server: string;
  /** `finish`: a key was announced before, by a run that did not see the end. */
  readonly kind: "change" | "finish";
  readonly presentKey: string;
}

/** Plan, or why a server's key can't be changed now. */
export interface KeyPlan {
  /** Changes under way first, then by name. */
  readonly steps: readonly KeyStep[];
  /** One sentence each. */
  readonly refusals: readonly string[];
}

type Row = NonNullable<ServerStatus["servers"]>[number];

function ownRow(status: ServerStatus): Row | undefined {
  return status.servers?.find((row) => row.id === status.server_id);
}

/**
 * Plans from what each server told. A server that does not hear another, or that runs beside an
 * older jiji-daemon, is refused before anything is announced: the other would be left behind.
 */
export function planRotation(statuses: ReadonlyMap<string, ServerStatus>): KeyPlan {
  const steps: KeyStep[] = [];
  const refusals: string[] = [];
  for (const [server, status] of [...statuses].sort(([a], [b]) => a < b ? -1 : 1)) {
    const own = ownRow(status);
    if (status.server_id === null || !own) {
      refusals.push(
        status.servers === null
          ? `${server}: its corrosion does not answer`
          : `${server} is not a member of the cluster`,
      );
      continue;
    }
    const kind = own.doc.next_key === undefined ? "change" : "finish";
    steps.push({ server, kind, presentKey: own.wireguardPubkey });
    if (kind === "change") refusals.push(...absences(server, status));
  }
  const order = (step: KeyStep) => Number(step.kind === "change");
  return { steps: steps.sort((a, b) => order(a) - order(b)), refusals };
}

function absences(server: string, status: ServerStatus): string[] {
  const others = (status.servers ?? []).filter((row) =>
    row.removedAtMs === null && row.id !== status.server_id
  );
  const silent = new Set(status.liveness?.silent);
  return others.flatMap(({ id, doc }) => {
    if (silent.has(id)) return [`${id} does not answer ${server}: it would not learn of the key`];
    return doc.version === undefined ? [`${id} runs a jiji-daemon that knows no next keys`] : [];
  });
}

/** One line a step. */
export function renderKeyStep(step: KeyStep): string {
  const key = `${step.presentKey.slice(0, 8)}…`;
  return step.kind === "change"
    ? `${step.server}: new WireGuard key in place of ${key}; identity and Corrosion follow`
    : `${step.server}: finish the change of ${key} that is under way`;
}

/** What a change still waits for, in words for its lane; empty when all is done. */
export function openChange(
  step: Pick<KeyStep, "server">,
  o: { readonly nextKey: string; readonly statuses: ReadonlyMap<string, ServerStatus> },
): string[] {
  const status = o.statuses.get(step.server);
  if (!status) return [`${step.server} does not answer`];
  if (!status.servers) return ["corrosion returns"];
  const own = ownRow(status);
  if (own?.wireguardPubkey !== o.nextKey) {
    const others = status.servers.filter((row) => row.removedAtMs === null && row !== own);
    const missing = others.filter((row) => !row.doc.accepts?.includes(o.nextKey))
      .map((row) => row.id).sort();
    if (own?.doc.next_key === o.nextKey && missing.length > 0) {
      return [`waiting for ${missing.join(", ")} to know the key`];
    }
    return [own?.doc.next_key === o.nextKey ? "changing over" : "announcing"];
  }
  const behind = [...o.statuses].filter(([, one]) =>
    one.servers?.find((row) => row.id === status.server_id)?.wireguardPubkey !== o.nextKey
  ).map(([name]) => name);
  if (behind.length > 0) return [`${behind.join(", ")}: state`];
  const silent = status.liveness?.silent ?? [];
  if (silent.length > 0) return [`hearing ${silent.join(", ")}`];
  return Object.entries(status.units ?? {}).filter(([, state]) => state !== "active")
    .map(([unit, state]) => `${unit} is ${state}`);
}

/**
 * Makes the next key beside the present one, on the server, and prints its public key; the daemon
 * does the rest. `finish` makes none: with the file gone the present key is the new one already.
 */
export const NEXT_KEY_SCRIPT: string = `set -eu
umask 077
key=${SERVER_PATHS.wireguardKey} next=${SERVER_PATHS.wireguardNextKey}
if [ ! -s "$next" ]; then
  if [ "$1" = finish ]; then wg pubkey <"$key"; exit 0; fi
  wg genkey >"$next.new"
  sync "$next.new" 2>/dev/null || true
  mv "$next.new" "$next"
fi
wg pubkey <"$next" || wg pubkey <"$key"
`;
