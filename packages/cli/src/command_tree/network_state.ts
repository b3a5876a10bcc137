import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, type OutputFlags, type Run } from "./base.ts";

type Options = CommonOptions & OutputFlags;

/** `jiji network db …`: reading the cluster's state. */
export function databaseCommands(run: Run) {
  const db = command("db").description("the cluster's state, read only");
  db.addCommand(
    clusterCommand("query", "run a statement that reads, on one server")
      .argument("<sql>", "SELECT, WITH, VALUES or EXPLAIN; - reads it from standard input")
      .action((sql: string, options: Options) =>
        run(options, async (ports) => {
          const { networkDbQuery } = await import("../commands/network/db.ts");
          await networkDbQuery(sql, options, ports);
        })
      ),
  );
  db.addCommand(
    clusterCommand("stats", "the state as each server has it, and what differs")
      .action((options: Options) =>
        run(options, async (ports) => {
          const { networkDbStats } = await import("../commands/network/db.ts");
          await networkDbStats(options, ports);
        })
      ),
  );
  return db;
}

/** `jiji network gc`. */
export function gcCommand(run: Run) {
  return clusterCommand("gc", "rows of the state that nobody keeps; removes them with --force")
    .option("--force", "remove them")
    .option("--stale-threshold <time>", "unhealthy containers of silent servers (default: 180s)")
    .option(
      "--offline-threshold <time>",
      "all rows of servers silent for this long (default: 600s)",
    )
    .action((options) =>
      run(options, async (ports) => {
        const { networkGc } = await import("../commands/network/gc.ts");
        await networkGc(options, ports);
      })
    );
}

/** `jiji network backup`. */
export function backupCommand(run: Run) {
  return clusterCommand("backup", "keep the cluster's state in a file of this machine")
    .option("-o, --output <file>", "default: PROJECT-state-TIME.db")
    .action((options) =>
      run(options, async (ports) => {
        const { networkBackup } = await import("../commands/network/backup.ts");
        await networkBackup(options, ports);
      })
    );
}

/** `jiji network restore`. */
export function restoreCommand(run: Run) {
  return clusterCommand("restore", "put a backup in place of the cluster's state")
    .argument("<file>", "made by jiji network backup")
    .option("-y, --yes", "do not ask for the project's name")
    .action((file, options) =>
      run(options, async (ports) => {
        const { networkRestore } = await import("../commands/network/backup.ts");
        await networkRestore(file, options, ports);
      })
    );
}
