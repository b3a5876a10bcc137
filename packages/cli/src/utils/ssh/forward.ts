import { connect, type Socket } from "node:net";
import type { Client, ClientChannel, TcpConnectionDetails } from "ssh2";
import { JijiError } from "@jiji/core/runtime";

/** Address on both ends. */
const LOOPBACK = "127.0.0.1";

/** Ports of a server's loopback that lead to ports of this machine's loopback. */
export class ReverseForwards {
  readonly #client: Client;
  readonly #name: string;
  readonly #localPorts = new Map<number, number>();
  readonly #sockets = new Set<Socket>();

  /** @param name of the server, for messages. */
  constructor(client: Client, name: string) {
    this.#client = client;
    this.#name = name;
    client.on("tcp connection", (details, accept, reject) => {
      const localPort = this.#localPorts.get((details as TcpConnectionDetails).destPort);
      if (localPort === undefined) reject();
      else this.#join(accept(), localPort);
    });
  }

  /**
   * Opens a forward.
   *
   * @throws {JijiError} when the server refuses it.
   */
  async open(remotePort: number, localPort: number): Promise<AsyncDisposable> {
    if (this.#localPorts.has(remotePort)) {
      throw new JijiError(`port ${remotePort} of ${this.#name} leads to this machine already`);
    }
    this.#localPorts.set(remotePort, localPort);
    try {
      await this.#ask((done) => this.#client.forwardIn(LOOPBACK, remotePort, done));
    } catch (error) {
      this.#localPorts.delete(remotePort);
      throw new JijiError(
        `port ${remotePort} of ${this.#name} can't be led to this machine: ` +
          (error as Error).message,
        {
          hint: "another deploy may be using it, or sshd there has AllowTcpForwarding no",
          cause: error,
        },
      );
    }
    return { [Symbol.asyncDispose]: () => this.#close(remotePort) };
  }

  /** Cuts every connection through a forward. */
  closeAll(): void {
    this.#localPorts.clear();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #close(remotePort: number): Promise<void> {
    if (!this.#localPorts.delete(remotePort)) return;
    try {
      await this.#ask((done) => this.#client.unforwardIn(LOOPBACK, remotePort, done));
    } catch {
      // The connection is gone, and the forward with it.
    }
  }

  /** ssh2 throws when it is not connected and calls back otherwise. */
  #ask(request: (done: (error?: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const onClose = () => reject(new Error("the connection was closed"));
      this.#client.once("close", onClose);
      try {
        request((error) => {
          this.#client.off("close", onClose);
          if (error) reject(error);
          else resolve();
        });
      } catch (error) {
        this.#client.off("close", onClose);
        reject(error);
      }
    });
  }

  /** Both directions end on their own, so that a half-closed request still gets its answer. */
  #join(channel: ClientChannel, localPort: number): void {
    const socket = connect({
      host: LOOPBACK,
      port: localPort,
      allowHalfOpen: true,
      noDelay: true,
    });
    this.#sockets.add(socket);
    socket.on("error", () => channel.close());
    socket.on("close", () => {
      this.#sockets.delete(socket);
      channel.close();
    });
    channel.on("error", () => socket.destroy());
    channel.on("close", () => {
      if (!socket.writableEnded) socket.end();
    });
    socket.pipe(channel);
    channel.pipe(socket);
  }
}
