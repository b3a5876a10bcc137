import { JijiError, messageOf, redact, systemProcess } from "@jiji/core";
import type { CommandContext, CommonOptions, Ports } from "../../utils/command_helpers.ts";
import type { Configuration } from "../configuration/configuration.ts";
import { type HookFacts, type HookName, runHook } from "./hooks_service.ts";

/** The hooks of one deploy, which learns its facts step by step. With `--plan` none runs. */
export class DeployHooks {
  readonly #ports: Ports;
  readonly #off: boolean;
  #configuration: Configuration | undefined;
  #facts: HookFacts | undefined;

  /** Nothing runs before {@link DeployHooks.begin}. */
  constructor(options: CommonOptions & { readonly plan?: boolean | undefined }, ports: Ports) {
    this.#ports = ports;
    this.#off = options.plan ?? false;
  }

  /**
   * The configuration is known: `pre-connect`.
   *
   * @throws {JijiError} when the hook fails; nothing was connected.
   */
  async begin(configuration: Configuration): Promise<void> {
    this.#configuration = configuration;
    this.#facts = {
      project: configuration.project,
      environment: configuration.environmentName,
      version: undefined,
      services: [...configuration.services.keys()],
      servers: [...configuration.servers.keys()],
    };
    await this.run("pre-connect");
  }

  /** Services, servers and version are settled. */
  know(context: CommandContext, version: string): void {
    this.#facts = {
      project: context.configuration.project,
      environment: context.configuration.environmentName,
      version,
      services: context.services.map((service) => service.name),
      servers: [...context.hosts.keys()],
    };
  }

  /**
   * Runs a hook when the project has it.
   *
   * @throws {JijiError} when it fails.
   */
  async run(name: HookName): Promise<void> {
    if (this.#off || this.#configuration === undefined || this.#facts === undefined) return;
    await runHook(name, this.#facts, {
      process: systemProcess,
      projectRoot: this.#configuration.projectRoot,
      signal: this.#ports.signal,
      note: (line) => this.#ports.output.note(line),
    });
  }

  /** The deploy failed: `on-failure`, whose own failure only warns. */
  async failed(error: unknown): Promise<void> {
    if (this.#facts === undefined || this.#configuration === undefined) return;
    const text = redact(messageOf(error), this.#configuration.secretsGiven());
    this.#facts = { ...this.#facts, error: text.slice(0, ERROR_CHARACTERS_MAX) };
    try {
      await this.run("on-failure");
    } catch (cause) {
      if (!(cause instanceof JijiError)) throw cause;
      this.#ports.output.warn(cause.message);
    }
  }
}

/** An environment variable must stay well under the system's limit for one, 128 KiB (execve(2)). */
const ERROR_CHARACTERS_MAX = 16_000;
