/** Sockets made with the C library, so that they can be kept over a restart. */
import { parseIpv4 } from "@jiji/core/net";
import { lastErrno, type Libc } from "./libc.ts";
import { socketName, type SocketStore } from "./socket_store.ts";

// Source: <bits/socket.h>, <asm-generic/socket.h>.
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;

/** Connections that wait to be accepted, also while jiji-dns is restarted. */
const BACKLOG = 256;

/** Errors that mean "later": the address is not there yet, or still taken. Source: errno(3). */
const ERRNO_NAMES: ReadonlyMap<number, string> = new Map([
  [13, "permission denied"],
  [98, "address in use"],
  [99, "address not on this host yet"],
]);

/** Where a socket is bound. */
export interface SocketPlace {
  readonly hostname: string;
  readonly port: number;
}

/** Why batches cannot be had here; the plain path serves then. */
export class NoBatches extends Error {
  /** Class name, as errors carry it. */
  override readonly name = "NoBatches";
}

/** `struct sockaddr_in`. Source: ip(7). @throws {NoBatches} when it is no IPv4 address. */
export function socketAddress(address: SocketPlace): Uint8Array<ArrayBuffer> {
  const ip = parseIpv4(address.hostname);
  if (ip === undefined) throw new NoBatches(`${address.hostname} is no IPv4 address`);
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, address.port);
  view.setUint32(4, ip);
  return bytes;
}

/** A bound UDP socket. @throws {Error} when the address cannot be bound (yet). */
export function datagramSocket(libc: Libc, address: SocketPlace): number {
  return boundSocket(libc, { address, type: SOCK_DGRAM, what: "UDP" });
}

/**
 * A listening TCP socket, kept in `store` under its name.
 *
 * @returns a descriptor for whoever accepts; closing it leaves the kept one open. Undefined when it
 * cannot be kept.
 * @throws {Error} when the address cannot be bound (yet).
 */
export function listeningSocket(
  libc: Libc,
  o: { readonly address: SocketPlace; readonly store: SocketStore },
): number | undefined {
  const name = socketName("tcp", o.address);
  const kept = o.store.get(name);
  if (kept !== undefined) return libc.symbols.dup(kept);
  const fd = boundSocket(libc, { address: o.address, type: SOCK_STREAM, what: "TCP" });
  const isListening = libc.symbols.listen(fd, BACKLOG) === 0;
  if (isListening && o.store.keep(libc, { fd, name })) return libc.symbols.dup(fd);
  libc.symbols.close(fd);
  return undefined;
}

function boundSocket(
  libc: Libc,
  o: { readonly address: SocketPlace; readonly type: number; readonly what: string },
): number {
  const name = socketAddress(o.address);
  const fd = libc.symbols.socket(AF_INET, o.type | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error(`no ${o.what} socket: errno ${lastErrno(libc)}`);
  if (o.type === SOCK_STREAM) {
    // Connections of an earlier process that linger do not keep the address.
    const one = new Int32Array([1]);
    libc.symbols.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, one, 4);
  }
  if (libc.symbols.bind(fd, name, name.length) < 0) {
    const errno = lastErrno(libc);
    libc.symbols.close(fd);
    throw new Error(`bind: ${ERRNO_NAMES.get(errno) ?? `errno ${errno}`}`);
  }
  return fd;
}
