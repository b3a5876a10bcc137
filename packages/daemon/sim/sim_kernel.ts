/** WireGuard and routes of a simulated server, driven by the daemon's own commands. */
import { type Argv, type CommandResult, Secret } from "@jiji/core/runtime";
import type { MeshReader } from "../src/daemon_context.ts";
import type { WireguardPeer, WireguardState } from "../src/mesh/wg_show.ts";

/** A peer as WireGuard keeps it. */
export interface SimPeer {
  endpoint: string;
  allowed: readonly string[];
  handshakeAtMs: number;
  keepaliveS: number;
  /** Preshared key; empty for none. */
  psk: string;
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
  /** Identities on the interface. */
  readonly addresses = new Set<string>();
  #key: string;
  readonly #onRemove: (key: string) => void;
  readonly #onLoad: (key: string) => void;
  readonly #read: (path: string) => string;

  readonly #lists: PrefixLists;

  /** @param o `onRemove` is told of each `wg set … remove`. */
  constructor(
    key: string,
    o: {
      readonly onRemove: (key: string) => void;
      readonly onLoad: (key: string) => void;
      /** Text of a file; empty when there is none. */
      readonly read: (path: string) => string;
      readonly lists: PrefixLists;
    },
  ) {
    this.#key = key;
    this.#onRemove = o.onRemove;
    this.#onLoad = o.onLoad;
    this.#read = o.read;
    this.#lists = o.lists;
  }

  /** The private key that is loaded: in the simulation it is the public one as well. */
  load(key: string): void {
    this.#key = key;
    this.isNew = true;
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
    if (program === "ip" && words.includes("addr")) return done(this.#address(words));
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

  #address(words: readonly string[]): string {
    const [added, deleted] = [after(words, "replace"), after(words, "del")];
    if (added) this.addresses.add(added.replace("/128", ""));
    if (deleted) this.addresses.delete(deleted.replace("/128", ""));
    return [...this.addresses].map((ip) => `9: jiji0    inet6 ${ip}/128 scope global`).join("\n");
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
    if (words.includes("private-key")) {
      this.load(this.#read(after(words, "private-key")));
      this.#onLoad(this.#key);
      return;
    }
    const publicKey = after(words, "peer");
    this.isNew = true;
    if (words.includes("remove")) {
      this.#onRemove(publicKey);
      this.peers.delete(publicKey);
      return;
    }
    const peer = this.peers.get(publicKey) ?? { ...NEW_PEER };
    if (words.includes("preshared-key")) peer.psk = this.#read(after(words, "preshared-key"));
    if (words.includes("persistent-keepalive")) {
      peer.keepaliveS = Number(after(words, "persistent-keepalive"));
    }
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

/** What WireGuard takes for a peer of which nothing was said yet. */
export const NEW_PEER: Omit<SimPeer, "seen"> = {
  endpoint: "",
  allowed: [],
  handshakeAtMs: 0,
  keepaliveS: 0,
  psk: "",
};

function seenOf(publicKey: string, peer: SimPeer): WireguardPeer {
  const { seen } = peer;
  const endpoint = peer.endpoint || undefined;
  const seconds = Math.floor(peer.handshakeAtMs / 1_000);
  const handshakeAtMs = seconds > 0 ? seconds * 1_000 : undefined;
  if (
    seen && seen.endpoint === endpoint && seen.allowedIps === peer.allowed &&
    seen.handshakeAtMs === handshakeAtMs && seen.keepaliveS === peer.keepaliveS &&
    (seen.presharedKey?.reveal() ?? "") === peer.psk
  ) return seen;
  const fresh: WireguardPeer = {
    publicKey,
    endpoint,
    allowedIps: peer.allowed,
    handshakeAtMs,
    rxBytes: 0,
    txBytes: 0,
    keepaliveS: peer.keepaliveS,
    presharedKey: peer.psk === "" ? undefined : new Secret(peer.psk),
  };
  peer.seen = fresh;
  return fresh;
}
