import { command, logsCommand, type Run } from "./base.ts";

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
  return proxy;
}
