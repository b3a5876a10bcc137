import { isAbsolute, join } from "node:path";
import { SERVICE_NAME, serviceLabel } from "@jiji/core/cluster";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type {
  BuildSettings,
  HealthCheckSettings,
  LoggingSettings,
  MountedPath,
  PortMapping,
  RestartPolicy,
} from "./config_types.ts";
import { EnvironmentConfiguration } from "./environment.ts";
import { interpolate, parseShellWords, renderVolume } from "./format/service_parts.ts";
import { quote } from "./format/schema_parts.ts";
import { closestWord } from "./format/suggestions.ts";
import { checkHealthCheck, healthCheckSettings, ProxyConfiguration } from "./proxy.ts";
import { checkMounts, checkNetwork, checkScale } from "./service_checks.ts";
import { type MountValues, ServiceSchema, type ServiceValues } from "./service_schema.ts";

/** What a service needs of the rest of the configuration. */
export interface ServiceOwner {
  readonly project: string;
  readonly serverNames: readonly string[];
  readonly healthTimeoutMs: number;
  readonly environment: EnvironmentConfiguration;
}

/** One service: what runs, where, and how it is reached. */
export class ServiceConfiguration extends BaseConfiguration<ServiceValues> {
  /** Key in `services`. */
  readonly name: string;
  readonly #owner: () => ServiceOwner;

  /** @param owner asked only when it is needed, so that errors of other sections stay apart. */
  constructor(context: ConfigContext, name: string, owner: () => ServiceOwner) {
    super(context, ["services", name], ServiceSchema);
    this.name = name;
    this.#owner = owner;
  }

  /** Image to pull; absent when the service is built. */
  get image(): string | undefined {
    return this.values.image;
  }

  /** How to build the image; absent when it is pulled. */
  get build(): BuildSettings | undefined {
    const { build } = this.values;
    if (build === undefined) return undefined;
    const values = typeof build === "string" ? { context: build, args: {}, secrets: [] } : build;
    const context = this.#inProject(values.context);
    const { dockerfile, target } = values;
    return {
      context,
      ...(dockerfile === undefined
        ? {}
        : { dockerfile: isAbsolute(dockerfile) ? dockerfile : join(context, dockerfile) }),
      args: Object.fromEntries(
        Object.entries(values.args).map(([name, value]) => [
          name,
          this.#scalarText(value, ["build", "args", name]),
        ]),
      ),
      secrets: values.secrets,
      ...(target === undefined ? {} : { target }),
    };
  }

  /** Names of the servers it runs on, in the order written. */
  get hosts(): readonly string[] {
    return this.values.hosts;
  }

  /** Ports of the container. */
  get ports(): readonly PortMapping[] {
    return this.values.ports;
  }

  /** Volumes as the engine takes them; named ones carry project and service. */
  get volumes(): readonly string[] {
    return this.memo("volumes", () => {
      const prefix = serviceLabel({ project: this.#owner().project, service: this.name });
      return this.values.volumes.map((volume) => renderVolume(volume, prefix));
    });
  }

  /** Files of the project that are mounted. */
  get files(): readonly MountedPath[] {
    return this.values.files.map((mount) => this.#mounted(mount));
  }

  /** Directories of the project that are mounted. */
  get directories(): readonly MountedPath[] {
    return this.values.directories.map((mount) => this.#mounted(mount));
  }

  /** Environment variables, with the project's. */
  get environment(): EnvironmentConfiguration {
    return this.memo(
      "environment",
      () =>
        new EnvironmentConfiguration(
          this.context,
          [...this.path, "environment"],
          this.#owner().environment,
        ),
    );
  }

  /** Arguments that replace the image's command, `${NAME}` filled in. */
  get command(): readonly string[] | undefined {
    return this.#words(this.values.command);
  }

  /** One-off command in the new image before any container is replaced; absent when there is none. */
  get releaseCommand(): { command: readonly string[]; timeoutMs: number } | undefined {
    const command = this.#words(this.values.release_command);
    return command && { command, timeoutMs: this.values.release_timeout };
  }

  #words(command: ServiceValues["command"]): readonly string[] | undefined {
    if (command === undefined) return undefined;
    const words = typeof command === "string" ? parseShellWords(command) ?? [] : command;
    return words.map((word) => interpolate(word, this.environment.clear).text);
  }

  /** Instances on each of its servers. */
  get scale(): number {
    return this.values.scale;
  }

  /** `bridge` (the mesh), `host`, `none` or `container:NAME`. */
  get networkMode(): string {
    return this.values.network_mode;
  }

  /** Limit in processors. */
  get cpus(): number | undefined {
    return this.values.cpus;
  }

  /** Limit such as `512m`. */
  get memory(): string | undefined {
    return this.values.memory;
  }

  /** Value of the engine's `--gpus`. */
  get gpus(): string | undefined {
    return this.values.gpus;
  }

  /** Values of the engine's `--device`. */
  get devices(): readonly string[] {
    return this.values.devices;
  }

  /** Whether the container may do what root of the server may. */
  get privileged(): boolean {
    return this.values.privileged;
  }

  /** Capabilities added, e.g. `NET_ADMIN`. */
  get capAdd(): readonly string[] {
    return this.values.cap_add;
  }

  /** Whether the old container is stopped before the new one starts. */
  get stopFirst(): boolean {
    return this.values.stop_first;
  }

  /** When the engine starts the container again. */
  get restart(): RestartPolicy {
    return this.values.restart;
  }

  /** How many versions of its image stay on a server. */
  get retain(): number {
    return this.values.retain;
  }

  /** Seconds between the request to stop and the kill; whole. */
  get stopGraceSeconds(): number {
    return Math.ceil(this.values.stop_grace / 1_000);
  }

  /** How long requests under way may take on the old container; undefined as for all services. */
  get drainTimeoutMs(): number | undefined {
    return this.values.drain_timeout;
  }

  /** Where its output goes; undefined leaves it to jiji. */
  get logging(): LoggingSettings | undefined {
    const { logging } = this.values;
    return logging && {
      driver: logging.driver,
      options: Object.fromEntries(
        Object.entries(logging.options).map(([name, value]) => [
          name,
          this.#scalarText(value, ["logging", "options", name]),
        ]),
      ),
    };
  }

  /** Labels beside jiji's own. */
  get labels(): Readonly<Record<string, string>> {
    return Object.fromEntries(
      Object.entries(this.values.labels).map((
        [name, value],
      ) => [name, this.#scalarText(value, ["labels", name])]),
    );
  }

  /** Routes of the proxy; absent when nothing leads to the service from outside. */
  get proxy(): ProxyConfiguration | undefined {
    if (this.context.document.at([...this.path, "proxy"]) === undefined) return undefined;
    return this.memo(
      "proxy",
      () =>
        new ProxyConfiguration(this.context, [...this.path, "proxy"], {
          ports: () => this.#parsedPorts(),
          healthTimeoutMs: () => this.#owner().healthTimeoutMs,
        }),
    );
  }

  /** How to tell that a container is fit to serve; by default as its first proxy target says. */
  get healthcheck(): HealthCheckSettings {
    const { healthcheck } = this.values;
    const target = this.proxy?.targets[0];
    if (healthcheck === undefined && target !== undefined) return target.healthcheck;
    return healthCheckSettings(healthcheck ?? {}, {
      kind: "engine",
      port: this.ports.find((mapping) => mapping.protocol === "tcp")?.containerPort,
      deployTimeoutMs: this.#owner().healthTimeoutMs,
    });
  }

  protected override check(values: ServiceValues, report: Report): void {
    if (values.image === undefined && values.build === undefined) {
      report([], "the service has neither image nor build", { fix: "add one of them" });
    }
    if (values.image !== undefined && values.build !== undefined) {
      report(["build"], "image and build exclude each other", { pointer: "key" });
    }
    checkNetwork(values, report);
    this.#checkCommand(values, "command", report);
    this.#checkCommand(values, "release_command", report);
    checkScale(values, report);
    checkMounts(values, report);
    if (values.healthcheck !== undefined) {
      checkHealthCheck(values.healthcheck, ["healthcheck"], report);
      if (values.proxy !== undefined) {
        report(["healthcheck"], "a proxied service has its health check at the proxy", {
          fix: "move it to `proxy.healthcheck`",
          pointer: "key",
        });
      }
      const { path, tcp, port } = values.healthcheck;
      if ((path !== undefined || tcp === true) && port === undefined && values.ports.length === 0) {
        report(["healthcheck"], "the check needs a port", { fix: "add `port:` or `ports`" });
      }
    }
  }

  protected override checkAlways(report: Report): void {
    if (!SERVICE_NAME.test(this.name)) {
      report([], `${quote(this.name)} is not a service name`, {
        fix: "lower-case letters and digits, joined by - or _, at most 50",
        pointer: "key",
      });
    }
    const hosts = this.context.document.at([...this.path, "hosts"]);
    if (Array.isArray(hosts)) this.#checkHosts(hosts, report);
  }

  #checkHosts(hosts: readonly unknown[], report: Report): void {
    const { serverNames } = this.#owner();
    if (hosts.length === 0) {
      report(["hosts"], "no server is listed", { fix: `servers: ${serverNames.join(", ")}` });
    }
    hosts.forEach((host, index) => {
      if (typeof host !== "string") return;
      if (hosts.indexOf(host) < index) {
        report(["hosts", index], `${host} is listed twice`);
      }
      if (serverNames.includes(host)) return;
      const meant = closestWord(host, serverNames);
      report(["hosts", index], `${quote(host)} is not a server`, {
        fix: meant === undefined ? `servers: ${serverNames.join(", ")}` : `did you mean ${meant}?`,
      });
    });
  }

  #checkCommand(
    values: ServiceValues,
    key: "command" | "release_command",
    report: Report,
  ): void {
    const command = values[key];
    if (command === undefined) return;
    if (typeof command === "string" && parseShellWords(command) === undefined) {
      report([key], "a quote is not closed");
      return;
    }
    if (this.environment.issues().length > 0) return;
    const { clear, secretNames } = this.environment;
    const texts = typeof command === "string" ? [command] : command;
    texts.forEach((text, index) => {
      const path = typeof command === "string" ? [key] : [key, index];
      for (const name of interpolate(text, clear).missing) {
        const secret = secretNames.includes(name);
        report(path, secret ? `${name} is a secret` : `\${${name}} has no value`, {
          fix: secret
            ? `a secret must not be in a command line; the program reads $${name} itself`
            : `add it to environment.clear, or write $\${${name}} for a literal`,
        });
      }
    });
  }

  /** Undefined when the service has problems of its own. */
  #parsedPorts(): readonly PortMapping[] | undefined {
    return this.issues().length > 0 ? undefined : this.ports;
  }

  #mounted(mount: MountValues): MountedPath {
    const { local, remote, mode, owner, options } = mount;
    return {
      local: this.#inProject(local),
      localText: local,
      remote,
      ...(mode === undefined ? {} : { mode }),
      ...(owner === undefined ? {} : { owner }),
      ...(options === undefined ? {} : { options }),
    };
  }

  #inProject(path: string): string {
    return isAbsolute(path) ? path : join(this.context.projectRoot, path);
  }

  #scalarText(value: string | number | boolean, path: (string | number)[]): string {
    if (typeof value !== "number") return String(value);
    return this.context.document.sourceAt([...this.path, ...path]) ?? String(value);
  }
}
