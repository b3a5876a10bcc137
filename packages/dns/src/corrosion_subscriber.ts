/** Keeps the cache equal to Corrosion's tables, and the snapshot on disk equal to the cache. */
import {
  type ContainerNews,
  type CorrosionApi,
  followTable,
  parseContainerRow,
  parseServerRow,
  SELECT_CONTAINERS,
  SELECT_SERVERS,
  type ServerRow,
  type Subscribe,
} from "@jiji/core/corrosion";
import { type Clock, type Logger, messageOf, type Random } from "@jiji/core/runtime";
import type { DnsCache } from "./dns_cache.ts";
import type { Snapshot } from "./snapshot.ts";

/** A snapshot is written at most this often, milliseconds. */
export const SNAPSHOT_EVERY_MS = 1_000;

/** Pause between two looks at held containers, milliseconds. */
const SWEEP_EVERY_MS = 1_000;

/** Ports of the subscriber. */
export interface SubscriberOptions {
  readonly cache: DnsCache;
  readonly api: CorrosionApi;
  readonly subscribe: Subscribe;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Saves what is known; called after changes, {@link SNAPSHOT_EVERY_MS} apart. */
  readonly save: (snapshot: Snapshot) => Promise<void>;
  /** Listens to the daemon until the signal aborts. Default: nothing is heard from it. */
  readonly hearNews?: (onNews: (news: ContainerNews) => void) => Promise<void>;
  /** Called with everything that Corrosion says. Default: nobody listens. */
  readonly onHeard?: () => void;
}

/** Follows both tables until the signal aborts. */
export async function runSubscriber(options: SubscriberOptions): Promise<void> {
  const { cache } = options;
  const servers = new Map<string, ServerRow>();
  const saver = new Saver(options, servers);
  let heardAtMs = -Infinity;
  const onHeard = () => {
    heardAtMs = options.clock.monotonicMs();
    options.onHeard?.();
  };
  const ports = {
    api: options.api,
    subscribe: options.subscribe,
    clock: options.clock,
    random: options.random,
    logger: options.logger,
    signal: options.signal,
  };
  const followServers = followTable<ServerRow>({
    ...ports,
    statement: SELECT_SERVERS,
    parse: parseServerRow,
    sink: {
      onRows(rows) {
        onHeard();
        servers.clear();
        for (const [id, row] of rows) servers.set(id, row);
        cache.replaceServers(servers.values(), options.clock.monotonicMs());
        saver.touch();
      },
      onRow(id, row) {
        onHeard();
        const tombstone = servers.get(id)?.removedAtMs;
        servers.set(id, row);
        cache.putServer(row, options.clock.monotonicMs());
        // Heartbeats come every few seconds from each server and change nothing worth a write.
        if (tombstone !== row.removedAtMs) saver.touch();
      },
      onGone(id) {
        onHeard();
        servers.delete(id);
        cache.removeServer(id);
        saver.touch();
      },
    },
  });
  const followContainers = followTable({
    ...ports,
    statement: SELECT_CONTAINERS,
    parse: parseContainerRow,
    sink: {
      onRows(rows) {
        onHeard();
        cache.replaceContainers(rows.values(), options.clock.monotonicMs());
        saver.touch();
      },
      onRow(_id, row) {
        onHeard();
        cache.putContainer(row);
        saver.touch();
      },
      onGone(id) {
        onHeard();
        cache.removeContainer(id);
        saver.touch();
      },
    },
  });
  const hearing = options.hearNews?.((news) => {
    cache.takeNews(news, options.clock.monotonicMs());
    saver.touch();
  });
  await Promise.all([
    followServers,
    followContainers,
    hearing,
    saver.run(),
    sweepCache(options, () => heardAtMs),
  ]);
}

/** Lets go, little by little, of what Corrosion has no row for any more. */
async function sweepCache(
  { cache, clock, signal }: SubscriberOptions,
  heardAtMs: () => number,
): Promise<void> {
  while (!signal.aborted) {
    cache.sweep(clock.monotonicMs(), heardAtMs());
    await clock.sleep(SWEEP_EVERY_MS, { signal }).catch(() => undefined);
  }
}

class Saver {
  readonly #options: SubscriberOptions;
  readonly #servers: ReadonlyMap<string, ServerRow>;
  #dirty = false;
  #wake = Promise.withResolvers<void>();

  constructor(options: SubscriberOptions, servers: ReadonlyMap<string, ServerRow>) {
    this.#options = options;
    this.#servers = servers;
    options.signal.addEventListener("abort", () => this.#wake.resolve(), { once: true });
  }

  touch(): void {
    this.#dirty = true;
    this.#wake.resolve();
  }

  /** Own pace: a burst of changes becomes one write. */
  async run(): Promise<void> {
    const { signal, clock, cache, save, logger } = this.#options;
    while (!signal.aborted) {
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
      await clock.sleep(SNAPSHOT_EVERY_MS, { signal }).catch(() => undefined);
      if (!this.#dirty || !cache.isFilled) continue;
      this.#dirty = false;
      try {
        await save({
          servers: [...this.#servers.values()],
          containers: [...cache.containers.values()],
        });
      } catch (error) {
        logger.warn("snapshot not written", { error: messageOf(error) });
      }
    }
  }
}
