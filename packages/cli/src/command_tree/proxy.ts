import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, logsCommand, type OutputFlags, type Run } from "./base.ts";

/** `jiji proxy …`. */
export function proxyCommands(run: Run) {
  const proxy = command("proxy").description("kamal-proxy on the servers");
  proxy.addCommand(
    logsCommand("output of the proxies, merged by time")
      .action((options) =>
        run(options, async (ports) => {
          const { proxyLogs } = await import("../commands/services_logs.ts");
          await proxyLogs(options, ports);
        })
      ),
  );
  proxy.addCommand(
    clusterCommand("reboot", "replace the proxy on each server without dropping a request")
      .addHelpText(
        "after",
        "\nOne server at a time: a stand-in takes new visitors while requests under way" +
          "\nend, within deploy.drain_timeout. WebSockets are cut then.",
      )
      .action((options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { proxyReboot } = await import("../commands/proxy_reboot.ts");
          await proxyReboot(options, ports);
        })
      ),
  );
  return proxy;
}
