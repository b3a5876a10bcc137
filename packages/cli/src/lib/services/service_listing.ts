import { containerName, instanceName, isLeavingName, serviceLabel } from "@jiji/core";
import type { ObservedHost } from "../../types/deployment.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import { isOldName } from "../deployment/instance_recovery.ts";

/** A service on a server, as found or as missing. */
export interface ListedService {
  readonly service: string;
  readonly server: string;
  /** `s1`, further ones of the same server `s1-2`, `s1-3`; "" when missing. */
  readonly instance: string;
  readonly version: string;
  /**
   * Engine's word, `replacing` for an old container that an interrupted deploy left, `leaving` for
   * one that goes without a successor, `missing`.
   */
  readonly state: string;
  readonly address: string;
  readonly dnsName: string;
  readonly urls: readonly string[];
}

/** Which instance of its server a label names: 1 for `s1` on s1, 2 for `s1-2`. */
function instanceIndex(instance: string, server: string): number {
  const rest = Number(instance.slice(server.length + 1));
  return Number.isInteger(rest) && instance === instanceName(server, rest) ? rest : 1;
}

/** Every chosen service on every server it belongs on, and containers of ours beyond that. */
export function listServices(
  project: string,
  services: readonly ServiceConfiguration[],
  observed: readonly ObservedHost[],
): ListedService[] {
  const hosts = [...observed].sort((a, b) => a.name < b.name ? -1 : 1);
  return services.flatMap((service) => {
    const key = { project, service: service.name };
    const urls = (service.proxy?.targets ?? []).flatMap((target) =>
      target.hosts.map((host) =>
        `${target.ssl ? "https" : "http"}://${host}${target.pathPrefix ?? ""}`
      )
    );
    return hosts.flatMap((host): ListedService[] => {
      const own = host.containers.filter((container) =>
        container.labels?.project === project && container.labels.service === service.name
      );
      const dnsName = `${serviceLabel(key)}.${host.config.service_domain}`;
      if (own.length === 0 && service.hosts.includes(host.name)) {
        const missing = {
          instance: "",
          version: "",
          state: "missing",
          address: "",
          dnsName: "",
          urls: [],
        };
        return [{ service: service.name, server: host.name, ...missing }];
      }
      const rows = own.map((container): ListedService & { readonly index: number } => {
        const instance = container.labels?.instance || host.name;
        const index = instanceIndex(instance, host.name);
        const replacing = isOldName(container.name, containerName(key, index));
        return {
          ...{ service: service.name, server: host.name, instance, index },
          version: container.labels?.version ?? "",
          state: replacing
            ? "replacing"
            : isLeavingName(container.name)
            ? "leaving"
            : container.status,
          address: container.address,
          dnsName,
          urls,
        };
      });
      return rows.sort((a, b) => a.index - b.index).map(({ index: _, ...row }) => row);
    });
  });
}
