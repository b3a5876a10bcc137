/** What keys of a service must fulfil together; pure. */
import type { Report } from "./base.ts";
import type { ServiceValues } from "./service_schema.ts";

/** Problems of ports and checks with the kind of network. */
export function checkNetwork(values: ServiceValues, report: Report): void {
  const published = values.ports.findIndex((mapping) => mapping.hostPort !== undefined);
  if (values.network_mode !== "bridge") {
    for (const key of ["proxy", "ports"] as const) {
      if (values[key] === undefined || (key === "ports" && values.ports.length === 0)) continue;
      report([key], `${key} needs network_mode bridge, not ${values.network_mode}`, {
        pointer: "key",
      });
    }
    const { path, tcp } = values.healthcheck ?? {};
    if (path !== undefined || tcp === true) {
      const kind = path === undefined ? "tcp" : "path";
      report(["healthcheck", kind], `a check by ${kind} needs network_mode bridge`, {
        fix: "write `cmd:`, which runs in the container",
        pointer: "key",
      });
    }
  } else if (published >= 0 && !values.stop_first) {
    const { text = "", containerPort = 0 } = values.ports[published] ?? {};
    report(["ports", published], `${text}: old and new container can't both have a server port`, {
      fix: `write ${containerPort} alone, or set \`stop_first: true\``,
    });
  }
  values.ports.forEach((mapping, index) => {
    const same = values.ports.findIndex((other) =>
      other.containerPort === mapping.containerPort && other.protocol === mapping.protocol &&
      other.hostPort === mapping.hostPort && other.hostIp === mapping.hostIp
    );
    if (same < index) report(["ports", index], `${mapping.text} is listed twice`);
  });
}

/** Problems of several instances on one server. */
export function checkScale(values: ServiceValues, report: Report): void {
  if (values.scale === 1) return;
  const obstacle = values.stop_first
    ? "stop_first"
    : values.network_mode !== "bridge"
    ? `network_mode ${values.network_mode}`
    : values.ports.some((mapping) => mapping.hostPort !== undefined)
    ? "a port of the server"
    : undefined;
  if (obstacle === undefined) return;
  report(["scale"], `several instances on one server can't share ${obstacle}`, {
    fix: "remove scale, or add servers to `hosts`",
    pointer: "key",
  });
}

/** Problems of two mounts at one place. */
export function checkMounts(values: ServiceValues, report: Report): void {
  const seen = new Map<string, string>();
  const claim = (target: string, path: (string | number)[]) => {
    const other = seen.get(target);
    if (other !== undefined) report(path, `${target} is mounted by ${other} already`);
    else seen.set(target, path.join("."));
  };
  values.volumes.forEach((volume, index) => claim(volume.target, ["volumes", index]));
  values.files.forEach((mount, index) => claim(mount.remote, ["files", index]));
  values.directories.forEach((mount, index) => claim(mount.remote, ["directories", index]));
}
