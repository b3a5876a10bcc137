/** WireGuard and routes of a simulated server, driven by the daemon's own commands. */
import type { Argv, CommandResult } from "@jiji/core/runtime";

/** A peer as WireGuard keeps it. */
export interface SimPeer {
  endpoint: string;
  allowed: string[];
  handshakeAtMs: number;
}

function after(words: readonly string[], word: string): string {
  return words[words.indexOf(word) + 1] ?? "";
}

/** Of changes the last ones are kept. */
const CHANGES_KEPT = 20;

/** The kernel: empty after each power on. */
export class SimKernel {
  readonly peers = new Map<string, SimPeer>();
  readonly routes = new Set<string>();
  /** Which peer claimed a prefix last. */
  readonly #owners = new Map<string, string>();
  /** Addresses of which everything is dropped on arrival. */
  readonly drops = new Set<string>();
  /** Commands that changed something, with their simulated time. */
  readonly changes: { readonly atMs: number; readonly argv: Argv }[] = [];
  /** Whether something changed since this was last set back. */
  isDirty = true;
  #key: string;
  readonly #onRemove: (key: string) => void;

  /** @param onRemove told of each `wg set … remove`. */
  constructor(key: string, onRemove: (key: string) => void) {
    this.#key = key;
    this.#onRemove = onRemove;
  }

  /** The private key that is loaded: that of a public one. */
  load(key: string): void {
    this.#key = key;
  }

  /** Power loss. */
  clear(): void {
    this.peers.clear();
    this.#owners.clear();
    this.routes.clear();
    this.drops.clear();
    this.isDirty = true;
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
    if (program === "wg" && words[0] === "show") return done(this.#dump());
    if (program === "ip" && words.includes("show")) {
      const six = words.includes("-6");
      return done([...this.routes].filter((route) => route.includes(":") === six).join("\n"));
    }
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
      this.routes.add(after(words, "replace"));
    } else if (program === "ip" && words.includes("del")) this.routes.delete(after(words, "del"));
    else throw new Error(`the simulated server knows no ${argv.join(" ")}`);
    return done();
  }

  #drop(words: readonly string[]): void {
    const address = after(words, "-s").replace("/32", "");
    if (words.includes("-I")) this.drops.add(address);
    else this.drops.delete(address);
  }

  #dump(): string {
    const lines = [...this.peers].map(([publicKey, peer]) =>
      [
        publicKey,
        "(none)",
        peer.endpoint || "(none)",
        peer.allowed.join(",") || "(none)",
        Math.floor(peer.handshakeAtMs / 1_000),
        0,
        0,
        25,
      ].join("\t")
    );
    return [`private\t${this.#key}\t31820\toff`, ...lines].join("\n");
  }

  #wgSet(words: readonly string[]): void {
    const publicKey = after(words, "peer");
    if (words.includes("remove")) {
      this.#onRemove(publicKey);
      this.peers.delete(publicKey);
      return;
    }
    const peer = this.peers.get(publicKey) ?? { endpoint: "", allowed: [], handshakeAtMs: 0 };
    if (words.includes("endpoint")) peer.endpoint = after(words, "endpoint");
    if (words.includes("allowed-ips")) {
      peer.allowed = after(words, "allowed-ips").split(",");
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
