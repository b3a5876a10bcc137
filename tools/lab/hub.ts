/** The hub: an image registry in place of Docker Hub, and a name server, on the switch itself. */
import { HUB_ADDRESS, HUB_REGISTRY } from "../prepare/root.ts";
import { groupProcesses } from "./cgroups.ts";
import { shellWords, startDetached } from "./detached.ts";
import {
  type LabPaths,
  LAPTOP_ADDRESS,
  namespaceFile,
  namespaceName,
  serverAddress,
  SERVERS_MAX,
} from "./names.ts";
import type { LabContext } from "./server.ts";

/** Control group of the hub. */
export function hubGroup(paths: LabPaths): string {
  return `${paths.group}/hub`;
}

/** Configuration of the registry, read-only. Source: distribution 2.8, configuration.md. */
export function renderRegistryConfig(storage: string): string {
  return `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: ${storage}}
  maintenance: {readonly: {enabled: true}}
http: {addr: "${HUB_REGISTRY}"}
`;
}

/** Names the lab's name server knows: `s1.lab`, `laptop.lab`, `hub.lab`. */
export function renderHosts(): string {
  const servers = Array.from(
    { length: SERVERS_MAX },
    (_, index) => `${serverAddress(index + 1)} s${index + 1}.lab\n`,
  );
  return `${HUB_ADDRESS} hub.lab\n${LAPTOP_ADDRESS} laptop.lab\n${servers.join("")}`;
}

/** Command of the name server. Source: dnsmasq(8) 2.90. */
export function argvNameServer(hosts: string): readonly string[] {
  return [
    "/usr/sbin/dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--user=root",
    "--no-resolv",
    "--no-hosts",
    `--addn-hosts=${hosts}`,
    "--local=/lab/",
    "--bind-interfaces",
    `--listen-address=${HUB_ADDRESS}`,
  ];
}

/** Starts the registry and the name server unless they run. */
export async function startHub(context: LabContext): Promise<void> {
  const { paths, layout, lab } = context;
  const group = hubGroup(paths);
  if ((await groupProcesses(layout, group)).length > 0) return;
  const folder = `${paths.state}/hub`;
  await Deno.mkdir(folder, { recursive: true });
  const config = `${folder}/registry.yml`;
  await Deno.writeTextFile(config, renderRegistryConfig(`${lab.slots["images"]}/registry`));
  await Deno.writeTextFile(`${folder}/hosts`, renderHosts());
  const registry = [`${lab.slots["hub"]}/usr/bin/docker-registry`, "serve", config];
  await startDetached(layout, {
    group,
    log: `${folder}/hub.log`,
    network: namespaceFile(namespaceName(paths.name, "switch")),
    script: `${shellWords(argvNameServer(`${folder}/hosts`))} &\nexec ${shellWords(registry)}`,
  });
}
