import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, type OutputFlags, type Run } from "./base.ts";

/** `jiji network …`. */
export function networkCommands(run: Run) {
  const network = command("network").description("the private network between servers");
  network.addCommand(
    clusterCommand("status", "servers, links between them and what they run")
      .action((options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { networkStatus } = await import("../commands/network_status.ts");
          await networkStatus(options, ports);
        })
      ),
  );
  network.addCommand(
    clusterCommand("dns", "names of services, and what each server answers to them")
      .argument("[name]", "only this name, with reasons")
      .action((name: string | undefined, options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { networkDns } = await import("../commands/network_dns.ts");
          await networkDns(name, options, ports);
        })
      ),
  );
  return network;
}
