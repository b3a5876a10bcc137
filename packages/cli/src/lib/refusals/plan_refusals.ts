/** What would hurt if a plan were carried out, found before anything changes; pure. */
import { containerName, PROXY_CONTAINER, type ProxyRoute } from "@jiji/core";
import type { DesiredService, ObservedHost } from "../../types/deployment.ts";
import { type HostPort, isEveryAddress, type ObservedContainer } from "../engine/inspect.ts";
import type { ProxyClaim } from "../engine/proxy_commands.ts";

/** What a finding is about; whoever has the configuration file knows where that is written. */
export type Subject =
  | { readonly service: string; readonly port?: HostPort; readonly route?: string }
  | { readonly server: string; readonly key: "arch" };

/** Something that would go wrong, or that one should know. */
export interface PlanFinding {
  /** A `notice` stops nothing. */
  readonly severity: "refusal" | "notice";
  readonly about: Subject;
  readonly message: string;
  readonly fix: string;
}

/** Processors by image; an image that nobody could ask about is left out. */
export type ImageArchitectures = ReadonlyMap<string, readonly string[]>;

/** What is judged. */
export interface RefusalInput {
  readonly project: string;
  /** In the order in which they are deployed. */
  readonly services: readonly DesiredService[];
  readonly hosts: ReadonlyMap<string, ObservedHost>;
  /** Processor of each server as the configuration has it. */
  readonly architectures: ReadonlyMap<string, string>;
  /** By server, for images that it does not run yet. */
  readonly images: ReadonlyMap<string, ImageArchitectures>;
}

/** Every finding, services in their order, servers by name. */
export function findRefusals(input: RefusalInput): PlanFinding[] {
  const found = [
    ...[...input.hosts.values()].flatMap((host) => machineFindings(host, input)),
    ...input.services.flatMap((service) =>
      [...service.hosts].sort().flatMap((name): PlanFinding[] => {
        const host = input.hosts.get(name);
        if (!host) return [];
        return [
          ...nameFindings(service, host),
          ...portFindings(service, host, input),
          ...proxyPortFindings(service, host),
          ...routeFindings(service, host, input),
          ...imageFindings(service, host, input),
        ];
      })
    ),
  ];
  return foldServers(found);
}

/** The same thing on several servers is said once. */
function foldServers(found: readonly PlanFinding[]): PlanFinding[] {
  const seen = new Map(found.map((finding) => [JSON.stringify(finding), finding]));
  return [...seen.values()];
}

function refusal(about: Subject, message: string, fix: string): PlanFinding {
  return { severity: "refusal", about, message, fix };
}

/** What is built is built for the processor that is written; other images are asked themselves. */
function machineFindings(host: ObservedHost, input: RefusalInput): PlanFinding[] {
  const written = input.architectures.get(host.name);
  if (host.arch === undefined || written === undefined || written === host.arch) return [];
  const builds = input.services.some((one) => one.built && one.hosts.includes(host.name));
  return [{
    severity: builds ? "refusal" : "notice",
    about: { server: host.name, key: "arch" },
    message: `${host.name} has an ${host.arch} processor, not ${written}`,
    fix: `write \`arch: ${host.arch}\``,
  }];
}

/** A container under our name that is not ours: `a-b` + `c` and `a` + `b-c` are one name. */
function nameFindings(service: DesiredService, host: ObservedHost): PlanFinding[] {
  const names = Array.from({ length: service.scale }, (_, at) => containerName(service, at + 1));
  return host.containers.filter((one) => names.includes(one.name) && !isOf(service, one))
    .map((one) => {
      const owner = one.labels === undefined
        ? "which jiji did not make"
        : `of service ${one.labels.service} of project ${one.labels.project}`;
      return refusal(
        { service: service.service },
        `${host.name} has a container ${one.name} already, ${owner}`,
        "rename the service or the project, or remove that container",
      );
    });
}

function isOf(service: DesiredService, container: ObservedContainer): boolean {
  const { labels } = container;
  return labels?.project === service.project && labels.service === service.service;
}

/** Whether two ports can't be had at once. */
function collides(one: HostPort, other: HostPort): boolean {
  return one.hostPort === other.hostPort && one.protocol === other.protocol &&
    (isEveryAddress(one.hostIp) || isEveryAddress(other.hostIp) || one.hostIp === other.hostIp);
}

function portFindings(
  service: DesiredService,
  host: ObservedHost,
  input: RefusalInput,
): PlanFinding[] {
  return service.spec.published.flatMap((mapping): PlanFinding[] => {
    const port: HostPort = { ...mapping, hostIp: mapping.hostIp };
    const about = { service: service.service, port };
    const holder = portHolder(port, service, { host, input });
    const text = `port ${port.hostPort}/${port.protocol}`;
    const taken = holder === undefined ? [] : [refusal(
      about,
      `${text} of ${host.name} is taken by ${holder}`,
      "choose another port of the server, or free this one",
    )];
    const own = `127.0.0.1:${mapping.hostPort}:${mapping.containerPort}`;
    const open = isEveryAddress(port.hostIp)
      ? [
        {
          severity: "notice",
          about,
          message:
            `${text} is open to everyone who reaches the server: engines go past its firewall`,
          fix: `${own} keeps it on the server; inside the mesh it is reachable anyway`,
        } satisfies PlanFinding,
      ]
      : [];
    return [...taken, ...open];
  });
}

/** Who has a port of a server that a service wants; undefined when it is free or will be. */
function portHolder(
  port: HostPort,
  service: DesiredService,
  { host, input }: { readonly host: ObservedHost; readonly input: RefusalInput },
): string | undefined {
  const running = host.containers.filter((one) => one.running);
  const holders = running.filter((one) => one.published.some((other) => collides(port, other)));
  const foreign = holders.find((one) =>
    !isOf(service, one) && !isFreedBefore(one, { port, service, host, input })
  );
  if (foreign !== undefined) return renderContainer(foreign);
  if (holders.length > 0) return undefined;
  const socket = host.sockets?.find((other) => collides(port, other));
  return socket && (socket.program || "another program");
}

/** Whether a service that this run deploys before gives the port up. */
function isFreedBefore(
  container: ObservedContainer,
  facts: {
    readonly port: HostPort;
    readonly service: DesiredService;
    readonly host: ObservedHost;
    readonly input: RefusalInput;
  },
): boolean {
  const before = facts.input.services.slice(0, facts.input.services.indexOf(facts.service));
  const owner = before.find((other) => isOf(other, container));
  if (owner === undefined) return false;
  if (!owner.hosts.includes(facts.host.name)) return true;
  return !owner.spec.published.some((other) =>
    collides(facts.port, { ...other, hostIp: other.hostIp })
  );
}

function renderContainer({ name, labels }: ObservedContainer): string {
  return labels === undefined
    ? `container ${name}`
    : `service ${labels.service} of project ${labels.project} (container ${name})`;
}

/** Ports of the proxy. Source: kamal-proxy 0.9.2, `run`. */
const PROXY_PORTS = [80, 443];

/** A proxy that is still to be started needs its ports. */
function proxyPortFindings(service: DesiredService, host: ObservedHost): PlanFinding[] {
  const runs = host.containers.some((one) => one.name === PROXY_CONTAINER && one.running);
  if (service.routes.length === 0 || runs) return [];
  return PROXY_PORTS.flatMap((hostPort) => {
    const port = { hostIp: undefined, hostPort, protocol: "tcp" } as const;
    const container = host.containers.find((one) =>
      one.running && one.name !== PROXY_CONTAINER &&
      one.published.some((other) => collides(port, other))
    );
    const socket = host.sockets?.find((other) => collides(port, other));
    const holder = container
      ? renderContainer(container)
      : socket && (socket.program || "a program");
    return holder === undefined ? [] : [refusal(
      { service: service.service, route: service.routes[0]!.name },
      `port ${hostPort} of ${host.name}, which the proxy needs, is taken by ${holder}`,
      "stop that program, or take the service's `proxy` away from this server",
    )];
  });
}

/** What a route answers, from its flags. Source: kamal-proxy 0.9.2, `deploy.go`. */
function claimOf(route: ProxyRoute): ProxyClaim {
  const values = (flag: string) =>
    route.flags.filter((one) => one.startsWith(`--${flag}=`))
      .map((one) => one.slice(flag.length + 3));
  const hosts = values("host");
  const prefixes = values("path-prefix");
  return {
    name: route.name,
    hosts: hosts.length > 0 ? hosts : [""],
    pathPrefixes: prefixes.length > 0 ? prefixes : ["/"],
  };
}

/** The first host and path that two routes both answer. */
function overlap(one: ProxyClaim, other: ProxyClaim): string | undefined {
  const host = one.hosts.find((name) => other.hosts.includes(name));
  const path = one.pathPrefixes.find((prefix) => other.pathPrefixes.includes(prefix));
  if (host === undefined || path === undefined) return undefined;
  return `${host === "" ? "any host" : host}${path === "/" ? "" : path}`;
}

/** kamal-proxy refuses a route whose host and path another has: better told before. */
function routeFindings(
  service: DesiredService,
  host: ObservedHost,
  { services }: RefusalInput,
): PlanFinding[] {
  const own = new Set(service.routes.map((route) => route.name));
  const at = services.indexOf(service);
  return service.routes.flatMap((route) =>
    (host.claims ?? []).flatMap((claim) => {
      if (own.has(claim.name)) return [];
      const shared = overlap(claimOf(route), claim);
      if (shared === undefined || isGivenUp(claim, services.slice(0, at), host)) return [];
      const owner = ownerOf(claim.name, host);
      return [refusal(
        { service: service.service, route: route.name },
        `${shared} on ${host.name} leads to ${owner ?? `the route ${claim.name}`} already`,
        owner === undefined
          ? `remove that route, or choose another host name or path_prefix`
          : "choose another host name or path_prefix, or deploy or remove that service first",
      )];
    })
  );
}

/** Whether a service deployed before takes a claim back. */
function isGivenUp(
  claim: ProxyClaim,
  before: readonly DesiredService[],
  host: ObservedHost,
): boolean {
  return before.some((other) => {
    const had = host.containers.some((one) =>
      isOf(other, one) && one.labels?.proxy.some((route) => route.name === claim.name)
    );
    const route = other.hosts.includes(host.name)
      ? other.routes.find((one) => one.name === claim.name)
      : undefined;
    return had && (route === undefined || overlap(claimOf(route), claim) === undefined);
  });
}

/** The service whose container asks for a route. */
function ownerOf(route: string, host: ObservedHost): string | undefined {
  const owner = host.containers.find((one) =>
    one.labels?.proxy.some((other) => other.name === route)
  );
  return owner?.labels &&
    `service ${owner.labels.service} of project ${owner.labels.project}`;
}

function imageFindings(
  service: DesiredService,
  host: ObservedHost,
  { images }: RefusalInput,
): PlanFinding[] {
  const offered = images.get(host.name)?.get(service.spec.image);
  if (host.arch === undefined || offered === undefined || offered.length === 0) return [];
  if (offered.includes(host.arch)) return [];
  return [refusal(
    { service: service.service },
    `${service.spec.image} is made for ${offered.join(", ")}, but ${host.name} is ${host.arch}`,
    `choose an image for ${host.arch}, or other servers`,
  )];
}
