import { instanceName, serviceLabel } from "@jiji/core/cluster";
import type { ConfigIssue } from "./config_issue.ts";
import type { ConfigDocument } from "./format/document.ts";
import type { ServiceConfiguration } from "./service.ts";

/** What the services of a file must fulfil together. */
export interface CrossCheckInput {
  readonly project: string;
  readonly document: ConfigDocument;
  /** Each valid by itself. */
  readonly services: readonly ServiceConfiguration[];
}

/** DNS labels are not longer. Source: RFC 1035 section 2.3.4. */
const LABEL_LENGTH_MAX = 63;

/** Problems between services: names, routes and server ports that two of them claim. */
export function crossIssues(input: CrossCheckInput): ConfigIssue[] {
  return [...nameIssues(input), ...routeIssues(input), ...portIssues(input)];
}

/** Names that instances of services have beside the service's own, each with who has it. */
function instanceNames(services: readonly ServiceConfiguration[]): Map<string, string> {
  return new Map(
    services.flatMap((service) =>
      Array.from({ length: service.scale }, (_, at) => at + 1).flatMap((index) => [
        ...service.hosts.map((host): [string, string] => {
          const instance = instanceName(host, index);
          return [`${service.name}-${instance}`, `${service.name} on ${instance}`];
        }),
        // The container of a further instance has a service's name with a number.
        ...(index === 1
          ? []
          : [[`${service.name}-${index}`, `instance ${index} of ${service.name}`] as const]),
      ])
    ),
  );
}

function nameIssues({ project, document, services }: CrossCheckInput): ConfigIssue[] {
  const found: ConfigIssue[] = [];
  const instances = instanceNames(services);
  for (const service of services) {
    const label = serviceLabel({ project, service: service.name });
    const hosts = service.hosts.map((host) => instanceName(host, service.scale));
    const longest = Math.max(...hosts.map((host) => `${label}-${host}`.length));
    const path = ["services", service.name];
    if (longest > LABEL_LENGTH_MAX) {
      found.push(document.issue(path, `its DNS name is ${longest} characters long`, {
        fix: `{project}-{service}-{server} may have ${LABEL_LENGTH_MAX}`,
        pointer: "key",
      }));
    }
    const instance = instances.get(service.name);
    if (instance !== undefined) {
      found.push(document.issue(path, `${label} is the name of ${instance} already`, {
        fix: "choose another name",
        pointer: "key",
      }));
    }
    const doubled = service.hosts.find((host) =>
      service.hosts.some((other) =>
        /^-\d+$/.test(host.slice(other.length)) &&
        host.startsWith(other) && Number(host.slice(other.length + 1)) <= service.scale
      )
    );
    if (doubled !== undefined) {
      found.push(document.issue([...path, "scale"], `${doubled} is a server and an instance`, {
        fix: "rename the server, or lower scale",
        pointer: "key",
      }));
    }
  }
  return found;
}

function routeIssues({ document, services }: CrossCheckInput): ConfigIssue[] {
  const found: ConfigIssue[] = [];
  const claimed = new Map<string, string>();
  for (const service of services) {
    service.proxy?.targets.forEach((target, index) => {
      const path = ["services", service.name, "proxy", ...(service.proxy?.pathOf(index) ?? [])];
      const names = target.hosts.length > 0 ? target.hosts : ["any host"];
      const route = (name: string) => `${name}${target.pathPrefix ?? ""}`;
      const taken = new Set<string>();
      for (const host of service.hosts) {
        for (const name of names) {
          const key = `${host} ${route(name)}`;
          const other = claimed.get(key);
          if (other !== undefined) taken.add(`${route(name)} on ${host} leads to ${other} already`);
          else claimed.set(key, service.name);
        }
      }
      for (const message of taken) {
        found.push(document.issue(path, message, {
          fix: "give them different host names or a path_prefix",
          pointer: "key",
        }));
      }
    });
  }
  return found;
}

/** Ports that jiji's own proxy binds on every address. */
const PROXY_PORTS = [80, 443];

function portIssues({ document, services }: CrossCheckInput): ConfigIssue[] {
  const found: ConfigIssue[] = [];
  const claimed = new Map<string, { service: string; hostIp: string | undefined }[]>();
  const proxied = new Set(
    services.filter((service) => service.proxy !== undefined).flatMap((service) => service.hosts),
  );
  for (const service of services) {
    service.ports.forEach((mapping, index) => {
      const { hostPort, hostIp, protocol } = mapping;
      if (hostPort === undefined) return;
      const path = ["services", service.name, "ports", index];
      for (const host of service.hosts) {
        if (proxied.has(host) && protocol === "tcp" && PROXY_PORTS.includes(hostPort)) {
          found.push(document.issue(path, `port ${hostPort} of ${host} belongs to the proxy`));
        }
        const key = `${host} ${hostPort}/${protocol}`;
        const others = claimed.get(key) ?? [];
        const other = others.find((one) =>
          one.hostIp === undefined || hostIp === undefined || one.hostIp === hostIp
        );
        if (other !== undefined) {
          found.push(
            document.issue(path, `port ${hostPort} of ${host} belongs to ${other.service} already`),
          );
        }
        claimed.set(key, [...others, { service: service.name, hostIp }]);
      }
    });
  }
  return found;
}
