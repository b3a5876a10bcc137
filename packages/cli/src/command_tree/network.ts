import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, type OutputFlags, type Run } from "./base.ts";
import { serverAddCommand, serverRemoveCommand } from "./network_servers.ts";
import { backupCommand, databaseCommands, gcCommand, restoreCommand } from "./network_state.ts";

/** `jiji network …`. */
export function networkCommands(run: Run) {
  const network = command("network").description("the private network between servers");
  network.addCommand(
    clusterCommand("status", "servers, links between them and what they run")
      .action((options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { networkStatus } = await import("../commands/network/status.ts");
          await networkStatus(options, ports);
        })
      ),
  );
  network.addCommand(
    clusterCommand("dns", "names of services, and what each server answers to them")
      .argument("[name]", "only this name, with reasons")
      .action((name: string | undefined, options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { networkDns } = await import("../commands/network/dns.ts");
          await networkDns(name, options, ports);
        })
      ),
  );
  network.addCommand(setupCommand(run));
  network.addCommand(
    clusterCommand("inspect", "one container as engine, state, names and proxy see it")
      .requiredOption("--container <id>", "its name, or the beginning of its id")
      .action((options) =>
        run(options, async (ports) => {
          const { networkInspect } = await import("../commands/network/inspect.ts");
          await networkInspect(options, ports);
        })
      ),
  );
  network.addCommand(rotateKeysCommand(run));
  network.addCommand(gcCommand(run));
  network.addCommand(databaseCommands(run));
  network.addCommand(backupCommand(run));
  network.addCommand(restoreCommand(run));
  network.addCommand(
    command("server").description("members of the cluster")
      .addCommand(serverAddCommand(run)).addCommand(serverRemoveCommand(run)),
  );
  network.addCommand(teardownCommand(run));
  return network;
}

function rotateKeysCommand(run: Run) {
  return clusterCommand("rotate-keys", "give servers new WireGuard keys while the mesh goes on")
    .option("-y, --yes", "do not ask")
    .option("--plan", "print what would be done and stop")
    .action((options) =>
      run(options, async (ports) => {
        const { networkRotateKeys } = await import("../commands/network/rotate_keys.ts");
        await networkRotateKeys(options, ports);
      })
    );
}

function setupCommand(run: Run) {
  return clusterCommand("setup", "network and files as they should be; installs no packages")
    .action((options: CommonOptions & OutputFlags) =>
      run(options, async (ports) => {
        const { serverInit } = await import("../commands/server_init.ts");
        await serverInit({ ...options, networkOnly: true }, ports);
      })
    );
}

function teardownCommand(run: Run) {
  return clusterCommand("teardown", "take mesh, state, dns and daemon off the servers")
    .option("-y, --yes", "do not ask for the project's name")
    .option("--plan", "print what would be removed and stop")
    .action((options) =>
      run(options, async (ports) => {
        const { serverTeardown } = await import("../commands/server_teardown.ts");
        await serverTeardown({ ...options, all: true, networkOnly: true }, ports);
      })
    );
}
