import { VERSION } from "@jiji/core/runtime";
import { clusterCommand, command, type Run, serviceCommand } from "./base.ts";

/** `jiji init`. */
export function initCommand(run: Run) {
  return command("init")
    .description("write a commented starter configuration, .jiji/deploy.yml")
    .option("-e, --environment <name>", "write .jiji/deploy.<name>.yml")
    .option("-f, --force", "overwrite an existing file")
    .action((options) =>
      run({}, async (ports) => {
        const { init } = await import("../commands/init.ts");
        await init({ cwd: ports.cwd, ...options }, {
          write: (line) => ports.output.line(line),
        });
      })
    );
}

/** `jiji version`. */
export function versionCommand(run: Run) {
  return command("version")
    .description("print the version of jiji")
    .option("--json", "as JSON")
    .action((options) =>
      run(options, (ports) => {
        if (options.json) ports.output.result({ version: VERSION });
        else ports.output.line(`jiji ${VERSION}`);
        return Promise.resolve();
      })
    );
}

/** `jiji build`. */
export function buildCommand(run: Run) {
  return serviceCommand("build", "build images and push them to the project's registry")
    .option("--no-cache", "build without the layer cache")
    .option("--push", "push what was built (the default)")
    .option("--no-push", "leave it in this machine's engine")
    .option("--version <version>", "image tag (default: git commit)")
    .action((options) =>
      run(options, async (ports) => {
        const { build } = await import("../commands/build.ts");
        await build(options, ports);
      })
    );
}

/** `jiji deploy`. */
export function deployCommand(run: Run) {
  return clusterCommand("deploy", "build, ship and switch services without dropping a request")
    .option("-S, --services <names>", "only these services: comma list, * and ?")
    .option("--build", "build services with build: before deploying (the default)")
    .option("--no-build", "deploy an image that was built and shipped before")
    .option("--no-cache", "build without the layer cache")
    .option("--version <version>", "image tag of services with build: (default: git commit)")
    .option("--plan", "print what would be done and stop")
    .option("--force", "replace containers even when nothing changed")
    .option("--skip-unreachable", "leave out servers that cannot be reached")
    .action((options) =>
      run(options, async (ports) => {
        const { deploy } = await import("../commands/deploy.ts");
        await deploy(options, ports);
      })
    );
}

/** `jiji audit`. */
export function auditCommand(run: Run) {
  return clusterCommand("audit", "who changed what and when, merged over all servers")
    .option("-n, --lines <number>", "last entries (default: 20)")
    .option("--action <name>", "only this action: deploy, rollback, …")
    .option("--status <result>", "only success or failed")
    .option("--since <time>", "only entries since then: 30m, 12h, 7d, or a time")
    .option("--until <time>", "only entries until then")
    .option("-f, --follow", "go on showing new entries until Ctrl-C")
    .action((options) =>
      run(options, async (ports) => {
        const { audit } = await import("../commands/audit.ts");
        await audit(options, ports);
      })
    );
}
