/** WireGuard and routes of a simulated server, driven by the daemon's own commands. */
import type { Argv, CommandResult } from "@jiji/core/runtime";
import type { MeshReader } from "../src/daemon_context.ts";
import type { WireguardPeer, WireguardState } from "../src/mesh/wg_show.ts";

/** A peer as WireGuard keeps it. */
export interface SimPeer {
  endpoint: string;
  allowed: readonly string[];
  handshakeAtMs: number;
  /** What was read of it last, as long as that is so. */
  seen?: WireguardPeer;
}

function after(words: readonly string[], word: string): string {
  const at = words.indexOf(word);
  return at < 0 ? "" : words[at + 1] ?? "";
}

/** Lists of prefixes, each once for all kernels of a cluster. */
export class PrefixLists {
  readonly #lists = new Map<string, readonly string[]>();

  /** The list in words of a command. */
  of(text: string): readonly string[] {
    const known = this.#lists.get(text);
    if (known) return known;
    const list = Object.freeze(text.split(","));
    this.#lists.set(text, list);
    return list;
  }
}

/** Of changes the last ones are kept. */
const CHANGES_KEPT = 20;

/** The kernel: empty after each power on. */
export class SimKernel implements MeshReader {
  readonly peers = new Map<string, SimPeer>();
  /** Prefixes that lead into the mesh, with the largest packet of each (0: the interface's). */
  readonly ways = new Map<string, number>();
  /** Which peer claimed a prefix last. */
  readonly #owners = new Map<string, string>();
  /** Addresses of which everything is dropped on arrival. */
  readonly drops = new Set<string>();
  /** Commands that changed something, with their simulated time. */
  readonly changes: { readonly atMs: number; readonly argv: Argv }[] = [];
  /** Whether something changed since this was last set back. */
  isDirty = true;
  /** Whether a handshake may be due that was none before. */
  isNew = true;
  #key: string;
  readonly #onRemove: (key: string) => void;

  readonly #lists: PrefixLists;

  /** @param o `onRemove` is told of each `wg set … remove`. */
  constructor(
    key: string,
    o: { readonly onRemove: (key: string) => void; readonly lists: PrefixLists },
  ) {
    this.#key = key;
    this.#onRemove = o.onRemove;
    this.#lists = o.lists;
  }

  /** The private key that is loaded: that of a public one. */
  load(key: string): void {
    this.#key = key;
  }

  /** Power loss. */
  clear(): void {
    this.peers.clear();
    this.#owners.clear();
    this.ways.clear();
    this.drops.clear();
    this.isDirty = true;
    this.isNew = true;
  }

  /** Runs a command; one that a daemon does not use is an error. */
  run(argv: Argv, nowMs: number): CommandResult {
    const done = (stdout = ""): CommandResult => ({
      exitCode: 0,
      signal: undefined,
      stdout,
      stderr: "",
      durationMs: 0,
    });
    const [program, ...words] = argv;
    if (program === "iptables" && words.includes("-S")) {
      return done(
        [...this.drops].map((ip) => `-A PREROUTING -s ${ip}/32 -i jiji0 -j DROP`).join("\n"),
      );
    }
    this.isDirty = true;
    this.changes.push({ atMs: nowMs, argv });
    if (this.changes.length > 2 * CHANGES_KEPT) this.changes.splice(0, CHANGES_KEPT);
    if (program === "iptables") this.#drop(words);
    else if (program === "wg" && words[0] === "set") this.#wgSet(words);
    else if (program === "ip" && words.includes("replace")) {
      this.ways.set(after(words, "replace"), Number(after(words, "mtu") || 0));
    } else if (program === "ip" && words.includes("del")) this.ways.delete(after(words, "del"));
    else throw new Error(`the simulated server knows no ${argv.join(" ")}`);
    return done();
  }

  #drop(words: readonly string[]): void {
    const address = after(words, "-s").replace("/32", "");
    if (words.includes("-I")) this.drops.add(address);
    else this.drops.delete(address);
  }

  /** Peers, their handshakes in whole seconds as WireGuard tells them. */
  wireguard(): Promise<WireguardState> {
    const peers: WireguardPeer[] = [];
    for (const [publicKey, peer] of this.peers) peers.push(seenOf(publicKey, peer));
    return Promise.resolve({ publicKey: this.#key, listenPort: 31_820, peers });
  }

  /** Routes into the mesh. */
  routes(): Promise<ReadonlyMap<string, number>> {
    return Promise.resolve(this.ways);
  }

  #wgSet(words: readonly string[]): void {
    const publicKey = after(words, "peer");
    this.isNew = true;
    if (words.includes("remove")) {
      this.#onRemove(publicKey);
      this.peers.delete(publicKey);
      return;
    }
    const peer = this.peers.get(publicKey) ?? { endpoint: "", allowed: [], handshakeAtMs: 0 };
    if (words.includes("endpoint")) peer.endpoint = after(words, "endpoint");
    if (words.includes("allowed-ips")) {
      peer.allowed = this.#lists.of(after(words, "allowed-ips"));
      // The kernel gives an address to one peer: the last that claimed it.
      for (const prefix of peer.allowed) {
        const owner = this.#owners.get(prefix);
        const other = owner === publicKey ? undefined : this.peers.get(owner ?? "");
        if (other) other.allowed = other.allowed.filter((one) => one !== prefix);
        this.#owners.set(prefix, publicKey);
      }
    }
    this.peers.set(publicKey, peer);
  }
}

function seenOf(publicKey: string, peer: SimPeer): WireguardPeer {
  const { seen } = peer;
  const endpoint = peer.endpoint || undefined;
  const seconds = Math.floor(peer.handshakeAtMs / 1_000);
  const handshakeAtMs = seconds > 0 ? seconds * 1_000 : undefined;
  if (
    seen && seen.endpoint === endpoint && seen.allowedIps === peer.allowed &&
    seen.handshakeAtMs === handshakeAtMs
  ) return seen;
  const fresh: WireguardPeer = {
    publicKey,
    endpoint,
    allowedIps: peer.allowed,
    handshakeAtMs,
    rxBytes: 0,
    txBytes: 0,
    keepaliveS: 25,
  };
  peer.seen = fresh;
  return fresh;
}
