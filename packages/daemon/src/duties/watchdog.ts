/** Duty: tells systemd that this daemon lives; one that hangs is killed and started anew. */
import { SERVER_PATHS } from "@jiji/core/cluster";

/** Pause between two words, milliseconds; the unit's WatchdogSec is a minute. */
export const WATCHDOG_EVERY_MS = 15_000;

/** Sends a text to systemd. */
export type NotifySystemd = (text: string) => Promise<void>;

/**
 * Speaks through the socket that systemd names in NOTIFY_SOCKET; undefined where nobody listens.
 * Source: sd_notify(3), systemd.service(5) "WatchdogSec=".
 */
export function systemdNotifier(path: string | undefined): NotifySystemd | undefined {
  if (!path?.startsWith("/")) return undefined;
  return async (text) => {
    const own = `${SERVER_PATHS.run}/daemon-notify.sock`;
    await Deno.remove(own).catch(() => undefined);
    const socket = Deno.listenDatagram({ transport: "unixpacket", path: own });
    try {
      await socket.send(new TextEncoder().encode(text), { transport: "unixpacket", path });
    } finally {
      socket.close();
      await Deno.remove(own).catch(() => undefined);
    }
  };
}

/** Says that the duties run: it is one of them. */
export class WatchdogDuty {
  readonly #notify: NotifySystemd | undefined;

  constructor(notify: NotifySystemd | undefined) {
    this.#notify = notify;
  }

  /** One word. @throws when systemd can't be told. */
  async run(): Promise<void> {
    await this.#notify?.("WATCHDOG=1");
  }
}
