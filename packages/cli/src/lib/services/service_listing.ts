import { containerName, serviceLabel } from "@jiji/core";
import type { ObservedHost } from "../../types/deployment.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import { isOldName } from "./instance_recovery.ts";

/** A service on a server, as found or as missing. */
export interface ListedService {
  readonly service: string;
  readonly server: string;
  readonly version: string;
  /** Engine's word, `replacing` for an old container that an interrupted deploy left, `missing`. */
  readonly state: string;
  readonly address: string;
  readonly dnsName: string;
  readonly urls: readonly string[];
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
        const missing = { version: "", state: "missing", address: "", dnsName: "", urls: [] };
        return [{ service: service.name, server: host.name, ...missing }];
      }
      return own.map((container) => ({
        service: service.name,
        server: host.name,
        version: container.labels?.version ?? "",
        state: isOldName(container.name, containerName(key)) ? "replacing" : container.status,
        address: container.address,
        dnsName,
        urls,
      }));
    });
  });
}
