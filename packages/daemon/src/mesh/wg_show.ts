/** Reading `wg show INTERFACE dump`. Pure. Source: wg(8), section SHOW. */
import { Secret } from "@jiji/core/runtime";
import { isWireguardKey, normalizePrefix, parseEndpoint, renderEndpoint } from "@jiji/core/net";

/** A peer as WireGuard has it now. */
export interface WireguardPeer {
  readonly publicKey: string;
  /** Where it was heard last or was told to be; undefined when neither. */
  readonly endpoint: string | undefined;
  /** Canonical prefixes, sorted. */
  readonly allowedIps: readonly string[];
  /** Unix ms; undefined when there was no handshake yet. */
  readonly handshakeAtMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly keepaliveS: number | undefined;
  /** Undefined when handshakes need none. */
  readonly presharedKey?: Secret | undefined;
}

/** An interface and its peers. The private key in the dump's first line is not kept. */
export interface WireguardState {
  readonly publicKey: string;
  readonly listenPort: number;
  readonly peers: readonly WireguardPeer[];
}

/**
 * The state in a dump.
 *
 * @throws {Error} naming the line and field that do not parse; never their content, since the first
 * line holds the private key.
 */
export function parseWgDump(text: string): WireguardState {
  const [first, ...rest] = text.split("\n").filter((line) => line !== "");
  const head = first?.split("\t") ?? [];
  const publicKey = head[1] ?? "";
  if (head.length !== 4) throw new Error("wg dump: line 1: expected 4 fields");
  return {
    publicKey,
    listenPort: Number(head[2]) || 0,
    peers: rest.map((line, index) => parsePeer(line.split("\t"), index + 2)),
  };
}

function parsePeer(fields: readonly string[], line: number): WireguardPeer {
  const [publicKey = "", psk = "", endpoint = "", allowed = "", handshake, rx, tx, keepalive] =
    fields;
  if (fields.length !== 8) throw new Error(`wg dump: line ${line}: expected 8 fields`);
  if (!isWireguardKey(publicKey)) throw new Error(`wg dump: line ${line}: bad public key`);
  const parsed = parseEndpoint(endpoint);
  const seconds = Number(handshake);
  const count = (value: string | undefined) => Number(value) || 0;
  return {
    publicKey,
    endpoint: parsed && renderEndpoint(parsed),
    allowedIps: normalizePrefixes(allowed === "(none)" ? [] : allowed.split(",")),
    handshakeAtMs: seconds > 0 ? seconds * 1000 : undefined,
    rxBytes: count(rx),
    txBytes: count(tx),
    keepaliveS: keepalive === "off" ? undefined : count(keepalive),
    ...(isWireguardKey(psk) ? { presharedKey: new Secret(psk) } : {}),
  };
}

/** Canonical, sorted and free of repeats, so that lists compare as text. */
export function normalizePrefixes(prefixes: readonly string[]): string[] {
  const canonical = prefixes.map((prefix) => normalizePrefix(prefix)).filter((one) =>
    one !== undefined
  );
  return [...new Set(canonical)].sort();
}
