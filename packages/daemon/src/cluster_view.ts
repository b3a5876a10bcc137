/** What this server's Corrosion says of the cluster, kept up to date in memory. */
import {
  type ContainerRow,
  type CorrosionApi,
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

/** Rows of both tables. */
export class ClusterView {
  /** Servers by id, tombstones included. */
  readonly servers = new Map<string, ServerRow>();
  /** Containers by id. */
  readonly containers = new Map<string, ContainerRow>();
  /** Whether each table has been read whole. Before that, absence says nothing at all. */
  readonly filled = { servers: false, containers: false };

  /** Follows both tables until the signal aborts. */
  async follow(options: ClusterViewOptions): Promise<void> {
    const { onServers, onContainers, ...ports } = options;
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
            const changed = factsOf(this.servers.get(id)) !== factsOf(row);
            this.servers.set(id, row);
            if (changed) onServers();
          },
          onGone: (id) => {
            this.servers.delete(id);
            onServers();
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
        },
      }),
    ]);
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
