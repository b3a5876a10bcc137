import {
  type Argv,
  type CommandResult,
  ConnectionError,
  parseServerConfig,
  type RunOptions,
  SERVER_PATHS,
  SERVER_UNITS,
  type ServerConfig,
  type ServerRow,
  type ServerStatus,
} from "@jiji/core";
import { sha256OfText } from "../src/lib/network/artifacts.ts";
import { firewallNeeds, parseHostFirewall } from "../src/lib/network/host_firewall.ts";
import { OBSERVE_SCRIPT } from "../src/lib/network/server_facts.ts";
import type {
  RemoteHost,
  RemoteStreamOptions,
  RemoteStreamResult,
  UploadContent,
  UploadOptions,
} from "../src/types/remote_host.ts";

interface BareFile {
  text: string;
  mode: string;
  owner: string;
  writtenAt: number;
}

interface BareUnit {
  enabled: boolean;
  active: boolean;
  startedAt: number;
}

/** A WireGuard public key that stands for `seed`, in canonical base64. */
export function keyOf(seed: number): string {
  const bytes = new Uint8Array(32);
  new DataView(bytes.buffer).setUint32(0, seed);
  return btoa(String.fromCharCode(...bytes));
}

/** Servers that share what Corrosion would replicate between them. */
export class BareCluster {
  readonly servers = new Map<string, BareServer>();
  readonly rows = new Map<string, ServerRow>();
  #tick = 1_764_000_000;

  /** @param names of the servers; each gets a key of its own when one is made. */
  constructor(names: readonly string[]) {
    names.forEach((name, index) => this.servers.set(name, new BareServer(this, name, index + 1)));
  }

  /** The server of this name. */
  server(name: string): BareServer {
    return this.servers.get(name)!;
  }

  /** A later second than any before. */
  next(): number {
    return ++this.#tick;
  }
}

/**
 * A server fresh from its provider, small but strict: scripts and commands change its state as they
 * would the real one's, and one that it does not know fails the test.
 */
export class BareServer implements RemoteHost {
  readonly name: string;
  readonly address: string;
  readonly cluster: BareCluster;
  readonly commands: string[] = [];
  readonly engines = new Map<string, string>();
  readonly tools = new Set<string>();
  readonly units = new Map<string, BareUnit>();
  readonly files = new Map<string, BareFile>();
  readonly keySeed: number;
  machine = "x86_64";
  systemd = true;
  firewall: string | undefined;
  readonly firewallRules = new Set<string>();
  hasUser = false;
  publicKey: string | undefined;
  /** Commands that contain this fail. */
  breaks: string | undefined;
  /** Every command fails as a lost connection does. */
  lost = false;
  /** Its daemon hears nobody. */
  deaf = false;

  /** @param seed makes its key and address. */
  constructor(cluster: BareCluster, name: string, seed: number) {
    this.cluster = cluster;
    this.name = name;
    this.keySeed = seed;
    this.address = `root@203.0.113.${10 + seed}:22`;
  }

  /** Its place, once server.json is written. */
  get config(): ServerConfig | undefined {
    const file = this.files.get(SERVER_PATHS.serverConfig);
    return file && parseServerConfig(file.text);
  }

  /** See {@link RemoteHost.run}. */
  async run(argv: Argv, options: RunOptions): Promise<CommandResult> {
    options.signal?.throwIfAborted();
    await Promise.resolve();
    const stdin = typeof options.stdin === "string" ? options.stdin : "";
    const text = argv.join(" ");
    if (this.lost) throw new ConnectionError("connection lost", { host: this.name, phase: "lost" });
    this.commands.push(text);
    if (this.breaks !== undefined && `${text}\n${stdin}`.includes(this.breaks)) {
      return result(100, "", "E: it does not work today");
    }
    const stdout = this.#answer(argv, stdin);
    if (stdout === undefined) throw new Error(`${this.name}: unknown command: ${text}\n${stdin}`);
    return result(0, stdout, "");
  }

  /** Keeps the file. */
  async upload(content: UploadContent, path: string, options: UploadOptions): Promise<void> {
    const text = content instanceof Uint8Array
      ? new TextDecoder().decode(content)
      : await Deno.readTextFile(content.path);
    this.commands.push(`upload ${path}`);
    const mode = options.mode.toString(8);
    this.files.set(path, { text, mode, owner: "root root", writtenAt: this.cluster.next() });
  }

  /** No command of `server init` streams. */
  stream(_argv: Argv, _options: RemoteStreamOptions): Promise<RemoteStreamResult> {
    throw new Error("server init streams nothing");
  }

  /** No command of `server init` forwards. */
  reverseForward(): Promise<AsyncDisposable> {
    throw new Error("server init forwards nothing");
  }

  /** Nothing to close. */
  dispose(): Promise<void> {
    return Promise.resolve();
  }

  #answer(argv: Argv, stdin: string): string | undefined {
    const [program, ...args] = argv;
    switch (program) {
      case "sh":
        return this.#script(stdin, args.slice(2));
      case "env":
        return this.#apt(args.slice(args.indexOf("apt-get") + 1));
      case "systemctl":
        return this.#systemctl(args);
      case "ufw":
      case "firewall-cmd":
        return this.#changeFirewall(argv);
      case `${SERVER_PATHS.bin}/jiji-daemon`:
        if (args[0] === "status") return JSON.stringify(this.status());
        if (args.join(" ") === "servers add") return this.#addServer(stdin);
        if (/^servers remove \S+( --at-ms \d+)?$/.test(args.join(" "))) {
          return this.#removeServer(args[2]!, Number(args[4] ?? 1_764_000_000_123));
        }
    }
    return this.files.has(program) && args.join(" ") === "--version" ? "1\n" : undefined;
  }

  /** As strict as the firewalls: only what jiji needs is known. */
  #changeFirewall(argv: Argv): string | undefined {
    const firewall = parseHostFirewall(this.firewall, []);
    if (!firewall) return undefined;
    if (argv.join(" ") === "firewall-cmd --reload") {
      return firewall.name === "firewalld" ? "" : undefined;
    }
    const need = firewallNeeds(firewall, { wireguardPort: 31820 })
      .find((one) => one.argv.join(" ") === argv.join(" "));
    if (need) this.firewallRules.add(need.shown);
    return need ? "" : undefined;
  }

  #script(script: string, args: readonly string[]): string | undefined {
    if (script === OBSERVE_SCRIPT) return this.observation();
    if (script.includes("useradd")) this.hasUser = true;
    else if (script.includes("wg genkey")) this.publicKey ??= keyOf(this.keySeed);
    else if (script.startsWith('set -eu\nchown "$1" "$3"')) {
      const [owner = "", mode = "", from = "", to = ""] = args;
      const file = this.files.get(from)!;
      this.files.delete(from);
      this.files.set(to, { ...file, mode, owner: owner.replace(":", " ") });
    } else return undefined;
    return "";
  }

  #apt(args: readonly string[]): string | undefined {
    const command = args.find((arg) => arg === "update" || arg === "install");
    if (command !== "install") return command === undefined ? undefined : "";
    for (const name of args.slice(args.indexOf("install") + 2)) {
      if (name === "docker.io") this.engines.set("docker", "20.10.24");
      else if (name === "podman") this.engines.set("podman", "4.3.1");
      else if (name === "wireguard-tools") ["wg", "wg-quick"].forEach((one) => this.tools.add(one));
      else if (["netavark", "runc", "wireguard-go", "iptables"].includes(name)) {
        this.tools.add(name);
      } else return undefined;
    }
    return "";
  }

  #systemctl(args: readonly string[]): string | undefined {
    if (args.join(" ") === "daemon-reload") return "";
    const [command, ...rest] = args;
    const units = rest.filter((word) => !word.startsWith("--"));
    if (command !== "restart" && args.slice(0, 3).join(" ") !== "enable --quiet --now") {
      return undefined;
    }
    for (const name of units) {
      const unit = this.units.get(name) ?? { enabled: false, active: false, startedAt: 0 };
      if (command === "enable") unit.enabled = true;
      if (command === "restart" || !unit.active) unit.startedAt = this.cluster.next();
      unit.active = true;
      this.units.set(name, unit);
    }
    if (this.units.get(SERVER_UNITS.daemon)?.active) this.#writeOwnRow();
    return "";
  }

  #writeOwnRow(): void {
    const config = this.config;
    if (config) this.cluster.rows.set(config.server_id, rowOf(config));
  }

  #addServer(stdin: string): string {
    const seed = JSON.parse(stdin);
    this.cluster.rows.set(seed.server_id, {
      id: seed.server_id,
      hostname: seed.hostname,
      subnet: seed.block,
      wireguardIp: "",
      wireguardPubkey: seed.public_key,
      managementIp: seed.management_ip,
      endpoints: seed.endpoints,
      lastSeenMs: 0,
      doc: {},
      removedAtMs: null,
    });
    return "";
  }

  #removeServer(id: string, atMs: number): string {
    const row = this.cluster.rows.get(id)!;
    const removedAtMs = row.removedAtMs ?? atMs;
    this.cluster.rows.set(id, { ...row, removedAtMs });
    const removed = row.removedAtMs === null ? id : null;
    return JSON.stringify({ removed, removed_at_ms: removedAtMs });
  }

  /** What its daemon reports. */
  status(): ServerStatus {
    const active = (unit: string) => this.units.get(unit)?.active === true;
    const others = [...this.cluster.servers.values()].filter((server) =>
      server !== this && !server.lost && !this.deaf && server.config !== undefined
    );
    return {
      format: 1,
      version: "1",
      server_id: this.config?.server_id ?? null,
      generated_at_ms: 0,
      servers: active(SERVER_UNITS.corrosion)
        ? structuredClone([...this.cluster.rows.values()])
        : null,
      containers: [],
      peers: [],
      liveness: {
        format: 1,
        written_at_ms: 0,
        silent: [],
        rtt_ms: Object.fromEntries(others.map((server) => [server.name, 1.5])),
      },
      units: Object.fromEntries(
        Object.values(SERVER_UNITS).map((unit) => [unit, active(unit) ? "active" : "inactive"]),
      ),
      problems: [],
    } as ServerStatus;
  }

  /** What the observing script would print here. */
  observation(): string {
    const lines = ["@os debian 12", `@machine ${this.machine}`, "@clock 5000"];
    if (this.systemd) lines.push("@systemd yes");
    lines.push("@package_manager apt-get");
    for (const [engine, version] of this.engines) lines.push(`@engine ${engine} ${version}`);
    for (const tool of this.tools) lines.push(`@tool ${tool}`);
    if (this.hasUser) lines.push("@user jiji");
    if (this.firewall !== undefined) lines.push(`@firewall ${this.firewall}`);
    for (const rule of this.firewallRules) lines.push(`@firewall_rule ${rule}`);
    for (const [name, unit] of this.units) {
      const words = [unit.enabled ? "enabled" : "disabled", unit.active ? "active" : "inactive"];
      lines.push(`@unit ${name} ${words.join(" ")} ${unit.startedAt}`);
    }
    for (const [path, file] of this.files) {
      const facts = `${sha256OfText(file.text)} ${file.writtenAt} ${file.mode} ${file.owner}`;
      lines.push(`@file ${path} ${facts}`);
    }
    const encoded = (key: string, path: string) => {
      const file = this.files.get(path);
      if (file) lines.push(`@${key} ${btoa(file.text)}`);
    };
    encoded("config", SERVER_PATHS.serverConfig);
    encoded("token", SERVER_PATHS.corrosionToken);
    encoded("mesh_secret", SERVER_PATHS.meshSecret);
    const bootstrap = /^bootstrap = (.*)$/m.exec(
      this.files.get(SERVER_PATHS.corrosionConfig)?.text ?? "",
    );
    if (bootstrap) lines.push(`@bootstrap ${bootstrap[1]}`);
    if (this.publicKey) lines.push(`@public_key ${this.publicKey}`);
    lines.push(`@address eth0 203.0.113.${10 + this.keySeed}/24`, "@address docker0 172.17.0.1/16");
    return lines.join("\n") + "\n";
  }
}

function result(exitCode: number, stdout: string, stderr: string): CommandResult {
  return { exitCode, signal: undefined, stdout, stderr, durationMs: 1 };
}

function rowOf(config: ServerConfig): ServerRow {
  return {
    id: config.server_id,
    hostname: config.server_id,
    subnet: config.block,
    wireguardIp: config.block.replace(/0\/.*/, "1"),
    wireguardPubkey: config.wireguard_public_key,
    managementIp: config.management_ip,
    endpoints: config.endpoints,
    lastSeenMs: 0,
    doc: {},
    removedAtMs: null,
  };
}
