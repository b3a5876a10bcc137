/** Hears the news of containers and of silent servers from this server's jiji-daemon. */
import {
  type ContainerNews,
  decodeNews,
  LIVENESS_NEWS,
  NEWS_BYTES_MAX,
} from "@jiji/core/corrosion";
import { backoffMs, type Clock, type Random } from "@jiji/core/runtime";

/** Ports of {@link listenToNews}. */
export interface NewsListenerOptions {
  /** Opens a connection to the daemon. */
  readonly connect: () => Promise<{
    readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
    close(): void;
  }>;
  readonly onNews: (news: ContainerNews) => void;
  /** The daemon's liveness report says something new. */
  readonly onLiveness: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** Pauses between two tries: the daemon is soon back after a restart. */
const RECONNECT = { firstMs: 100, maxMs: 2_000, jitterMs: 100 } as const;

/** Listens until the signal aborts. Without a daemon all comes through Corrosion, a little later. */
export async function listenToNews(options: NewsListenerOptions): Promise<void> {
  const { clock, random, signal } = options;
  for (let attempt = 1; !signal.aborted; attempt++) {
    const heard = await hearOnce(options).catch(() => false);
    if (heard) attempt = 1;
    await clock.sleep(backoffMs(RECONNECT, attempt, random), { signal }).catch(() => undefined);
  }
}

/** One connection, until it ends; whether anything was heard. */
async function hearOnce(options: NewsListenerOptions): Promise<boolean> {
  const { connect, onNews, onLiveness, signal } = options;
  const connection = await connect();
  const close = () => {
    try {
      connection.close();
    } catch {
      // The daemon closed it first.
    }
  };
  signal.addEventListener("abort", close, { once: true });
  let heard = false;
  let rest = "";
  try {
    for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > NEWS_BYTES_MAX) return heard;
      for (const line of lines) {
        const news = decodeNews(line);
        if (line === LIVENESS_NEWS) onLiveness();
        else if (news) onNews(news);
        heard = true;
      }
    }
  } finally {
    signal.removeEventListener("abort", close);
    close();
  }
  return heard;
}
