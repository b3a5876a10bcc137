import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, type OutputFlags, type Run } from "./base.ts";

/** `remove NAME`, under `jiji server` and `jiji network server` alike. */
export function serverRemoveCommand(run: Run) {
  return clusterCommand("remove", "take a server out of the cluster, drained")
    .argument("<name>", "the server's name")
    .option("-y, --yes", "do not ask for its name")
    .option("--force", "also when a service runs nowhere else")
    .addHelpText(
      "after",
      "\nA server that is off is removed as well; it stands down when it is back.",
    )
    .action((name, options) =>
      run(options, async (ports) => {
        const { serverRemove } = await import("../commands/network/server_remove.ts");
        await serverRemove(name, options, ports);
      })
    );
}

/** `add NAME`, under `jiji server` and `jiji network server` alike. */
export function serverAddCommand(run: Run) {
  return clusterCommand(
    "add",
    "make a server of the configuration a member, also one removed before",
  )
    .argument("<name>", "the server's name")
    .action((name: string, options: CommonOptions & OutputFlags) =>
      run(options, async (ports) => {
        const { serverAdd } = await import("../commands/network/server_add.ts");
        await serverAdd(name, options, ports);
      })
    );
}
