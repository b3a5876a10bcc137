/** What this server's Corrosion says of the cluster, kept up to date in memory. */
import {
  type ContainerRow,
  type CorrosionApi,
  CorrosionError,
  followTable,
  parseContainerRow,
  parseServerRow,
  SELECT_CONTAINERS,
  SELECT_SERVERS,
  type ServerRow,
  type Subscribe,
} from "@jiji/core/corrosion";
import type { Clock, Logger, Random } from "@jiji/core/runtime";

/** Ports of the view. */
export interface ClusterViewOptions {
  readonly api: CorrosionApi;
  readonly subscribe: Subscribe;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** A server's facts changed; heartbeats alone do not count. */
  readonly onServers: () => void;
  readonly onContainers: () => void;
}

/** When a server's heartbeat was last seen to move. */
export interface HeardHeartbeat {
  /** Monotonic, milliseconds. */
  readonly atMs: number;
  /** The server's clock less ours in that moment, milliseconds; its way here is part of it. */
  readonly clockAheadMs: number;
}

/** Rows of both tables. */
export class ClusterView {
  /** Servers by id, tombstones included. */
  readonly servers = new Map<string, ServerRow>();
  /** Grows whenever the facts of a server change, not with heartbeats. */
  serverChanges = 0;
  /** Containers by id. */
  readonly containers = new Map<string, ContainerRow>();
  /** Whether each table has been read whole. Before that, absence says nothing at all. */
  readonly filled = { servers: false, containers: false };
  /** Rows that do not parse, by table: the reason by key. */
  readonly refused: {
    servers: ReadonlyMap<string, string>;
    containers: ReadonlyMap<string, string>;
  } = { servers: new Map(), containers: new Map() };
  /** Queries that Corrosion refuses to follow, though it answers others. */
  readonly unfollowed = new Set<string>();
  /** Heartbeats that moved since this daemon follows the table, by server. */
  readonly heard = new Map<string, HeardHeartbeat>();

  /** The same streams; takes note of those that are refused. */
  #watched(subscribe: Subscribe): Subscribe {
    const { unfollowed } = this;
    return async function* (statement, more) {
      try {
        for await (const event of subscribe(statement, more)) {
          if (event.kind !== "opened") unfollowed.delete(statement[0]);
          yield event;
        }
      } catch (error) {
        const isRefusal = error instanceof CorrosionError && (error.status ?? 0) >= 500;
        if (isRefusal) unfollowed.add(statement[0]);
        throw error;
      }
    };
  }

  /** Follows both tables until the signal aborts. */
  async follow(options: ClusterViewOptions): Promise<void> {
    const { onContainers, ...rest } = options;
    const onServers = () => {
      this.serverChanges += 1;
      options.onServers();
    };
    const ports = { ...rest, subscribe: this.#watched(options.subscribe) };
    await Promise.all([
      followTable<ServerRow>({
        ...ports,
        statement: SELECT_SERVERS,
        parse: parseServerRow,
        sink: {
          onRows: (rows) => {
            replace(this.servers, rows);
            this.filled.servers = true;
            onServers();
          },
          onRow: (id, row) => {
            const before = this.servers.get(id);
            const changed = factsOf(before) !== factsOf(row);
            this.servers.set(id, row);
            if (before && before.lastSeenMs !== row.lastSeenMs) this.#hear(row, ports.clock);
            if (changed) onServers();
          },
          onGone: (id) => {
            this.servers.delete(id);
            this.heard.delete(id);
            onServers();
          },
          onRefused: (refused) => {
            this.refused.servers = refused;
          },
        },
      }),
      followTable<ContainerRow>({
        ...ports,
        statement: SELECT_CONTAINERS,
        parse: parseContainerRow,
        sink: {
          onRows: (rows) => {
            replace(this.containers, rows);
            this.filled.containers = true;
            onContainers();
          },
          onRow: (id, row) => {
            this.containers.set(id, row);
            onContainers();
          },
          onGone: (id) => {
            this.containers.delete(id);
            onContainers();
          },
          onRefused: (refused) => {
            this.refused.containers = refused;
          },
        },
      }),
    ]);
  }

  #hear(row: ServerRow, clock: Clock): void {
    const clockAheadMs = row.lastSeenMs - clock.nowMs();
    this.heard.set(row.id, { atMs: clock.monotonicMs(), clockAheadMs });
  }
}

function replace<T>(map: Map<string, T>, rows: ReadonlyMap<string, T>): void {
  map.clear();
  for (const [id, row] of rows) map.set(id, row);
}

/** All of a row but its heartbeat. */
function factsOf(row: ServerRow | undefined): string {
  return row ? JSON.stringify({ ...row, lastSeenMs: 0 }) : "";
}
