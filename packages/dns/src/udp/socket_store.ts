/**
 * Sockets that outlive the process: systemd keeps them over a restart, an upgrade or a kill, and
 * queries wait in their buffers meanwhile. Source: sd_listen_fds(3), sd_notify(3) "FDSTORE=1",
 * systemd.service(5) "FileDescriptorStoreMax=".
 */
import type { Libc } from "./libc.ts";

/** First file descriptor that systemd passes. Source: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;
/** More than this many were never stored by us. */
const LISTEN_FDS_MAX = 64;

// Source: <bits/socket.h>, unix(7), cmsg(3).
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SUN_PATH_BYTES = 108;

/** What systemd tells a service in its environment. */
export interface ServiceEnvironment {
  readonly listenPid: string | undefined;
  readonly listenFds: string | undefined;
  readonly listenNames: string | undefined;
  readonly notifySocket: string | undefined;
}

/** Name of an address' socket in the store: no colon may be in it. */
export function socketName(
  transport: "udp" | "tcp",
  address: { readonly hostname: string; readonly port: number },
): string {
  return `${transport}_${address.hostname}_${address.port}`;
}

/** Sockets passed to this process, by name. Empty when they are meant for another. */
export function parseListenFds(environment: ServiceEnvironment, pid: number): Map<string, number> {
  const count = Number(environment.listenFds);
  if (environment.listenPid !== String(pid) || !Number.isInteger(count)) return new Map();
  const names = environment.listenNames?.split(":") ?? [];
  const found = new Map<string, number>();
  for (let index = 0; index < Math.min(count, LISTEN_FDS_MAX); index++) {
    const name = names[index];
    if (name) found.set(name, LISTEN_FDS_START + index);
  }
  return found;
}

/** Sockets that systemd keeps for us. */
export class SocketStore {
  readonly #kept: Map<string, number>;
  readonly #notifySocket: string | undefined;

  constructor(environment: ServiceEnvironment, pid: number) {
    this.#kept = parseListenFds(environment, pid);
    this.#notifySocket = environment.notifySocket;
  }

  /** The socket kept under this name. */
  get(name: string): number | undefined {
    return this.#kept.get(name);
  }

  /** Asks systemd to keep a socket; false when there is no systemd or it was not told. */
  keep(libc: Libc, socket: { readonly fd: number; readonly name: string }): boolean {
    if (!this.#notifySocket) return false;
    const sender = libc.symbols.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
    if (sender < 0) return false;
    try {
      const text = `FDSTORE=1\nFDPOLL=0\nFDNAME=${socket.name}`;
      const message = new Message(libc, { path: this.#notifySocket, text, fd: socket.fd });
      if (libc.symbols.sendmsg(sender, message.header, 0) < 0) return false;
      this.#kept.set(socket.name, socket.fd);
      return true;
    } finally {
      libc.symbols.close(sender);
    }
  }
}

/** `struct msghdr` with a text and a file descriptor; holds what it points to. */
class Message {
  readonly header = new BigInt64Array(7);
  readonly #parts: readonly Uint8Array<ArrayBuffer>[];

  constructor(
    libc: Libc,
    o: { readonly path: string; readonly text: string; readonly fd: number },
  ) {
    const name = unixAddress(o.path);
    // Longer than 64 octets, so that none of them lies in memory that V8 may move.
    const body = new Uint8Array(256);
    const { written } = new TextEncoder().encodeInto(o.text, body);
    const vector = new Uint8Array(128);
    const control = new Uint8Array(128);
    const view = new DataView(control.buffer);
    view.setBigUint64(0, 20n, true);
    view.setInt32(8, SOL_SOCKET, true);
    view.setInt32(12, SCM_RIGHTS, true);
    view.setInt32(16, o.fd, true);
    this.#parts = [name.bytes, body, vector, control];
    const [nameAt = 0n, bodyAt = 0n, vectorAt = 0n, controlAt = 0n] = this.#parts.map((part) =>
      BigInt(libc.symbols.addressOf(part, part, 0n))
    );
    new BigInt64Array(vector.buffer).set([bodyAt, BigInt(written)]);
    this.header.set([nameAt, BigInt(name.length), vectorAt, 1n, controlAt, 24n, 0n]);
  }
}

/** `struct sockaddr_un`; a leading `@` is an abstract name. Source: unix(7). */
function unixAddress(path: string): { bytes: Uint8Array<ArrayBuffer>; length: number } {
  const bytes = new Uint8Array(2 + SUN_PATH_BYTES);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  const { written } = new TextEncoder().encodeInto(path, bytes.subarray(2));
  if (path.startsWith("@")) bytes[2] = 0;
  return { bytes, length: 2 + written };
}
