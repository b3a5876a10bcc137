import { clusterCommand, command, logsCommand, type Run, serviceCommand } from "./base.ts";

/** `jiji services …`. */
export function servicesCommands(run: Run) {
  const services = command("services").description("services of the project");
  services.addCommand(
    serviceCommand("list", "what runs where")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesList } = await import("../commands/services_list.ts");
          await servicesList(options, ports);
        })
      ),
  );
  services.addCommand(
    logsCommand("output of containers of all servers, merged by time")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesLogs } = await import("../commands/services_logs.ts");
          await servicesLogs(options, ports);
        })
      ),
  );
  services.addCommand(
    serviceCommand("restart", "replace containers by new ones of the same release")
      .option("--plan", "print what would be done and stop")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesRestart } = await import("../commands/services_rollback.ts");
          await servicesRestart(options, ports);
        })
      ),
  );
  services.addCommand(
    serviceCommand("rollback", "back to the last release, with its configuration and environment")
      .option("--to <version>", "back to this version")
      .option("--list", "show the releases that are kept")
      .option("--plan", "print what would be done and stop")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesRollback } = await import("../commands/services_rollback.ts");
          await servicesRollback(options, ports);
        })
      ),
  );
  services.addCommand(
    clusterCommand("scale", "more or fewer instances on each server, until the next deploy")
      .argument("<service=number...>", "e.g. web=3")
      .option("--plan", "print what would be done and stop")
      .addHelpText("after", "\nTo keep a number, write `scale:` in the configuration.")
      .action((words, options) =>
        run(options, async (ports) => {
          const { servicesScale } = await import("../commands/services_rollback.ts");
          await servicesScale(words, options, ports);
        })
      ),
  );
  services.addCommand(
    serviceCommand("remove", "take services off their servers")
      .option("-y, --yes", "do not ask")
      .option("--volumes", "also delete their named volumes, with the data")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesRemove } = await import("../commands/services_remove.ts");
          await servicesRemove(options, ports);
        })
      ),
  );
  services.addCommand(
    serviceCommand("prune", "remove images past what each service retains; none that is in use")
      .option("-r, --retain <number>", "versions to keep of each service instead of its own")
      .option("--plan", "print what would be removed and stop")
      .action((options) =>
        run(options, async (ports) => {
          const { servicesPrune } = await import("../commands/services_prune.ts");
          await servicesPrune(options, ports);
        })
      ),
  );
  services.addCommand(
    serviceCommand("exec", "run a command in a running container")
      .argument("<command...>", "command and its arguments")
      .option("--instance <name>", "the container of this instance: s1, s1-2 (see services list)")
      .passThroughOptions()
      .action((words, options) =>
        run(options, async (ports) => {
          const { servicesExec } = await import("../commands/services_exec.ts");
          await servicesExec(words, options, ports);
        })
      ),
  );
  return services;
}
