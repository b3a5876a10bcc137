import { command, type Run } from "./base.ts";

/** `jiji secrets …`. */
export function secretsCommands(run: Run) {
  const secrets = command("secrets").description("secrets that the configuration names");
  secrets.addCommand(
    command("print")
      .description("which are set, and where they come from; ends with 3 when one is missing")
      .option("-c, --config-file <path>", "configuration to use instead of searching upward")
      .option("-e, --environment <name>", "use .jiji/deploy.<name>.yml and .env.<name>")
      .option("--host-env", "let secrets come from this process's environment")
      .option("--show-values", "print the values too")
      .option("--json", "as JSON")
      .action((options) =>
        run(options, async (ports) => {
          const { secretsPrint } = await import("../commands/secrets_print.ts");
          await secretsPrint(options, ports);
        })
      ),
  );
  return secrets;
}
