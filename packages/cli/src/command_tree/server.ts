import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, type OutputFlags, type Run } from "./base.ts";
import { serverAddCommand, serverRemoveCommand } from "./network_servers.ts";

/** `jiji server …`. */
export function serverCommands(run: Run) {
  const server = command("server").description("prepare and manage servers");
  server.addCommand(
    clusterCommand("init", "make every server of the configuration a member of the cluster")
      .addHelpText("after", "\nSafe to run again: it changes only what is not as it should be.")
      .action((options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { serverInit } = await import("../commands/server_init.ts");
          await serverInit(options, ports);
        })
      ),
  );
  server.addCommand(serverAddCommand(run));
  server.addCommand(serverRemoveCommand(run));
  server.addCommand(
    clusterCommand("exec", "run a command on every chosen server")
      .argument("<command...>", "command and its arguments")
      .option("--timeout <seconds>", "limit on each server (default: 300)")
      .passThroughOptions()
      .action((words, options) =>
        run(options, async (ports) => {
          const { serverExec } = await import("../commands/server_exec.ts");
          await serverExec(words, options, ports);
        })
      ),
  );
  server.addCommand(
    clusterCommand("teardown", "take this project off the servers")
      .option("-y, --yes", "do not ask for the project's name")
      .option("--volumes", "also delete its named volumes, with the data")
      .option("--all", "also take jiji itself off, when no other project uses the servers")
      .option("--plan", "print what would be removed and stop")
      .action((options) =>
        run(options, async (ports) => {
          const { serverTeardown } = await import("../commands/server_teardown.ts");
          await serverTeardown(options, ports);
        })
      ),
  );
  return server;
}
